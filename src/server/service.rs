//! The service manager: the socket it passes, and what it is told.
//!
//! Source: sd_listen_fds(3), sd_notify(3).

use super::parcel::{self, Left};
use super::{starts, store};
use evd_proto::sys::{self, Listener, Notifier};
use evd_proto::sys::{OwnedFd, RawFd};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// The name that our socket has among those that are passed.
pub(super) const NAME: &str = "evd";
/// How long the service manager may let its queue be full when it is told what it waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Users named in the status.
const NAMED: usize = 8;

/// What the service manager is told, if there is one.
#[derive(Debug, Default)]
pub(super) struct Service {
    manager: Option<Notifier>,
    watchdog: Option<Duration>,
    told: String,
    /// What else is to be known when evd is ready.
    note: String,
}

impl Service {
    /// The one that `NOTIFY_SOCKET` names.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn from_environment() -> io::Result<Service> {
        let manager = std::env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty());
        let manager = manager.map(|to| Notifier::new(&to)).transpose()?;
        Ok(Service { manager, watchdog: sys::watchdog_interval(), ..Service::default() })
    }

    /// Whether anybody listens.
    pub fn is_there(&self) -> bool {
        self.manager.is_some()
    }

    /// Holds do not survive evd, for this reason.
    pub fn are_mortal(&mut self, why: &str) {
        self.note = format!("; holds do not survive evd: {why}");
    }

    /// evd accepts connections.
    pub fn ready(&mut self) {
        sys::service_runs();
        self.told = line(0, 0, &[]);
        self.tell(&format!("READY=1\nSTATUS={}{}", self.told, self.note), PATIENCE);
    }

    /// How often it wants to hear that evd lives; `None`: never.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.is_there())
    }

    /// evd lives.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1", Duration::ZERO);
    }

    /// How many bases and workers there are now, and the users whose workers are stuck.
    pub fn status(&mut self, (bases, workers): (usize, usize), stuck: &[u32]) {
        let text = line(bases, workers, stuck);
        if text != self.told && self.tell(&format!("STATUS={text}"), Duration::ZERO) {
            self.told = text;
        }
    }

    /// evd looks again at what can change while it runs.
    pub fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", sys::monotonic_ns() / 1000), PATIENCE);
    }

    /// It has done so.
    pub fn reloaded(&self) {
        self.tell("READY=1", PATIENCE);
    }

    /// evd ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1", PATIENCE);
    }

    /// Says it, unless the service manager lets its queue be full for `patience`: the acceptor must not wait for it. Whether it was said.
    fn tell(&self, state: &str, patience: Duration) -> bool {
        let Some(manager) = &self.manager else { return true };
        match manager.tell(&format!("{state}\n"), &[], patience) {
            Ok(()) => true,
            // It is said again, or the next time.
            Err(e) if e.kind() == io::ErrorKind::TimedOut && patience.is_zero() => false,
            Err(e) => {
                log::warn!("can't tell the service manager: {e}");
                false
            }
        }
    }
}

/// What `systemctl status` shows.
fn line(bases: usize, workers: usize, stuck: &[u32]) -> String {
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = format!("{}, {}", counted(bases, "base"), counted(workers, "worker"));
    if !stuck.is_empty() {
        // One line stays one, however many they are.
        let named: Vec<String> = stuck.iter().take(NAMED).map(u32::to_string).collect();
        let more = stuck.len() - named.len();
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let users = if stuck.len() == 1 { "user" } else { "users" };
        text += &format!("; stuck: {users} {}{rest}", named.join(", "));
    }
    text
}

/// What the service manager has passed.
pub(super) struct Passed {
    /// The socket named `evd`, or the only one if it has no name of its own.
    pub listener: Option<Listener>,
    /// Held fds of an earlier evd.
    pub parcels: Vec<Left>,
    /// The count of starts, see `starts`.
    pub starts: Option<OwnedFd>,
    /// Names of what an earlier evd did not come to remove from the store.
    pub stale: Vec<String>,
}

/// Takes over what was passed. What has a name that we know nothing of is closed.
///
/// # Errors
/// Sockets were passed, and none of them can be it.
pub(super) fn passed() -> io::Result<Passed> {
    let mut rest = Vec::new();
    let mut by_name: BTreeMap<String, Left> = BTreeMap::new();
    let (mut starts, mut stale) = (None, Vec::new());
    for (number, name) in sys::passed_fds()? {
        if let Some((uid, generation)) = parcel::parse_name(&name) {
            let new = || Left::new(name.clone(), uid, generation);
            by_name.entry(name.clone()).or_insert_with(new).fds.push(sys::adopt_fd(number)?);
        } else if name == starts::NAME {
            starts = Some(sys::adopt_fd(number)?);
        } else if name.starts_with(store::CANARY) {
            drop(sys::adopt_fd(number)?);
            stale.push(name);
        } else {
            rest.push((number, name));
        }
    }
    let parcels = by_name.into_values().collect();
    if rest.is_empty() {
        return Ok(Passed { listener: None, parcels, starts, stale });
    }
    match pick(&rest) {
        Some(fd) => Ok(Passed { listener: Some(sys::adopt_listener(fd)?), parcels, starts, stale }),
        None => {
            let names: Vec<&str> = rest.iter().map(|(_, n)| n.as_str()).collect();
            let text = format!("none of the passed sockets ({}) is named `{NAME}`", names.join(", "));
            Err(io::Error::new(io::ErrorKind::NotFound, text))
        }
    }
}

fn pick(passed: &[(RawFd, String)]) -> Option<RawFd> {
    let named = passed.iter().find(|(_, name)| name == NAME);
    let only = match passed {
        [one] if matches!(one.1.as_str(), "" | "unknown") || one.1.ends_with(".socket") => Some(one),
        _ => None,
    };
    named.or(only).map(|(fd, _)| *fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_by_name_or_because_it_is_the_only_one() {
        let with = |names: &[&str]| {
            let list: Vec<_> =
                names.iter().enumerate().map(|(i, n)| (3 + i as RawFd, (*n).to_owned())).collect();
            pick(&list)
        };
        assert_eq!(with(&["status", "evd"]), Some(4));
        assert_eq!(with(&["unknown"]), Some(3));
        assert_eq!(with(&["evd.socket"]), Some(3));
        assert_eq!(with(&["unknown", "unknown"]), None);
        assert_eq!(with(&["web"]), None);
    }

    #[test]
    fn the_status_is_one_line() {
        assert_eq!(line(0, 0, &[]), "0 bases, 0 workers");
        assert_eq!(line(1, 2, &[7]), "1 base, 2 workers; stuck: user 7");
        let many: Vec<u32> = (1..=10).collect();
        assert_eq!(line(2, 1, &many), "2 bases, 1 worker; stuck: users 1, 2, 3, 4, 5, 6, 7, 8 and 2 more");
    }
}
