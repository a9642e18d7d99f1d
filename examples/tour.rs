//! A tour of evd on real traffic, in a minute and without any set-up: `cargo run --release --example tour`.
//!
//! It starts an evd of its own on a private socket and a **separate** client process, which registers a TCP listener, its connections, a timer, a
//! signal and a named user event. This process sends bytes, signals and triggers, and the client prints each activation with its latency. Then a
//! server is killed and survives; then `evctl` shows what evd holds.

mod parts;

use evd_client::{Event, EventBase, LinkState, What};
use parts::{Outcome, PrivateEvd, now, took};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::rc::Rc;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);

fn main() -> std::process::ExitCode {
    parts::main(&[("tour-client", client), ("survive-server", parts::survive::server)], tour)
}

fn tour() -> Outcome {
    println!("1. An evd of our own, on a private socket.");
    let evd = PrivateEvd::start()?;
    println!("   evd is process {}, its socket {}", evd.pid(), evd.socket().display());

    println!("2. A client in another process; evd watches what it registers.");
    let mut client =
        evd.role("tour-client")?.env("TOUR_STAMP", evd.dir().join("stamp")).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(client.stdout.take().ok_or("no pipe")?).lines();
    let address = hear(&mut said)?;
    println!("   client {} listens on {address}", client.id());

    println!(
        "3. Real bytes through real sockets, each after a pause in which the connection is parked at evd."
    );
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(TcpStream::connect(&address)?);
        println!("   {}", hear(&mut said)?);
    }
    for _round in 0..2 {
        for stream in &mut streams {
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(&now().to_le_bytes())?;
            println!("   {}", hear(&mut said)?);
        }
    }
    println!("4. The same connection when it is busy: the client serves it in-process, evd is not asked.");
    for _ in 0..3 {
        if let Some(stream) = streams.first_mut() {
            stream.write_all(&now().to_le_bytes())?;
        }
        println!("   {}", hear(&mut said)?);
    }
    println!("5. A signal to the client, a named user event by its name, and a timer.");
    let stamp = evd.dir().join("stamp");
    put_stamp(&stamp)?;
    evd_proto::sys::send_signal(client.id() as i32, usr1()?)?;
    println!("   {}", hear(&mut said)?);
    let mine = EventBase::builder().name("tour").socket(evd.socket()).connect().build()?;
    put_stamp(&stamp)?;
    let triggered = mine.trigger("tour:hello")?;
    println!("   {} (trigger reached {})", hear(&mut said)?, triggered.reached);
    mine.trigger("tour:timer")?;
    println!("   {}", hear(&mut said)?);

    println!("6. A server dies by SIGKILL, its successor answers on the same connection.");
    parts::survive::play(&evd)?;

    println!("7. What evctl shows of all this:");
    for command in ["status", "events"] {
        if !evd.role("evctl")?.arg(command).status()?.success() {
            return Err(format!("evctl {command} failed").into());
        }
    }

    println!("8. evd ends; the client goes on by itself.");
    evd.stop_and(|| {
        println!("   {}", hear(&mut said)?);
        if let Some(stream) = streams.first_mut() {
            stream.write_all(&now().to_le_bytes())?;
        }
        println!("   {}", hear(&mut said)?);
        drop(streams);
        Ok(())
    })?;
    client.kill()?;
    client.wait()?;
    println!("That was evd. README.md says how to run it as a service.");
    Ok(())
}

fn hear(said: &mut Lines<BufReader<ChildStdout>>) -> Result<String, Box<dyn std::error::Error>> {
    Ok(said.next().ok_or("the client ended")??)
}

fn usr1() -> Result<i32, &'static str> {
    evd_proto::sys::signal_number("USR1").ok_or("no USR1")
}

/// When something without bytes of its own was started, for the latency.
fn put_stamp(path: &Path) -> Outcome {
    std::fs::write(path, now().to_le_bytes())?;
    Ok(())
}

fn since_stamp(path: &Path) -> String {
    let end = now();
    let bytes = std::fs::read(path).ok().and_then(|b| b.try_into().ok()).unwrap_or_default();
    took(end.saturating_sub(u64::from_le_bytes(bytes)))
}

/// The client process.
fn client() -> Outcome {
    let stamp = PathBuf::from(std::env::var_os("TOUR_STAMP").ok_or("no TOUR_STAMP")?);
    let base = EventBase::builder().name("tour-client").connect().build()?;
    base.on_link(|_, link| {
        if let LinkState::Away { why } = link {
            println!("link      {why}: on by myself");
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let accept = Event::new(&base, listener, What::READ | What::PERSIST, |event, what| {
        while let Ok((stream, peer)) = event.source().accept() {
            println!("listener  {what}: {peer} is here");
            if let Err(e) = connection(&event.base(), stream) {
                println!("listener  {e}");
            }
        }
    })?;
    accept.label("tour listener");
    accept.add(None)?;
    let at = stamp.clone();
    let signal = Event::signal(&base, usr1()?, move |_, what| {
        println!("signal    {what} after {}", since_stamp(&at))
    })?;
    signal.add(None)?;
    let at = stamp;
    let named =
        Event::named(&base, "tour:hello", move |_, _| println!("tour:hello after {}", since_stamp(&at)))?;
    named.add(None)?;
    let due = Rc::new(Cell::new(0));
    let was_due = Rc::clone(&due);
    let timer = Event::timer(&base, What::empty(), move |_, what| {
        println!("timer     {what} of {TICK:?}, late by {}", took(now().saturating_sub(was_due.get())));
    })?;
    let start = Event::named(&base, "tour:timer", move |_, _| {
        due.set(now() + TICK.as_nanos() as u64);
        if let Err(e) = timer.add(Some(TICK)) {
            println!("timer     {e}");
        }
    })?;
    start.add(None)?;
    base.sync()?;
    println!("{address}");
    base.dispatch()?;
    Ok(())
}

fn connection(base: &EventBase, stream: TcpStream) -> Outcome {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let event = Event::new(base, stream, What::READ | What::PERSIST, move |event, what| {
        let end = now();
        let mut buf = [0; 8];
        match event.source().read(&mut buf) {
            Ok(8) => {
                let ns = end.saturating_sub(u64::from_le_bytes(buf));
                println!("{peer} {what} after {}", took(ns));
            }
            Ok(0) | Err(_) => drop(event.free()),
            Ok(n) => println!("{peer} {what}: {n} bytes"),
        }
    })?;
    event.label("tour connection");
    event.add(None)?;
    event.detach();
    Ok(())
}
