//! Clients in processes of their own: this test program starts itself again, as one of the roles below.
//!
//! A role is told what to do by its arguments and by lines on its stdin, and tells by lines on its stdout. It ends with the thread that started it, at
//! the latest after some minutes.

use crate::parts::dies_with_us;
use crate::wire::PATIENCE;
use crate::{crowd, dying, embedded, forks, holds, names, refusals, shortage, signals, stalls};
use evd_proto::sys;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

const ROLE: &str = "EVD_E2E_ROLE";
/// What begins a line of a role, apart from those of the test harness around it.
const MARK: &str = "> ";
const ARGUMENTS: char = '\n';

type Role = fn(socket: &Path, args: &[&str]);

const ROLES: &[(&str, Role)] = &[
    ("crowd", crowd::fifty_clients),
    ("churn", dying::churn),
    ("peer", dying::peer),
    ("frozen", stalls::frozen),
    ("forks", forks::forks),
    ("counted", forks::counted),
    ("inside", forks::inside),
    ("starts", forks::starts),
    ("heir", holds::heir),
    ("lasting", holds::lasting),
    ("stranger", holds::stranger),
    ("guest", embedded::guest),
    ("host", embedded::host),
    ("greedy", shortage::greedy),
    ("by_environment", refusals::by_environment),
    ("shut_out", refusals::shut_out),
    ("turned_away", refusals::turned_away),
    ("welcome", refusals::welcome),
    ("disabled", refusals::disabled),
    ("subscriber", names::subscriber),
    ("signalled", signals::signalled),
];

#[test]
#[ignore = "a part that other tests start in a process of its own"]
fn role() {
    let Ok(name) = std::env::var(ROLE) else { return };
    // SAFETY: alarm takes a number. Its signal ends this process.
    unsafe { libc::alarm(240) };
    // The harness has begun a line.
    println!();
    let words: Vec<&str> = name.split(ARGUMENTS).collect();
    let (_, run) = ROLES.iter().find(|(n, _)| *n == words[0]).unwrap();
    run(Path::new(words[1]), &words[2..]);
    std::process::exit(0);
}

/// A role's line.
pub fn say(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
}

/// Waits for a line from the test.
pub fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// A role that runs; killed when this is dropped.
pub struct Process {
    child: std::process::Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    pub fn start(name: &str, socket: &Path, args: &[&str]) -> Process {
        Process::start_with(name, socket, args, |_| {})
    }

    pub fn start_with(
        name: &str,
        socket: &Path,
        args: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Process {
        let mut words = vec![name, socket.to_str().unwrap()];
        words.extend(args);
        // By this name another user can start it as well, wherever it lies.
        let mut c = Command::new("/proc/self/exe");
        c.args(["--exact", "role::role", "--ignored", "--nocapture", "--test-threads=1"]);
        c.env(ROLE, words.join(&ARGUMENTS.to_string()));
        change(&mut c);
        let mut child = dies_with_us(&mut c).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    let _ = to.send(line.to_owned());
                }
            }
        });
        Process { input: child.stdin.take(), child, lines }
    }

    /// A role of another user: only root can start one.
    pub fn start_as(uid: u32, name: &str, socket: &Path) -> Process {
        Process::start_with(name, socket, &[], |c| {
            c.uid(uid).gid(uid).current_dir("/");
        })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signo: i32) {
        sys::send_signal(self.pid(), signo).unwrap();
    }

    /// SIGKILL, and it is gone when this returns.
    pub fn kill(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it had ended already");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Its next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the other process says nothing")
    }

    /// Waits until it says this.
    pub fn says(&self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Waits until it has done all of its role.
    pub fn ends(mut self) {
        drop(self.input.take());
        crate::wire::eventually("the other process ends", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success(), "the other process failed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
