//! The one clock of evd: the performance counter, in nanoseconds.

use std::sync::OnceLock;
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};

/// Nanoseconds of the performance counter: the same for every process of the machine, not moved by changes of the wall clock. It counts suspend.
///
/// Source: Microsoft, "Acquiring high-resolution time stamps".
pub fn monotonic_ns() -> u64 {
    static PER_SECOND: OnceLock<u64> = OnceLock::new();
    let per_second = *PER_SECOND.get_or_init(|| {
        let mut frequency = 0;
        // SAFETY: a live, writable number.
        unsafe { QueryPerformanceFrequency(&mut frequency) };
        u64::try_from(frequency).unwrap_or(0).max(1)
    });
    let mut count = 0;
    // SAFETY: a live, writable number. It can't fail since Windows XP.
    unsafe { QueryPerformanceCounter(&mut count) };
    let count = u64::try_from(count).unwrap_or(0);
    let (seconds, rest) = (count / per_second, count % per_second);
    // The rest is less than a second, and frequencies are below 2^34.
    seconds * 1_000_000_000 + rest * 1_000_000_000 / per_second
}

/// Blocks the calling thread for `ns` nanoseconds.
pub fn sleep_ns(ns: u64) {
    std::thread::sleep(std::time::Duration::from_nanos(ns));
}
