//! What evd gives up once it runs, and what it does not need for anything it does.

use crate::wire::*;
use evd_proto::sys;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What `/proc` says of each thread, as far as it is about this.
fn rights(pid: i32) -> Vec<String> {
    let of = |text: String| {
        let lines = text.lines().filter(|l| l.starts_with("NoNewPrivs:") || l.starts_with("Seccomp"));
        lines.map(|l| l.replace('\t', " ")).collect::<Vec<_>>().join(", ")
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end meanwhile.
    tasks.filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("status")).ok()).map(of).collect()
}

/// The filters on this process, which children inherit.
fn filters() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("Seccomp_filters:\t"));
    line.expect("Linux 5.9").parse().unwrap()
}

#[test]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    ignore = "there is no filter for this architecture"
)]
fn a_running_evd_has_given_up_what_it_does_not_need() {
    let own = rights(std::process::id() as i32).remove(0);
    let hard = format!("NoNewPrivs: 1, Seccomp: 2, Seccomp_filters: {}", filters() + 1);
    for (harden, expected) in [(true, &hard), (false, &own)] {
        let evd = Evd::start_with(|c| {
            if !harden {
                c.arg("--no-hardening");
            }
        });
        let _all: Vec<_> =
            evd::backend::supported(false).iter().map(|m| Raw::hello(&evd.path(), "one", m)).collect();
        for thread in rights(evd.pid()) {
            assert_eq!(&thread, expected, "hardened: {harden}");
        }
        evd.serves();
    }
}

/// Nothing may be kept for the process that runs the other tests.
fn in_a_process_of_its_own(helper: &str) {
    let dir = Dir::new();
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", helper, "--ignored", "--nocapture"]).env("EVD_TEST_SOCKET", dir.socket());
    let (code, text) = outcome(c);
    assert_eq!(code, Some(0), "{text}");
}

/// The error of a call that must fail.
fn errno(returned: libc::c_long) -> Option<i32> {
    assert_eq!(returned, -1);
    std::io::Error::last_os_error().raw_os_error()
}

fn starts_a_program() -> Result<(), Option<i32>> {
    Command::new("true").status().map(|s| assert!(s.success())).map_err(|e| e.raw_os_error())
}

#[test]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    ignore = "there is no filter for this architecture"
)]
fn no_thread_starts_a_program_any_more_and_names_are_looked_up() {
    in_a_process_of_its_own("harden::helper_runs_hardened");
}

#[test]
#[ignore = "run by others, in a process of its own"]
fn helper_runs_hardened() {
    let path = crate::users::socket_of_test();
    let evd = evd::Daemon::builder().socket(&path).harden(true);
    starts_a_program().unwrap();
    std::thread::spawn(move || evd.run().unwrap());
    eventually("it listens", || sys::connect(&path).is_ok());
    // Its worker is made by the thread that gave everything up before.
    let mut client = Raw::hello(&path, "one", "");
    // This thread was there before.
    assert_eq!(starts_a_program(), Err(Some(libc::EPERM)));
    #[cfg(target_arch = "x86_64")]
    for execve in [520 | 0x4000_0000, 59 | 0x4000_0000] {
        // SAFETY: no memory is named: a call that came through would fail with EFAULT, or ENOSYS where there is no x32.
        assert_eq!(errno(unsafe { libc::syscall(execve, 0, 0, 0) }), Some(libc::EPERM));
    }
    // SAFETY: takes numbers.
    assert_eq!(errno(unsafe { libc::syscall(libc::SYS_unshare, 0) }), Some(libc::EPERM));
    assert_eq!(sys::user_id("root").unwrap(), 0);
    assert_eq!(sys::group_id("root").unwrap(), 0);
    client.sync();
    // Its own SIGTERM.
    sys::send_signal(std::process::id() as i32, libc::SIGTERM).unwrap();
    while client.next_or_end().is_some() {}
}

#[test]
fn an_evd_in_a_host_gives_up_nothing() {
    in_a_process_of_its_own("harden::helper_is_a_host");
}

#[test]
#[ignore = "run by others, in a process of its own"]
fn helper_is_a_host() {
    let own = rights(std::process::id() as i32).remove(0);
    let path = crate::users::socket_of_test();
    let evd = evd::Daemon::builder().socket(&path).harden(true).spawn().unwrap();
    let _client = Raw::hello(&path, "one", "");
    assert!(rights(std::process::id() as i32).iter().all(|r| *r == own));
    starts_a_program().unwrap();
    evd.stop().unwrap();
}

/// What a kernel without filters does: the call fails.
fn deny_filters(c: &mut Command) {
    let deny = || {
        let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        // The number of the call is the first word of what a filter sees.
        let mut program = [
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_seccomp as u32),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let all = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        // SAFETY: takes numbers.
        let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: `all` and the program it names live for the call, which copies them.
        let done = done | unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &all) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only prctl is called.
    unsafe { c.pre_exec(deny) };
}

fn starts_saying(change: impl FnOnce(&mut Command)) -> String {
    let dir = Dir::new();
    let log: &Path = &dir.0.join("log");
    let evd = Evd::start_with(|c| {
        c.stderr(std::fs::File::create(log).unwrap());
        change(c);
    });
    evd.serves();
    std::fs::read_to_string(log).unwrap()
}

#[test]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    ignore = "there is no filter for this architecture"
)]
fn where_filters_cannot_be_had_evd_goes_on_and_says_so_once() {
    let text = starts_saying(deny_filters);
    assert!(text.contains("evd goes on and gives up no system calls"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(starts_saying(|_| {}), "");
    let without = |c: &mut Command| {
        deny_filters(c);
        c.arg("--no-hardening");
    };
    assert_eq!(starts_saying(without), "");
}
