//! libevent itself, doing what a sequence says: a program in C on the library that is installed (`libevent.c`).

use crate::ops::{Act, Op, Sequence, Setup};
use crate::real::{BaseState, EventState, Outcome, Seen, Setting};
use evd_client::Ended;
use evd_proto::What;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock};

/// Whoever starts a program has it for himself, as its child has a copy of each fd for a moment: what is closed meanwhile is not yet closed for its peer.
pub static FDS: RwLock<()> = RwLock::new(());

/// libevent at work, one sequence after the other.
pub struct Library {
    setting: Setting,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// The program, or what it needs that is not here.
pub fn program() -> Result<&'static Path, &'static str> {
    static PROGRAM: OnceLock<Result<PathBuf, &'static str>> = OnceLock::new();
    PROGRAM.get_or_init(build).as_deref().map_err(|e| *e)
}

fn build() -> Result<PathBuf, &'static str> {
    let cc = |args: &[&str], into: &Path, from: &Path| {
        let _alone = FDS.write().unwrap_or_else(PoisonError::into_inner);
        Command::new("cc").args(args).arg("-o").arg(into).arg(from).arg("-levent_core").output()
    };
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Several processes may build it.
    let into = tmp.join(format!("libevent-{}", std::process::id()));
    std::fs::create_dir_all(&into).unwrap();
    let probe = into.join("probe.c");
    // The model is of 2.1.
    let text = "#include <event2/event.h>\n#if LIBEVENT_VERSION_NUMBER >= 0x02020000\n#error\n#endif\nint main(void) { return !event_get_version(); }\n";
    std::fs::write(&probe, text).unwrap();
    match cc(&[], &into.join("probe"), &probe) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Err("gcc"),
        Err(e) => panic!("cc: {e}"),
        Ok(built) if !built.status.success() => return Err("libevent-dev"),
        Ok(_) => {}
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/libevent.c");
    let program = into.join("libevent");
    let built = cc(&["-O1", "-Wall", "-Wextra", "-Werror"], &program, &source).unwrap();
    assert!(built.status.success(), "libevent.c: {}", String::from_utf8_lossy(&built.stderr));
    let built = tmp.join("libevent");
    std::fs::rename(program, &built).unwrap();
    std::fs::remove_dir_all(into).unwrap();
    Ok(built)
}

impl Library {
    /// For the bases of this setting.
    pub fn start(setting: &Setting) -> Library {
        let mut command = Command::new(program().unwrap());
        // Where a method tells edges from levels libevent says no to both on one fd only when it debugs, and evd always.
        command.args((setting.method == "epoll").then_some("debug"));
        let alone = FDS.write().unwrap_or_else(PoisonError::into_inner);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        drop(alone);
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Library { setting: setting.clone(), child, to, from }
    }

    /// What was seen of each operation of a sequence.
    pub fn run(&mut self, sequence: &Sequence) -> Result<Vec<Vec<Seen>>, String> {
        let done = self.try_run(sequence);
        done.map_err(|e| {
            // It has ended in the middle, as libevent does when it finds itself in a state that must not be.
            let _ = self.child.kill();
            let status = self.child.wait().unwrap();
            *self = Library::start(&self.setting.clone());
            format!("libevent has ended, {status}: {e}")
        })
    }

    fn try_run(&mut self, sequence: &Sequence) -> std::io::Result<Vec<Vec<Seen>>> {
        let mut text = start(&self.setting, &sequence.setup);
        for op in &sequence.ops {
            text += &words(op);
        }
        text += "e\n";
        self.to.write_all(text.as_bytes())?;
        let (mut all, mut seen) = (Vec::new(), Trace::default());
        let mut line = String::new();
        loop {
            line.clear();
            self.from.read_line(&mut line)?;
            if !line.ends_with('\n') {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let mut words = line.split_ascii_whitespace();
            let kind = words.next().unwrap();
            if kind == "end" {
                return Ok(all);
            }
            let numbers: Vec<i128> = words.map(|w| w.parse().unwrap()).collect();
            if seen.line(kind, &numbers) {
                all.push(std::mem::take(&mut seen).seen);
            }
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(setting: &Setting, setup: &Setup) -> String {
    let calls = setup.most_calls.map_or(-1, |n| n as i64);
    let Setup { priorities, limited_from, .. } = setup;
    let (method, changelist) = (setting.method, u8::from(setting.changelist));
    format!(
        "s {method} {priorities} {calls} {} {limited_from} {changelist} {}\n",
        ms(setup.most_time),
        ms(setup.common)
    )
}

fn ms(ms: Option<u64>) -> i64 {
    ms.map_or(-1, |ms| ms as i64)
}

fn words(op: &Op) -> String {
    match op {
        Op::New { event, port, what, priority, script } => {
            let [port, priority] = [port, priority].map(|n| n.map_or(-1, i64::from));
            let [first, second] = script.map(|act| act.map_or("-1 0 0".to_owned(), number));
            format!("n {event} {port} {what} {priority} {first} {second}\n")
        }
        Op::Do(act) => format!("d {}\n", number(*act)),
        Op::Loop(flags) => format!("l {flags}\n"),
    }
}

/// An act as its number in the program, what it is done to, and with what.
fn number(act: Act) -> String {
    let (act, of, with) = match act {
        Act::Add(event, timeout) => (0, event, ms(timeout)),
        Act::Del(event) => (1, event, 0),
        Act::RemoveTimer(event) => (2, event, 0),
        Act::Activate(event, what) => (3, event, what.into()),
        Act::SetPriority(event, priority) => (4, event, priority.into()),
        Act::Free(event) => (5, event, 0),
        Act::ActiveByFd(port, what) => (6, port, what.into()),
        Act::Write(port, n) => (7, port, n.into()),
        Act::Read(port, n) => (8, port, n.into()),
        Act::Fill(port) => (9, port, 0),
        Act::Drain(port) => (10, port, 0),
        Act::HalfClose(port) => (11, port, 0),
        Act::Close(port) => (12, port, 0),
        Act::Reopen(port) => (13, port, 0),
        Act::Advance(by) => (14, 0, by as i64),
        Act::UpdateTime => (15, 0, 0),
        Act::Break => (16, 0, 0),
        Act::Exit(after) => (17, 0, ms(after)),
        Act::Continue => (18, 0, 0),
        Act::ActivateTimes(event, times) => (19, event, times.into()),
        Act::ActiveBySignal => (20, 0, 0),
        Act::Finalize(event) => (22, event, 0),
        Act::Raise(times) => (21, 0, times.into()),
    };
    format!("{act} {of} {with}")
}

fn what(bits: i128) -> What {
    What::from_bits_retain(bits as u8)
}

/// What is seen of one operation.
#[derive(Default)]
struct Trace {
    seen: Vec<Seen>,
    events: Vec<EventState>,
    looped: Option<[i128; 3]>,
}

impl Trace {
    /// A line more. Returns whether it was the last of its operation.
    fn line(&mut self, kind: &str, numbers: &[i128]) -> bool {
        let time = |n: i128| u64::try_from(n).ok();
        match (kind, numbers) {
            ("P", &[timeout, guard]) => {
                self.seen.push(Seen::Prepare { timeout: time(timeout), guard: guard != 0, synced: true });
            }
            ("C", [_, active @ ..]) => {
                let active = active.chunks(2).map(|pair| (pair[0] as u8, what(pair[1]))).collect();
                self.seen.push(Seen::Check { active });
            }
            ("K", &[event, bits, pending, left, now, exit, all_active, signals, common]) => {
                self.seen.push(Seen::Call {
                    event: event as u8,
                    what: what(bits),
                    pending: what(pending),
                    left: time(left),
                    now: now as u64,
                    got_exit: exit != 0,
                    all_active: all_active as usize,
                    own: [signals != 0, common != 0],
                })
            }
            ("D", &[outcome, bytes]) => self.seen.push(Seen::Did(match outcome {
                0 => Outcome::Done,
                1 => Outcome::Refused,
                2 => Outcome::Nothing,
                _ => Outcome::Bytes(bytes as u32),
            })),
            ("L", looped) => self.looped = Some(looped.try_into().unwrap()),
            ("E", &[event, pending, left, priority, count]) => self.events.push(EventState {
                event: event as u8,
                pending: what(pending),
                left: time(left),
                priority: priority as usize,
                count: count as u64,
            }),
            ("B", &[active, added, exit, stop]) => {
                let base = BaseState {
                    active: active as usize,
                    added: added as usize,
                    got_exit: exit != 0,
                    got_break: stop != 0,
                };
                if let Some([code, signals, common]) = self.looped {
                    assert!(code == 0 || code == 1, "the loop returned {code}");
                    let ended = match (code, exit, stop) {
                        (1, ..) => Ended::Empty,
                        (_, 1, _) => Ended::Exit,
                        (_, _, 1) => Ended::Break,
                        _ => Ended::Done,
                    };
                    self.seen.push(Seen::Looped { ended, callbacks: None, own: [signals != 0, common != 0] });
                }
                self.seen.push(Seen::State(std::mem::take(&mut self.events), base));
                return true;
            }
            other => panic!("a line of libevent.c: {other:?}"),
        }
        false
    }
}
