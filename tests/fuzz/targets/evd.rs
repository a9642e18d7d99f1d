//! An evd and what clients may say to it: the handshake, and whole sessions of several clients.

use super::frames::header_of;
use super::script::{Script, Traced};
use evd::server::probe::Evd;
use evd_proto::channel::{Channel, Fill, Scratch};
use evd_proto::frame::{Body, FrameError, HEADER, Kind};
use evd_proto::notice::{Active, Attend, Closing, Trace};
use evd_proto::reply::*;
use evd_proto::request::{self as ask, Hello, Role, Selector};
use evd_proto::sys::{self, Peer};
use evd_proto::{OLDEST_VERSION, PROTOCOL_VERSION, What};
use std::os::fd::{AsFd, RawFd};

/// Few of everything, so that limits are met; and no threads.
const QUOTAS: [(Resource, u64); 7] = [
    (Resource::Connections, 6),
    (Resource::Watches, 100),
    (Resource::Timers, 100),
    (Resource::Names, 20),
    (Resource::Holds, 4),
    (Resource::HoldBytes, 3000),
    (Resource::Threads, 0),
];
const CLIENTS: usize = 4;
/// So much is sent at most without being read.
const MOST_AHEAD: usize = 100;

struct Client {
    channel: Channel,
    serial: u64,
    uid: u32,
    /// evd has closed it.
    over: bool,
    unread: usize,
}

struct World {
    evd: Evd,
    clients: [Option<Client>; CLIENTS],
    scratch: Scratch,
    pipes: Vec<Traced>,
}

/// A connection's first bytes, cut anywhere, and what comes behind them.
pub fn handshake(data: &[u8]) {
    let mut script = Script(data);
    let mut world = World::new();
    world.connect(0, &mut script);
    while !script.is_over() {
        match script.below(8) {
            0 => {
                let hello = hello(&mut script);
                world.say(0, &hello);
            }
            // The bytes of a good one with some of them changed, in two parts.
            1 | 2 => {
                let mut frame = Vec::new();
                let hello = good_hello("fuzz", Role::Client);
                evd_proto::frame::encode(&mut frame, 1, 0, &hello).expect("it is short");
                for _ in 0..script.below(4) {
                    let (at, to) = (script.below(frame.len()), script.byte());
                    frame[at] = to;
                }
                let cut = script.below(frame.len());
                world.raw(0, &frame[..cut], 0);
                world.turn();
                let fds = script.below(8).saturating_sub(5);
                world.raw(0, &frame[cut..], fds);
            }
            3 => {
                let fds = script.below(8).saturating_sub(5);
                world.raw(0, script.bytes(255), fds);
            }
            4 => world.request(0, &mut script),
            5 => world.frame(0, &mut script),
            _ => world.turn(),
        }
    }
    world.finish();
}

/// Clients that connect, ask for anything in any order, read or do not, and leave.
pub fn session(data: &[u8]) {
    let mut script = Script(data);
    let mut world = World::new();
    while !script.is_over() {
        let what = script.byte();
        let client = usize::from(what) % CLIENTS;
        match what / 4 {
            0..=3 => world.connect(client, &mut script),
            4..=9 => {
                let role = if script.below(4) == 0 { Role::Control } else { Role::Client };
                world.connect(client, &mut script);
                world.say(client, &good_hello("fuzz", role));
            }
            10..=17 => world.turn(),
            18..=20 => world.read(client),
            21 => world.clients[client] = None,
            22 => {
                let fds = script.below(8).saturating_sub(5);
                world.raw(client, script.bytes(255), fds);
            }
            23..=26 => world.frame(client, &mut script),
            _ => world.request(client, &mut script),
        }
    }
    world.finish();
}

fn good_hello(name: &str, role: Role) -> Hello {
    Hello {
        versions: (OLDEST_VERSION, PROTOCOL_VERSION),
        features: 0,
        role,
        name: name.to_owned(),
        method: String::new(),
        avoid: Vec::new(),
        require: 0,
    }
}

fn hello(script: &mut Script<'_>) -> Hello {
    let method = |script: &mut Script<'_>| {
        ["", "", "epoll", "poll", "select", "kqueue", "x\x1b"][script.below(7)].to_owned()
    };
    Hello {
        versions: (script.number() as u16, script.number() as u16),
        features: script.number(),
        role: if script.below(4) == 0 { Role::Control } else { Role::Client },
        name: script.name(),
        method: method(script),
        avoid: (0..script.below(4)).map(|_| method(script)).collect(),
        require: script.number() as u32,
    }
}

impl World {
    fn new() -> World {
        let pipes = (0..3).map(|_| Traced::new()).collect();
        let evd = Evd::new(&QUOTAS).expect("an evd");
        World { evd, clients: [const { None }; CLIENTS], scratch: Scratch::new(), pipes }
    }

    fn connect(&mut self, at: usize, script: &mut Script<'_>) {
        let uid = 1000 + script.below(2) as u32;
        self.connect_as(at, uid, script.below(8) == 7);
    }

    fn connect_as(&mut self, at: usize, uid: u32, inspects: bool) {
        let (ours, evds) = sys::socketpair().expect("a socket pair");
        let peer = Peer { pid: std::process::id() as i32, uid, gid: uid };
        self.clients[at] = None;
        if self.evd.connect(evds, peer, inspects).expect("no shortage").is_none() {
            let channel = Channel::new(ours);
            self.clients[at] = Some(Client { channel, serial: 0, uid, over: false, unread: 0 });
        }
    }

    fn turn(&mut self) {
        self.evd.turn().expect("no shortage");
    }

    /// Sends any bytes.
    fn raw(&mut self, at: usize, bytes: &[u8], fds: usize) {
        let fds: Vec<RawFd> = self.pipes.iter().map(Traced::number).cycle().take(fds).collect();
        let Some(client) = self.client(at) else { return };
        if client.channel.flush().is_ok_and(|all| all) {
            // What does not go is lost: it is garbage.
            let _ = sys::send(client.channel.as_fd(), bytes, &fds);
        }
    }

    fn say<B: Body>(&mut self, at: usize, body: &B) {
        self.say_with(at, body, 0, 0);
    }

    fn say_with<B: Body>(&mut self, at: usize, body: &B, fds: usize, first: usize) {
        let numbers: Vec<RawFd> = self.pipes.iter().map(Traced::number).collect();
        let fds: Vec<RawFd> = (0..fds).map(|n| numbers[(first + n) % numbers.len()]).collect();
        let Some(client) = self.client(at) else { return };
        client.serial += 1;
        let (socket, _, output) = client.channel.split();
        // evd may have closed it.
        let _ = output.send_with_fds(socket, client.serial, body, &fds);
        let _ = client.channel.flush();
    }

    /// The client, if it is there; one that has said much reads first.
    fn client(&mut self, at: usize) -> Option<&mut Client> {
        let client = self.clients[at].as_mut()?;
        client.unread += 1;
        if client.unread > MOST_AHEAD {
            self.turn();
            self.read(at);
        }
        self.clients[at].as_mut().filter(|c| !c.over)
    }

    /// A frame of a kind that there is, with any body.
    fn frame(&mut self, at: usize, script: &mut Script<'_>) {
        let kind = (script.byte() % 0x20) as u16 | if script.below(8) == 0 { 0x80 } else { 0 };
        let kind = header_of(kind).unwrap_or(Kind::Sync) as u16;
        let (claimed, came) = match script.below(8) {
            0 => (script.below(4), script.below(4)),
            n => (n.saturating_sub(4), n.saturating_sub(4)),
        };
        let body = script.bytes(255);
        let Some(client) = self.client(at) else { return };
        client.serial += 1;
        let mut frame = Vec::with_capacity(HEADER + body.len());
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&kind.to_le_bytes());
        frame.extend_from_slice(&[claimed as u8, 0]);
        frame.extend_from_slice(&client.serial.to_le_bytes());
        frame.extend_from_slice(body);
        self.raw(at, &frame, came);
    }

    /// A request that is well formed.
    fn request(&mut self, at: usize, script: &mut Script<'_>) {
        let id = |script: &mut Script<'_>| match script.byte() {
            n @ 0..=239 => u32::from(n % 6),
            n @ 240..=247 => 1_048_576 - u32::from(n % 4),
            _ => script.number() as u32,
        };
        let what = |script: &mut Script<'_>| What::from_bits_retain(script.byte());
        let few = |script: &mut Script<'_>| script.below(5);
        match script.below(18) {
            0 | 1 => {
                let watches: Vec<_> = (0..few(script))
                    .map(|_| ask::ArmWatch {
                        id: id(script),
                        seq: script.number() as u32,
                        interest: if script.below(4) == 0 { what(script) } else { What::READ | What::WRITE },
                        flags: script.byte() % 5,
                    })
                    .collect();
                let fds = if script.below(16) == 0 { script.below(4) } else { watches.len() };
                self.say_with(at, &ask::Arm { watches }, fds, script.below(3));
            }
            2 => {
                let with_fd: Vec<u32> = (0..few(script)).map(|_| id(script)).collect();
                let ids = (0..few(script)).map(|_| id(script)).collect();
                let fds = if script.below(16) == 0 { script.below(4) } else { with_fd.len() };
                self.say_with(at, &ask::Disarm { with_fd, ids }, fds, script.below(3));
            }
            3 => {
                let set = (0..few(script))
                    .map(|_| ask::SetTimer { id: id(script), deadline: script.number() })
                    .collect();
                let cancel = (0..few(script)).map(|_| id(script)).collect();
                self.say(at, &ask::Timers { set, cancel });
            }
            4 => self.say(at, &ask::Subscribe { id: id(script), name: script.name() }),
            5 => self.say(at, &ask::Unsubscribe { id: id(script) }),
            6 => {
                // Of the process: no real ones.
                let signo = [0, -1, 9, 15, 65, i32::MAX][script.below(6)];
                self.say(at, &ask::DaemonSignal { signo, on: script.below(2) == 0 });
            }
            7 | 8 => self.say(at, &ask::Trigger { name: script.name() }),
            9 | 10 => {
                let hold = ask::Hold {
                    name: script.name(),
                    attachment: script.bytes(2000).to_vec(),
                    ttl: script.number(),
                    replace: script.below(2) == 0,
                };
                let fds = if script.below(16) == 0 { script.below(3) } else { 1 };
                self.say_with(at, &hold, fds, script.below(3));
            }
            11 => self.say(at, &ask::Take { name: script.name(), keep: script.below(2) == 0 }),
            12 => self.say(at, &ask::Taken { hold: script.number() }),
            13 => self.say(at, &ask::Drop { name: script.name() }),
            14 => self.say(at, &ask::Sync {}),
            15 => {
                let report = ask::Report {
                    local: (0..few(script))
                        .map(|_| ask::LocalWatch {
                            id: id(script),
                            interest: what(script),
                            kind: sys::FileKind::Socket,
                            ino: script.number(),
                            fired: script.number() as u32,
                            ready: what(script),
                        })
                        .collect(),
                    gone: (0..few(script)).map(|_| id(script)).collect(),
                    labels: (0..few(script)).map(|_| (id(script), script.text(100))).collect(),
                    signals: script.number(),
                    callbacks: script.number(),
                    wakeups: script.number(),
                };
                self.say(at, &report);
            }
            16 => match script.below(3) {
                0 => self.say(at, &ask::Status { after: script.number() }),
                1 => self.say(at, &ask::ListHolds { after: script.name() }),
                _ => {
                    let base = selector(script);
                    let from = (script.below(6) as u8, script.number() as u32);
                    self.say(at, &ask::Events { base, from });
                }
            },
            _ => {
                let base = if script.below(2) == 0 { None } else { Some(selector(script)) };
                self.say(at, &ask::Follow { base });
            }
        }
    }

    /// Reads all that evd has said to a client: each frame is one that evd may send.
    fn read(&mut self, at: usize) {
        let Some(client) = &mut self.clients[at] else { return };
        client.unread = 0;
        while !client.over {
            let (socket, input, _) = client.channel.split();
            let (fill, mut frames) = match input.receive(socket, &mut self.scratch) {
                Ok(got) => got,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                    client.over = true;
                    break;
                }
                Err(e) => panic!("receive: {e}"),
            };
            while let Some(frame) = frames.next().expect("evd keeps to the protocol") {
                let read: Result<(), FrameError> = match frame.header.kind {
                    Kind::Welcome => frame.read().map(|_: Welcome| ()),
                    Kind::Done => frame.read().map(|_: Done| ()),
                    Kind::Refused => frame.read().map(|_: Refused| ()),
                    Kind::Triggered => frame.read().map(|_: Triggered| ()),
                    Kind::Took => frame.read().map(|_: Took| ()),
                    Kind::TookAll => frame.read().map(|_: TookAll| ()),
                    Kind::Attached => frame.read().map(|_: Attached| ()),
                    Kind::Holds => frame.read().map(|_: Holds| ()),
                    Kind::StatusPage => frame.read().map(|_: StatusPage| ()),
                    Kind::EventsPage => frame.read().map(|_: EventsPage| ()),
                    Kind::Active => frame.read().map(|_: Active| ()),
                    Kind::Closing => frame.read().map(|_: Closing| ()),
                    Kind::Trace => frame.read().map(|_: Trace| ()),
                    Kind::Attend => frame.read().map(|_: Attend| ()),
                    kind => panic!("evd sent {kind:?}"),
                };
                read.expect("what evd sends can be read");
                let fds = frame.fds.len();
                match frame.header.kind {
                    Kind::Took => assert_eq!(fds, 1),
                    Kind::TookAll => {
                        assert_eq!(fds, frame.read::<TookAll>().expect("it can be read").holds.len())
                    }
                    _ => assert_eq!(fds, 0),
                }
            }
            match fill {
                Fill::Data => {}
                Fill::Empty => break,
                Fill::End => client.over = true,
                Fill::FdsLost => panic!("fds were lost"),
            }
        }
    }

    /// Everybody leaves, and what is held is let go: then nothing is left.
    fn finish(mut self) {
        self.turn();
        (0..CLIENTS).for_each(|at| self.read(at));
        let uids: Vec<u32> = [1000, 1001].into();
        self.clients = [const { None }; CLIENTS];
        self.turn();
        for uid in uids {
            self.connect_as(0, uid, false);
            assert!(self.clients[0].as_ref().is_some_and(|c| c.uid == uid), "nobody is connected any more");
            self.say(0, &good_hello("sweeper", Role::Control));
            self.say(0, &ask::ListHolds { after: String::new() });
            self.turn();
            let client = self.clients[0].as_mut().expect("it is there");
            let (socket, input, _) = client.channel.split();
            let (_, mut frames) = input.receive(socket, &mut self.scratch).expect("evd has answered");
            let mut names = Vec::new();
            while let Some(frame) = frames.next().expect("evd keeps to the protocol") {
                if frame.header.kind == Kind::Holds {
                    let page: Holds = frame.read().expect("a page");
                    assert!(page.holds.len() <= 4 && !page.more);
                    names.extend(page.holds.into_iter().map(|h| h.name));
                }
            }
            drop(frames);
            for name in names {
                self.say(0, &ask::Drop { name });
            }
            self.turn();
            self.read(0);
            self.clients[0] = None;
            self.turn();
        }
        assert!(self.evd.is_empty(), "something is left: {:?}", self.evd.accounts());
        let pipes = self.pipes;
        drop(self.evd);
        pipes.into_iter().for_each(Traced::finish);
    }
}

fn selector(script: &mut Script<'_>) -> Selector {
    if script.below(4) == 0 { Selector::Name(script.name()) } else { Selector::Id(script.number()) }
}
