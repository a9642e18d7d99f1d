//! A client in a world whose time stands still until it sleeps.

use crate::MS;
use crate::fake::{Death, Fake, Manner};
use crate::random::{number, shorten};
use crate::script::{Act, Script, WIRES, script};
use evd::base::Clock;
use evd_client::{Event, EventBase, LinkState};
use evd_proto::What;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the seeds begin, unless `EVD_RECONNECT_SEED` says so.
const SEED: u64 = 1;
const START: u64 = 1_000_000_000_000;
/// So often the loop turns at most without time passing: a byte needs a few turns, and several may come at once.
const MOST_TURNS: u32 = 150;
/// So late a byte is at most, in nanoseconds: evd is looked at every second where it can't be seen every five, and has two to answer.
const MOST_LATE: u64 = 9_000 * MS;
/// The shortest and the longest pause of a client that tries again.
const PAUSES: (u64, u64) = (5 * MS, 2_000 * MS);
/// So many turns it takes at most to see all of what was said.
const LOOKS: u32 = 3;
/// How often the timer that shows that the loop lives is due.
const BEAT: u64 = 250 * MS;

struct World {
    clock: Arc<AtomicU64>,
    fake: Fake,
    script: VecDeque<(u64, Act)>,
    end: u64,
    far: Vec<UnixStream>,
    /// When the bytes that are not read yet came, by wire.
    sent: Vec<VecDeque<u64>>,
    events: Vec<Event<UnixStream>>,
    /// Names that evd told of, and that the client heard of.
    told: u64,
    heard: u64,
    turns: u32,
    all_turns: u64,
    beats: u64,
    written: bool,
    /// So many waits end at once.
    looks: u32,
    /// What was wrong first.
    wrong: Option<String>,
    acts: u64,
}

impl World {
    fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn wrong(&mut self, why: String) {
        let at = (self.now() - START) / MS;
        self.wrong.get_or_insert(format!("after {at} ms: {why}"));
    }

    fn write(&mut self, wire: u8) {
        self.far[wire as usize].write_all(b"x").unwrap();
        let now = self.now();
        self.sent[wire as usize].push_back(now);
        self.written = true;
    }

    /// What the script has for now. Deleting and adding is left to the caller.
    fn act(&mut self) -> Vec<u8> {
        let mut again = Vec::new();
        while let Some((at, act)) = self.script.front().copied() {
            if at > self.now() {
                break;
            }
            self.script.pop_front();
            self.acts += 1;
            match act {
                Act::Write(wire) => self.write(wire),
                Act::Trigger => self.told += u64::from(self.fake.trigger()),
                Act::Again(wire) => again.push(wire),
                Act::Become(manner) => self.fake.become_(manner),
                Act::Die(death) => {
                    self.write((at % WIRES) as u8);
                    let now = self.now();
                    self.fake.serve(now);
                    self.told += u64::from(self.fake.trigger());
                    self.fake.die(death);
                    if death != Death::Stall {
                        self.fake.become_(Manner::Absent);
                    }
                }
            }
        }
        again
    }

    /// The client wants to sleep for so long, or only looks.
    fn sleep(&mut self, timeout: Option<Duration>) -> Vec<u8> {
        self.all_turns += 1;
        let before = self.now();
        let mut again = Vec::new();
        let wake = match timeout {
            Some(timeout) => before + timeout.as_nanos() as u64,
            None => self.end,
        };
        loop {
            let now = self.now();
            self.fake.serve(now);
            again.append(&mut self.act());
            // A byte on a wire that evd waits for wakes nobody by itself, and a look too many does no harm.
            if std::mem::take(&mut self.fake.spoke) | std::mem::take(&mut self.written) {
                // The end behind what was said is seen with the next look: a socket that is not empty ends the next wait as well.
                self.looks = LOOKS;
            }
            let woken = std::mem::take(&mut self.looks);
            self.looks = woken.saturating_sub(1);
            let woken = woken > 0;
            if woken || !again.is_empty() || now >= wake || now >= self.end {
                break;
            }
            let next = [self.script.front().map(|(at, _)| *at), self.fake.next(), Some(wake), Some(self.end)];
            let next = next.into_iter().flatten().min().unwrap_or(self.end);
            self.clock.store(next.max(now), Ordering::SeqCst);
        }
        self.turns = if self.now() > before { 0 } else { self.turns + 1 };
        if self.turns > MOST_TURNS {
            self.wrong(format!("{} turns without time passing", self.turns));
        }
        again
    }
}

fn run(script: &[(u64, Act)], end: u64) -> Result<Vec<u64>, String> {
    let result = catch_unwind(AssertUnwindSafe(|| simulate(script, end)));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("a panic: {}", text.unwrap_or_else(|| "without a text".to_owned())))
    })
}

fn simulate(script: &[(u64, Act)], end: u64) -> Result<Vec<u64>, String> {
    let clock = Arc::new(AtomicU64::new(START));
    let name = format!("evd-reconnect-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    let mut fake = Fake::new(path.clone());
    // There, but without an answer in no time: the client is to try again.
    fake.become_(Manner::Silent);
    let base = EventBase::builder()
        .method("epoll")
        .ignore_env()
        .clock(Clock::Manual(Arc::clone(&clock)))
        .socket(&path)
        .patience(Duration::ZERO)
        .build()
        .unwrap();
    let wires: Vec<(UnixStream, UnixStream)> = (0..WIRES).map(|_| UnixStream::pair().unwrap()).collect();
    let (near, far): (Vec<UnixStream>, Vec<UnixStream>) = wires.into_iter().unzip();
    let world = Rc::new(RefCell::new(World {
        clock,
        fake,
        script: script.iter().map(|(at, act)| (START + at * MS, *act)).collect(),
        end: START + end,
        far,
        sent: vec![VecDeque::new(); WIRES as usize],
        events: Vec::new(),
        told: 0,
        heard: 0,
        turns: 0,
        all_turns: 0,
        beats: 0,
        written: false,
        looks: 0,
        wrong: None,
        acts: 0,
    }));
    for (n, near) in near.into_iter().enumerate() {
        let of = Rc::clone(&world);
        let event = Event::new(&base, near, What::READ | What::PERSIST, move |event, _| {
            let mut byte = [0];
            let mut w = of.borrow_mut();
            let got = event.source().read(&mut byte);
            match (got, w.sent[n].pop_front()) {
                (Ok(1), Some(at)) => {
                    let late = w.now() - at;
                    if late > MOST_LATE {
                        w.wrong(format!("a byte was seen after {} ms", late / MS));
                    }
                }
                other => w.wrong(format!("called for nothing: {other:?}")),
            }
        });
        let event = event.unwrap();
        event.source().set_nonblocking(true).unwrap();
        event.add(None).unwrap();
        world.borrow_mut().events.push(event);
    }
    let of = Rc::clone(&world);
    let named =
        Event::named(&base, "name", move |event, _| of.borrow_mut().heard += u64::from(event.times()))
            .unwrap();
    named.add(None).unwrap();
    let of = Rc::clone(&world);
    let beat = Event::timer(&base, What::PERSIST, move |_, _| of.borrow_mut().beats += 1).unwrap();
    beat.add(Some(Duration::from_nanos(BEAT))).unwrap();
    let of = Rc::clone(&world);
    let watcher = base.prepare(move |base, timeout| {
        let again = of.borrow_mut().sleep(timeout);
        for wire in again {
            let w = of.borrow();
            w.events[wire as usize].del().unwrap();
            w.events[wire as usize].add(None).unwrap();
        }
        let w = of.borrow();
        if w.now() >= w.end || w.wrong.is_some() {
            base.loopbreak();
        }
    });
    base.dispatch().unwrap();
    drop(watcher);
    let mut w = world.borrow_mut();
    let verdict = judge(&mut w, &base, end);
    let events = std::mem::take(&mut w.events);
    drop(w);
    drop(events);
    verdict
}

fn judge(w: &mut World, base: &EventBase, end: u64) -> Result<Vec<u64>, String> {
    if let Some(wrong) = w.wrong.take() {
        return Err(wrong);
    }
    let unread: usize = w.sent.iter().map(VecDeque::len).sum();
    if unread > 0 {
        return Err(format!("{unread} bytes were never seen"));
    }
    if w.told != w.heard {
        return Err(format!("{} names were triggered, and {} heard", w.told, w.heard));
    }
    let (parked, local) = base.watches();
    let link = base.link();
    let is_there = w.fake.manner == Manner::Good;
    // One that is there no more for those who come may still serve who was there.
    let right = match &link {
        LinkState::Up { .. } => (parked, local) == (WIRES as usize, 0) && w.fake.armed() == parked,
        _ => !is_there && (parked, local) == (0, WIRES as usize),
    };
    if !right {
        return Err(format!(
            "at the end {link:?}, {parked} parked, {} armed, {local} local; evd: {:?}",
            w.fake.armed(),
            w.fake.manner
        ));
    }
    for pair in w.fake.met.windows(2) {
        let gap = pair[1] - pair[0];
        if gap < PAUSES.0 {
            return Err(format!("connected again after {gap} ns"));
        }
    }
    let beats = end / BEAT;
    if !(beats - 1..=beats).contains(&w.beats) {
        return Err(format!("{} of {beats} beats", w.beats));
    }
    // All that happens and each second may wake it some times.
    let most = 100 + 12 * (w.acts + w.fake.met.len() as u64) + 12 * end / (1000 * MS);
    if w.all_turns > most {
        return Err(format!("{} turns, at most {most} are plausible", w.all_turns));
    }
    Ok(std::mem::take(&mut w.fake.met))
}

/// Runs so many random scripts, unless `EVD_RECONNECT_SCRIPTS` says how many.
pub fn random(part: u64, scripts: u64) {
    let scripts = number("EVD_RECONNECT_SCRIPTS").unwrap_or(scripts);
    let first = number("EVD_RECONNECT_SEED").unwrap_or(SEED) + part * scripts;
    let mut met = 0;
    for seed in first..first + scripts {
        let (all, end) = script(seed);
        match run(&all, end) {
            Ok(all) => met += all.len(),
            Err(why) => fail(seed, all, end, &why),
        }
    }
    println!("{scripts} scripts, {met} connections");
}

/// Runs a script that once failed.
pub fn replay(script: &[(u64, Act)], end: u64) {
    if let Err(why) = run(script, end) {
        panic!("{why}");
    }
}

/// The longest pause holds: an evd that comes back is found within it, and one that refuses is not asked more often than the pauses grow.
pub fn pauses(refuses: Manner) {
    // In milliseconds.
    let length = 60_000;
    let end = length * MS;
    let met = run(&[(0, Act::Become(refuses))], end).unwrap();
    let gaps: Vec<u64> = met.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.iter().all(|gap| (PAUSES.0..=PAUSES.1).contains(gap)), "{gaps:?}");
    assert!(gaps.len() as u64 > length / 2100 && gaps.len() as u64 <= 8 + length / 1000, "{gaps:?}");
    assert!(gaps.iter().rev().take(10).all(|gap| *gap >= PAUSES.1 / 2), "{gaps:?}");
}

fn fail(seed: u64, mut all: Script, end: u64, first: &str) -> ! {
    loop {
        let before = format!("{all:?}");
        shorten(&mut all, |_| Vec::new(), |acts| run(acts, end).is_err());
        if format!("{all:?}") == before {
            break;
        }
    }
    let why = run(&all, end).err().unwrap_or_else(|| format!("it does not always fail; at first: {first}"));
    let mut text = String::from("replay(&[\n");
    for act in &all {
        text += &format!("    {act:?},\n");
    }
    panic!("EVD_RECONNECT_SEED={seed}: {why}\n\n{text}], {end});\n");
}
