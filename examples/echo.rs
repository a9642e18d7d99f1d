//! A TCP echo server whose quiet connections are watched by evd, from another process.
//!
//! `cargo run --example echo` shows it with a few connections; `cargo run --example echo -- ADDRESS` serves until Ctrl-C, with the evd that is there.

mod parts;

use evd_client::{Event, EventBase, What};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::rc::Rc;

fn main() -> std::process::ExitCode {
    parts::main(&[("echo-server", || serve("127.0.0.1:0"))], || match std::env::args().nth(1) {
        Some(address) => serve(&address),
        None => show(),
    })
}

fn serve(address: &str) -> parts::Outcome {
    let base = EventBase::builder().name("echo").build()?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let accept = Event::new(&base, listener, What::READ | What::PERSIST, |event, _| {
        while let Ok((stream, peer)) = event.source().accept() {
            if let Err(e) = connection(&event.base(), stream) {
                eprintln!("echo: {peer}: {e}");
            }
        }
    })?;
    accept.add(None)?;
    let interrupt = Event::signal(&base, evd_proto::sys::signal_number("INT").unwrap_or(2), |event, _| {
        event.base().loopbreak();
    })?;
    interrupt.add(None)?;
    base.dispatch()?;
    Ok(())
}

/// One connection: two events on one socket, and what was read and not yet taken back.
struct Connection {
    reader: Event<Rc<TcpStream>>,
    writer: Event<Rc<TcpStream>>,
    waiting: Vec<u8>,
    ended: bool,
}

/// Shared by both callbacks; taking the connection out of it ends it.
type Shared = Rc<RefCell<Option<Connection>>>;

fn connection(base: &EventBase, stream: TcpStream) -> parts::Outcome {
    stream.set_nonblocking(true)?;
    let (stream, shared) = (Rc::new(stream), Shared::default());
    let turn = |shared: &Shared| {
        let shared = Rc::clone(shared);
        move |event: &Event<Rc<TcpStream>>, _what: What| {
            if !transfer(event.source(), &shared) {
                // Dropping the events deletes them, also the one that is running.
                drop(shared.borrow_mut().take());
            }
        }
    };
    let reader = Event::new(base, Rc::clone(&stream), What::READ | What::PERSIST, turn(&shared))?;
    let writer = Event::new(base, stream, What::WRITE, turn(&shared))?;
    reader.add(None)?;
    *shared.borrow_mut() = Some(Connection { reader, writer, waiting: Vec::new(), ended: false });
    Ok(())
}

/// Reads what is there and writes it back as far as the peer takes it; `false`: the connection is over.
fn transfer(mut stream: &TcpStream, shared: &Shared) -> bool {
    let mut shared = shared.borrow_mut();
    let Some(c) = shared.as_mut() else { return false };
    let mut buf = [0; 16 * 1024];
    // Not more than one buffer ahead of a peer that does not read.
    while !c.ended && c.waiting.len() < buf.len() {
        match stream.read(&mut buf) {
            Ok(0) => c.ended = true,
            Ok(n) => c.waiting.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return false,
        }
    }
    match stream.write(&c.waiting) {
        Ok(n) => drop(c.waiting.drain(..n)),
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Err(_) => return false,
    }
    if c.waiting.is_empty() {
        return !c.ended && c.reader.add(None).is_ok();
    }
    // Until the peer takes more there is nothing to read for.
    c.reader.del().and_then(|()| c.writer.add(None)).is_ok()
}

fn show() -> parts::Outcome {
    let evd = parts::PrivateEvd::start()?;
    let mut server = evd.role("echo-server")?.stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    if let Some(out) = &mut server.stdout {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut address)?;
    }
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(TcpStream::connect(address.trim())?);
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        let start = parts::now();
        let text = format!("connection {i}");
        stream.write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        println!(
            "  {} came back after {}",
            String::from_utf8_lossy(&answer),
            parts::took(parts::now() - start)
        );
    }
    println!("what evd holds of it:");
    evd.role("evctl")?.arg("events").status()?;
    server.kill()?;
    server.wait()?;
    evd.stop()
}
