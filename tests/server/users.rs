//! Tests in processes of other users: only root can make them.

use crate::wire::{Evd, PATIENCE};
use evd_proto::sys;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether this process can be somebody else; says so if not.
pub fn is_root() -> bool {
    let root = sys::effective_ids().0 == 0;
    if !root {
        println!("skipped: only root can be somebody else");
    }
    root
}

/// Others may reach its socket; whether they may connect is evd's to say.
pub fn let_in(evd: &Evd) {
    std::fs::set_permissions(&evd.dir.0, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A test that runs as somebody else.
pub struct Helper {
    child: Child,
    copy: PathBuf,
}

/// Starts one of the ignored tests in a process of another user, with its own group only.
pub fn as_user(uid: u32, test: &str, socket: &Path) -> Helper {
    as_member(uid, uid, &[], test, socket)
}

/// The same with these groups.
pub fn as_member(uid: u32, gid: u32, groups: &[u32], test: &str, socket: &Path) -> Helper {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let n = LAST.fetch_add(1, Ordering::Relaxed);
    // The test binary may lie where others can't read it.
    let copy = std::env::temp_dir().join(format!("evd-test-as-{}-{n}", std::process::id()));
    // By a program: a child that another test forks just now would keep a copy that this process writes open, and what is written can't be executed.
    let made = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status().unwrap();
    assert!(made.success());
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut c = Command::new(&copy);
    c.args(["--exact", test, "--ignored", "--nocapture"]).env("EVD_TEST_SOCKET", socket).current_dir("/");
    let groups = groups.to_vec();
    let become_them = move || {
        // SAFETY: `groups` lives for the call.
        let done = unsafe { libc::setgroups(groups.len(), groups.as_ptr()) };
        // SAFETY: takes a number.
        let done = done | unsafe { libc::setgid(gid) };
        // SAFETY: takes a number.
        let done = done | unsafe { libc::setuid(uid) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only setgroups, setgid and setuid are called.
    unsafe { c.pre_exec(become_them) };
    let child = c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Helper { child, copy }
}

impl Helper {
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for it; says what it said if it failed.
    pub fn succeeded(mut self) -> bool {
        let until = std::time::Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(std::time::Instant::now() < until, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        if !status.success() {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut text).unwrap();
            std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut text).unwrap();
            println!("{text}");
        }
        status.success()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.copy);
    }
}

/// Where the evd of a helper listens.
pub fn socket_of_test() -> PathBuf {
    std::env::var_os("EVD_TEST_SOCKET").expect("run by another test").into()
}
