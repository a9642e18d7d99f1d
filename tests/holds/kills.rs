//! evd is killed at random moments, while holds come, go, are taken and expire. The checker knows what must be held, and has the other end of all of it.

use crate::kept::*;
use crate::wire::{Raw, eventually};
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Done, Refused, Took};
use evd_proto::request::{Drop as DropHold, Sync as SyncAll, Take, Taken};
use evd_proto::sys;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

struct Checker<'a> {
    keeper: &'a Keeper,
    raw: Raw,
    /// What must be held: the line in it, what is attached, its other end.
    held: BTreeMap<String, (String, Vec<u8>, Thing)>,
    /// What must be closed, in the end.
    gone: Vec<Thing>,
    next: usize,
    lost: usize,
    acts: usize,
}

impl Checker<'_> {
    fn again(&mut self) {
        self.lost += 1;
        self.raw = self.keeper.session();
    }

    fn is_held(&mut self, name: &str) -> bool {
        loop {
            match list(&mut self.raw) {
                Some(all) => return all.iter().any(|h| h.name == name),
                None => self.again(),
            }
        }
    }

    fn put(&mut self, dice: &mut Dice, replace: bool) {
        let name = match self.held.keys().nth(dice.below(self.held.len().max(1))) {
            Some(name) if replace => name.clone(),
            _ => format!("n:{}", self.next),
        };
        self.next += 1;
        let line = format!("line {}\n", self.next);
        let attachment = vec![self.next as u8; dice.below(3000)];
        let (fd, thing) = thing(self.next, &line);
        // What is attached tells which of two it is.
        let body = hold(&name, &[&self.next.to_le_bytes(), &attachment[..]].concat(), 0, replace);
        let attachment = body.attachment.clone();
        match ask(&mut self.raw, &body, &[fd.as_raw_fd()]) {
            Some(got) => drop(got.read::<Done>()),
            None => {
                // Either is right, but it must be one of the two.
                self.again();
                let found = loop {
                    let take = Take { name: name.clone(), keep: true };
                    match ask(&mut self.raw, &take, &[]) {
                        Some(got) if got.kind == Kind::Took => break Some(got.read::<Took>().attachment),
                        Some(_) => break None,
                        None => self.again(),
                    }
                };
                if found.as_ref() != Some(&attachment) {
                    assert_eq!(found.as_ref(), self.held.get(&name).map(|h| &h.1));
                    return;
                }
            }
        }
        if let Some((_, _, old)) = self.held.insert(name, (line, attachment, thing)) {
            self.gone.push(old);
        }
    }

    fn let_go(&mut self, name: &str) {
        let body = DropHold { name: name.to_owned() };
        loop {
            match ask(&mut self.raw, &body, &[]) {
                Some(got) if got.kind == Kind::Done => break,
                // It had been done when evd died.
                Some(got) => break assert_eq!(got.read::<Refused>().code, Code::Unknown),
                None => self.again(),
            }
        }
        self.gone.push(self.held.remove(name).unwrap().2);
    }

    fn take(&mut self, name: &str) {
        let take = Take { name: name.to_owned(), keep: false };
        let mut got = loop {
            match ask(&mut self.raw, &take, &[]) {
                Some(got) if got.kind == Kind::Took => break got,
                // Its session of before may just be ending.
                Some(got) => assert_eq!(got.read::<Refused>().code, Code::Busy, "{name} is lost"),
                None => self.again(),
            }
        };
        let (took, fd) = (got.read::<Took>(), got.fds.pop().unwrap());
        let taken = Taken { hold: took.hold };
        while tell(&mut self.raw, &taken, &[]).and_then(|()| ask(&mut self.raw, &SyncAll {}, &[])).is_none() {
            self.again();
        }
        assert!(!self.is_held(name), "{name} is doubled");
        let (line, attachment, thing) = self.held.remove(name).unwrap();
        assert_eq!(took.attachment, attachment);
        thing.check(fd, &line);
        self.gone.push(thing);
    }

    fn act(&mut self, dice: &mut Dice, most: usize) {
        self.acts += 1;
        let some = self.held.keys().nth(dice.below(self.held.len().max(1))).cloned();
        match (dice.below(10), some) {
            (0..=1, Some(_)) => self.put(dice, true),
            (2..=3, Some(name)) => self.let_go(&name),
            (4..=6, Some(name)) => self.take(&name),
            _ if self.held.len() < most => self.put(dice, false),
            (_, Some(name)) => self.let_go(&name),
            _ => {}
        }
    }
}

fn play(start: usize, kills: usize, seed: u64) {
    sys::raise_open_files().unwrap();
    let keeper = Keeper::start();
    let rest = keeper.fds();
    let raw = keeper.session();
    let mut checker =
        Checker { keeper: &keeper, raw, held: BTreeMap::new(), gone: Vec::new(), next: 0, lost: 0, acts: 0 };
    let mut dice = Dice(seed);
    while checker.held.len() < start {
        checker.put(&mut dice, false);
    }
    let (done, acts) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice(seed ^ 0xdead_beef);
            for n in 0..kills {
                // Some come while it still reads what it has inherited; but no five in a row, which evd would take for its own fault. Before it answers, the count of
                // its starts is what the one before it left.
                if n % 3 == 0 {
                    let before = acts.load(Ordering::Acquire);
                    eventually("evd answers", || acts.load(Ordering::Acquire) > before + 1);
                    eventually("evd is sure of itself", || keeper.is_settled());
                }
                let ms = dice.below(if n % 3 == 0 { 300 } else { 60 }) as u64;
                std::thread::sleep(Duration::from_micros(ms * 1000 + dice.below(1000) as u64));
                let mut evd = None;
                eventually("evd is there", || {
                    evd = keeper.evd();
                    evd.is_some()
                });
                let _ = sys::send_signal(evd.unwrap(), libc::SIGKILL);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            checker.act(&mut dice, start + 50);
            acts.fetch_add(1, Ordering::Release);
        }
    });
    for _ in 0..50 {
        checker.act(&mut dice, start + 50);
    }
    let mut all = None;
    while all.is_none() {
        all = list(&mut checker.raw);
        if all.is_none() {
            checker.again();
        }
    }
    let names: Vec<String> = all.unwrap().into_iter().map(|h| h.name).collect();
    assert!(names.iter().eq(checker.held.keys()), "held, but not by our books, or the other way round");
    for name in names {
        checker.take(&name);
    }
    let Checker { raw, gone, lost, acts, .. } = checker;
    drop(raw);
    println!("{start} held: {acts} acts, {lost} of them through a death of evd, {kills} kills");
    eventually("all that is gone is closed", || gone.iter().all(|t| !t.is_open()));
    eventually("no fd is left", || keeper.fds() == rest);
}

#[test]
fn nothing_is_lost_or_doubled_with_few_holds() {
    play(1, 30, 0x1234_5678_9abc);
}

#[test]
fn nothing_is_lost_or_doubled_with_some_hundred() {
    play(300, 30, 0x2345_6789_abcd);
}

#[test]
fn nothing_is_lost_or_doubled_with_thousands() {
    play(2000, 15, 0x3456_789a_bcde);
}
