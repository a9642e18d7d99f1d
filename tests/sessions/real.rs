//! The real thing: an evd that is driven by hand, and clients that speak its protocol.

use crate::ops::{Ask, CLIENTS, Hello, How, NAMES, WIRES};
use crate::plain::{Answer, LIMITS, NEVER};
use evd::server::probe::Evd;
use evd_proto::channel::{Channel, Fill, Scratch};
use evd_proto::frame::Kind;
use evd_proto::notice::{Active, Attend, Trace};
use evd_proto::reply::{AccountInfo, Holds, Refused, StatusPage, Took, Triggered, Welcome};
use evd_proto::request::{self, ArmWatch, LocalWatch, Report, Role, Selector, SetTimer};
use evd_proto::sys::{self, FileKind, Peer};
use evd_proto::{OLDEST_VERSION, PROTOCOL_VERSION, What};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// What one client was told.
#[derive(Debug, Default)]
pub struct Told {
    /// By serial, in the order in which it came.
    pub answers: Vec<(u64, Answer)>,
    pub active: Active,
    pub attend: Vec<bool>,
    /// Base, name and what happened: source, id, how often.
    pub trace: Vec<(u64, u8, u32, u32)>,
    pub is_over: bool,
}

struct Conn {
    channel: Channel,
    serial: u64,
    is_over: bool,
}

pub struct Real {
    evd: Evd,
    conns: [Option<Conn>; CLIENTS],
    wires: [(OwnedFd, OwnedFd); WIRES],
    seqs: [[u32; WIRES]; CLIENTS],
    /// The numbers of the holds that were taken last.
    taken: [u64; CLIENTS],
    scratch: Scratch,
    /// Given away as held fds.
    gift: OwnedFd,
    gift_ino: u64,
}

impl Real {
    pub fn new() -> Real {
        let gift = sys::reserve_fd().unwrap();
        Real {
            evd: Evd::new(&LIMITS).unwrap(),
            conns: [const { None }; CLIENTS],
            wires: std::array::from_fn(|_| sys::socketpair().unwrap()),
            seqs: [[0; WIRES]; CLIENTS],
            taken: [0; CLIENTS],
            scratch: Scratch::new(),
            gift_ino: sys::identify(gift.as_fd()).unwrap().ino,
            gift,
        }
    }

    pub fn turn(&mut self) {
        self.evd.turn().unwrap();
    }

    /// `false`: it is refused.
    pub fn connect(&mut self, client: usize, uid: u32, inspects: bool, small: bool) -> bool {
        self.conns[client] = None;
        self.turn();
        let (ours, evds) = sys::socketpair().unwrap();
        if small {
            shrink(&evds);
        }
        let peer = Peer { pid: std::process::id() as i32, uid, gid: uid };
        if self.evd.connect(evds, peer, inspects).unwrap().is_some() {
            return false;
        }
        self.seqs[client] = [0; WIRES];
        self.taken[client] = 0;
        self.conns[client] = Some(Conn { channel: Channel::new(ours), serial: 0, is_over: false });
        true
    }

    pub fn leave(&mut self, client: usize) {
        self.conns[client] = None;
    }

    pub fn write(&mut self, wire: usize) {
        sys::send(self.wires[wire].1.as_fd(), b"x", &[]).unwrap();
    }

    pub fn drain(&mut self, wire: usize) {
        while sys::recv(self.wires[wire].0.as_fd(), &mut [0; 64], &mut Vec::new()).is_ok() {}
    }

    pub fn reopen(&mut self, wire: usize) {
        let (near, far) = sys::socketpair().unwrap();
        self.wires[wire].1 = far;
        self.wires[wire].0 = near;
    }

    pub fn accounts(&self) -> Vec<AccountInfo> {
        self.evd.accounts()
    }

    pub fn is_empty(&self) -> bool {
        self.evd.is_empty()
    }

    /// Sends the requests with one call; `bases` are the ids of the clients' bases.
    pub fn ask(&mut self, client: usize, asks: &[Ask], bases: &[u64; CLIENTS]) {
        let taken = self.taken[client];
        for ask in asks {
            let wire = match ask {
                Ask::Arm(wire, _) => *wire as usize,
                _ => 0,
            };
            let near = self.wires[wire].0.as_raw_fd();
            let Some(conn) = self.conns[client].as_mut().filter(|c| !c.is_over) else { return };
            let seq = &mut self.seqs[client][wire];
            *seq += u32::from(matches!(ask, Ask::Arm(..)));
            conn.push(*ask, near, *seq, self.gift.as_raw_fd(), bases, taken);
        }
        if let Some(conn) = &mut self.conns[client] {
            // A dead one is seen when it is read.
            let _ = conn.channel.flush();
        }
    }

    /// All that a client was told.
    pub fn read(&mut self, client: usize) -> Told {
        let mut told = Told::default();
        let Some(conn) = &mut self.conns[client] else { return told };
        while !conn.is_over {
            let (socket, input, _) = conn.channel.split();
            let (fill, mut frames) = match input.receive(socket, &mut self.scratch) {
                Ok(got) => got,
                Err(e) => {
                    assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
                    conn.is_over = true;
                    break;
                }
            };
            while let Some(frame) = frames.next().unwrap() {
                let serial = frame.header.serial;
                let answer = match frame.header.kind {
                    Kind::Welcome => Answer::Welcome(frame.read::<Welcome>().unwrap().base),
                    Kind::Done => Answer::Done,
                    Kind::Refused => Answer::Refused(frame.read::<Refused>().unwrap().code),
                    Kind::Triggered => {
                        let Triggered { reached, queued } = frame.read().unwrap();
                        Answer::Triggered { reached, queued }
                    }
                    Kind::Took => {
                        let Took { hold, attachment, ttl } = frame.read().unwrap();
                        assert_eq!(ttl, 0);
                        let ino = sys::identify(frame.fds[0].as_fd()).unwrap().ino;
                        assert_eq!(ino, self.gift_ino, "another fd is given back");
                        if hold != 0 {
                            self.taken[client] = hold;
                        }
                        Answer::Took { copy: hold == 0, bytes: attachment.len() as u8 }
                    }
                    Kind::Holds => {
                        let page: Holds = frame.read().unwrap();
                        let holds = page.holds.into_iter().map(|h| (h.name, h.attachment as u8));
                        Answer::Holds(holds.collect())
                    }
                    Kind::StatusPage => {
                        let page: StatusPage = frame.read().unwrap();
                        Answer::Status {
                            bases: page
                                .bases
                                .iter()
                                .map(|b| (b.id, b.parked, b.timers, b.names.len() as u32))
                                .collect(),
                            holds: page.holds,
                            names: page.names,
                        }
                    }
                    Kind::Active => {
                        let mut active: Active = frame.read().unwrap();
                        told.active.watches.append(&mut active.watches);
                        told.active.timers.append(&mut active.timers);
                        told.active.names.append(&mut active.names);
                        assert!(active.signals.is_empty());
                        continue;
                    }
                    Kind::Attend => {
                        told.attend.push(frame.read::<Attend>().unwrap().on);
                        continue;
                    }
                    Kind::Trace => {
                        let trace: Trace = frame.read().unwrap();
                        assert_eq!((trace.lost, &*trace.name), (0, "client"));
                        let entries = trace.entries.iter();
                        told.trace.extend(entries.map(|e| (trace.base, e.source as u8, e.id, e.count)));
                        continue;
                    }
                    kind => panic!("evd sent {kind:?}"),
                };
                told.answers.push((serial, answer));
            }
            match fill {
                Fill::Data => {}
                Fill::Empty => {
                    drop(frames);
                    // What evd could not send goes now.
                    self.evd.turn().unwrap();
                    let conn = self.conns[client].as_ref().unwrap();
                    let mut one = [sys::PollFd::new(conn.channel.as_fd().as_raw_fd(), What::READ)];
                    sys::poll(&mut one, Some(std::time::Duration::ZERO)).unwrap();
                    if one[0].ready().is_empty() {
                        break;
                    }
                    return self.read_on(client, told);
                }
                Fill::End => conn.is_over = true,
                Fill::FdsLost => panic!("fds were lost"),
            }
        }
        told.is_over = conn_is_over(&self.conns[client]);
        told
    }

    /// What it was told since, together with that before.
    pub fn read_on(&mut self, client: usize, mut before: Told) -> Told {
        let mut more = self.read(client);
        before.answers.append(&mut more.answers);
        before.active.watches.append(&mut more.active.watches);
        before.active.timers.append(&mut more.active.timers);
        before.active.names.append(&mut more.active.names);
        before.attend.append(&mut more.attend);
        before.trace.append(&mut more.trace);
        before.is_over = more.is_over;
        before
    }
}

fn conn_is_over(conn: &Option<Conn>) -> bool {
    conn.as_ref().is_some_and(|c| c.is_over)
}

impl Conn {
    fn push(&mut self, ask: Ask, near: RawFd, seq: u32, gift: RawFd, bases: &[u64; CLIENTS], taken: u64) {
        let name = |n: u8| NAMES[n as usize].to_owned();
        self.serial += 1;
        let serial = self.serial;
        let (socket, _, out) = self.channel.split();
        match ask {
            Ask::Hello(hello) => {
                let versions =
                    if hello == Hello::BadVersion { (900, 901) } else { (OLDEST_VERSION, PROTOCOL_VERSION) };
                let role = if hello == Hello::Control { Role::Control } else { Role::Client };
                let name = if hello == Hello::BadName { "\x1b" } else { "client" };
                let hello = request::Hello {
                    versions,
                    features: 0,
                    role,
                    name: name.to_owned(),
                    method: String::new(),
                    avoid: Vec::new(),
                    require: 0,
                };
                out.push(serial, &hello)
            }
            Ask::Arm(wire, how) => {
                let flags = match how {
                    How::Plain => 0,
                    How::Keep => ArmWatch::KEEP,
                    How::Edge => ArmWatch::EDGE,
                };
                let watches = vec![ArmWatch { id: u32::from(wire), seq, interest: What::READ, flags }];
                // evd may have closed it.
                let _ = out.send_with_fds(socket, serial, &request::Arm { watches }, &[near]);
                Ok(())
            }
            Ask::Disarm(wire) => {
                out.push(serial, &request::Disarm { with_fd: Vec::new(), ids: vec![u32::from(wire)] })
            }
            Ask::Gone(wire) => out.push(serial, &Report { gone: vec![u32::from(wire)], ..Report::default() }),
            Ask::Served(wire) => {
                let local = LocalWatch {
                    id: u32::from(wire),
                    interest: What::empty(),
                    kind: FileKind::Socket,
                    ino: 0,
                    fired: 3,
                    ready: What::READ,
                };
                out.push(serial, &Report { local: vec![local], ..Report::default() })
            }
            Ask::Timer(id, now) => {
                let deadline = if now { 1 } else { NEVER };
                let set = vec![SetTimer { id: u32::from(id), deadline }];
                out.push(serial, &request::Timers { set, cancel: Vec::new() })
            }
            Ask::Cancel(id) => {
                out.push(serial, &request::Timers { set: Vec::new(), cancel: vec![u32::from(id)] })
            }
            Ask::Subscribe(id, n) => {
                out.push(serial, &request::Subscribe { id: u32::from(id), name: name(n) })
            }
            Ask::Unsubscribe(id) => out.push(serial, &request::Unsubscribe { id: u32::from(id) }),
            Ask::Trigger(n) => out.push(serial, &request::Trigger { name: name(n) }),
            Ask::Put(n, replace, bytes, over) => {
                let (attachment, ttl) = (vec![7; bytes as usize], u64::from(over));
                let hold = request::Hold { name: name(n), attachment, ttl, replace };
                let _ = out.send_with_fds(socket, serial, &hold, &[gift]);
                Ok(())
            }
            Ask::Take(n, keep) => out.push(serial, &request::Take { name: name(n), keep }),
            Ask::Taken => out.push(serial, &request::Taken { hold: taken }),
            Ask::Drop(n) => out.push(serial, &request::Drop { name: name(n) }),
            Ask::List => out.push(serial, &request::ListHolds { after: String::new() }),
            Ask::Follow(of) => {
                let base = of.map(|of| Selector::Id(bases[of as usize]));
                out.push(serial, &request::Follow { base })
            }
            Ask::Status => out.push(serial, &request::Status { after: 0 }),
            Ask::Sync => out.push(serial, &request::Sync {}),
            Ask::Flood(n) => {
                self.serial += u64::from(n) - 1;
                (serial..=self.serial).try_for_each(|serial| out.push(serial, &request::Sync {}))
            }
            Ask::Garbage => {
                let _ = out.flush(socket);
                let _ = sys::send(socket, &[0xff; 16], &[]);
                Ok(())
            }
        }
        .unwrap();
    }
}

/// Leaves little room in what a socket sends.
fn shrink(socket: &OwnedFd) {
    let size: libc::c_int = 1;
    // SAFETY: reads an int that lives for the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const size).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0);
}
