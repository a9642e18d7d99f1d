//! Running sequences, many or one, and making one that fails as short as it gets.

use crate::ops::{self, Ask, CLIENTS, Hello, Op};
use crate::plain::Model;
use crate::random::{number, shorten};
use crate::real::Real;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where the seeds begin, unless `EVD_SESSIONS_SEED` says so.
const SEED: u64 = 1;

/// So often evd is turned again before something that is left is a mistake.
const PATIENCE: u32 = 1_000;

/// Runs one sequence; says where evd and the model part.
fn run(all: &[Op]) -> Result<(), String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let (mut real, mut model) = (Real::new(), Model::default());
        for (at, op) in all.iter().enumerate() {
            let Some(first) = model.prepare(op) else { continue };
            if let Some(client) = first {
                step(&mut real, &mut model, &Op::Read(client as u8))
                    .map_err(|e| format!("before operation {at}: {e}"))?;
            }
            if let Op::Connect(c, ..) = op {
                if model.is_there(*c as usize) {
                    step(&mut real, &mut model, &Op::Leave(*c))
                        .map_err(|e| format!("before operation {at}: {e}"))?;
                }
            }
            step(&mut real, &mut model, op).map_err(|e| format!("operation {at}, {op:?}: {e}"))?;
        }
        end(real, model)
    }));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("a panic: {}", text.unwrap_or_else(|| "without a text".to_owned())))
    })
}

fn step(real: &mut Real, model: &mut Model, op: &Op) -> Result<(), String> {
    let mut connected = true;
    match op {
        Op::Connect(c, uid, inspects, small) => {
            connected = real.connect(*c as usize, *uid, *inspects, *small);
        }
        Op::Ask(c, asks) => real.ask(*c as usize, asks, &model.bases()),
        Op::Dash(c, asks) => {
            real.ask(*c as usize, asks, &model.bases());
            real.leave(*c as usize);
        }
        Op::Leave(c) => real.leave(*c as usize),
        Op::Write(w) => real.write(*w as usize),
        Op::Drain(w) => real.drain(*w as usize),
        Op::Reopen(w) => real.reopen(*w as usize),
        Op::Stall(_) | Op::Read(_) => {}
    }
    real.turn();
    model.op(op, connected)?;
    if let Op::Leave(c) | Op::Dash(c, _) = op {
        model.gone(*c as usize);
    }
    for client in 0..CLIENTS {
        if model.is_there(client) && !model.is_stalled(client) {
            let mut told = real.read(client);
            // Its end may come a little later, see below.
            for _ in 0..PATIENCE {
                if told.is_over || !model.is_over(client) {
                    break;
                }
                std::thread::yield_now();
                told = real.read_on(client, told);
            }
            model.compare(client, told)?;
        }
    }
    // Another thread that looks through /proc/self/fd (each evd does when it starts) may be the last to have a file that was closed here: then its end is seen
    // a little later.
    for _ in 0..PATIENCE {
        if model.audit(&real.accounts()).is_ok() {
            break;
        }
        std::thread::yield_now();
        real.turn();
    }
    model.audit(&real.accounts())
}

/// Everybody leaves, and what is held is let go: then nothing is left.
fn end(mut real: Real, mut model: Model) -> Result<(), String> {
    for client in 0..CLIENTS {
        if model.is_there(client) {
            step(&mut real, &mut model, &Op::Leave(client as u8))?;
        }
    }
    for (uid, name) in model.held() {
        step(&mut real, &mut model, &Op::Connect(0, uid, false, false))?;
        let asks = vec![Ask::Hello(Hello::Client), Ask::Drop(name)];
        step(&mut real, &mut model, &Op::Ask(0, asks))?;
        step(&mut real, &mut model, &Op::Leave(0))?;
    }
    for _ in 0..PATIENCE {
        if real.is_empty() {
            break;
        }
        std::thread::yield_now();
        real.turn();
    }
    if real.is_empty() { Ok(()) } else { Err(format!("something is left: {:?}", real.accounts())) }
}

/// Runs so many random sequences, unless `EVD_SESSIONS_SEQUENCES` says how many. Each part has as many, from where the one before ends.
pub fn random(part: u64, sequences: u64) {
    let sequences = number("EVD_SESSIONS_SEQUENCES").unwrap_or(sequences);
    let first = number("EVD_SESSIONS_SEED").unwrap_or(SEED) + part * sequences;
    for seed in first..first + sequences {
        let all = ops::sequence(seed);
        if let Err(why) = run(&all) {
            fail(seed, all, &why);
        }
    }
}

/// Runs a sequence that once failed.
pub fn replay(all: &[Op]) {
    if let Err(why) = run(all) {
        panic!("{why}");
    }
}

fn fail(seed: u64, mut all: Vec<Op>, first: &str) -> ! {
    loop {
        let before = format!("{all:?}");
        shorten(&mut all, ops::easier, |ops| run(ops).is_err());
        if format!("{all:?}") == before {
            break;
        }
    }
    let why = run(&all).err().unwrap_or_else(|| format!("it does not always fail; at first: {first}"));
    let mut text = String::from("replay(&[\n");
    for op in &all {
        // As it is written in a source.
        text += &format!("    {},\n", format!("{op:?}").replace('[', "vec!["));
    }
    panic!("EVD_SESSIONS_SEED={seed}: {why}\n\n{text}]);\n");
}
