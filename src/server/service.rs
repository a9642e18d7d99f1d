//! The service manager: the socket it passes, and what it is told.
//!
//! Source: sd_listen_fds(3), sd_notify(3).

use evd_proto::sys::{self, Listener};
use sd_notify::NotifyState;
use std::io;
use std::os::fd::RawFd;

/// The name that our socket has among those that are passed.
const NAME: &str = "evd";

/// What the service manager is told, if there is one.
#[derive(Debug, Default)]
pub(super) struct Service {
    is_there: bool,
    told: Option<(usize, usize)>,
}

impl Service {
    /// The one that `NOTIFY_SOCKET` names.
    pub fn from_environment() -> Service {
        Service { is_there: std::env::var_os("NOTIFY_SOCKET").is_some(), told: None }
    }

    /// Whether anybody listens.
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// evd accepts connections.
    pub fn ready(&mut self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("no bases")]);
    }

    /// How many bases and workers there are now.
    pub fn sessions(&mut self, counts: (usize, usize)) {
        if self.told.replace(counts) == Some(counts) {
            return;
        }
        let (bases, workers) = counts;
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let text = format!("{bases} base{}, {workers} worker{}", plural(bases), plural(workers));
        self.tell(&[NotifyState::Status(&text)]);
    }

    /// evd ends.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.is_there {
            if let Err(e) = sd_notify::notify(state) {
                log::warn!("can't tell the service manager: {e}");
            }
        }
    }
}

/// The listening socket that was passed: the one named `evd`, or the only one if it has no name of its own.
///
/// # Errors
/// Sockets were passed, and none of them can be it.
pub(super) fn passed_listener() -> io::Result<Option<Listener>> {
    let passed: Vec<(RawFd, String)> = sd_notify::listen_fds_with_names()?.collect();
    if passed.is_empty() {
        return Ok(None);
    }
    match pick(&passed) {
        Some(fd) => sys::adopt_listener(fd).map(Some),
        None => {
            let names: Vec<&str> = passed.iter().map(|(_, n)| n.as_str()).collect();
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
}
