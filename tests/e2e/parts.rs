//! What the tests share: an evd that can be killed and started again, a base at it, and ways to wait for a fact.

use crate::wire::{Dir, Evd, PATIENCE, command, eventually};
use evd_client::{Event, EventBase, LinkState, LoopFlags, What};
use evd_proto::sys;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::fs::Permissions;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub const MS: Duration = Duration::from_millis(1);
pub const READ: What = What::READ.union(What::PERSIST);

/// The process ends with the thread that starts it, however that ends.
pub fn dies_with_us(c: &mut Command) -> &mut Command {
    let die = || {
        // SAFETY: prctl takes numbers here.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { c.pre_exec(die) }
}

pub fn evd() -> Evd {
    Evd::start_with(|c| {
        dies_with_us(c);
    })
}

/// An evd on a socket that it did not make the directory of.
pub fn evd_at(socket: &Path) -> Child {
    let mut c = command(socket);
    let mut child = dies_with_us(&mut c).stdin(Stdio::null()).spawn().unwrap();
    eventually("evd listens", || {
        assert_eq!(child.try_wait().unwrap(), None, "evd ended");
        sys::connect(socket).is_ok()
    });
    child
}

/// Other users may reach its socket; whether they may connect is evd's to say.
pub fn lets_others_in(evd: &Evd) {
    std::fs::set_permissions(&evd.dir.0, Permissions::from_mode(0o755)).unwrap();
}

/// SIGKILL, and it is gone when this returns.
pub fn kill(evd: &mut Evd) {
    evd.child.kill().unwrap();
    evd.child.wait().unwrap();
}

/// A new evd on the socket of one that has ended.
pub fn start_again(evd: &mut Evd) {
    evd.child = evd_at(&evd.path());
}

/// A base that insists on evd.
pub fn base(evd: &Evd) -> EventBase {
    base_at(&evd.path(), "test")
}

/// It looks after evd more often than usual, so that tests are short.
pub fn base_at(socket: &Path, name: &str) -> EventBase {
    let builder = EventBase::builder().socket(socket).name(name).patience(PATIENCE);
    builder.connect().liveness(50 * MS).build().unwrap()
}

/// One of a method that evd must keep copies of fds for.
pub fn base_of(evd: &Evd, method: &str) -> EventBase {
    let builder = EventBase::builder().socket(evd.path()).patience(PATIENCE);
    builder.connect().method(method).ignore_env().build().unwrap()
}

pub fn is_up(base: &EventBase) -> bool {
    matches!(base.link(), LinkState::Up { .. })
}

/// Why the base has no evd, or a panic if it has one.
pub fn why_away(base: &EventBase) -> String {
    match base.link() {
        LinkState::Away { why } => why,
        other => panic!("{other:?}"),
    }
}

/// All that the link's callback is told.
pub fn links(base: &EventBase) -> Rc<RefCell<Vec<LinkState>>> {
    let all = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&all);
    base.on_link(move |_, state| log.borrow_mut().push(state.clone()));
    all
}

/// Runs the base's loop until `fact` holds. The loop waits as a user's does: it is only woken now and then to look.
pub fn until(base: &EventBase, what: &str, mut fact: impl FnMut() -> bool) {
    let (handle, (stop, stopped)) = (base.handle(), channel::<()>());
    let ticker = std::thread::spawn(move || {
        while stopped.recv_timeout(5 * MS) == Err(RecvTimeoutError::Timeout) {
            handle.post(|_| {});
        }
    });
    let limit = Instant::now() + PATIENCE;
    while !fact() {
        assert!(
            Instant::now() < limit,
            "not in {PATIENCE:?}: {what}; {:?}, {:?}",
            base.link(),
            base.watches()
        );
        base.loop_(LoopFlags::ONCE | LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
    }
    drop(stop);
    ticker.join().unwrap();
}

/// Runs the loop for a while, to see what does not come.
pub fn run_for(base: &EventBase, time: Duration) {
    base.loopexit(Some(time)).unwrap();
    base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
}

/// Everything quiet is at evd, and armed there.
pub fn park(base: &EventBase, parked: usize) {
    until(base, "all is parked", || base.watches() == (parked, 0));
    base.sync().unwrap();
    assert_eq!(base.watches(), (parked, 0));
}

pub fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_read_timeout(Some(PATIENCE)).unwrap();
    (a, b)
}

/// A stream that several events share.
#[derive(Clone)]
pub struct Shared(pub Rc<UnixStream>);

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub type Count = Rc<Cell<usize>>;

pub fn count(counter: &Count) {
    counter.set(counter.get() + 1);
}

/// Numbers that are not in step with anything.
pub struct Jitter(u64);

impl Jitter {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

pub fn jitter(seed: u64) -> Jitter {
    Jitter((sys::monotonic_ns() ^ (seed << 32)) | 1)
}

/// Reads all that is there: how much that was, and whether the end came.
pub fn drain(mut from: impl Read) -> (usize, bool) {
    let (mut all, mut buf) = (0, [0; 4096]);
    loop {
        match from.read(&mut buf) {
            Ok(0) => return (all, true),
            Ok(n) => all += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return (all, false),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return (all, true),
            Err(e) => panic!("{e}"),
        }
    }
}

/// An event that reads all that comes, added; and how many bytes that were.
pub fn reader<F: AsFd + 'static>(base: &EventBase, source: F) -> (Event<F>, Count)
where
    for<'a> &'a F: Read,
{
    let bytes = Count::default();
    let sum = Rc::clone(&bytes);
    let event = Event::new(base, source, READ, move |event, what| {
        assert_eq!(what, What::READ);
        let (n, end) = drain(event.source());
        sum.set(sum.get() + n);
        if end {
            event.del().unwrap();
        }
    })
    .unwrap();
    event.add(None).unwrap();
    (event, bytes)
}

/// The peer has closed, and sent nothing before.
pub fn sees_end(mut peer: impl Read) {
    match peer.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("no end, but {other:?}"),
    }
}

/// What `evctl` prints; it must succeed.
pub fn evctl(socket: &Path, args: &[&str]) -> String {
    let mut c = Command::new(env!("CARGO_BIN_EXE_evctl"));
    dies_with_us(&mut c).arg("--socket").arg(socket).args(args);
    let out = c.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub fn status(evd: &Evd) -> Value {
    serde_json::from_str(&evctl(&evd.path(), &["status", "--json"])).unwrap()
}

/// What evd knows of a base, by its name.
pub fn base_info(evd: &Evd, name: &str) -> Option<Value> {
    status(evd)["bases"].as_array().unwrap().iter().find(|b| b["name"] == name).cloned()
}

/// As when it was started: no base, no name, no worker, and the fds of then.
pub fn is_clean(evd: &Evd, fds: usize) {
    eventually("no base and no name is left", || {
        let s = status(evd);
        s["bases"].as_array().unwrap().is_empty() && s["names"] == 0 && s["holds"] == 0
    });
    eventually("its workers have ended", || evd.threads() == 1);
    eventually("its fds are closed", || evd.fds() == fds);
}

/// How many fds it has when it serves nobody.
pub fn fds_at_rest(evd: &Evd) -> usize {
    // A session after the connection that showed that it listens: when its worker has ended, nothing of either is left.
    drop(evd.client("first"));
    eventually("nobody is served", || evd.threads() == 1);
    evd.fds()
}

/// How often the threads of a process went to sleep.
pub fn sleeps(pid: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| sleeps_of(&task.unwrap().path())).sum()
}

/// How often one thread went to sleep, by its directory in /proc.
pub fn sleeps_of(task: &Path) -> u64 {
    let text = std::fs::read_to_string(task.join("status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
    line.map_or(0, |n| n.trim().parse().unwrap())
}

/// A directory for a socket.
pub fn dir() -> Dir {
    Dir::new()
}

/// SIGSTOP, and all of evd's threads stand still when this returns: the signal itself takes its time.
pub fn freeze(evd: &Evd) {
    evd.signal(libc::SIGSTOP);
    let pid = evd.pid();
    let tids = || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.map(|t| t.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect::<Vec<i32>>()
    };
    let stopped = |tid: i32| sys::process_state(pid, tid) == sys::ProcessState::Stopped;
    eventually("it is frozen", || tids().into_iter().all(stopped));
}
