//! Which system calls a daemon gives up, and the filter that does it.
//!
//! Source: seccomp(2).

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;
use std::io;

/// Calls that evd never makes after its start, and that somebody who took it over would.
const DENIED: &[libc::c_long] = &[
    // To become, or to get into, another process.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
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
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
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

/// x86_64's second table (x32) for the same kernel: the bit that says so, and the calls that have a number of their own there.
///
/// Source: Linux, arch/x86/entry/syscalls/syscall_64.tbl.
#[cfg(target_arch = "x86_64")]
const X32: (i64, &[i64]) = (
    0x4000_0000,
    &[
        520, // execve
        521, // ptrace
        528, // kexec_load
        539, // process_vm_readv
        540, // process_vm_writev
        545, // execveat
    ],
);

/// Denies system calls that a daemon never makes once it runs to all threads of the process, and those to come: they fail with `EPERM`. A call by the table of
/// another architecture ends the process. Returns how many calls are denied.
///
/// # Errors
/// What the kernel refused: one without filters, or somebody who forbids them; [`io::ErrorKind::Unsupported`] on other systems and architectures.
pub fn deny_calls() -> io::Result<usize> {
    let filter = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&filter).map_err(io::Error::other)?;
    Ok(DENIED.len())
}

fn filter() -> Result<BpfProgram, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    Ok(SeccompFilter::new(denied(), SeccompAction::Allow, refuse, arch)?.try_into()?)
}

/// The numbers, each for any arguments.
fn denied() -> BTreeMap<i64, Vec<SeccompRule>> {
    #[allow(clippy::unnecessary_cast, reason = "the width of a call's number differs between architectures")]
    let calls = DENIED.iter().map(|call| *call as i64);
    #[cfg(target_arch = "x86_64")]
    let calls = calls.clone().chain(calls.chain(X32.1.iter().copied()).map(|call| call | X32.0));
    calls.map(|call| (call, Vec::new())).collect()
}
