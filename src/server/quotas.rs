//! How much each user may have of evd, and how much there is: what is configured, cut to what the system gives evd.

use super::error::Error;
use crate::session::Shares;
use crate::session::books::Quotas;
use evd_proto::reply::Resource;
use evd_proto::sys;
use evd_proto::sys::RawFd;

/// What one user may have of each, if nothing else is said.
const EACH: [(Resource, u64); Resource::ALL.len()] = [
    (Resource::Connections, 1024),
    (Resource::Watches, 65_536),
    (Resource::Entries, 131_072),
    (Resource::Copies, 65_536),
    (Resource::Timers, 1_000_000),
    (Resource::Names, 16_384),
    (Resource::Holds, 16_384),
    (Resource::HoldBytes, 16 << 20),
    (Resource::Tables, 128 << 20),
    (Resource::Output, 1 << 20),
    (Resource::Requests, 256),
    (Resource::Threads, 32),
];
/// Where the system has no limit of its own, there is as much for all as for so many users at their limits.
const USERS: u64 = 16;
/// The fds that a connection takes at most: its own, its base's with a timerfd, and that of its process.
const FDS_OF_ONE: u64 = 4;

/// What was configured.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted(Vec<(Resource, u64)>);

impl Wanted {
    pub fn set(&mut self, what: Resource, each: u64) {
        self.0.push((what, each));
    }

    /// What each user may have, and how much there is for all of them.
    pub fn quotas(&self) -> Quotas {
        let mut wanted = Wanted::default();
        if !crate::backend::supported(false).into_iter().any(super::worker::is_nestable) {
            // Here a base of any method needs a thread of its own.
            wanted.set(Resource::Threads, EACH[Resource::Connections as usize].1);
        }
        wanted.0.extend_from_slice(&self.0);
        wanted.within(sys::most_open_files(), sys::most_epoll_entries())
    }

    fn within(&self, files: RawFd, entries: Option<u64>) -> Quotas {
        let connections = Shares::of(files).connections as u64;
        let files = files as u64;
        let mut quotas = Quotas { each: [0; EACH.len()], whole: [0; EACH.len()] };
        for (what, each) in EACH.iter().chain(&self.0) {
            // What was said last counts.
            quotas.each[*what as usize] = *each;
        }
        for what in Resource::ALL {
            let many = quotas.each[what as usize].saturating_mul(USERS);
            quotas.whole[what as usize] = match what {
                Resource::Connections => connections / FDS_OF_ONE,
                Resource::Copies => files / 2,
                // While a parcel is made anew, all of its fds are open once and in flight twice.
                Resource::Holds => files / 8 * 3,
                // A tenth is for evd's own, and for what was not counted yet.
                Resource::Watches | Resource::Entries => entries.map_or(many, |n| n - n / 10),
                _ => many,
            };
        }
        quotas
    }
}

/// Reads `NAME=NUMBER`, as the command line has it.
pub(super) fn parse(text: &str) -> Result<(Resource, u64), Error> {
    let known = |name: &str| Resource::ALL.into_iter().find(|r| r.name() == name);
    let parsed =
        text.split_once('=').and_then(|(name, n)| Some((known(name.trim())?, n.trim().parse().ok()?)));
    parsed.ok_or_else(|| {
        let names = Resource::ALL.map(Resource::name).join(", ");
        Error::Usage(format!("{text:?} is not NAME=NUMBER with one of the names {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_was_said_last_and_the_whole_is_what_the_system_gives() {
        let mut wanted = Wanted::default();
        wanted.set(Resource::Timers, 5);
        wanted.set(Resource::Timers, 7);
        let q = wanted.within(20_000, Some(1000));
        assert_eq!(q.each[Resource::Timers as usize], 7);
        assert_eq!(q.whole[Resource::Timers as usize], 7 * USERS);
        assert_eq!(q.whole[Resource::Connections as usize], (20_000 - 1024) / 4);
        assert_eq!(q.whole[Resource::Copies as usize], 10_000);
        assert_eq!(q.whole[Resource::Watches as usize], 900);
        assert_eq!(q.each[Resource::Connections as usize], 1024);
    }

    #[test]
    fn names_are_those_that_evctl_shows() {
        assert_eq!(parse("output-bytes=10").unwrap(), (Resource::Output, 10));
        for bad in ["timers", "timers=", "timers=-1", "frobs=3", "=3"] {
            let text = parse(bad).unwrap_err().to_string();
            assert!(text.contains("connections, watches"), "{text}");
        }
        for (at, (what, _)) in EACH.iter().enumerate() {
            assert_eq!(*what as usize, at, "each resource has its line");
        }
    }
}
