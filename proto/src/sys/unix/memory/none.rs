//! Allocators that can't be asked.

/// Has threads share pools of memory, where the allocator can be told to.
pub fn share_memory() {}

/// Gives the memory that was freed back to the system, where the allocator can be asked to.
pub fn return_memory() {}
