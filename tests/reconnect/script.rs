//! What happens around a client: made up from a seed.

use crate::MS;
use crate::fake::{Death, Manner};
use crate::random::Random;

/// Files that the client watches.
pub const WIRES: u64 = 4;

#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// A byte comes on a wire.
    Write(u8),
    /// The name that the client subscribed to is triggered.
    Trigger,
    /// The client deletes a watch and adds it again.
    Again(u8),
    /// From now on evd is like this for those who connect.
    Become(Manner),
    /// evd ends, or its sessions stall; in this moment a byte comes, and a name is triggered.
    Die(Death),
}

/// A time in milliseconds after the start, and what happens then. The last is the end.
pub type Script = Vec<(u64, Act)>;

pub fn script(seed: u64) -> (Script, u64) {
    let mut random = Random(seed);
    let r = &mut random;
    let mut script: Script = Vec::new();
    let mut at = 0;
    for _ in 0..2 + r.below(8) {
        let late = Manner::Late(r.of(&[1, 50, 3000, 9_990, 12_000]));
        let manner = r.of(&[
            Manner::Absent,
            Manner::Dead,
            Manner::Silent,
            Manner::Closes,
            Manner::Refuses,
            Manner::Garbage,
            Manner::HalfWelcome,
            late,
            Manner::Good,
            Manner::Good,
            Manner::Good,
            Manner::Good,
        ]);
        script.push((at, Act::Become(manner)));
        at += r.of(&[1, 10, 100, 700, 3000, 3000, 8000, 20_000]);
        let death = r.of(&[
            Death::Close,
            Death::Close,
            Death::MidFrame,
            Death::Closing,
            Death::Garbage,
            Death::Stall,
        ]);
        script.push((at, Act::Die(death)));
        at += r.of(&[0, 0, 0, 5, 300, 15_000]);
    }
    for _ in 0..r.below(60) {
        let act = match r.below(8) {
            0 => Act::Again(r.below(WIRES) as u8),
            1..=2 => Act::Trigger,
            _ => Act::Write(r.below(WIRES) as u8),
        };
        // Often several together.
        let when = r.below(at + 1);
        (0..1 + r.below(3)).for_each(|n| script.push((when + n * r.below(8), act)));
    }
    script.sort_by_key(|(at, _)| *at);
    // What was unfinished comes to its end with an evd that stays, or with none.
    let last = script.last().map_or(0, |(at, _)| *at);
    script.push((last, Act::Become(if r.one_in(2) { Manner::Good } else { Manner::Absent })));
    if r.one_in(2) {
        script.push((last, Act::Die(Death::Close)));
    }
    (script, (last + 40_000) * MS)
}
