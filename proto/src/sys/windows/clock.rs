//! The one clock of evd: the performance counter, in nanoseconds.

use std::sync::OnceLock;
use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::Storage::FileSystem::FileTimeToLocalFileTime;
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

/// A time of day in this process's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

/// The time of day at `unix` seconds since 1970, in the time zone of the system as it is now; UTC if it is not known.
///
/// Source: FileTimeToLocalFileTime.
pub fn local_time(unix: u64) -> LocalTime {
    // In units of 100 ns since 1601.
    let ticks = (unix.saturating_add(11_644_473_600)).saturating_mul(10_000_000);
    let utc = FILETIME { dwLowDateTime: ticks as u32, dwHighDateTime: (ticks >> 32) as u32 };
    let mut local = utc;
    // SAFETY: two live times, one of them writable.
    unsafe { FileTimeToLocalFileTime(&utc, &mut local) };
    let ticks = u64::from(local.dwHighDateTime) << 32 | u64::from(local.dwLowDateTime);
    let day = ticks / 10_000_000 % 86_400;
    LocalTime { hour: (day / 3600) as u8, minute: (day / 60 % 60) as u8, second: (day % 60) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_differs_from_utc_by_whole_quarters_of_an_hour() {
        let seconds = |unix| {
            let t = local_time(unix);
            (i64::from(t.hour) * 60 + i64::from(t.minute)) * 60 + i64::from(t.second)
        };
        assert_eq!((seconds(1_700_000_000) - 1_700_000_000 % 86_400) % 900, 0);
        assert_eq!((seconds(1_700_000_061) - seconds(1_700_000_000)).rem_euclid(86_400), 61);
    }
}
