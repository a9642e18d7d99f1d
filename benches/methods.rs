//! What a round costs on each method of this system: many sockets watched, few of them active.
//!
//!     cargo bench --no-default-features --bench methods -- [SOCKETS [ACTIVE]]
//!
//! Two kinds of rounds. `wait`: the active ones have a byte that nobody reads, so they are ready all the time, and a round is a wait that reports them: what the method itself costs. `moved`: a round
//! writes a byte to each, waits until all of them were reported, and reads the bytes: with what the data costs. All methods take turns, and the best of several turns
//! counts, so that what else the machine does weighs little. `benches/README.md` has results.

// The lint knows test functions, but not a bench.
#![allow(clippy::unwrap_used)]

use evd::backend::{Entry, Interest, Mode, methods};
use evd::base::{Activation, Base, Config};
use evd_proto::What;
use evd_proto::sys::{AsFd, raise_open_files};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

type Pair = (TcpStream, TcpStream);
type Round = fn(&mut Base, &mut [Pair], usize);

const TURNS: usize = 7;
const ROUNDS: u32 = 100;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let sockets = numbers.next().unwrap_or(1000);
    let active = numbers.next().unwrap_or(10).min(sockets);
    raise_open_files().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut ends: Vec<_> = (0..sockets).map(|_| connection(&listener)).collect();
    for (kind, round) in [("moved", moved as Round), ("wait", wait)] {
        if kind == "wait" {
            chosen(sockets, active).for_each(|at| ends[at].1.write_all(b"x").unwrap());
        }
        let mut bases: Vec<_> = methods().iter().map(|m| (m.name, base(m.name), Duration::MAX)).collect();
        for _ in 0..TURNS {
            for (_, base, best) in &mut bases {
                // Only one base watches at a time.
                for (token, (end, _)) in ends.iter().enumerate() {
                    let read = Interest { what: What::READ, mode: Mode::Level };
                    base.watch(end.as_fd(), token as u64, read, Entry::New).unwrap();
                }
                round(base, &mut ends, active);
                let start = Instant::now();
                (0..ROUNDS).for_each(|_| round(base, &mut ends, active));
                *best = start.elapsed().min(*best);
                for (token, (end, _)) in ends.iter().enumerate() {
                    base.unwatch(end.as_fd(), token as u64);
                }
            }
        }
        for (name, _, best) in bases {
            let micros = best.as_secs_f64() * 1e6 / f64::from(ROUNDS);
            println!("{name}: {sockets} sockets, {active} active, {kind}: {micros:.1} us a round");
        }
    }
}

fn base(method: &str) -> Base {
    Base::new(&Config { method: Some(method.to_owned()), ignore_env: true, ..Config::default() }).unwrap()
}

fn connection(listener: &TcpListener) -> Pair {
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// The active ones among all sockets.
fn chosen(sockets: usize, active: usize) -> impl Iterator<Item = usize> {
    (0..active).map(move |at| at * (sockets / active))
}

/// They stay ready.
fn wait(base: &mut Base, _ends: &mut [Pair], active: usize) {
    let (mut left, mut out) = (active, Vec::new());
    while left > 0 {
        base.wait(None, &mut out).unwrap();
        left -= out.drain(..).count().min(left);
    }
}

/// They become ready, and are read.
fn moved(base: &mut Base, ends: &mut [Pair], active: usize) {
    chosen(ends.len(), active).for_each(|at| ends[at].1.write_all(b"x").unwrap());
    let (mut left, mut out) = (active, Vec::new());
    while left > 0 {
        base.wait(None, &mut out).unwrap();
        for activation in out.drain(..) {
            let Activation::Ready { token, .. } = activation else { continue };
            ends[token as usize].0.read_exact(&mut [0]).unwrap();
            left -= 1;
        }
    }
}
