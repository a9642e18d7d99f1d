//! A client that says exactly what it is told to, and an evd for it to talk to.

use evd_proto::What;
use evd_proto::channel::{Channel, Fill, Scratch};
use evd_proto::frame::{Body, Kind};
use evd_proto::notice::Active;
use evd_proto::reply::{Code, Done, Refused, Welcome};
use evd_proto::request::{Arm, ArmWatch, Hello, Role, SetTimer, Sync, Timers};
use evd_proto::sys::{self, PollFd};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `fact` holds.
pub fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory of its own for one test.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let n = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("evd-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An evd process on a private socket; killed when this is dropped.
pub struct Evd {
    pub child: Child,
    pub dir: Dir,
}

/// The command that starts evd with nothing inherited that would change it.
pub fn command(socket: &Path) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_evd")), socket)
}

/// The same for a copy of it.
pub fn command_of(program: &Path, socket: &Path) -> Command {
    let mut c = Command::new(program);
    for name in [
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "EVD_ALLOW_UID",
        "EVD_ALLOW_GID",
        "EVD_ADMIN_GID",
        "EVD_ALLOW_NESTED",
        "EVD_NO_HARDENING",
        "EVD_QUOTA",
        "JOURNAL_STREAM",
    ] {
        c.env_remove(name);
    }
    c.arg("--socket").arg(socket).env("EVD_LOG_LEVEL", "warn");
    c
}

/// It may open so many files.
pub fn limit_files(c: &mut Command, files: u64) {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let lim = libc::rlimit { rlim_cur: files, rlim_max: files };
        // SAFETY: `lim` is live for the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &lim) };
        Ok(())
    };
    // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe.
    unsafe { c.pre_exec(limit) };
}

impl Evd {
    pub fn start() -> Evd {
        Evd::start_with(|_| {})
    }

    pub fn start_with(change: impl FnOnce(&mut Command)) -> Evd {
        let dir = Dir::new();
        let mut c = command(&dir.socket());
        change(&mut c);
        Evd::started(c, dir)
    }

    /// By a command that listens in this directory.
    pub fn started(mut c: Command, dir: Dir) -> Evd {
        let mut child = c.stdin(Stdio::null()).spawn().unwrap();
        eventually("evd listens", || {
            assert_eq!(child.try_wait().unwrap(), None, "evd ended");
            sys::connect(&dir.socket()).is_ok()
        });
        let evd = Evd { child, dir };
        // A session that came after that connection: when its worker has ended, so has all that this began.
        drop(evd.client("first"));
        eventually("its workers have ended", || evd.threads() == 1);
        evd
    }

    pub fn path(&self) -> PathBuf {
        self.dir.socket()
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    pub fn client(&self, name: &str) -> Raw {
        Raw::hello(&self.path(), name, "")
    }

    pub fn control(&self) -> Raw {
        let mut raw = Raw::connect(&self.path());
        raw.greet(&Hello { role: Role::Control, ..hello("ctl", "") });
        raw
    }

    /// Whether everything works for somebody who does no wrong.
    pub fn serves(&self) {
        let mut good = self.client("good");
        let (mut near, far) = UnixStream::pair().unwrap();
        good.arm(&[(0, 1, What::READ)], &[far.as_raw_fd()]);
        near.write_all(b"x").unwrap();
        assert_eq!(good.active().watches[0].id, 0);
    }

    pub fn signal(&self, signo: i32) {
        sys::send_signal(self.pid(), signo).unwrap();
    }
}

impl Drop for Evd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A frame's header, whatever it says.
pub fn header(kind: Kind, len: u32, fds: u8, flags: u8, serial: u64) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend_from_slice(&len.to_le_bytes());
    b.extend_from_slice(&(kind as u16).to_le_bytes());
    b.push(fds);
    b.push(flags);
    b.extend_from_slice(&serial.to_le_bytes());
    b
}

/// A connection that takes so many seconds to close: it lingers, and its peer never reads. It comes last, after what must live as long.
pub fn lingering(seconds: i32) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lingers = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (never_reads, _) = listener.accept().unwrap();
    lingers.set_nonblocking(true).unwrap();
    while lingers.write(&[0; 65_536]).is_ok() {}
    let linger = libc::linger { l_onoff: 1, l_linger: seconds };
    // SAFETY: `linger` is live for the call, and its size is given.
    let set = unsafe {
        let at = (&raw const linger).cast();
        let size = size_of_val(&linger) as u32;
        libc::setsockopt(lingers.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, at, size)
    };
    assert_eq!(set, 0);
    (listener, never_reads, lingers)
}

pub fn hello(name: &str, method: &str) -> Hello {
    Hello {
        versions: (evd_proto::OLDEST_VERSION, evd_proto::PROTOCOL_VERSION),
        features: 0,
        role: Role::Client,
        name: name.to_owned(),
        method: method.to_owned(),
        avoid: Vec::new(),
        require: 0,
    }
}

/// A frame that came.
#[derive(Debug)]
pub struct Got {
    pub kind: Kind,
    pub serial: u64,
    body: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Got {
    pub fn read<B: Body>(&self) -> B {
        assert_eq!(self.kind, B::KIND, "{:?}", self.refusal());
        evd_proto::frame::body(self.kind, &self.body).unwrap()
    }

    pub fn refusal(&self) -> Option<Refused> {
        (self.kind == Kind::Refused).then(|| evd_proto::frame::body(self.kind, &self.body).unwrap())
    }
}

pub struct Raw {
    pub channel: Channel,
    scratch: Scratch,
    got: VecDeque<Got>,
    pub serial: u64,
    pub welcome: Option<Welcome>,
}

impl Raw {
    pub fn connect(path: &Path) -> Raw {
        let socket = sys::connect(path).unwrap();
        Raw {
            channel: Channel::new(socket),
            scratch: Scratch::new(),
            got: VecDeque::new(),
            serial: 0,
            welcome: None,
        }
    }

    pub fn hello(path: &Path, name: &str, method: &str) -> Raw {
        let mut raw = Raw::connect(path);
        raw.greet(&hello(name, method));
        raw
    }

    pub fn greet(&mut self, hello: &Hello) {
        self.send(hello);
        self.welcome = Some(self.next().read());
    }

    pub fn base(&self) -> u64 {
        self.welcome.as_ref().unwrap().base
    }

    pub fn send<B: Body>(&mut self, body: &B) -> u64 {
        self.serial += 1;
        self.channel.output.push(self.serial, body).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            match self.channel.flush() {
                Ok(true) => break,
                Ok(false) => drop(self.poll(What::WRITE)),
                // It has said why and left already: that is still to be read.
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => break,
                Err(e) => panic!("{e}"),
            }
            assert!(Instant::now() < until, "evd does not read");
        }
        self.serial
    }

    pub fn last_serial(&self) -> u64 {
        self.serial
    }

    /// Sends a request; what comes meanwhile is taken in, as nothing is read by others.
    pub fn send_unread<B: Body>(&mut self, body: &B) -> u64 {
        self.serial += 1;
        self.channel.output.push(self.serial, body).unwrap();
        if self.channel.output.len() > 60_000 {
            let until = Instant::now() + PATIENCE;
            while !self.channel.flush().unwrap() {
                assert!(Instant::now() < until, "evd does not read");
                self.poll(What::READ | What::WRITE);
                self.receive();
            }
        }
        self.serial
    }

    /// Takes in what is there. `true`: evd has closed.
    fn receive(&mut self) -> bool {
        let (socket, input, _) = self.channel.split();
        let (fill, mut frames) = match input.receive(socket, &mut self.scratch) {
            Ok(got) => got,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return true,
            Err(e) => panic!("{e}"),
        };
        while let Some(f) = frames.next().unwrap() {
            let (kind, serial) = (f.header.kind, f.header.serial);
            self.got.push_back(Got { kind, serial, body: f.body.to_vec(), fds: f.fds });
        }
        fill == Fill::End
    }

    /// As `send`, to an evd that may have refused the connection and closed it by now.
    pub fn send_if_open<B: Body>(&mut self, body: &B) {
        self.serial += 1;
        self.channel.output.push(self.serial, body).unwrap();
        let _ = self.channel.flush();
    }

    pub fn send_fds<B: Body>(&mut self, body: &B, fds: &[RawFd]) -> u64 {
        self.serial += 1;
        let until = Instant::now() + PATIENCE;
        loop {
            let (socket, _, out) = self.channel.split();
            if out.send_with_fds(socket, self.serial, body, fds).unwrap() {
                return self.serial;
            }
            assert!(Instant::now() < until, "evd does not read");
            self.poll(What::WRITE);
        }
    }

    pub fn raw(&mut self, bytes: &[u8], fds: &[RawFd]) {
        let until = Instant::now() + PATIENCE;
        loop {
            match sys::send(self.channel.as_fd(), bytes, fds) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => drop(self.poll(What::WRITE)),
                sent => break assert_eq!(sent.unwrap(), bytes.len()),
            }
            assert!(Instant::now() < until, "evd does not read");
        }
    }

    fn poll(&self, what: What) -> bool {
        let mut one = [PollFd::new(self.channel.as_fd().as_raw_fd(), what)];
        sys::poll(&mut one, Some(Duration::from_millis(100))).unwrap() > 0
    }

    /// The next frame; `None`: evd closed.
    pub fn next_or_end(&mut self) -> Option<Got> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(got) = self.got.pop_front() {
                return Some(got);
            }
            assert!(Instant::now() < until, "evd says nothing");
            let ended = self.receive();
            if self.got.is_empty() {
                if ended {
                    return None;
                }
                // What was not sent yet goes with it.
                if !self.channel.flush().unwrap_or(true) || !self.poll(What::READ) {
                    continue;
                }
            }
        }
    }

    pub fn next(&mut self) -> Got {
        self.next_or_end().expect("evd closed")
    }

    /// The next frame, which must be in the socket already.
    pub fn next_in_socket(&mut self) -> Got {
        assert!(!self.got.is_empty() || self.poll(What::READ), "nothing is in the socket");
        self.next()
    }

    /// The next frame that answers `serial`; notices are passed over.
    pub fn answer(&mut self, serial: u64) -> Got {
        loop {
            let got = self.next();
            if got.serial == serial {
                return got;
            }
            assert_eq!(got.serial, 0, "an answer to another request: {got:?}");
        }
    }

    pub fn ask<B: Body, R: Body>(&mut self, body: &B) -> R {
        let serial = self.send(body);
        self.answer(serial).read()
    }

    pub fn refused(&mut self, serial: u64) -> Refused {
        self.answer(serial).read()
    }

    /// evd refuses and closes.
    pub fn is_ended_with(&mut self, code: Code) -> String {
        let refused: Refused = self.next().read();
        assert_eq!(refused.code, code, "{}", refused.text);
        assert!(self.next_or_end().is_none(), "the session goes on");
        refused.text
    }

    pub fn arm(&mut self, watches: &[(u32, u32, What)], fds: &[RawFd]) -> u64 {
        self.arm_with(0, watches, fds)
    }

    pub fn arm_with(&mut self, flags: u8, watches: &[(u32, u32, What)], fds: &[RawFd]) -> u64 {
        let watches = watches.iter().map(|&(id, seq, interest)| ArmWatch { id, seq, interest, flags });
        self.send_fds(&Arm { watches: watches.collect() }, fds)
    }

    pub fn timers(&mut self, set: &[(u32, u64)], cancel: &[u32]) -> u64 {
        let set = set.iter().map(|&(id, deadline)| SetTimer { id, deadline }).collect();
        self.send(&Timers { set, cancel: cancel.to_vec() })
    }

    pub fn active(&mut self) -> Active {
        self.next().read()
    }

    /// Everything sent so far has taken effect. What comes before the answer is returned.
    pub fn sync(&mut self) -> Vec<Got> {
        let serial = self.send(&Sync {});
        let mut before = Vec::new();
        loop {
            let got = self.next();
            if got.serial == serial {
                got.read::<Done>();
                return before;
            }
            before.push(got);
        }
    }
}

/// Runs it as another user: evd sees who connects, and that is the thread. Only root may.
pub fn as_uid<T: Send>(uid: u32, run: impl FnOnce() -> T + Send) -> T {
    let become_them = || {
        let unset = libc::uid_t::MAX;
        // SAFETY: it takes numbers. The system call itself is for this thread alone, which ends here.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, unset, uid, unset) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        run()
    };
    std::thread::scope(|scope| scope.spawn(become_them).join().unwrap())
}

/// Runs a command that is to end by itself; returns its exit code and its stderr.
pub fn outcome(mut c: Command) -> (Option<i32>, String) {
    let mut child = c.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("it goes on running");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status.code(), text)
}
