//! Where processes run: all on one core, or the one in the middle on another.
//!
//! A wake-up on the same core costs a few microseconds, one across cores of an idle machine ten times as much. Both are shown.

use std::io;

/// The cores of a figure.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// As the table calls it.
    pub name: &'static str,
    /// For whoever makes fds ready, and for the client.
    pub ends: usize,
    /// For evd, or the program that stands for it.
    pub middle: usize,
}

/// What this machine can show.
pub fn placements() -> io::Result<Vec<Placement>> {
    let cores = allowed()?;
    let first = *cores.first().ok_or(io::ErrorKind::NotFound)?;
    let mut all = vec![Placement { name: "one core", ends: first, middle: first }];
    match cores.get(1) {
        Some(&second) => all.push(Placement { name: "two cores", ends: first, middle: second }),
        None => println!("    (this machine has one core: the other placement is left out)"),
    }
    Ok(all)
}

/// Does something while this thread runs on one core only: processes and threads that are started stay there.
pub fn on_core<T>(core: usize, what: impl FnOnce() -> T) -> io::Result<T> {
    let before = allowed()?;
    restrict(&[core])?;
    let done = what();
    restrict(&before)?;
    Ok(done)
}

fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: all zeroes is an empty cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable for its size; 0 is the calling thread.
    let got = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the index is within the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

fn restrict(cores: &[usize]) -> io::Result<()> {
    // SAFETY: all zeroes is an empty cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &core in cores {
        // SAFETY: `core` came from a set of this size.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: `set` is readable for its size; 0 is the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
