//! A container with a real systemd, and what is done in it.

use crate::parts::eventually;
use evd_proto::sys;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const NAMESPACES: [&str; 6] = ["--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net"];
/// What begins the name of a container's cgroup; the pid of its test follows.
const CGROUP: &str = "evd-lab-";
/// What the machine's evd says, inside the container.
const LOG: &str = "/var/log/evd.log";
pub const ALICE: u32 = 2001;
pub const BOB: u32 = 2002;

/// Who else may run a container meanwhile: the others that share, or nobody.
enum Room {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

static ROOM: RwLock<()> = RwLock::new(());

/// A container that runs. It is gone when this is dropped.
pub struct Lab {
    unshare: Child,
    /// PID 1 of the container, as the machine sees it.
    pid1: i32,
    cgroup: PathBuf,
    dir: PathBuf,
    _room: Room,
}

/// The process ends with the thread that starts it, however that ends.
pub fn dies_with_us(c: &mut Command) -> &mut Command {
    let die = || {
        // SAFETY: prctl takes numbers here.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { c.pre_exec(die) }
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let fields = |l: &str| l.split(' ').map(str::to_owned).collect::<Vec<_>>();
    mounts.lines().map(fields).find(|f| f[2] == "cgroup2").map(|f| PathBuf::from(&f[1]))
}

/// What this machine lacks for a container.
fn missing() -> Option<&'static str> {
    if sys::effective_ids().0 != 0 {
        return Some("root");
    }
    let systemd = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
    if !systemd.iter().any(|p| Path::new(p).exists()) {
        return Some("systemd");
    }
    let Some(cgroup) = cgroup2() else { return Some("cgroup2") };
    let probe = cgroup.join(format!("{CGROUP}{}-probe", std::process::id()));
    if fs::create_dir(&probe).is_err() {
        return Some("a cgroup2 that can be written");
    }
    fs::remove_dir(probe).unwrap();
    let may = Command::new("unshare").args(NAMESPACES).args(["--fork", "true"]).output();
    (!may.is_ok_and(|o| o.status.success())).then_some("the right to make namespaces")
}

/// Removes a cgroup that no process is in any more, and all below it.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// What tests that were killed left behind.
fn remove_old(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix(CGROUP).and_then(|n| n.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_cgroup(&entry.path());
        }
    }
}

impl Lab {
    /// Boots a container beside those of other tests; `None`, and a line about it, where that is not possible.
    pub fn boot() -> Option<Lab> {
        let _guard = ROOM.read().unwrap_or_else(PoisonError::into_inner);
        Lab::boot_in(Room::Shared { _guard })
    }

    /// As [`Lab::boot`], when no other container runs, and keeps others away: for what is measured.
    pub fn boot_alone() -> Option<Lab> {
        let _guard = ROOM.write().unwrap_or_else(PoisonError::into_inner);
        Lab::boot_in(Room::Alone { _guard })
    }

    fn boot_in(room: Room) -> Option<Lab> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        static MISSING: OnceLock<Option<&str>> = OnceLock::new();
        if let Some(what) = MISSING.get_or_init(missing) {
            println!("skipped: needs {what}");
            return None;
        }
        let name = format!("{CGROUP}{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let root = cgroup2().unwrap();
        remove_old(&root);
        let (cgroup, dir) = (root.join(&name), std::env::temp_dir().join(&name));
        fs::create_dir(&cgroup).unwrap();
        fs::create_dir_all(dir.join("root")).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let join = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/container.sh");
        let exe = std::env::current_exe().unwrap();
        let mut c = Command::new("unshare");
        c.args(NAMESPACES).args(["--propagation", "private", "--fork", "--kill-child", "bash"]);
        c.arg(script).arg(dir.join("root")).arg(exe.parent().unwrap());
        c.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let enter = move || {
            // SAFETY: the byte is live for the call, and the fd is this closure's.
            let wrote = unsafe { libc::write(join.as_raw_fd(), c"0".as_ptr().cast(), 1) };
            if wrote == 1 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: between fork and exec only write is called, which is async-signal-safe.
        unsafe { c.pre_exec(enter) };
        let unshare = dies_with_us(&mut c).spawn().unwrap();
        let mut lab = Lab { unshare, pid1: 0, cgroup, dir, _room: room };
        eventually("the container has a PID 1", || {
            assert_eq!(lab.unshare.try_wait().unwrap(), None, "the container ended");
            lab.pid1 = lab.first_child().unwrap_or(0);
            let name = fs::read_to_string(format!("/proc/{}/comm", lab.pid1));
            name.is_ok_and(|n| n.trim() == "systemd")
        });
        eventually("systemd has booted", || {
            let state = lab.command("systemctl").args(["is-active", "lab.target"]).output().unwrap();
            state.stdout == b"active\n"
        });
        Some(lab)
    }

    fn first_child(&self) -> Option<i32> {
        let pid = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A directory outside the container, which goes with it.
    pub fn scratch(&self) -> &Path {
        &self.dir
    }

    /// Where a file of the container is seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid1))
    }

    pub fn write(&self, inside: &str, text: &str) {
        fs::create_dir_all(self.path(inside).parent().unwrap()).unwrap();
        fs::write(self.path(inside), text).unwrap();
    }

    /// A command that will run in the container, as root; its environment is bare.
    pub fn command(&self, program: &str) -> Command {
        self.command_as(0, 0, &[], program)
    }

    /// One that another user runs, with variables.
    pub fn command_as(&self, uid: u32, gid: u32, environment: &[&str], program: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.args(["-t", &self.pid1.to_string(), "-m", "-p", "-C", "-i", "-u", "-n"]);
        c.args(["-S", &uid.to_string(), "-G", &gid.to_string()]);
        c.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]).args(environment);
        c.args(["timeout", "-k", "5", "900", program]).stdin(Stdio::null());
        dies_with_us(&mut c);
        c
    }

    /// What a command prints; it must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        let mut c = self.command(words[0]);
        said(c.args(&words[1..]))
    }

    /// One property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "-P", property, unit])
    }

    /// How many filters of system calls a process of the container has.
    pub fn filters(&self, pid: &str) -> usize {
        let status = self.run(&["cat", &format!("/proc/{pid}/status")]);
        let line = status.lines().find_map(|l| l.strip_prefix("Seccomp_filters:\t"));
        line.expect("Linux 5.9").parse().unwrap()
    }

    /// Puts a file in place as package managers do: the old one lives on for who has it open.
    pub fn install(&self, from: &Path, to: &str) {
        let (new, to) = (self.path(&format!("{to}.new")), self.path(to));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &new).unwrap();
        fs::rename(new, to).unwrap();
    }

    /// Installs evd as `systemd/README.md` says; nothing is started.
    pub fn install_evd(&self) {
        self.install(Path::new(env!("CARGO_BIN_EXE_evd")), "/usr/bin/evd");
        self.install(Path::new(env!("CARGO_BIN_EXE_evctl")), "/usr/bin/evctl");
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        for (from, to) in [
            ("evd.service", "/usr/lib/systemd/system/evd.service"),
            ("evd.socket", "/usr/lib/systemd/system/evd.socket"),
            ("user/evd.service", "/usr/lib/systemd/user/evd.service"),
            ("user/evd.socket", "/usr/lib/systemd/user/evd.socket"),
            ("evd.sysusers.conf", "/usr/lib/sysusers.d/evd.conf"),
            ("evd.tmpfiles.conf", "/usr/lib/tmpfiles.d/evd.conf"),
        ] {
            self.install(&units.join(from), to);
        }
        // There is no journal.
        let log = format!("[Service]\nStandardError=append:{LOG}\n");
        self.write("/etc/systemd/system/evd.service.d/log.conf", &log);
        self.run(&["systemd-sysusers", "/usr/lib/sysusers.d/evd.conf"]);
        self.run(&["systemctl", "daemon-reload"]);
    }

    /// The number of a group of the container.
    pub fn group(&self, name: &str) -> u32 {
        let groups = fs::read_to_string(self.path("/etc/group")).unwrap();
        let line = groups.lines().find(|l| l.split(':').next() == Some(name)).unwrap();
        line.split(':').nth(2).unwrap().parse().unwrap()
    }

    /// evd's process, as the machine sees it, if one runs just now.
    pub fn evd_pid(&self) -> Option<i32> {
        let procs = fs::read_to_string(self.cgroup.join("system.slice/evd.service/cgroup.procs")).ok()?;
        procs.lines().next()?.parse().ok()
    }

    /// How many fds evd has open.
    pub fn evd_fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.evd_pid().unwrap())).unwrap().count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let boot = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let log = fs::read_to_string(self.path(LOG)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            let status = self.command("systemctl").args(["status", "evd.socket", "evd.service"]).output();
            let status = status.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "{boot}{status}\nwhat evd said last:\n{last}");
        }
        // All processes of a pid namespace end with its PID 1, and that with unshare.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let until = std::time::Instant::now() + crate::parts::PATIENCE;
        while self.cgroup.exists() && std::time::Instant::now() < until {
            remove_cgroup(&self.cgroup);
            std::thread::sleep(crate::parts::MS);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a command prints; it must succeed.
pub fn said(c: &mut Command) -> String {
    let out = c.output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{c:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text.trim_end().to_owned()
}
