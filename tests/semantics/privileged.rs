//! A program that runs with more rights than its user: Unix's matter.

use crate::parts::*;
use crate::role;
use evd_client::EventBase;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

#[cfg(unix)]
#[test]
fn a_program_with_more_rights_than_its_user_ignores_the_environment() {
    // SAFETY: it takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return println!("skipped: only root can make a program of another user");
    }
    let dir = std::env::temp_dir().join(format!("evd-semantics-suid-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let program = dir.join("program");
    std::fs::copy("/proc/self/exe", &program).unwrap();
    chown(&program, Some(65534), None).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let mut c = role::command(&program, "privileged", "");
    c.envs([("EVENT_NOEPOLL", "1"), ("EVENT_EPOLL_USE_CHANGELIST", "1"), ("EVENT_SHOW_METHOD", "1")]);
    let out = role::play(c);
    std::fs::remove_dir_all(&dir).unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!said.contains("[msg]"), "{said}");
}

/// A role: with the rights of the program's owner.
pub fn privileged(_: &Path, _: &str) {
    // SAFETY: they take nothing.
    assert_ne!(unsafe { libc::getuid() }, unsafe { libc::geteuid() }, "is /tmp mounted nosuid?");
    assert_eq!(EventBase::supported_methods(), METHODS.map(|(method, _)| method));
    assert_eq!(EventBase::local().unwrap().method(), "epoll");
}
