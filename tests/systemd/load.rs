//! Clients under traffic, and somebody who counts: what was sent is counted apart from the clients, with plain sockets and no evd.

use crate::lab::{ALICE, Lab};
use crate::parts::{Jitter, MS, eventually, percentile};
use crate::role::{Process, SOCKET, say};
use evd_client::{Error, Event, EventBase, LinkState, LoopFlags, What};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Connections of a client, by turns TCP and AF_UNIX.
const CONNECTIONS: usize = 8;
/// Timers of a client; each is set anew when it has fired.
const TIMERS: usize = 50;
/// Where the checker listens, beside a port.
pub const CHECKER: &str = "/tmp/checker";

/// Clients, the checker, and somebody of each user who triggers their named events.
pub struct Load {
    clients: Vec<Process>,
    checker: Process,
    callers: Vec<(Process, Vec<usize>)>,
    fds: Vec<Value>,
}

/// What came of it.
pub struct Verdict {
    pub sent: u64,
    pub triggered: u64,
    pub fired: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub worst: Duration,
}

impl Load {
    /// Half of the clients are root's, the others a user's who is let in by the group of the socket.
    pub fn start(lab: &Lab, count: usize) -> Load {
        let users = [(0, 0), (ALICE, lab.group("evd"))];
        let checker = Process::start(lab, users[0], &format!("checker {count}"));
        let port = checker.line();
        let start = |i: usize| Process::start(lab, users[i % 2], &format!("client {i} {port}"));
        let mut clients: Vec<Process> = (0..count).map(start).collect();
        clients.iter().for_each(|c| c.says("up"));
        checker.says("all are there");
        let call = |of: usize| {
            let theirs: Vec<usize> = (0..count).filter(|i| i % 2 == of).collect();
            let names: Vec<String> = theirs.iter().map(|i| format!("load-{i}")).collect();
            (Process::start(lab, users[of], &format!("caller {}", names.join(" "))), theirs)
        };
        let callers = (0..2).map(call).collect();
        let fds = clients.iter_mut().map(|c| c.ask("report")["fds"].clone()).collect();
        Load { clients, checker, callers, fds }
    }

    /// How often the clients lost evd, all together.
    pub fn losses(&mut self) -> u64 {
        self.clients.iter_mut().map(|c| c.ask("report")["losses"].as_u64().unwrap()).sum()
    }

    /// Waits until all clients are at evd.
    pub fn is_up(&mut self) {
        for c in &mut self.clients {
            eventually("a client is at evd", || c.ask("report")["up"] == true);
        }
    }

    /// Ends the load: nothing may be lost, nothing may have come twice, no timer may have stopped or been early.
    pub fn verdict(mut self) -> Verdict {
        // Who calls ends first, so that what it was promised stands.
        for (caller, theirs) in &mut self.callers {
            let (tally, clients) = (caller.ask("stop"), &mut self.clients);
            for (n, i) in theirs.iter().enumerate() {
                let (sure, maybe) = (tally[n][0].as_u64().unwrap(), tally[n][1].as_u64().unwrap());
                let mut got = 0;
                eventually("each activation that was promised has come", || {
                    got = clients[*i].ask("report")["triggered"].as_u64().unwrap();
                    got >= sure
                });
                assert!(got <= sure + maybe, "client {i} was triggered {got} times, of {sure} + {maybe}");
            }
        }
        let counted = self.checker.ask("stop");
        assert_eq!(counted["sent"], counted["echoed"], "lost: {counted}");
        assert_eq!(counted["wrong"], 0, "{counted}");
        let (mut triggered, mut fired, mut received) = (0, 0, 0);
        for (c, fds) in self.clients.iter_mut().zip(&self.fds) {
            let before = c.ask("report");
            let mut last = Value::Null;
            eventually("each timer fires again", || {
                last = c.ask("report");
                let counts = |v: &Value| v["fired"].as_array().unwrap().clone();
                counts(&before).iter().zip(counts(&last)).all(|(a, b)| b.as_u64() > a.as_u64())
            });
            assert_eq!(last["early"], 0, "{last}");
            eventually("it has as many fds as at first", || c.ask("report")["fds"] == *fds);
            triggered += last["triggered"].as_u64().unwrap();
            fired += last["fired"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
            received += last["received"].as_u64().unwrap();
        }
        assert_eq!(counted["sent"], received, "callbacks read something else than was sent");
        assert!(received > 0 && triggered > 0 && fired > 0);
        let time = |name: &str| Duration::from_micros(counted[name].as_u64().unwrap());
        let (p50, p99, worst) = (time("p50"), time("p99"), time("worst"));
        for (caller, _) in self.callers {
            caller.ends();
        }
        self.checker.ends();
        self.clients.into_iter().for_each(Process::ends);
        Verdict { sent: received, triggered, fired, p50, p99, worst }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {} activations by name, {} timers, ", self.sent, self.triggered, self.fired)?;
        write!(
            f,
            "lost 0; a byte and its echo took {:?} (p99 {:?}, worst {:?})",
            self.p50, self.p99, self.worst
        )
    }
}

/// A stream of either kind.
trait Stream: Read + Write {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A role: a base with connections, timers and a named event; echoes all that comes.
pub fn client(args: &[&str]) {
    let (number, port): (u16, u16) = (args[0].parse().unwrap(), args[1].parse().unwrap());
    let name = format!("load-{number}");
    // Without a cached time a timer that is set in a callback counts from then.
    let base = EventBase::builder().socket(SOCKET).name(&name).connect().no_cache_time().build().unwrap();
    let (received, triggered) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
    let (losses, up) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(true)));
    let (lost, is_up) = (Rc::clone(&losses), Rc::clone(&up));
    base.on_link(move |_, state| {
        is_up.set(matches!(state, LinkState::Up { .. }));
        lost.set(lost.get() + u64::from(matches!(state, LinkState::Away { .. })));
    });
    let mut events = Vec::new();
    for k in 0..CONNECTIONS as u16 {
        let greeting = [number.to_le_bytes(), k.to_le_bytes()].concat();
        let stream: OwnedFd = if k % 2 == 0 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&greeting).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.into()
        } else {
            let mut stream = UnixStream::connect(CHECKER).unwrap();
            stream.write_all(&greeting).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.into()
        };
        let sum = Rc::clone(&received);
        let stream = std::fs::File::from(stream);
        let event = Event::new(&base, stream, What::READ | What::PERSIST, move |event, _| {
            let mut buf = [0; 512];
            loop {
                match event.source().read(&mut buf) {
                    Ok(0) => break event.del().unwrap(),
                    Ok(n) => {
                        sum.set(sum.get() + n as u64);
                        event.source().write_all(&buf[..n]).unwrap();
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => panic!("{e}"),
                }
            }
        });
        let event = event.unwrap();
        event.add(None).unwrap();
        events.push(event);
    }
    let (fired, early) = (Rc::new(RefCell::new(vec![0_u64; TIMERS])), Rc::new(Cell::new(0)));
    let timers: Vec<_> = (0..TIMERS).map(|i| timer(&base, i, &fired, &early)).collect();
    let sum = Rc::clone(&triggered);
    let named = Event::named(&base, &name, move |event, _| sum.set(sum.get() + u64::from(event.times())));
    named.as_ref().unwrap().add(None).unwrap();

    // Its stdin is one more of its watches.
    let input = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let report = move || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let fired = fired.borrow();
        say(json!({
            "received": received.get(), "triggered": triggered.get(), "fired": *fired, "early": early.get(),
            "losses": losses.get(), "up": up.get(), "fds": fds,
        }));
    };
    let commands = Event::new(&base, std::fs::File::from(input), What::READ | What::PERSIST, {
        move |event, _| {
            let mut buf = [0; 64];
            match event.source().read(&mut buf).unwrap() {
                0 => event.base().loopbreak(),
                n => (0..buf[..n].iter().filter(|b| **b == b'\n').count()).for_each(|_| report()),
            }
        }
    });
    commands.as_ref().unwrap().add(None).unwrap();
    base.sync().unwrap();
    say("up");
    base.dispatch().unwrap();
    drop((events, timers, named, commands));
}

/// A timer that is set anew whenever it fires, to another time.
fn timer(base: &EventBase, i: usize, fired: &Rc<RefCell<Vec<u64>>>, early: &Rc<Cell<u64>>) -> Event {
    let (fired, early) = (Rc::clone(fired), Rc::clone(early));
    let mut pause = Jitter::new(i as u64);
    let due = Rc::new(Cell::new(Instant::now()));
    let next = Rc::clone(&due);
    let timer = Event::timer(base, What::empty(), move |event, _| {
        let now = Instant::now();
        early.set(early.get() + u64::from(now < next.get()));
        fired.borrow_mut()[i] += 1;
        let wait = Duration::from_micros(pause.below(800_000));
        next.set(Instant::now() + wait);
        event.add(Some(wait)).unwrap();
    });
    let timer = timer.unwrap();
    timer.add(Some(Duration::ZERO)).unwrap();
    timer
}

/// What the checker knows of one connection.
struct Checked {
    stream: Box<dyn Stream + Send>,
    sent: u64,
    echoed: u64,
    /// When those were sent that have no echo yet.
    waiting: VecDeque<Instant>,
}

#[derive(Default)]
struct Tally {
    sent: u64,
    echoed: u64,
    wrong: u64,
    times: Vec<u64>,
}

/// A role: accepts the connections of all clients, sends numbered bytes now and then, and checks what comes back.
pub fn checker(args: &[&str]) {
    let count: usize = args[0].parse().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(CHECKER).unwrap();
    // Clients of other users connect, too.
    std::fs::set_permissions(CHECKER, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    say(tcp.local_addr().unwrap().port());
    let mut clients: Vec<Vec<Checked>> = (0..count).map(|_| Vec::new()).collect();
    for i in 0..count * CONNECTIONS {
        let mut stream: Box<dyn Stream + Send>;
        let mut greeting = [0; 4];
        if i % 2 == 0 {
            let mut one = tcp.accept().unwrap().0;
            one.set_nodelay(true).unwrap();
            one.read_exact(&mut greeting).unwrap();
            one.set_nonblocking(true).unwrap();
            stream = Box::new(one);
        } else {
            let mut one = unix.accept().unwrap().0;
            one.read_exact(&mut greeting).unwrap();
            one.set_nonblocking(true).unwrap();
            stream = Box::new(one);
        }
        stream.flush().unwrap();
        let client = usize::from(u16::from_le_bytes([greeting[0], greeting[1]]));
        clients[client].push(Checked { stream, sent: 0, echoed: 0, waiting: VecDeque::new() });
    }
    say("all are there");
    let stop = Arc::new(AtomicBool::new(false));
    let check = |(seed, connections)| {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || check(connections, seed, &stop))
    };
    let threads: Vec<_> = clients.into_iter().enumerate().map(check).collect();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    stop.store(true, Ordering::SeqCst);
    let mut all = Tally::default();
    for thread in threads {
        let one = thread.join().unwrap();
        all.sent += one.sent;
        all.echoed += one.echoed;
        all.wrong += one.wrong;
        all.times.extend(one.times);
    }
    say(json!({
        "sent": all.sent, "echoed": all.echoed, "wrong": all.wrong,
        "p50": percentile(&mut all.times, 0.5), "p99": percentile(&mut all.times, 0.99),
        "worst": percentile(&mut all.times, 1.0),
    }));
    // The connections of a checker that has ended are at their end; clients stay until they are told.
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// The connections of one client.
fn check(mut connections: Vec<Checked>, seed: usize, stop: &AtomicBool) -> Tally {
    let (mut tally, mut dice) = (Tally::default(), Jitter::new(seed as u64));
    let mut limit = None;
    loop {
        let is_over = stop.load(Ordering::SeqCst);
        if !is_over {
            let to = dice.below(connections.len() as u64) as usize;
            let c = &mut connections[to];
            for _ in 0..=dice.below(3) {
                c.stream.write_all(&[c.sent as u8]).unwrap();
                c.sent += 1;
                c.waiting.push_back(Instant::now());
            }
        }
        for c in &mut connections {
            collect(c, &mut tally);
        }
        let open: usize = connections.iter().map(|c| c.waiting.len()).sum();
        let until = is_over.then(|| *limit.get_or_insert_with(|| Instant::now() + Duration::from_secs(15)));
        if until.is_some_and(|until| open == 0 || Instant::now() > until) {
            break;
        }
        // In the mean a connection is quiet for 50 ms: longer than clients wait until they park it.
        std::thread::sleep(Duration::from_micros(dice.below(12_000)));
    }
    tally.sent = connections.iter().map(|c| c.sent).sum();
    tally.echoed = connections.iter().map(|c| c.echoed).sum();
    tally
}

fn collect(c: &mut Checked, tally: &mut Tally) {
    let mut buf = [0; 512];
    match c.stream.read(&mut buf) {
        Ok(n) => {
            for byte in &buf[..n] {
                tally.wrong += u64::from(*byte != c.echoed as u8);
                c.echoed += 1;
                match c.waiting.pop_front() {
                    Some(at) => tally.times.push(at.elapsed().as_micros() as u64),
                    None => tally.wrong += 1,
                }
            }
        }
        Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
    }
}

/// A role: triggers named events without end, and counts what evd promised, and what may or may not have happened because evd was lost meanwhile.
pub fn caller(names: &[&str]) {
    let base = EventBase::builder().socket(SOCKET).name("caller").connect().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::io::stdin().lock().read_line(&mut String::new()).unwrap();
        told.store(true, Ordering::SeqCst);
    });
    let mut tallies = vec![[0_u64, 0_u64]; names.len()];
    let mut dice = Jitter::new(5);
    while !stop.load(Ordering::SeqCst) {
        // Also takes care of the link.
        base.loopexit(Some(Duration::from_micros(dice.below(8_000)))).unwrap();
        base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
        let at = dice.below(names.len() as u64) as usize;
        match base.trigger(names[at]) {
            Ok(t) => {
                tallies[at][0] += u64::from(t.reached);
                // Not in its socket yet: it is lost with evd.
                tallies[at][1] += u64::from(t.queued);
            }
            // Not there, or not again yet.
            Err(Error::Refused { .. } | Error::NotRunning { .. }) => {}
            Err(_) => tallies[at][1] += 1,
        }
    }
    say(json!(tallies));
    std::thread::sleep(MS);
}
