//! Lines to stderr. Under the journal each has its priority in front; a line is one write.
//!
//! Source: sd-daemon(3) on `<N>` prefixes, systemd.exec(5) on JOURNAL_STREAM.

use super::mail::lock;
use evd_proto::sys;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines that one user may cause at once, and how many nanoseconds later he may cause one more.
const AT_ONCE: u64 = 20;
const ONE_EACH: u64 = 500_000_000;
/// Users that are remembered: more than this are at it only if most of them said nothing for long.
const USERS: usize = 1000;

/// Lines that stderr did not take.
static UNREAD: AtomicU64 = AtomicU64::new(0);
/// What each user's doings may still cause.
static RATES: Mutex<BTreeMap<u32, Rate>> = Mutex::new(BTreeMap::new());

/// A user's lines: a bucket that is full when there was none for a while.
#[derive(Debug, Default)]
struct Rate {
    /// When the bucket is full again, in nanoseconds.
    full_at: u64,
    dropped: u64,
}

impl Rate {
    /// Whether one more line may be written, and if so how many were not since the last.
    fn one(&mut self, now: u64) -> Option<u64> {
        let full_at = self.full_at.max(now) + ONE_EACH;
        if full_at > now + AT_ONCE * ONE_EACH {
            self.dropped += 1;
            return None;
        }
        self.full_at = full_at;
        Some(std::mem::take(&mut self.dropped))
    }
}

/// Logs what a user caused, unless he caused too much just before.
pub(super) fn of_user(uid: u32, level: Level, text: std::fmt::Arguments<'_>) {
    if level > log::max_level() {
        return;
    }
    let now = sys::monotonic_ns();
    let mut rates = lock(&RATES);
    if rates.len() >= USERS {
        rates.retain(|_, rate| rate.full_at > now || rate.dropped > 0);
    }
    let Some(dropped) = rates.entry(uid).or_default().one(now) else { return };
    drop(rates);
    if dropped > 0 {
        log::warn!("{dropped} lines that user {uid} caused were dropped");
    }
    log::log!(level, "{text}");
}

/// Says what was dropped and not said yet.
pub(super) fn end() {
    for (uid, rate) in lock(&RATES).iter_mut() {
        let dropped = std::mem::take(&mut rate.dropped);
        if dropped > 0 {
            log::warn!("{dropped} lines that user {uid} caused were dropped");
        }
    }
}

/// A line at level info that this user caused.
macro_rules! info_of {
    ($uid:expr, $($text:tt)+) => { $crate::server::log::of_user($uid, ::log::Level::Info, format_args!($($text)+)) };
}

/// A line at level warning that this user caused.
macro_rules! warn_of {
    ($uid:expr, $($text:tt)+) => { $crate::server::log::of_user($uid, ::log::Level::Warn, format_args!($($text)+)) };
}

pub(super) use {info_of, warn_of};

struct Stderr {
    under_journal: bool,
}

/// Logs what is at least as grave as `level` to stderr. A second call changes only the level.
pub(super) fn start(level: LevelFilter) {
    static PLAIN: Stderr = Stderr { under_journal: false };
    static JOURNAL: Stderr = Stderr { under_journal: true };
    let logger = if std::env::var_os("JOURNAL_STREAM").is_some() { &JOURNAL } else { &PLAIN };
    // An error says that there is a logger already.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut text = line(record.level(), &record.args().to_string(), self.under_journal);
            let mut to = std::io::stderr().lock();
            // Nobody waits for whoever reads this.
            if !sys::stderr_takes() {
                UNREAD.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let unread = UNREAD.swap(0, Ordering::Relaxed);
            if unread > 0 {
                let lost = format!("{unread} lines were dropped, as nobody read them");
                text = line(Level::Warn, &lost, self.under_journal) + &text;
            }
            // There is nowhere to say that stderr is gone.
            let _ = to.write_all(text.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(level: Level, text: &str, under_journal: bool) -> String {
    let (priority, name) = match level {
        Level::Error => (3, "error: "),
        Level::Warn => (4, "warning: "),
        Level::Info => (6, ""),
        Level::Debug => (7, "debug: "),
        Level::Trace => (7, "trace: "),
    };
    let text = evd_proto::name::printable(text);
    if under_journal { format!("<{priority}>{text}\n") } else { format!("evd: {name}{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_causes_few_lines_and_how_many_were_dropped_is_known() {
        let mut rate = Rate::default();
        let now = 1_000_000_000_000;
        assert_eq!((0..AT_ONCE + 7).filter_map(|_| rate.one(now)).count() as u64, AT_ONCE);
        assert_eq!(rate.one(now + ONE_EACH / 2), None);
        assert_eq!(rate.one(now + ONE_EACH), Some(8));
        assert_eq!(rate.one(now + ONE_EACH), None);
        assert_eq!((0..AT_ONCE + 1).filter_map(|_| rate.one(2 * now)).count() as u64, AT_ONCE);
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(line(Level::Warn, "a\nb\x1b[0m", false), "evd: warning: a?b?[0m\n");
        assert_eq!(line(Level::Error, "x", true), "<3>x\n");
    }
}
