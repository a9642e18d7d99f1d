//! Processes, and ways to wait for a fact.

use evd_client::{Error, EventBase, LinkState, LoopFlags};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const MS: Duration = Duration::from_millis(1);
const ROLE: &str = "EVD_APART_ROLE";
/// What begins a line of a role, apart from those of the test harness around it.
const MARK: &str = "> ";

pub type Role = fn(socket: &Path, args: &[&str]);

/// What the test `role::role` does: one of these roles, if it was started for that.
pub fn play(roles: &[(&str, Role)]) {
    let Ok(words) = std::env::var(ROLE) else { return };
    // Whoever started it may have been killed.
    std::thread::spawn(|| {
        std::thread::sleep(10 * PATIENCE);
        std::process::exit(3);
    });
    println!();
    let words: Vec<&str> = words.split('\n').collect();
    let (_, run) = roles.iter().find(|(name, _)| *name == words[0]).unwrap();
    run(Path::new(words[1]), &words[2..]);
    std::process::exit(0);
}

/// A role's line.
pub fn say(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
    std::io::stdout().flush().unwrap();
}

/// Waits for a line from the test; empty: there is none any more.
pub fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// A role that runs; killed when this is dropped.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    pub fn start(name: &str, socket: &Path, args: &[&str]) -> Process {
        let mut words = vec![name, socket.to_str().unwrap()];
        words.extend(args);
        let mut c = Command::new(std::env::current_exe().unwrap());
        c.args(["--exact", "role::role", "--ignored", "--nocapture", "--test-threads=1"]);
        c.env(ROLE, words.join("\n")).env("EVD_SOCKET", socket);
        let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    let _ = to.send(line.trim_end().to_owned());
                }
            }
        });
        Process { input: child.stdin.take(), child, lines }
    }

    /// It is killed, and gone when this returns.
    pub fn kill(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it had ended already");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Its next line.
    pub fn line(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the other process says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("the other process ended"),
        }
    }

    /// Waits until it says this; what it says before is passed over.
    pub fn comes_to(&self, want: &str) {
        while self.line() != want {}
    }

    /// Waits until it says this, and nothing else before.
    #[track_caller]
    pub fn says(&self, want: &str) {
        assert_eq!(self.line(), want);
    }

    /// Waits until it has done all of its role.
    pub fn ends(mut self) {
        drop(self.input.take());
        eventually("the other process ends", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success(), "the other process failed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until `fact` holds.
#[track_caller]
pub fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(5 * MS);
    }
}

/// A place for an evd that nobody else has: a pipe on Windows, else a socket in a directory of its own.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Place {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("evd-apart-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        if cfg!(windows) {
            return Place(PathBuf::from(format!(r"\\.\pipe\{name}")));
        }
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Place(dir.join("socket"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if cfg!(unix) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }
}

/// An evd process; killed when this is dropped.
pub struct Evd {
    child: Child,
    pub at: Place,
}

/// The command that starts evd with nothing inherited that would change it.
pub fn command(socket: &Path) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_evd"));
    for name in ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "EVD_QUOTA", "JOURNAL_STREAM"]
    {
        c.env_remove(name);
    }
    c.arg("--socket").arg(socket).env("EVD_LOG_LEVEL", "warn").stdin(Stdio::null());
    c
}

impl Evd {
    pub fn start() -> Evd {
        Evd::start_with(&[])
    }

    pub fn start_with(args: &[&str]) -> Evd {
        let at = Place::new();
        Evd { child: spawn(&at.0, args), at }
    }

    pub fn socket(&self) -> &Path {
        &self.at.0
    }

    /// It is killed, and gone when this returns.
    pub fn kill(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "evd had ended already");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A new one at the same place.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.at.0, &[]);
    }
}

fn spawn(socket: &Path, args: &[&str]) -> Child {
    let child = command(socket).args(args).spawn().unwrap();
    // By evctl's own means.
    evctl(socket, &["wait"]);
    child
}

impl Drop for Evd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn evctl_output(socket: &Path, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_evctl"));
    c.arg("--socket").arg(socket).args(["--timeout", "60"]).args(args).stdin(Stdio::null()).output().unwrap()
}

/// What `evctl` prints; it must succeed.
#[track_caller]
pub fn evctl(socket: &Path, args: &[&str]) -> String {
    let out = evctl_output(socket, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A base that insists on evd, and looks after it more often than usual.
pub fn base(socket: &Path, name: &str) -> EventBase {
    let builder = EventBase::builder().socket(socket).name(name).patience(PATIENCE);
    builder.connect().liveness(50 * MS).build().unwrap()
}

/// Asks again while evd does not answer in the time that a client gives it: the machine is slow.
pub fn insist<T>(ask: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    let limit = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(Error::TimedOut) if Instant::now() < limit => {}
            other => return other,
        }
    }
}

pub fn is_up(base: &EventBase) -> bool {
    matches!(base.link(), LinkState::Up { .. })
}

/// Runs a role's loop until `fact` holds, however long the test takes; looks at least every 20 ms.
pub fn serve(base: &EventBase, mut fact: impl FnMut() -> bool) {
    while !fact() {
        base.loopexit(Some(20 * MS)).unwrap();
        base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
    }
}

/// As [`serve`], for what must not take longer than anything.
#[track_caller]
pub fn until(base: &EventBase, what: &str, mut fact: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !fact() {
        assert!(
            Instant::now() < limit,
            "not in {PATIENCE:?}: {what}; {:?}, {:?}",
            base.link(),
            base.watches()
        );
        base.loopexit(Some(20 * MS)).unwrap();
        base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
    }
}

/// A connection to a role that has said at which port it listens.
pub fn dial(port: &str) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

pub fn port(of: &TcpListener) -> u16 {
    of.local_addr().unwrap().port()
}
