//! An evd of a script: it is there or not, and answers well, badly, late or not at all.

use evd_proto::channel::{Channel, Fill, Scratch};
use evd_proto::frame::{Body, Kind, encode};
use evd_proto::notice::{Active, ActiveName, ActiveWatch, Closing};
use evd_proto::reply::{Code, Done, Limits, Refused, Welcome};
use evd_proto::request::{Arm, Disarm, Subscribe};
use evd_proto::sys::{self, PollFd};
use evd_proto::{PROTOCOL_VERSION, What};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

/// What is there for somebody who connects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// No socket.
    Absent,
    /// A socket that nobody listens at.
    Dead,
    /// It is taken, and nothing is said.
    Silent,
    /// It is closed at once.
    Closes,
    Refuses,
    Garbage,
    /// The first half of a Welcome, and the end.
    HalfWelcome,
    /// As `Good`, but the Welcome comes after so many milliseconds.
    Late(u64),
    Good,
}

/// How it goes away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Death {
    Close,
    /// In the middle of a frame.
    MidFrame,
    /// It says so.
    Closing,
    Garbage,
    /// It stays, and neither reads nor speaks any more.
    Stall,
}

struct Conn {
    channel: Channel,
    manner: Manner,
    /// When the Welcome is due.
    welcome_at: Option<u64>,
    armed: BTreeMap<u32, (u32, What, OwnedFd)>,
    names: Vec<u32>,
    stalled: bool,
}

pub struct Fake {
    path: PathBuf,
    listener: Option<UnixListener>,
    pub manner: Manner,
    conns: Vec<Conn>,
    scratch: Scratch,
    /// When somebody connected.
    pub met: Vec<u64>,
    /// Something was said, or a connection was closed, since this was looked at.
    pub spoke: bool,
}

impl Fake {
    pub fn new(path: PathBuf) -> Fake {
        let (listener, manner) = (None, Manner::Absent);
        Fake {
            path,
            listener,
            manner,
            conns: Vec::new(),
            scratch: Scratch::new(),
            met: Vec::new(),
            spoke: false,
        }
    }

    pub fn become_(&mut self, manner: Manner) {
        self.manner = manner;
        if !matches!(manner, Manner::Absent | Manner::Dead) && self.listener.is_some() {
            return;
        }
        self.listener = None;
        let _ = std::fs::remove_file(&self.path);
        if manner == Manner::Absent {
            return;
        }
        let listener = UnixListener::bind(&self.path).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = (manner != Manner::Dead).then_some(listener);
    }

    pub fn die(&mut self, death: Death) {
        self.spoke = true;
        for conn in &mut self.conns {
            let mut bytes = Vec::new();
            match death {
                Death::Close | Death::Stall => {}
                Death::MidFrame => {
                    let watches = vec![ActiveWatch { id: 0, seq: 1, ready: What::READ }; 3];
                    encode(&mut bytes, 0, 0, &Active { watches, ..Active::default() }).unwrap();
                    bytes.truncate(30);
                }
                Death::Closing => encode(&mut bytes, 0, 0, &Closing { reason: "over".to_owned() }).unwrap(),
                Death::Garbage => bytes = vec![0xff; 32],
            }
            let _ = sys::send(conn.channel.as_fd(), &bytes, &[]);
            conn.stalled = true;
        }
        if death != Death::Stall {
            self.conns.clear();
        }
    }

    /// When it has something to do by itself.
    pub fn next(&self) -> Option<u64> {
        self.conns.iter().filter(|c| !c.stalled).filter_map(|c| c.welcome_at).min()
    }

    /// How many watches are armed.
    pub fn armed(&self) -> usize {
        self.conns.iter().filter(|c| !c.stalled).map(|c| c.armed.len()).sum()
    }

    /// Says that a name was triggered. `false`: nobody subscribed.
    pub fn trigger(&mut self) -> bool {
        let mut told = false;
        for conn in self.conns.iter_mut().filter(|c| !c.stalled) {
            let names: Vec<ActiveName> =
                conn.names.iter().map(|id| ActiveName { id: *id, count: 1 }).collect();
            if !names.is_empty() {
                self.spoke = true;
                told = true;
                say(conn, 0, &Active { names, ..Active::default() });
            }
        }
        told
    }

    /// Does all that is to be done now.
    pub fn serve(&mut self, now: u64) {
        while let Some((stream, _)) = self.listener.as_ref().and_then(|l| l.accept().ok()) {
            stream.set_nonblocking(true).unwrap();
            self.met.push(now);
            self.spoke = true;
            if self.manner == Manner::Closes {
                continue;
            }
            self.conns.push(Conn {
                channel: Channel::new(stream.into()),
                manner: self.manner,
                welcome_at: None,
                armed: BTreeMap::new(),
                names: Vec::new(),
                stalled: false,
            });
        }
        for mut conn in std::mem::take(&mut self.conns) {
            if conn.stalled || self.turn(&mut conn, now) {
                self.conns.push(conn);
            }
        }
    }

    /// `false`: the connection ends.
    fn turn(&mut self, conn: &mut Conn, now: u64) -> bool {
        loop {
            let (socket, input, _) = conn.channel.split();
            let Ok((fill, mut frames)) = input.receive(socket, &mut self.scratch) else { return false };
            let mut came = Vec::new();
            while let Some(frame) = frames.next().expect("the client keeps to the protocol") {
                came.push((frame.header, frame.body.to_vec(), frame.fds));
            }
            drop(frames);
            for (header, body, fds) in came {
                if !self.take(conn, now, header.kind, header.serial, &body, fds) {
                    return false;
                }
            }
            match fill {
                Fill::Data => {}
                Fill::Empty => break,
                Fill::End | Fill::FdsLost => return false,
            }
        }
        if conn.welcome_at.is_some_and(|at| at <= now) {
            conn.welcome_at = None;
            self.spoke = true;
            say(conn, 1, &welcome());
        }
        self.look(conn);
        true
    }

    fn take(
        &mut self,
        conn: &mut Conn,
        now: u64,
        kind: Kind,
        serial: u64,
        body: &[u8],
        fds: Vec<OwnedFd>,
    ) -> bool {
        let read = "the client keeps to the protocol";
        match kind {
            Kind::Hello => {
                self.spoke = true;
                let mut bytes = Vec::new();
                match conn.manner {
                    Manner::Good => say(conn, serial, &welcome()),
                    Manner::Late(ms) => conn.welcome_at = Some(now + ms * crate::MS),
                    Manner::Refuses => {
                        let text = "not you".to_owned();
                        let refused =
                            Refused { code: Code::NotAllowed, limit: 0, value: 0, text, ids: Vec::new() };
                        say(conn, serial, &refused);
                        return false;
                    }
                    Manner::Garbage => bytes = vec![0xff; 40],
                    Manner::HalfWelcome => {
                        encode(&mut bytes, serial, 0, &welcome()).unwrap();
                        bytes.truncate(40);
                    }
                    Manner::Silent => {}
                    Manner::Absent | Manner::Dead | Manner::Closes => return false,
                }
                let _ = sys::send(conn.channel.as_fd(), &bytes, &[]);
                return conn.manner != Manner::HalfWelcome;
            }
            Kind::Arm => {
                let arm: Arm = evd_proto::frame::body(kind, body).expect(read);
                for (watch, fd) in arm.watches.iter().zip(fds) {
                    conn.armed.insert(watch.id, (watch.seq, watch.interest, fd));
                }
            }
            Kind::Disarm => {
                let disarm: Disarm = evd_proto::frame::body(kind, body).expect(read);
                for id in disarm.ids.iter().chain(&disarm.with_fd) {
                    conn.armed.remove(id);
                }
            }
            Kind::Subscribe => {
                let subscribe: Subscribe = evd_proto::frame::body(kind, body).expect(read);
                conn.names.push(subscribe.id);
                self.spoke = true;
                say(conn, serial, &Done {});
            }
            Kind::Sync => {
                self.spoke = true;
                say(conn, serial, &Done {});
            }
            Kind::Report => {}
            kind => panic!("the client sent {kind:?}"),
        }
        true
    }

    /// Reports what is ready.
    fn look(&mut self, conn: &mut Conn) {
        let mut polls: Vec<PollFd> =
            conn.armed.values().map(|(_, what, fd)| PollFd::new(fd.as_raw_fd(), *what)).collect();
        sys::poll(&mut polls, Some(Duration::ZERO)).unwrap();
        let ready: Vec<ActiveWatch> = conn
            .armed
            .iter()
            .zip(&polls)
            .filter(|(_, poll)| !poll.ready().is_empty())
            .map(|((id, (seq, ..)), poll)| ActiveWatch { id: *id, seq: *seq, ready: poll.ready() })
            .collect();
        if !ready.is_empty() {
            ready.iter().for_each(|w| drop(conn.armed.remove(&w.id)));
            self.spoke = true;
            say(conn, 0, &Active { watches: ready, ..Active::default() });
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn say<B: Body>(conn: &mut Conn, serial: u64, body: &B) {
    conn.channel.output.push(serial, body).unwrap();
    // The client may have gone.
    let _ = conn.channel.flush();
}

/// A Welcome of a process that nobody can see.
fn welcome() -> Welcome {
    let limits = Limits { watches: 1000, timers: 1000, names: 1000, fds_per_frame: 100, attachment: 10 };
    Welcome {
        version: PROTOCOL_VERSION,
        features: 0,
        base: 1,
        method: "epoll".to_owned(),
        method_features: 0,
        pid: 0,
        tid: 0,
        now: sys::monotonic_ns(),
        limits,
    }
}
