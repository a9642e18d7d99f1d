//! Noticing a fork without asking for the pid at every call.
//!
//! A page that the kernel wipes in the child (`MADV_WIPEONFORK` of Linux 4.14, `INHERIT_ZERO` of the BSDs) holds the process's generation; 0 means "wiped: I am a new child".
//! The check is one load. A counter in ordinary memory, which the child inherits, makes each generation greater than all of its ancestors'.

use super::system;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A process since its fork. Two generations differ if a fork lies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

static LAST: AtomicU64 = AtomicU64::new(0);
static PAGE: OnceLock<Page> = OnceLock::new();

enum Page {
    Wiped(&'static AtomicU64),
    /// The kernel wipes nothing: the pid is asked for each time.
    Pid,
}

/// The generation of the calling process.
///
/// Source: madvise(2), minherit(2).
#[inline]
pub fn generation() -> Generation {
    if let Some(Page::Wiped(cell)) = PAGE.get() {
        let known = cell.load(Ordering::Relaxed);
        if known != 0 {
            return Generation(known);
        }
    }
    new_generation()
}

fn new_generation() -> Generation {
    match PAGE.get_or_init(map_page) {
        Page::Pid => Generation(u64::from(std::process::id())),
        Page::Wiped(cell) => match cell.load(Ordering::Relaxed) {
            0 => {
                let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                // Another thread of the child may have been first: its value counts.
                Generation(match cell.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => next,
                    Err(other) => other,
                })
            }
            n => Generation(n),
        },
    }
}

fn map_page() -> Page {
    let size = 4096;
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory of ours.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANON,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Page::Pid;
    }
    // SAFETY: `at` is the start of the mapping made above, which is nobody else's.
    if !unsafe { system::wipe_in_children(at, size) } {
        return Page::Pid;
    }
    // SAFETY: the mapping is page aligned, zeroed, writable, lives as long as the process, and is only ever used as this atomic.
    Page::Wiped(unsafe { &*at.cast::<AtomicU64>() })
}

/// A child has a copy of every fd that is open when it is forked: tests that fork take this for writing meanwhile, and those to which it matters that theirs is the
/// last one for reading.
#[cfg(test)]
pub(super) static FORKS: std::sync::RwLock<()> = std::sync::RwLock::new(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_another_generation() {
        let mine = generation();
        assert_eq!(mine, generation());
        let _alone = FORKS.write();
        // SAFETY: the child only calls async-signal-safe functions (loads, _exit).
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = i32::from(generation() == mine || generation() != generation());
            // SAFETY: ends the child at once, without running destructors.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable for the call.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(status, 0);
        assert_eq!(mine, generation());
    }
}
