//! What the daemon gives up once it runs: a program that serves strangers needs no way to become another program.
//!
//! A deny-list, and not a list of what is needed: the libraries below make calls of their own, by system and version, and a daemon that dies of a new one
//! helps nobody. What is denied fails with EPERM. The unit files deny far more, but can't deny exec, which they need to start evd.
//! Only the binary does this, never an evd in a host; `--no-hardening` leaves it out. File systems stay reachable: evd reads `/proc` and `/dev/null` all the time, and
//! whose it runs as can do no more than the unit lets it.

use evd_proto::sys;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;

/// Calls that evd never makes after its start, and that somebody who took it over would.
const DENIED: &[libc::c_long] = &[
    // To become, or to get into, another process.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_personality,
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mknodat,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_open_by_handle_at,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
];

/// Gives it up for this thread and all that it starts. Where the kernel or the architecture can't, evd goes on without, and says so.
pub(super) fn apply() {
    // Implied by the filter; said first, as it helps by itself.
    if let Err(e) = sys::no_new_privileges() {
        log::warn!("can't give up new privileges: {e}");
    }
    if let Err(e) = filter().and_then(|program| Ok(seccompiler::apply_filter(&program)?)) {
        log::warn!("no system call is denied: {e}");
    }
}

fn filter() -> Result<BpfProgram, Box<dyn std::error::Error>> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    #[allow(clippy::unnecessary_cast, reason = "the width of a call's number differs between architectures")]
    let denied: BTreeMap<i64, _> = DENIED.iter().map(|call| (*call as i64, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    Ok(SeccompFilter::new(denied, SeccompAction::Allow, refuse, arch)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gave_it_up_starts_no_program_and_can_do_all_else() {
        if std::env::consts::ARCH != "x86_64" && std::env::consts::ARCH != "aarch64" {
            return;
        }
        let run = || {
            apply();
            let spawned = std::process::Command::new("/bin/true").status();
            let read = std::fs::read_to_string("/proc/self/status");
            (spawned.map_err(|e| e.raw_os_error()), read.is_ok(), std::thread::spawn(|| 7).join().is_ok())
        };
        // Only this thread, and what it starts, gives it up.
        let (spawned, read, thread) = std::thread::spawn(run).join().unwrap();
        assert!(matches!(spawned, Err(Some(libc::EPERM))), "{spawned:?}");
        assert!(read && thread);
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
    }
}
