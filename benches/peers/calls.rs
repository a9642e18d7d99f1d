//! The system's own counts of what this process has used.

/// Nanoseconds of processor time of this process: what else runs on the machine is not in it.
pub fn spent() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is live for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

/// mallinfo2(3): the bytes that malloc has given out, its own headers with them.
pub fn given_out() -> u64 {
    // SAFETY: takes nothing, and only counts.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}
