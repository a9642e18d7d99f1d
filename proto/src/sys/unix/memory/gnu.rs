//! What glibc's allocator keeps.

/// Gives the memory that was freed back to the system. The allocator by itself keeps what threads that have ended used, for each of them apart.
///
/// Takes the longer the more is free, and whoever allocates meanwhile waits.
///
/// Source: malloc_trim(3).
pub fn return_memory() {
    // SAFETY: takes a number, and may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}
