//! Twenty minutes of clients that come and go, 10,000 a minute: evd's memory does not grow, nor do its fds.

use crate::cases::{Host, workers};
use crate::parts::*;
use crate::wire::{Evd, PATIENCE, Raw, eventually, hello};
use evd_client::{Error, Event, EventBase, What};
use evd_proto::What as Ready;
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Refused};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const A_MINUTE: usize = 10_000;
const AT_ONCE: usize = 4;
/// Between two looks nobody comes for a moment.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What evd has once and keeps is there by then.
const WARM: Duration = Duration::from_secs(60);

/// A client that parks, subscribes, and leaves in an orderly way. `false`: it was turned away, because a worker got no processor for too long.
fn comes_and_leaves(socket: &Path) -> bool {
    let builder = EventBase::builder().socket(socket).name("churn").connect().patience(PATIENCE);
    let base = match builder.linger(Duration::ZERO).build() {
        Ok(base) => base,
        Err(Error::Refused(why)) if why.code == Code::Busy => return false,
        Err(e) => panic!("{e}"),
    };
    let (near, _far) = pair();
    let (_event, _) = reader(&base, near);
    let timer = Event::timer(&base, What::PERSIST, |_, _| {}).unwrap();
    timer.add(Some(60_000 * MS)).unwrap();
    let named = Event::named(&base, "churn", |_, _| {}).unwrap();
    named.add(None).unwrap();
    // On a machine that is too busy it has left by itself after 2 s.
    match base.sync().and_then(|()| base.trigger("churn")) {
        Ok(_) | Err(Error::Lost | Error::NeedsEvd) => true,
        Err(e) => panic!("{e}"),
    }
}

/// One that is gone without a word, with all it had.
fn comes_and_dies(evd: &Evd) -> bool {
    let mut raw = Raw::connect(&evd.path());
    raw.send_if_open(&hello("dies", ""));
    let got = raw.next();
    if got.kind == Kind::Refused {
        let why: Refused = got.read();
        assert_eq!(why.code, Code::Busy, "{}", why.text);
        return false;
    }
    let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    let watches: Vec<_> = (0..3).map(|id| (id, 1, Ready::READ)).collect();
    let fds: Vec<_> = pairs.iter().map(|p| p.0.as_raw_fd()).collect();
    raw.arm(&watches, &fds);
    raw.timers(&[(0, u64::MAX)], &[]);
    true
}

/// Clients come and go for a while, as many as should; returns how many, and how many of them were turned away.
fn churn(evd: &Evd, time: Duration) -> (usize, usize) {
    let (count, away, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    // A little faster, for the time of the looks.
    let pause = Duration::from_secs(60) / (A_MINUTE + A_MINUTE / 20) as u32;
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while start.elapsed() < time {
                    let n = count.fetch_add(1, Ordering::Relaxed);
                    // It is late if the machine is slow; then it makes up for it.
                    std::thread::sleep((pause * n as u32).saturating_sub(start.elapsed()));
                    let served = if n % 2 == 0 { comes_and_leaves(&evd.path()) } else { comes_and_dies(evd) };
                    away.fetch_add(usize::from(!served), Ordering::Relaxed);
                }
            });
        }
    });
    (count.into_inner(), away.into_inner())
}

/// By how many bytes a minute it grows: the line through the points, by least squares.
fn slope(points: &[(Duration, u64)]) -> f64 {
    let n = points.len() as f64;
    let minutes = |p: &(Duration, u64)| p.0.as_secs_f64() / 60.0;
    let mean_x = points.iter().map(minutes).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1 as f64).sum::<f64>() / n;
    let over = points.iter().map(|p| (minutes(p) - mean_x) * (p.1 as f64 - mean_y)).sum::<f64>();
    over / points.iter().map(|p| (minutes(p) - mean_x).powi(2)).sum::<f64>()
}

#[test]
#[ignore = "takes 20 minutes, or as many as EVD_SOAK_MINUTES says"]
fn clients_that_come_and_go_leave_memory_and_fds_as_they_were() {
    let minutes: f64 = std::env::var("EVD_SOAK_MINUTES").map_or(20.0, |m| m.parse().unwrap());
    let (host, start) = (Host::start_quiet(), Instant::now());
    let fds = host.evd.fds();
    let (mut clients, mut away, mut points) = (0, 0, Vec::new());
    while start.elapsed().as_secs_f64() < minutes * 60.0 {
        let (came, refused) = churn(&host.evd, LOOK_EVERY);
        (clients, away) = (clients + came, away + refused);
        eventually("nobody is served", || workers(&host.evd) == 0);
        eventually("as many fds as at first", || host.evd.fds() == fds);
        let (at, resident) = (start.elapsed(), host.evd.resident());
        println!("{:.1} minutes, {clients} clients, {} KiB", at.as_secs_f64() / 60.0, resident / 1024);
        if at > WARM {
            points.push((at, resident));
        }
    }
    host.is_as_before();
    let (slope, rate) = (slope(&points) / 1024.0, clients as f64 / start.elapsed().as_secs_f64() * 60.0);
    println!(
        "{rate:.0} clients a minute, {slope:.2} KiB a minute, {fds} fds at the beginning and at the end"
    );
    println!("{away} of {clients} clients were turned away for a while");
    assert!(away * 100 < clients, "{away} of {clients} clients were turned away");
    assert!(slope < 1.0, "it grows by {slope:.2} KiB a minute");
}
