//! evd and clients are killed at odd moments, under traffic, and nothing that was sent to who lives is lost.

use crate::parts::*;
use crate::random::{Random, number};
use evd_client::{Event, What};
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Kills; `EVD_KILLS=1000` is for a long run.
const KILLS: u64 = 20;
const CONNECTIONS: usize = 4;

/// Acknowledges each byte of some connections with one that is greater by one, until all have ended; holds each of them by a name meanwhile, as evd lets it.
pub fn sink(socket: &Path, args: &[&str]) {
    let base = base(socket, "sink");
    let listener = listener();
    say(port(&listener));
    let left = Rc::new(Cell::new(CONNECTIONS));
    let mut events = Vec::new();
    for n in 0..CONNECTIONS {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        // evd may be away just now.
        let _ = base.hold_anew(&format!("apart:sink:{}:{n}", args[0]), &stream, b"", None);
        let of = Rc::clone(&left);
        let event = Event::new(&base, stream, What::READ | What::PERSIST, move |event, _| {
            let mut byte = [0];
            match event.source().read(&mut byte) {
                Ok(0) => {
                    event.del().unwrap();
                    of.set(of.get() - 1);
                }
                Ok(_) => event.source().write_all(&[byte[0].wrapping_add(1)]).unwrap(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
        });
        let event = event.unwrap();
        event.add(None).unwrap();
        events.push(event);
    }
    say("ready");
    serve(&base, || left.get() == 0);
    let names: Vec<String> = (0..CONNECTIONS).map(|n| format!("apart:sink:{}:{n}", args[0])).collect();
    until(&base, "evd is back", || is_up(&base));
    names.iter().for_each(|name| drop(base.drop_held(name)));
    say("done");
}

#[test]
fn kills_at_random_lose_nothing_of_who_lives() {
    let kills = number("EVD_KILLS").unwrap_or(KILLS);
    let mut random = Random(number("EVD_SEED").unwrap_or_else(|| u64::from(std::process::id())));
    println!("EVD_SEED={}", random.0);
    let mut evd = Evd::start();
    let start = |n: u64, evd: &Evd| {
        let client = Process::start("sink", evd.socket(), &[&n.to_string()]);
        let at = client.line();
        let peers: Vec<_> = (0..CONNECTIONS).map(|_| dial(&at)).collect();
        client.says("ready");
        (client, peers)
    };
    let mut last = 1;
    let mut clients = vec![start(0, &evd), start(1, &evd)];
    for kill in 0..kills {
        for _ in 0..random.below(12) {
            let (n, at) = (random.below(2) as usize, random.below(CONNECTIONS as u64) as usize);
            let byte = random.next() as u8;
            let peer = &mut clients[n].1[at];
            peer.write_all(&[byte]).unwrap();
            let mut answer = [0];
            peer.read_exact(&mut answer).expect("each byte is acknowledged, whatever became of evd");
            assert_eq!(answer[0], byte.wrapping_add(1));
            std::thread::sleep(Duration::from_millis(random.below(30)));
        }
        if random.one_in(4) {
            let n = random.below(2) as usize;
            clients[n].0.kill();
            last += 1;
            clients[n] = start(last, &evd);
        } else {
            evd.kill();
            std::thread::sleep(Duration::from_millis(random.below(20)));
            evd.start_again();
        }
        if kill % 8 == 7 {
            evctl(evd.socket(), &["status"]);
        }
    }
    for (client, peers) in clients {
        drop(peers);
        client.says("done");
        client.ends();
    }
    eventually("no base is left", || !evctl(evd.socket(), &["bases"]).contains("sink"));
}
