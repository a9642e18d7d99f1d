//! Waiting for facts, numbers that are not in step with anything, and figures.

use evd_proto::sys;
use std::time::{Duration, Instant};

pub const MS: Duration = Duration::from_millis(1);
/// How long anything may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `fact` holds.
pub fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(2 * MS);
    }
}

pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Jitter {
        Jitter((sys::monotonic_ns() ^ (seed << 32)) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// The value below which `part` of the others are.
pub fn percentile(values: &mut [u64], part: f64) -> u64 {
    values.sort_unstable();
    let at = (values.len() as f64 * part) as usize;
    values[at.min(values.len() - 1)]
}

/// A number from the environment, for a longer run.
pub fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |n| n.parse().unwrap())
}
