//! An evd with its keeper, clients that live through evd's death, and things to be held whose other ends are here.

use crate::wire::{Dir, Got, PATIENCE, Raw, as_uid, command, eventually, hello};
use evd_proto::frame::{Body, Kind};
use evd_proto::reply::{HoldInfo, Holds};
use evd_proto::request::{Hello, Hold, ListHolds, Role};
use evd_proto::sys;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// `evd --keeper` on a private socket.
pub struct Keeper {
    pub process: Child,
    pub dir: Dir,
}

/// The process ends with the thread that starts it.
pub fn dies_with_us(c: &mut Command) -> &mut Command {
    let die = || {
        // SAFETY: prctl takes numbers here.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { c.pre_exec(die) }
}

impl Keeper {
    pub fn start() -> Keeper {
        Keeper::start_with(|_| {})
    }

    pub fn start_with(change: impl FnOnce(&mut Command)) -> Keeper {
        let dir = Dir::new();
        // Others may come to the socket.
        std::fs::set_permissions(&dir.0, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut c = command(&dir.socket());
        change(&mut c);
        Keeper::start_command(dir, c)
    }

    /// One whose program is a copy, which the next evd may be another one than, see [`Keeper::replace`].
    pub fn start_replaceable(change: impl FnOnce(&mut Command)) -> Keeper {
        let dir = Dir::new();
        let of = command(&dir.socket());
        // Not by this process: a child that another thread starts just now would have the copy open for writing, and it could not be run.
        let copied = Command::new("cp").arg(of.get_program()).arg(dir.0.join("evd")).status().unwrap();
        assert!(copied.success());
        let mut c = Command::new(dir.0.join("evd"));
        c.args(of.get_args());
        for (name, value) in of.get_envs() {
            match value {
                Some(value) => c.env(name, value),
                None => c.env_remove(name),
            };
        }
        change(&mut c);
        Keeper::start_command(dir, c)
    }

    /// The next evd is the real one after these lines of shell.
    pub fn replace(&self, lines: &str) {
        let new = self.dir.0.join("evd.new");
        let text = format!("#!/bin/sh\n{lines}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_evd"));
        // Not by this process, see above.
        let write = "printf %s \"$0\" > \"$1\" && chmod 755 \"$1\"";
        assert!(Command::new("sh").args(["-c", write, &text]).arg(&new).status().unwrap().success());
        std::fs::rename(new, self.dir.0.join("evd")).unwrap();
    }

    fn start_command(dir: Dir, mut c: Command) -> Keeper {
        // What it has to say of the deaths that are asked for is shown only if the test fails.
        let log = std::fs::File::create(dir.0.join("log")).unwrap();
        dies_with_us(&mut c).args(["--keeper", "--log-level", "debug"]).stdin(Stdio::null()).stderr(log);
        let keeper = Keeper { process: c.spawn().unwrap(), dir };
        keeper.back();
        keeper
    }

    pub fn path(&self) -> PathBuf {
        self.dir.socket()
    }

    /// evd itself; `None`: it is away.
    pub fn evd(&self) -> Option<i32> {
        let pid = self.process.id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace().next().map(|p| p.parse().unwrap())
    }

    /// evd serves, and nobody is served.
    pub fn back(&self) {
        eventually("evd is back", || self.connect().is_some());
    }

    pub fn kill(&self) {
        let old = self.evd().expect("evd is there");
        sys::send_signal(old, libc::SIGKILL).unwrap();
        eventually("another evd is there", || self.evd().is_some_and(|p| p != old));
        self.back();
    }

    /// A session, if evd is there.
    pub fn connect(&self) -> Option<Raw> {
        sys::connect(&self.path()).ok()?;
        let mut raw = Raw::connect(&self.path());
        let got = ask(&mut raw, &Hello { role: Role::Control, ..hello("checker", "") }, &[])?;
        // An evd that is short of fds just now may refuse it.
        raw.welcome = (got.kind == Kind::Welcome).then(|| got.read());
        raw.welcome.is_some().then_some(raw)
    }

    /// A session of another user.
    pub fn session_of(&self, uid: u32) -> Raw {
        as_uid(uid, || self.session())
    }

    /// What it and its evds have said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.0.join("log")).unwrap()
    }

    /// A session, however long that takes.
    pub fn session(&self) -> Raw {
        let mut found = None;
        eventually("evd is there", || {
            found = self.connect();
            found.is_some()
        });
        found.unwrap()
    }

    /// Open files of evd and of the keeper, when nobody is served.
    pub fn fds(&self) -> (usize, usize) {
        eventually("it is sure of itself", || self.is_settled());
        let evd = self.evd().unwrap();
        eventually("nobody is served", || {
            std::fs::read_dir(format!("/proc/{evd}/task")).is_ok_and(|t| t.count() == 1)
        });
        (count(evd), self.stored())
    }

    /// Whether evd trusts what it has read: then it has emptied its count of starts.
    pub fn is_settled(&self) -> bool {
        let Some(evd) = self.evd() else { return false };
        let Ok(fds) = std::fs::read_dir(format!("/proc/{evd}/fd")) else { return false };
        let counts = fds
            .filter_map(|e| Some(e.ok()?.path()))
            .find(|path| std::fs::read_link(path).is_ok_and(|l| l.to_string_lossy().contains("evd-starts")));
        counts.is_some_and(|path| std::fs::metadata(path).is_ok_and(|m| m.len() == 8))
    }

    /// Open files of the keeper.
    pub fn stored(&self) -> usize {
        count(self.process.id() as i32)
    }
}

fn count(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = sys::send_signal(self.process.id() as i32, libc::SIGTERM);
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

/// Asks, and waits for the answer; `None`: evd died.
pub fn ask<B: Body>(raw: &mut Raw, body: &B, fds: &[RawFd]) -> Option<Got> {
    tell(raw, body, fds)?;
    loop {
        let got = raw.next_or_end()?;
        if got.serial == raw.serial {
            return Some(got);
        }
    }
}

/// Sends; `None`: evd died.
pub fn tell<B: Body>(raw: &mut Raw, body: &B, fds: &[RawFd]) -> Option<()> {
    raw.serial += 1;
    let until = Instant::now() + PATIENCE;
    loop {
        let (socket, _, out) = raw.channel.split();
        match out.send_with_fds(socket, raw.serial, body, fds) {
            Ok(true) if out.is_empty() => return Some(()),
            Ok(true) if fds.is_empty() => {}
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => return None,
            Err(e) => panic!("{e}"),
        }
        assert!(Instant::now() < until, "evd does not read");
        std::thread::yield_now();
    }
}

pub fn list(raw: &mut Raw) -> Option<Vec<HoldInfo>> {
    let mut all: Vec<HoldInfo> = Vec::new();
    loop {
        let after = all.last().map(|h| h.name.clone()).unwrap_or_default();
        let page: Holds = ask(raw, &ListHolds { after }, &[])?.read();
        all.extend(page.holds);
        if !page.more {
            return Some(all);
        }
    }
}

pub fn hold(name: &str, attachment: &[u8], ttl: u64, replace: bool) -> Hold {
    Hold { name: name.to_owned(), attachment: attachment.to_vec(), ttl, replace }
}

/// What is held, seen from its other end.
pub enum Thing {
    /// The peer of a socket, which has written a line.
    Socket(UnixStream),
    /// The writing end of a pipe, which has written a line.
    Pipe(std::fs::File),
    /// The address of a listener, and who waits to be accepted.
    Listener(TcpStream),
}

/// Makes something to be held: a socket, a pipe, a listener in turn. `line` is in it.
pub fn thing(n: usize, line: &str) -> (OwnedFd, Thing) {
    match n % 8 {
        3 => {
            let (r, w) = sys::pipe().unwrap();
            let mut w = std::fs::File::from(w);
            w.write_all(line.as_bytes()).unwrap();
            (r, Thing::Pipe(w))
        }
        5 => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut visitor = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            visitor.write_all(line.as_bytes()).unwrap();
            (listener.into(), Thing::Listener(visitor))
        }
        _ => {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(line.as_bytes()).unwrap();
            (near.into(), Thing::Socket(far))
        }
    }
}

impl Thing {
    /// `fd` is what was held: `line` is in it.
    pub fn check(&self, fd: OwnedFd, line: &str) {
        let mut text = vec![0; line.len()];
        match self {
            Thing::Socket(_) => UnixStream::from(fd).read_exact(&mut text).unwrap(),
            Thing::Pipe(_) => std::fs::File::from(fd).read_exact(&mut text).unwrap(),
            Thing::Listener(_) => {
                let (mut stream, _) = TcpListener::from(fd).accept().unwrap();
                stream.read_exact(&mut text).unwrap();
            }
        }
        assert_eq!(String::from_utf8(text).unwrap(), line);
    }

    /// Whether somebody has it open.
    pub fn is_open(&self) -> bool {
        let fd = match self {
            Thing::Socket(far) => far.as_raw_fd(),
            Thing::Pipe(w) => w.as_raw_fd(),
            Thing::Listener(visitor) => visitor.as_raw_fd(),
        };
        let mut look = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: `look` is one live pollfd.
        assert!(unsafe { libc::poll(&mut look, 1, 0) } >= 0);
        look.revents & (libc::POLLHUP | libc::POLLRDHUP | libc::POLLERR) == 0
    }
}
