//! evd is killed again and again, under traffic.

use crate::parts::*;
use crate::wire::Evd;
use evd_client::{Event, EventBase, What};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// All kills together; `EVD_KILLS=1000` is for a long run.
const KILLS: usize = 200;
/// So many evds are killed at once, each with a base and traffic of its own.
const AT_ONCE: usize = 4;

/// Writes a byte now and then until it is told to stop; tells how many.
fn sparse(mut to: UnixStream, seed: u64, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut sent, mut pause) = (0, jitter(seed));
        while !stop.load(Ordering::SeqCst) {
            // Mostly longer than the linger, so that it is parked in between.
            std::thread::sleep(Duration::from_millis(pause.below(60)));
            to.write_all(b"x").unwrap();
            sent += 1;
        }
        sent
    })
}

/// Sends a byte and waits for its echo, again and again: a lost event would be a stall.
fn ping(mut peer: UnixStream, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut rounds, mut pause) = (0, jitter(50));
        while !stop.load(Ordering::SeqCst) {
            peer.write_all(&[rounds as u8]).unwrap();
            let mut echo = [0];
            peer.read_exact(&mut echo).expect("an echo");
            assert_eq!(echo, [rounds as u8]);
            rounds += 1;
            std::thread::sleep(Duration::from_micros(pause.below(1000)));
        }
        rounds
    })
}

/// Kills evd at odd moments, mostly when the base has it back, and starts it anew; gives back the last one.
fn kill_often(mut evd: Evd, kills: usize, up: Arc<AtomicBool>, stop: Arc<AtomicBool>) -> JoinHandle<Evd> {
    std::thread::spawn(move || {
        let mut pause = jitter(99);
        for _ in 0..kills {
            let limit = Instant::now() + 300 * MS;
            while !up.load(Ordering::SeqCst) && Instant::now() < limit {
                std::thread::sleep(MS);
            }
            std::thread::sleep(Duration::from_micros(pause.below(40_000)));
            kill(&mut evd);
            up.store(false, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(pause.below(20_000)));
            start_again(&mut evd);
        }
        stop.store(true, Ordering::SeqCst);
        // evd would end with the thread that started it.
        evd
    })
}

#[test]
fn two_hundred_kills_under_traffic_lose_nothing() {
    let kills = std::env::var("EVD_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(move || kills_lose_nothing(kills.div_ceil(AT_ONCE)));
        }
    });
}

fn kills_lose_nothing(kills: usize) {
    let evd = evd();
    let base = base(&evd);
    let (up, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (tell, heard) = (Arc::clone(&up), Count::default());
    let losses = Rc::clone(&heard);
    base.on_link(move |base, _| {
        tell.store(is_up(base), Ordering::SeqCst);
        if !is_up(base) {
            count(&losses);
        }
    });
    let (mut events, mut writers) = (Vec::new(), Vec::new());
    for seed in 0..8 {
        let (near, far) = pair();
        events.push(reader(&base, near));
        writers.push(sparse(far, seed, Arc::clone(&stop)));
    }
    let (near, far) = pair();
    let echo = Event::new(&base, near, READ, |event, _| {
        let mut byte = [0];
        if event.source().read(&mut byte).is_ok_and(|n| n == 1) {
            event.source().write_all(&byte).unwrap();
        }
    });
    let echo = echo.unwrap();
    echo.add(None).unwrap();
    let pinger = ping(far, Arc::clone(&stop));
    // Most of the kills take 0.2 s or more.
    let (timers, fired) = timers(&base, kills as u64 * 200_000);
    let ticks = Count::default();
    let (of, start) = (Rc::clone(&ticks), Instant::now());
    let tick = Event::timer(&base, What::PERSIST, move |_, _| {
        count(&of);
        // Never more often than it should: what was missed is not made up for.
        assert!(start.elapsed() >= 10 * MS * of.get() as u32);
    });
    let tick = tick.unwrap();
    tick.add(Some(10 * MS)).unwrap();

    let killer = kill_often(evd, kills, Arc::clone(&up), Arc::clone(&stop));
    while !stop.load(Ordering::SeqCst) && !killer.is_finished() {
        // As long as it takes: each start of evd has its own limit.
        run_for(&base, 100 * MS);
    }
    until(&base, "all writers have ended", || {
        pinger.is_finished() && killer.is_finished() && writers.iter().all(JoinHandle::is_finished)
    });
    let sent: Vec<usize> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    let got = || events.iter().map(|(_, got)| got.get()).collect::<Vec<_>>();
    until(&base, "what was sent is there", || got() == sent);
    assert!(pinger.join().unwrap() > 0);
    until(&base, "each timer has fired", || fired.get() == timers.len());
    let before = ticks.get();
    until(&base, "it still ticks", || ticks.get() > before);
    // The pauses before a next try grow up to 2 s while evd never stands for long: the other kills find nobody.
    assert!(heard.get() >= kills / 10, "only {} of {kills} kills were noticed", heard.get());
    println!("{} of {kills} kills hit a link that stood", heard.get());
    // The thread that started the last evd has ended, and evd with it.
    drop(killer.join().unwrap());
    until(&base, "the last loss is noticed", || !is_up(&base));
}

/// Timers all over the run, which is so many microseconds long; each fires once, and not early.
fn timers(base: &EventBase, run: u64) -> (Vec<Event>, Count) {
    let (fired, mut pause) = (Count::default(), jitter(7));
    let all = (0..1000).map(|_| {
        let due = Duration::from_micros(pause.below(run));
        let (of, start) = (Rc::clone(&fired), Instant::now());
        let timer = Event::timer(base, What::empty(), move |event, _| {
            assert!(start.elapsed() >= due);
            assert_eq!(event.count(), 1);
            count(&of);
        });
        let timer = timer.unwrap();
        timer.add(Some(due)).unwrap();
        timer
    });
    (all.collect(), fired)
}
