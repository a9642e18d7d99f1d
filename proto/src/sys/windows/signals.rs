//! Console control events as signals, counted for every base that asked.
//!
//! Ctrl-C is INT, Ctrl-Break is BREAK, and TERM is what ends the program: its console is closed, the user logs off, the system is shut down. Windows calls the handler
//! in a thread of its own. When a handler of one of the last three returns, the process ends at once, so it does not return: the loop has the time that Windows gives
//! (5 s for a closed console), and ends the process itself.
//!
//! A process without a console gets none of them. The C runtime's `raise` does not come here.
//!
//! Source: Microsoft, HandlerRoutine, SetConsoleCtrlHandler; the numbers are those of its <signal.h>.

use super::{AsFd, BorrowedFd, Wake};
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT,
    SetConsoleCtrlHandler,
};
use windows_sys::core::BOOL;

/// Number and name of what there is.
const SIGNALS: [(i32, &str); 3] = [(INT, "INT"), (TERM, "TERM"), (BREAK, "BREAK")];
const INT: i32 = 2;
const TERM: i32 = 15;
const BREAK: i32 = 21;

/// The signals that end a daemon in an orderly way.
pub const STOP_SIGNALS: &[i32] = &[INT, TERM, BREAK];
/// The one by which a daemon looks again at what can change while it runs: there is none on Windows.
pub const RELOAD_SIGNAL: Option<i32> = None;
/// The one that says that a child has ended: there is none on Windows.
pub const CHILD_SIGNAL: Option<i32> = None;
/// There is nothing that ends another process by a number; nobody can be sent this.
pub const KILL_SIGNAL: i32 = 9;

/// What came of one signal since it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalSet {
    /// The signal's number.
    pub signo: i32,
    /// How often it came.
    pub count: u32,
    /// Not known on Windows: 0.
    pub pid: i32,
    /// Not known on Windows: 0.
    pub uid: u32,
    /// Not known on Windows: 0.
    pub code: i32,
}

#[derive(Debug)]
struct Counters {
    wake: Wake,
    /// In the order of [`SIGNALS`].
    counts: [AtomicU32; SIGNALS.len()],
    /// Which of them this base wants.
    wanted: Mutex<BTreeSet<i32>>,
}

impl Counters {
    fn wanted(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signals of one base: a socket that becomes readable when one of them came, and their counts.
#[derive(Debug)]
pub struct Signals {
    shared: Arc<Counters>,
    wanted: BTreeSet<i32>,
}

impl Signals {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// `WSAEMFILE`, `WSAENOBUFS`.
    pub fn new() -> io::Result<Signals> {
        let shared =
            Arc::new(Counters { wake: Wake::new()?, counts: Default::default(), wanted: Mutex::default() });
        all().push(Arc::downgrade(&shared));
        Ok(Signals { shared, wanted: BTreeSet::new() })
    }

    /// Catches `signo` from now on; adding it again changes nothing.
    ///
    /// # Errors
    /// `InvalidInput`: not a signal that Windows has.
    pub fn add(&mut self, signo: i32) -> io::Result<()> {
        if !is_signal(signo) {
            let text = format!("{signo} is not a signal; Windows has INT (2), TERM (15) and BREAK (21)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        install()?;
        self.wanted.insert(signo);
        self.shared.wanted().insert(signo);
        if signo == TERM && TOLD_TO_END.swap(false, Ordering::AcqRel) {
            deliver(TERM);
        }
        Ok(())
    }

    /// Stops catching `signo` for this base. What came and was not taken is forgotten. With the last base the system's own way comes back.
    pub fn remove(&mut self, signo: i32) {
        self.wanted.remove(&signo);
        self.shared.wanted().remove(&signo);
        if let Some(at) = index(signo) {
            self.shared.counts[at].store(0, Ordering::Relaxed);
        }
    }

    /// The signals that are caught, in the order of their numbers.
    pub fn wanted(&self) -> impl Iterator<Item = i32> + '_ {
        self.wanted.iter().copied()
    }

    /// Takes what came: each signal once, with its count.
    pub fn take(&self, into: &mut Vec<SignalSet>) {
        self.shared.wake.drain();
        for &signo in &self.wanted {
            let count = index(signo).map_or(0, |at| self.shared.counts[at].swap(0, Ordering::Acquire));
            if count > 0 {
                into.push(SignalSet { signo, count, pid: 0, uid: 0, code: 0 });
            }
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
        let mine = Arc::as_ptr(&self.shared);
        all().retain(|one| one.as_ptr() != mine);
    }
}

/// Everybody who may want signals.
fn all() -> MutexGuard<'static, Vec<Weak<Counters>>> {
    static ALL: Mutex<Vec<Weak<Counters>>> = Mutex::new(Vec::new());
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the handler in place, once: what nobody wants it passes on.
fn install() -> io::Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*done {
        // SAFETY: the handler is a function of this program, and may run in any thread at any time.
        if unsafe { SetConsoleCtrlHandler(Some(handler), 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        *done = true;
    }
    Ok(())
}

unsafe extern "system" fn handler(event: u32) -> BOOL {
    let (signo, ends) = match event {
        CTRL_C_EVENT => (INT, false),
        CTRL_BREAK_EVENT => (BREAK, false),
        CTRL_CLOSE_EVENT | CTRL_LOGOFF_EVENT | CTRL_SHUTDOWN_EVENT => (TERM, true),
        _ => return 0,
    };
    if !deliver(signo) {
        return 0;
    }
    if ends {
        loop {
            std::thread::park();
        }
    }
    1
}

/// Somebody said that this process is to end before anybody in it wanted to hear that.
static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// TERM for everybody who wants it, or for the first one who will.
pub(super) fn end() {
    TOLD_TO_END.store(true, Ordering::Release);
    if deliver(TERM) {
        TOLD_TO_END.store(false, Ordering::Release);
    }
}

/// Counts `signo` for everybody who wants it; tells whether anybody does.
pub(super) fn deliver(signo: i32) -> bool {
    let Some(at) = index(signo) else { return false };
    let mut any = false;
    for one in all().iter().filter_map(Weak::upgrade) {
        if one.wanted().contains(&signo) {
            one.counts[at].fetch_add(1, Ordering::Release);
            one.wake.notify();
            any = true;
        }
    }
    any
}

fn index(signo: i32) -> Option<usize> {
    SIGNALS.iter().position(|(n, _)| *n == signo)
}

/// Whether `signo` is a signal's number on this system.
pub fn is_signal(signo: i32) -> bool {
    index(signo).is_some()
}

/// Whether evd may pass this signal of its own on to clients: none on Windows.
pub fn daemon_scope_allowed(_signo: i32) -> bool {
    false
}

/// The name without SIG, or the number.
pub fn signal_name(signo: i32) -> String {
    index(signo).map_or_else(|| signo.to_string(), |at| SIGNALS[at].1.to_owned())
}

/// The number of a signal by name, with or without SIG, or by number.
pub fn signal_number(name: &str) -> Option<i32> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    let named = SIGNALS.iter().find(|(_, n)| *n == bare).map(|(n, _)| *n);
    named.or_else(|| bare.parse().ok().filter(|n| is_signal(*n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_each_get_their_count() {
        let (mut a, mut b) = (Signals::new().unwrap(), Signals::new().unwrap());
        a.add(BREAK).unwrap();
        b.add(BREAK).unwrap();
        for _ in 0..3 {
            // SAFETY: any event may come at any time.
            assert_eq!(unsafe { handler(CTRL_BREAK_EVENT) }, 1);
        }
        for s in [&a, &b] {
            let mut got = Vec::new();
            s.take(&mut got);
            assert_eq!(got.iter().map(|g| (g.signo, g.count)).collect::<Vec<_>>(), [(BREAK, 3)]);
        }
        a.remove(BREAK);
        drop(b);
        // SAFETY: as above.
        assert_eq!(unsafe { handler(CTRL_BREAK_EVENT) }, 0, "nobody wants it: the system's own way");
    }

    #[test]
    fn who_is_told_to_end_before_he_listens_hears_it_then() {
        end();
        let mut s = Signals::new().unwrap();
        s.add(TERM).unwrap();
        let (mut got, mut again) = (Vec::new(), Vec::new());
        s.take(&mut got);
        assert_eq!(got.iter().map(|g| (g.signo, g.count)).collect::<Vec<_>>(), [(TERM, 1)]);
        s.add(TERM).unwrap();
        s.take(&mut again);
        assert!(again.is_empty());
    }

    #[test]
    fn what_is_no_signal_here_is_refused() {
        let mut s = Signals::new().unwrap();
        for bad in [0, -1, 1, 10, 65] {
            assert_eq!(s.add(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
        for (signo, name) in SIGNALS {
            assert_eq!((signal_number(name), signal_name(signo).as_str()), (Some(signo), name));
        }
    }
}
