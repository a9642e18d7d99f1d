//! Running sequences, many or one, and making one that fails as short as it gets.

use crate::libevent::{FDS, Library};
use crate::ops::{Op, SIGNAL, Sequence, Setup};
use crate::plain::Model;
use crate::random::{number, shorten};
use crate::real::{Real, Seen, Setting};
use crate::wires::Fds;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::PoisonError;

/// Where the seeds begin, unless `EVD_MODEL_SEED` says so.
const SEED: u64 = 1;

/// What sequences are run on.
struct Subject {
    setting: Setting,
    fds: Rc<RefCell<Fds>>,
    library: Option<RefCell<Library>>,
}

impl Subject {
    fn new(setting: &Setting) -> Subject {
        let library = setting.libevent.then(|| RefCell::new(Library::start(setting)));
        Subject { setting: setting.clone(), fds: Rc::new(RefCell::new(Fds::new())), library }
    }
}

/// Goes through what was seen of each operation, and says where the base and the model part.
fn compare(
    setting: &Setting,
    sequence: &Sequence,
    mut seen: impl FnMut(usize, &Op) -> Vec<Seen>,
) -> Result<(), String> {
    let mut model = Model::new(setting, &sequence.setup);
    for (at, op) in sequence.ops.iter().enumerate() {
        let seen = seen(at, op);
        let trace = format!("{seen:?}");
        model.op(op, seen).map_err(|e| {
            format!("operation {at}, {op:?}:\n  {e}\n  all: {}", trace.get(..3000).unwrap_or(&trace))
        })?;
    }
    Ok(())
}

/// Runs one sequence. Returns whether a remote base was still at evd at the end.
fn run(subject: &Subject, sequence: &Sequence) -> Result<bool, String> {
    let Subject { setting, fds, library } = subject;
    let result = catch_unwind(AssertUnwindSafe(|| {
        if let Some(library) = library {
            // Its changelist may leave a level-triggered event edge-triggered, as one was that had the fd before.
            let sequence = &if setting.changelist { sequence.without_edges() } else { sequence.clone() };
            let mut all = library.borrow_mut().run(sequence)?;
            compare(setting, sequence, |at, _| std::mem::take(&mut all[at]))?;
            return Ok(true);
        }
        let _fds = FDS.read().unwrap_or_else(PoisonError::into_inner);
        let mut real = Real::new(setting, &sequence.setup, fds);
        compare(setting, sequence, |_, op| real.op(op))?;
        Ok(real.is_where(setting))
    }));
    // A panic may have left them borrowed in a base that is gone.
    fds.borrow_mut().reset();
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("a panic: {}", text.unwrap_or_else(|| "without a text".to_owned())))
    })
}

/// Runs so many random sequences, unless `EVD_MODEL_SEQUENCES` says how many. Each part has as many, from where the one before ends.
pub fn random(setting: &Setting, part: u64, sequences: u64) {
    let sequences = number("EVD_MODEL_SEQUENCES").unwrap_or(sequences);
    let first = number("EVD_MODEL_SEED").unwrap_or(SEED) + part * sequences;
    let subject = Subject::new(setting);
    let mut elsewhere = 0;
    for seed in first..first + sequences {
        let sequence = Sequence::random(seed);
        match run(&subject, &sequence) {
            Ok(there) => elsewhere += u64::from(!there),
            Err(why) => fail(&subject, seed, sequence, &why),
        }
    }
    // On a machine that stands still for seconds evd may be given up now and then.
    assert!(elsewhere <= sequences / 100, "{elsewhere} bases had lost evd");
}

/// Runs a sequence that once failed.
pub fn replay(setting: &Setting, setup: Setup, ops: &[Op]) {
    let sequence = Sequence { setup, ops: ops.to_vec() };
    if let Err(why) = run(&Subject::new(setting), &sequence) {
        panic!("{setting:?}: {why}");
    }
}

fn fail(subject: &Subject, seed: u64, sequence: Sequence, first: &str) -> ! {
    let short = shrink(sequence, |s| run(subject, s).is_err());
    let why = run(subject, &short).err();
    let why = why.unwrap_or_else(|| format!("it does not always fail; at first: {first}"));
    let mut text = format!("replays({:?}, &[\n", short.setup);
    for op in &short.ops {
        text += &format!("    {op:?},\n");
    }
    text += "]);";
    panic!("{:?}, EVD_MODEL_SEED={seed}: {why}\n\n{text}\n", subject.setting);
}

/// Takes away what is not needed for `fails`.
fn shrink(mut sequence: Sequence, fails: impl Fn(&Sequence) -> bool) -> Sequence {
    loop {
        let before = format!("{sequence:?}");
        let setup = sequence.setup;
        let with = |ops: &[Op]| Sequence { setup, ops: ops.to_vec() };
        shorten(&mut sequence.ops, |op| easier(*op), |ops| fails(&with(ops)));
        let plain = |change: fn(&mut Setup)| {
            let mut other = sequence.clone();
            change(&mut other.setup);
            other
        };
        let others = [
            plain(|s| (s.most_calls, s.most_time) = (None, None)),
            plain(|s| s.common = None),
            plain(|s| s.signals = false),
            plain(|s| s.priorities = 1),
            plain(|s| s.watched = false),
            plain(|s| s.lazy = false),
        ];
        for other in others {
            if fails(&other) {
                sequence = other;
                break;
            }
        }
        if format!("{sequence:?}") == before {
            return sequence;
        }
    }
}

fn easier(op: Op) -> Vec<Op> {
    match op {
        Op::New { event, port, what, priority, script } => vec![
            Op::New { event, port, what, priority, script: [None, None] },
            Op::New { event, port, what, priority, script: [script[0], None] },
            Op::New { event, port, what, priority, script: [script[1], None] },
            Op::New { event, port, what, priority: None, script },
            Op::New {
                event,
                port: port.map(|port| if port == SIGNAL { port } else { 0 }),
                what,
                priority,
                script,
            },
        ],
        Op::Loop(flags) if flags != 3 => vec![Op::Loop(3)],
        _ => Vec::new(),
    }
}
