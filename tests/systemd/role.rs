//! Processes inside the container: this test program again, as one of the roles below.
//!
//! A role is told what to do by its arguments and by lines on its stdin, and tells by lines on its stdout. It ends with the container at the latest.

use crate::lab::Lab;
use crate::parts::PATIENCE;
use crate::{gap, load};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};

const ROLE: &str = "EVD_LAB_ROLE";
/// What begins a line of a role, apart from those of the test harness around it.
const MARK: &str = "> ";
/// Where clients of the machine's evd find it.
pub const SOCKET: &str = "/run/evd/socket";

type Role = fn(args: &[&str]);

const ROLES: &[(&str, Role)] =
    &[("client", load::client), ("checker", load::checker), ("caller", load::caller), ("crowd", gap::crowd)];

#[test]
#[ignore = "a part that other tests start in a container"]
fn role() {
    let Ok(line) = std::env::var(ROLE) else { return };
    // The harness has begun a line.
    println!();
    let words: Vec<&str> = line.split(' ').collect();
    let (_, run) = ROLES.iter().find(|(n, _)| *n == words[0]).unwrap();
    run(&words[1..]);
    std::process::exit(0);
}

/// A role's line.
pub fn say(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
}

/// A role that runs; its stdin is closed when this is dropped.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    pub fn start(lab: &Lab, (uid, gid): (u32, u32), words: &str) -> Process {
        let exe = std::env::current_exe().unwrap();
        let program = format!("/lab/{}", exe.file_name().unwrap().to_str().unwrap());
        let mut c = lab.command_as(uid, gid, &[&format!("{ROLE}={words}")], &program);
        c.args(["--exact", "role::role", "--ignored", "--nocapture", "--test-threads=1"]);
        let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Its next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the other process says nothing")
    }

    pub fn says(&self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Its next line, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Tells it something, and waits for its answer.
    pub fn ask(&mut self, line: &str) -> Value {
        self.tell(line);
        self.json()
    }

    /// Waits until it has done all of its role.
    pub fn ends(mut self) {
        drop(self.input.take());
        crate::parts::eventually("the other process ends", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success(), "the other process failed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
