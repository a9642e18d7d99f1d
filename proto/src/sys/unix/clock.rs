//! The one clock of evd: `CLOCK_MONOTONIC`, in nanoseconds.

/// Nanoseconds of `CLOCK_MONOTONIC`: the same for every process of the machine (of one time namespace), not moved by changes of the wall clock,
/// not counting suspend.
///
/// Source: clock_gettime(2), time_namespaces(7).
pub fn monotonic_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a live, writable timespec for the whole call; kept by this function.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    (ts.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(ts.tv_nsec as u64)
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
    /// 0 to 60, as there are leap seconds.
    pub second: u8,
}

/// The time of day at `unix` seconds since 1970: in the time zone of `TZ` or the system, UTC if it is not known.
///
/// Source: localtime_r(3).
pub fn local_time(unix: u64) -> LocalTime {
    let at = unix as libc::time_t;
    // SAFETY: all zeroes is a valid tm (its zone is a pointer that may be null).
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: `at` and `tm` are live for the call, `tm` writable. It reads TZ, which no part of evd changes.
    let known = unsafe { libc::localtime_r(&at, &mut tm) };
    if known.is_null() {
        let day = unix % 86_400;
        return LocalTime {
            hour: (day / 3600) as u8,
            minute: (day / 60 % 60) as u8,
            second: (day % 60) as u8,
        };
    }
    LocalTime { hour: tm.tm_hour as u8, minute: tm.tm_min as u8, second: tm.tm_sec as u8 }
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
        let utc = 1_700_000_000 % 86_400;
        assert_eq!((seconds(1_700_000_000) - utc) % 900, 0);
        assert_eq!((seconds(1_700_000_061) - seconds(1_700_000_000)).rem_euclid(86_400), 61);
    }
}
