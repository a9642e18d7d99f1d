//! `evd --keeper`: what a service manager does for evd, where there is none.
//!
//! A small parent process that makes the listening socket, starts evd as its child and talks with it as systemd would (sd_notify): it keeps the fds that evd
//! stores, and passes them with the socket to the next evd when one dies. It never reads what clients send, and does not know what it keeps, so there is
//! little that could end it. evd itself has one way, whoever its service manager is.
//!
//! As a service manager it also ends an evd that hangs: one that does not say in time that it lives (its watchdog, see `watchdog`), gets ready or ends is killed.
//!
//! Only the child's own words count, by the credentials that the kernel gives. A signal to end is passed on, and then the keeper ends as evd does, with all it keeps.

use super::builder::{Builder, new_base};
use super::error::Error;
use super::service::NAME;
use crate::backend::{Entry, Interest, Mode};
use crate::base::{Activation, Base};
use evd_proto::What;
use evd_proto::sys::{self, Exit, Listener, Notification, NotifyReceiver, Running, signal_name};
use evd_proto::sys::{AsFd, OwnedFd};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Fds that are kept, at most; or one in so many that the keeper may open: while evd is started each is open three times.
const MOST: usize = 4096;
const PART: usize = 4;
/// How long evd is away at least when it has died again before it got to work, in nanoseconds; doubled each time but for the first times.
const PAUSE: u64 = 20_000_000;
const LONGEST_PAUSE: u64 = 5_000_000_000;
const PATIENCE: u32 = 5;
/// Who dies sooner than this after it was ready did not get to work.
const LIVES: u64 = 100_000_000;
/// How long evd may say nothing of being alive, as in the units (`WatchdogSec=`), in nanoseconds; `WATCHDOG_USEC` of the keeper's environment goes before it.
const SILENCE: u64 = 10_000_000_000;
/// How long evd may take until it is ready (`TimeoutStartSec=`), and to end when it is told to (`TimeoutStopSec=`).
const STARTS: u64 = 10_000_000_000;
const ENDS: u64 = 5_000_000_000;
/// Who looks so much later than it was due, in nanoseconds, was not running.
const LATE: u64 = 100_000_000;
/// The timer after which evd is started again. Those after which it is looked at are numbered from 1 on.
const AGAIN: u64 = 0;
const READ: Interest = Interest { what: What::READ, mode: Mode::Level };

struct Keeper {
    base: Base,
    listener: Listener,
    notify: NotifyReceiver,
    command: Vec<OsString>,
    kept: Vec<(String, OwnedFd)>,
    /// At most so many are kept.
    most: usize,
    child: Option<Running>,
    /// Since when the child is ready.
    ready: Option<u64>,
    /// Whether any child ever was.
    ever_ready: bool,
    /// How often in a row evd did not get to work.
    failures: u32,
    /// How long the child may say nothing.
    silence: u64,
    /// When the child is killed, if it says nothing until then; and the number of the timer for that, which is the last one.
    due: u64,
    look: u64,
    /// Somebody wants it to end.
    ending: bool,
}

/// Runs evd as a child until somebody ends it; returns its exit status.
///
/// # Errors
/// The socket can't be made, or the system refuses what is needed.
pub(super) fn run(evd: &Builder) -> Result<u8, Error> {
    if !sys::KEEPS_FDS {
        // Before a socket is made.
        let text = "this system can't keep fds beyond a process's end, Linux can; start it without --keeper";
        return Err(Error::Os {
            what: "be a keeper",
            source: io::Error::new(io::ErrorKind::Unsupported, text),
        });
    }
    if let Err(e) = sys::raise_open_files() {
        log::warn!("can't raise the limit on open files: {e}");
    }
    sys::ignore_signals().map_err(Error::os("ignore signals"))?;
    let mut base = new_base()?;
    let others = [sys::RELOAD_SIGNAL, sys::CHILD_SIGNAL].into_iter().flatten();
    for signo in sys::STOP_SIGNALS.iter().copied().chain(others) {
        base.add_signal(signo).map_err(Error::os("catch signals"))?;
    }
    let listener = evd.listen_for_child()?;
    let mut path = evd.path().into_os_string();
    path.push(".sd");
    let path = PathBuf::from(path);
    let notify = NotifyReceiver::bind(&path).map_err(|source| Error::Socket { path, source })?;
    // By its path: a newer evd that is put there is what is started next.
    let program = std::env::current_exe().map_err(Error::os("find evd's own program"))?;
    let arguments = std::env::args_os().skip(1).filter(|a| a != "--keeper");
    let command = std::iter::once(program.into_os_string()).chain(arguments).collect();
    let mut keeper = Keeper {
        base,
        listener,
        notify,
        command,
        kept: Vec::new(),
        most: MOST.min(sys::most_open_files().max(0) as usize / PART),
        child: None,
        ready: None,
        ever_ready: false,
        failures: 0,
        silence: silence(std::env::var("WATCHDOG_USEC").ok().as_deref()),
        due: 0,
        look: AGAIN,
        ending: false,
    };
    keeper.start().map_err(Error::os("start evd"))?;
    keeper.keep().map_err(Error::os("look after evd"))
}

impl Keeper {
    fn start(&mut self) -> io::Result<()> {
        self.restore_sockets();
        let mut fds = vec![(NAME.to_owned(), self.listener.as_fd())];
        fds.extend(self.kept.iter().map(|(name, fd)| (name.clone(), fd.as_fd())));
        let variables = [
            ("NOTIFY_SOCKET", self.notify.path().as_os_str().to_owned()),
            ("FDSTORE", self.most.to_string().into()),
            ("WATCHDOG_USEC", (self.silence / 1000).to_string().into()),
        ];
        self.child = Some(sys::spawn_with_fds(&self.command, &variables, &fds)?);
        self.ready = None;
        self.look_in(STARTS);
        Ok(())
    }

    /// Makes the sockets anew whose files somebody has removed: while evd runs that helps nobody, as it has the old ones.
    fn restore_sockets(&mut self) {
        match self.listener.restore() {
            Ok(true) => log::warn!("evd's socket was gone, and is made anew"),
            Ok(false) => {}
            Err(e) => log::error!("evd's socket is gone, and can't be made anew: {e}"),
        }
        self.base.unwatch(self.notify.as_fd(), 0);
        match self.notify.restore() {
            Ok(true) => log::warn!("the socket for what evd says was gone, and is made anew"),
            Ok(false) => {}
            Err(e) => log::error!("the socket for what evd says is gone, and can't be made anew: {e}"),
        }
        if let Err(e) = self.base.watch(self.notify.as_fd(), 0, READ, Entry::New) {
            log::error!("can't watch the socket for what evd says: {e}");
        }
    }

    /// The child has so long to say something.
    fn look_in(&mut self, nanos: u64) {
        self.due = self.base.refresh_now().saturating_add(nanos);
        self.look_when_due();
    }

    fn look_when_due(&mut self) {
        self.look += 1;
        self.base.set_timer(None, self.due, self.look);
    }

    /// Kills the child if it should have said something by now: it is frozen, or hangs. Another one is started then, as after any death.
    fn look_at_child(&mut self) {
        // What it has said may still be in the socket.
        self.listen_to_child();
        let Some(child) = &self.child else { return };
        let (pid, now) = (child.pid(), self.base.refresh_now());
        if now < self.due {
            return self.look_when_due();
        }
        if now - self.due > LATE {
            // This process was frozen itself, and perhaps the child with it; what it said meanwhile may not have found room.
            return self.look_in(self.silence);
        }
        let why = match (self.ending, self.ready) {
            (true, _) => "does not end",
            (false, None) => "does not get ready",
            (false, Some(_)) => "says nothing any more",
        };
        log::error!("evd (process {pid}) {why}; it is killed");
        // It may just have ended.
        let _ = sys::send_signal(pid, sys::KILL_SIGNAL);
        // If even that does not help it is tried again.
        self.look_in(ENDS);
    }

    fn keep(&mut self) -> io::Result<u8> {
        let mut acts = Vec::new();
        loop {
            self.listen_to_child();
            if let Some(status) = self.look_after_child()? {
                return Ok(status);
            }
            let timeout = self.base.until_next_timer();
            self.base.wait(timeout, &mut acts)?;
            self.base.expire(&mut acts);
            for act in acts.drain(..) {
                match act {
                    Activation::Signal(set) if Some(set.signo) != sys::CHILD_SIGNAL => {
                        self.pass_on(set.signo, set.pid);
                    }
                    Activation::Timer { token: AGAIN, .. } if self.child.is_none() && !self.ending => {
                        if let Err(e) = self.start() {
                            self.start_later(&format!("can't start evd: {e}"));
                        }
                    }
                    Activation::Timer { token, .. } if token == self.look => self.look_at_child(),
                    _ => {}
                }
            }
            if self.ending && self.child.is_none() {
                return Ok(0);
            }
        }
    }

    fn pass_on(&mut self, signo: i32, from: i32) {
        log::info!("{} from process {from}", signal_name(signo));
        if let Some(child) = &self.child {
            // It may just have ended.
            let _ = sys::send_signal(child.pid(), signo);
        }
        // evd reloads by SIGHUP, and ends by the others.
        if Some(signo) != sys::RELOAD_SIGNAL && !self.ending {
            self.ending = true;
            self.look_in(ENDS);
        }
    }

    /// Whether the child has ended, and what follows from that; `Some`: the keeper ends with this status.
    fn look_after_child(&mut self) -> io::Result<Option<u8>> {
        let Some(child) = &self.child else { return Ok(None) };
        let Some(exit) = child.ended()? else { return Ok(None) };
        // What it said last is in the socket still.
        self.listen_to_child();
        self.child = None;
        let (text, status) = match exit {
            Exit::Code(code) => (format!("with status {code}"), code as u8),
            Exit::Signal(signo) => (format!("by {}", signal_name(signo)), 128 + signo as u8),
        };
        // What it said by its status, and not by dying, is true the next time as well: usage, a mistake in its configuration.
        let is_final = matches!(exit, Exit::Code(code) if code == 2 || !self.ever_ready);
        if self.ending && matches!(exit, Exit::Signal(signo) if sys::STOP_SIGNALS.contains(&signo)) {
            // It was told so early that it had not begun.
            return Ok(Some(0));
        }
        if self.ending || is_final {
            return Ok(Some(status));
        }
        let worked = self.ready.is_some_and(|since| sys::monotonic_ns().saturating_sub(since) >= LIVES);
        if worked {
            self.failures = 0;
        }
        self.start_later(&format!("evd ended {text}"));
        Ok(None)
    }

    fn start_later(&mut self, why: &str) {
        let pause = pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        let when = if pause == 0 { "at once".to_owned() } else { format!("in {} ms", pause / 1_000_000) };
        log::error!("{why}; it is started again {when} with {} kept fds", self.kept.len());
        let at = self.base.refresh_now().saturating_add(pause);
        self.base.set_timer(None, at, AGAIN);
    }

    fn listen_to_child(&mut self) {
        loop {
            let said = match self.notify.next() {
                Ok(Some(said)) => said,
                Ok(None) => return,
                Err(e) => {
                    // Out of memory: that passes, and what is kept must not end with it.
                    log::error!("can't hear what evd says: {e}");
                    return sys::sleep_ns(PAUSE);
                }
            };
            let from = said.sender.map_or(0, |s| s.pid);
            match &self.child {
                Some(child) if child.pid() == from => self.take_in(said),
                // Closed, and with that forgotten.
                _ => log::warn!("process {from} is not evd, and has no say here"),
            }
        }
    }

    fn take_in(&mut self, said: Notification) {
        let Notification { text, fds, .. } = said;
        let value = |key: &str| {
            text.lines().find_map(|l| l.strip_prefix(key).and_then(|l| l.strip_prefix('='))).unwrap_or("")
        };
        let name = Some(value("FDNAME")).filter(|n| !n.is_empty()).unwrap_or("stored");
        if value("READY") == "1" {
            self.ready = Some(sys::monotonic_ns());
            self.ever_ready = true;
        }
        match (value("READY"), value("WATCHDOG")) {
            _ if self.ending => {}
            ("1", _) => self.look_in(self.silence),
            // The timer is moved when it comes.
            (_, "1") => self.due = self.base.refresh_now().saturating_add(self.silence),
            _ => {}
        }
        if value("FDSTOREREMOVE") == "1" {
            self.kept.retain(|(n, _)| n != name);
        }
        // LISTEN_FDNAMES has them between colons.
        let fine = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        if value("FDSTORE") == "1" && fine {
            // As many as there is room for, as systemd does it: what is full then is full for the canary behind them, too, by which evd notices.
            let room = self.most.saturating_sub(self.kept.len());
            self.kept.extend(fds.into_iter().take(room).map(|fd| (name.to_owned(), fd)));
        }
        // What was not kept is closed here: that is also the answer to BARRIER.
    }
}

/// How long evd may say nothing, by the variable that says it in microseconds.
fn silence(variable: Option<&str>) -> u64 {
    let told = variable.and_then(|v| v.parse::<u64>().ok()).filter(|usec| *usec > 0);
    told.map_or(SILENCE, |usec| usec.saturating_mul(1000))
}

/// How long evd is not started after it has failed so often in a row before, in nanoseconds.
fn pause(failures: u32) -> u64 {
    match failures {
        // Who had got to work is missed.
        0 => 0,
        n => (PAUSE << n.saturating_sub(PATIENCE).min(20)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_is_at_once_and_the_pauses_grow_to_a_bound() {
        let pauses: Vec<u64> = (0..100).map(pause).collect();
        assert_eq!((pauses[0], pauses[1], pauses[PATIENCE as usize]), (0, PAUSE, PAUSE));
        assert!(pauses.is_sorted() && pauses[6] > PAUSE);
        assert_eq!((pauses[99], pause(u32::MAX)), (LONGEST_PAUSE, LONGEST_PAUSE));
    }
}
