//! Clients that do no wrong: they count what was sent to them, and how long it took.
//!
//! Each is a base on a thread of its own with a parked socket, a timer and a name. One thread writes the time to the sockets, one after the other, and triggers the
//! name now and then. The linger is zero, so that each event goes through evd.

use crate::parts::{MS, READ, pair};
use crate::process::{hear, say};
use crate::wire::{PATIENCE, eventually};
use evd_client::{Event, EventBase, Handle, What};
use evd_proto::sys::monotonic_ns;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NAME: &str = "honest";
/// Between two writes, each to another client.
const PACE: Duration = Duration::from_millis(2);
/// So many writes from one trigger to the next.
const TRIGGER_EVERY: u64 = 100;

/// What all clients together saw.
#[derive(Default)]
struct Seen {
    messages: AtomicU64,
    triggers: AtomicU64,
    ticks: AtomicU64,
    /// How long each message took, in nanoseconds.
    took: Mutex<Vec<u64>>,
}

/// A role. Told "measure", it forgets what it measured before; "report": it says the p50 and p99 of write to callback in nanoseconds, and of how many;
/// "finish": it writes no more and waits for what is on its way.
pub fn honest(socket: &Path, args: &[&str]) {
    let clients: usize = args[0].parse().unwrap();
    let seen = Arc::new(Seen::default());
    let (to, from) = channel();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (socket, seen, to) = (socket.to_owned(), Arc::clone(&seen), to.clone());
            std::thread::spawn(move || client(&socket, &seen, &to))
        })
        .collect();
    let all: Vec<(UnixStream, Handle)> = (0..clients).map(|_| from.recv_timeout(PATIENCE).unwrap()).collect();
    let (streams, handles): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let (stop, stopped) = channel::<()>();
    let writer = {
        let socket = socket.to_owned();
        std::thread::spawn(move || write(&socket, streams, &stopped))
    };
    say("ready");
    loop {
        match hear().as_str() {
            "measure" => seen.took.lock().unwrap().clear(),
            "report" => {
                let mut took = std::mem::take(&mut *seen.took.lock().unwrap());
                took.sort_unstable();
                let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or(0);
                say(format_args!("{} {} {}", at(50), at(99), took.len()));
            }
            _ => break,
        }
    }
    drop(stop);
    let (sent, triggered) = writer.join().unwrap();
    let ticks = seen.ticks.load(Ordering::Relaxed);
    eventually("every timer fires again", || seen.ticks.load(Ordering::Relaxed) >= ticks + clients as u64);
    eventually("all that was sent has come", || seen.messages.load(Ordering::Relaxed) == sent);
    eventually("all triggers have come", || seen.triggers.load(Ordering::Relaxed) == triggered);
    assert!(sent > 0 && triggered > 0);
    handles.iter().for_each(Handle::loopexit);
    threads.into_iter().for_each(|t| t.join().unwrap());
    say(format_args!("got all {sent} {triggered}"));
}

/// Returns how many messages it wrote, and how many subscriptions its triggers reached.
fn write(
    socket: &PathBuf,
    mut streams: Vec<UnixStream>,
    stopped: &std::sync::mpsc::Receiver<()>,
) -> (u64, u64) {
    use std::sync::mpsc::RecvTimeoutError::Timeout;
    let base =
        EventBase::builder().socket(socket).name("trigger").connect().patience(PATIENCE).build().unwrap();
    let (mut sent, mut triggered) = (0, 0);
    while stopped.recv_timeout(PACE) == Err(Timeout) {
        let n = streams.len() as u64;
        streams[(sent % n) as usize].write_all(&monotonic_ns().to_ne_bytes()).unwrap();
        sent += 1;
        if sent % TRIGGER_EVERY == 0 {
            let reached = u64::from(base.trigger(NAME).unwrap().reached);
            assert_eq!(reached, n, "all of ours, and nobody else's");
            triggered += reached;
        }
    }
    // The peers' ends stay open until all has been read.
    streams.into_iter().for_each(std::mem::forget);
    (sent, triggered)
}

fn client(socket: &Path, seen: &Arc<Seen>, to: &Sender<(UnixStream, Handle)>) {
    let builder = EventBase::builder().socket(socket).name(NAME).connect().patience(PATIENCE);
    let base = builder.linger(Duration::ZERO).build().unwrap();
    let (near, far) = pair();
    let saw = Arc::clone(seen);
    let messages = Event::new(&base, near, READ, move |event, _| {
        let mut sent = [0; 8];
        // What came meanwhile is another event.
        event.source().read_exact(&mut sent).unwrap();
        saw.took.lock().unwrap().push(monotonic_ns() - u64::from_ne_bytes(sent));
        saw.messages.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    messages.add(None).unwrap();
    let saw = Arc::clone(seen);
    let named = Event::named(&base, NAME, move |event, _| {
        saw.triggers.fetch_add(u64::from(event.times()), Ordering::Relaxed);
    })
    .unwrap();
    named.add(None).unwrap();
    let saw = Arc::clone(seen);
    let timer = Event::timer(&base, What::PERSIST, move |_, _| {
        saw.ticks.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    timer.add(Some(200 * MS)).unwrap();
    base.sync().unwrap();
    to.send((far, base.handle())).unwrap();
    base.dispatch().unwrap();
}
