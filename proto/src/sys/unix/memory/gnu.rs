//! What glibc's allocator keeps.

/// Has threads share as many pools of memory as there are processors. Otherwise it makes up to eight for each of those, by chance, when threads allocate at the same
/// time, and what is free in one is of no use to threads of another. For a process of our own, before it has threads.
///
/// Source: mallopt(3), M_ARENA_MAX.
pub fn share_memory() {
    let pools = std::thread::available_parallelism().map_or(1, |n| n.get());
    // SAFETY: takes numbers; the calling process has one thread, as it says above.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(pools).unwrap_or(libc::c_int::MAX).max(2))
    };
}

/// Gives the memory that was freed back to the system. The allocator by itself keeps what threads that have ended used, for each of them apart.
///
/// Takes the longer the more is free, and whoever allocates meanwhile waits.
///
/// Source: malloc_trim(3).
pub fn return_memory() {
    // SAFETY: takes a number, and may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}
