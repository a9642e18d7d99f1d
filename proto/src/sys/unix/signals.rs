//! Signals of this process, counted for every base that asked.
//!
//! The handler itself belongs to signal-hook-registry, which lets any number of owners share a signal. What runs in it adds to an atomic counter
//! and wakes an fd, in this order: the reader drains the wake-up first and the counters after, so nothing that was counted is ever
//! without a wake-up. When the last owner of a signal leaves, what the process did with that signal before comes back, as libevent does it.

use super::{Generation, Wake, cvt, generation, system};
use signal_hook_registry::SigId;
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const COUNT: usize = 65;

/// What came of one signal since it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalSet {
    /// The signal's number.
    pub signo: i32,
    /// How often it came.
    pub count: u32,
    /// Process that sent the last one; 0 if the kernel did.
    pub pid: i32,
    /// User of that process.
    pub uid: u32,
    /// `si_code` of the last one: how it was sent.
    pub code: i32,
}

#[derive(Debug)]
struct Counters {
    wake: Wake,
    each: [Cell; COUNT],
}

#[derive(Debug, Default)]
struct Cell {
    count: AtomicU32,
    pid: AtomicI32,
    uid: AtomicU32,
    code: AtomicI32,
}

/// The signals of one base: an fd that becomes readable when one of them came, and their counts.
#[derive(Debug)]
pub struct Signals {
    generation: Generation,
    shared: Arc<Counters>,
    registered: BTreeMap<i32, SigId>,
}

impl Signals {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new() -> io::Result<Signals> {
        let shared =
            Arc::new(Counters { wake: Wake::new()?, each: std::array::from_fn(|_| Cell::default()) });
        Ok(Signals { generation: generation(), shared, registered: BTreeMap::new() })
    }

    /// Catches `signo` from now on; adding it again changes nothing.
    ///
    /// # Errors
    /// `InvalidInput`: not a signal, one that can't be caught (KILL, STOP), or is not to be (SEGV, ILL, FPE), or that the C library keeps for itself.
    pub fn add(&mut self, signo: i32) -> io::Result<()> {
        if self.registered.contains_key(&signo) {
            return Ok(());
        }
        if let Some(why) = why_not(signo) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("signal {signo} {why}")));
        }
        let mut owners = owners();
        let shared = Arc::clone(&self.shared);
        let mine = generation();
        let before = if owners.contains_key(&signo) { None } else { Some(action(signo, None)?) };
        // SAFETY: what runs in the handler only loads and stores atomics (or asks for the pid) and writes to a wake-up, all async-signal-safe; it
        // neither allocates nor locks nor panics: `generation` was asked above, so its page is there. `shared` is kept alive by the registry until it is unregistered.
        let id = unsafe {
            signal_hook_registry::register_sigaction(signo, move |info| {
                // In the child of a fork the wake-up is the parent's.
                if generation() != mine {
                    return;
                }
                let cell = &shared.each[signo as usize];
                cell.code.store(info.si_code, Ordering::Relaxed);
                // From the kernel these fields hold something else (SIGCHLD's child is welcome, a fault's address is not).
                if system::sent_by_process(info.si_code) || signo == libc::SIGCHLD {
                    let (pid, uid) = sender(info);
                    cell.pid.store(pid, Ordering::Relaxed);
                    cell.uid.store(uid, Ordering::Relaxed);
                }
                cell.count.fetch_add(1, Ordering::Release);
                shared.wake.notify();
            })
        }?;
        if let Some(before) = before {
            let mut ours = restored();
            match ours.get(&signo) {
                // The registry believes that its handler is still in place; it was taken out when the last owner left.
                Some(handler) => drop(action(signo, Some(&handler.0))?),
                None => drop(ours.insert(signo, Action(action(signo, None)?))),
            }
            owners.insert(signo, (0, Action(before)));
        }
        if let Some(owner) = owners.get_mut(&signo) {
            owner.0 += 1;
        }
        self.registered.insert(signo, id);
        Ok(())
    }

    /// Stops catching `signo` for this base. What came and was not taken is forgotten.
    pub fn remove(&mut self, signo: i32) {
        let Some(id) = self.registered.remove(&signo) else { return };
        let mut owners = owners();
        if let Some(owner) = owners.get_mut(&signo) {
            owner.0 -= 1;
            if owner.0 == 0 {
                if let Some((_, before)) = owners.remove(&signo) {
                    let _ = action(signo, Some(&before.0));
                }
            }
        }
        // It waits for handlers that run. In the child of a fork one that ran in another thread of the parent would never end; what it calls does
        // nothing there.
        if self.generation == generation() {
            signal_hook_registry::unregister(id);
        }
        self.shared.each[signo as usize].count.store(0, Ordering::Relaxed);
    }

    /// The signals that are caught, in the order of their numbers.
    pub fn wanted(&self) -> impl Iterator<Item = i32> + '_ {
        self.registered.keys().copied()
    }

    /// Takes what came: each signal once, with its count.
    pub fn take(&self, into: &mut Vec<SignalSet>) {
        self.shared.wake.drain();
        for &signo in self.registered.keys() {
            let cell = &self.shared.each[signo as usize];
            if cell.count.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let count = cell.count.swap(0, Ordering::Acquire);
            let (pid, uid) = (cell.pid.load(Ordering::Relaxed), cell.uid.load(Ordering::Relaxed));
            into.push(SignalSet { signo, count, pid, uid, code: cell.code.load(Ordering::Relaxed) });
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let all: Vec<i32> = self.registered.keys().copied().collect();
        all.into_iter().for_each(|s| self.remove(s));
    }
}

struct Action(libc::sigaction);
// SAFETY: a sigaction is plain data; the pointer in it is a function's address, valid in every thread.
unsafe impl Send for Action {}

/// How many `Signals` share a signal, and what the process did with it before the first.
fn owners() -> MutexGuard<'static, BTreeMap<i32, (usize, Action)>> {
    static OWNERS: Mutex<BTreeMap<i32, (usize, Action)>> = Mutex::new(BTreeMap::new());
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registry's own handler for each signal that was ever registered.
fn restored() -> MutexGuard<'static, BTreeMap<i32, Action>> {
    static OURS: Mutex<BTreeMap<i32, Action>> = Mutex::new(BTreeMap::new());
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn action(signo: i32, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `new` is null or a live sigaction, made by the kernel or one that ignores; `old` is room for one.
    cvt(unsafe { libc::sigaction(signo, new, old.as_mut_ptr()) })?;
    // SAFETY: sigaction succeeded, so `old` is initialised.
    Ok(unsafe { old.assume_init() })
}

fn sender(info: &libc::siginfo_t) -> (i32, u32) {
    // SAFETY: the caller has checked that the signal was sent by a process, so that the pid field is the one in use.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let uid = unsafe { info.si_uid() };
    (pid, uid)
}

/// Why a signal is not caught.
fn why_not(signo: i32) -> Option<&'static str> {
    match signo {
        _ if !is_signal(signo) => Some("is none of this system"),
        libc::SIGKILL | libc::SIGSTOP => Some("can't be caught"),
        // The instruction that caused it is executed once more when the handler returns.
        _ if signal_hook_registry::FORBIDDEN.contains(&signo) => Some(
            "is not caught here: a fault happens again as soon as its handler returns, so no callback would ever run",
        ),
        // sigaction(2) is not told of these.
        _ if action(signo, None).is_err() => Some("can't be had: the C library keeps it for itself"),
        _ => None,
    }
}

/// Whether `signo` is a signal's number on this system.
pub fn is_signal(signo: i32) -> bool {
    (1..COUNT as i32).contains(&signo)
}

/// Ignores, for the whole process, the signals that evd may pass on: one that nobody asked for, or does not any more, must not end it.
///
/// # Errors
/// None in practice: they can all be ignored.
///
/// Source: sigaction(2).
pub fn ignore_daemon_scope() -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction.
    let mut ignore: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    ignore.sa_sigaction = libc::SIG_IGN;
    (1..COUNT as i32)
        .filter(|s| daemon_scope_allowed(*s))
        .try_for_each(|s| action(s, Some(&ignore)).map(drop))
}

/// Whether evd may pass this signal of its own on to clients: USR1, USR2, WINCH and the real-time ones, where there are some below 65 (not on macOS, FreeBSD, OpenBSD).
pub fn daemon_scope_allowed(signo: i32) -> bool {
    matches!(signo, libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGWINCH) || real_time_signals().contains(&signo)
}

/// Empty where there are none that evd can count.
fn real_time_signals() -> std::ops::RangeInclusive<i32> {
    let (first, last) = system::real_time_signals().unwrap_or((1, 0));
    first..=last
}

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ABRT", libc::SIGABRT),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("SYS", libc::SIGSYS),
    ("KILL", libc::SIGKILL),
];

/// The name without SIG (`USR1`, `RTMIN+2`), or the number.
pub fn signal_name(signo: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, n)| *n == signo) {
        return (*name).to_owned();
    }
    let real_time = real_time_signals();
    match signo {
        n if !real_time.contains(&n) => n.to_string(),
        n if n == *real_time.start() => "RTMIN".to_owned(),
        n => format!("RTMIN+{}", n - real_time.start()),
    }
}

/// The number of a signal by name, with or without SIG, or by number.
pub fn signal_number(name: &str) -> Option<i32> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    if let Some((_, n)) = NAMES.iter().find(|(s, _)| *s == bare) {
        return Some(*n);
    }
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let plus = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<i32>().ok()? };
        let real_time = real_time_signals();
        return real_time.start().checked_add(plus).filter(|n| real_time.contains(n));
    }
    bare.parse().ok().filter(|n| is_signal(*n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_each_get_their_count_and_the_old_action_returns() {
        let before = action(libc::SIGWINCH, None).unwrap().sa_sigaction;
        for _round in 0..2 {
            let (mut a, mut b) = (Signals::new().unwrap(), Signals::new().unwrap());
            a.add(libc::SIGWINCH).unwrap();
            b.add(libc::SIGWINCH).unwrap();
            for _ in 0..3 {
                // SAFETY: raises a signal that is caught.
                unsafe { libc::raise(libc::SIGWINCH) };
            }
            for s in [&a, &b] {
                let mut got = Vec::new();
                s.take(&mut got);
                assert_eq!(got.len(), 1);
                assert_eq!(
                    (got[0].signo, got[0].count, got[0].pid),
                    (libc::SIGWINCH, 3, std::process::id() as i32)
                );
            }
            drop(a);
            assert_ne!(action(libc::SIGWINCH, None).unwrap().sa_sigaction, before);
            drop(b);
            assert_eq!(action(libc::SIGWINCH, None).unwrap().sa_sigaction, before);
        }
    }

    #[test]
    fn names_and_numbers_agree() {
        for signo in (1..=31).chain(real_time_signals()) {
            assert_eq!(signal_number(&signal_name(signo)), Some(signo));
        }
        assert_eq!(signal_number("SIGUSR1"), Some(libc::SIGUSR1));
        assert_eq!(signal_number("99"), None);
    }

    #[test]
    fn signals_that_must_not_be_caught_are_refused() {
        let mut s = Signals::new().unwrap();
        for bad in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, 0, -1, 65] {
            assert_eq!(s.add(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }
}
