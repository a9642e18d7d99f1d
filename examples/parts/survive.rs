//! A server is killed with SIGKILL; its successor answers on the connection that the dead one had accepted.

use super::{Outcome, PrivateEvd, now, took};
use evd_client::{Event, EventBase, What};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

const LISTENER: &str = "survive:listener";
const CONNECTION: &str = "survive:connection";

/// The server. It asks evd for what a predecessor may have left; if there is nothing it starts fresh.
pub fn server() -> Outcome {
    let base = EventBase::builder().name("survive").connect().build()?;
    let me = std::process::id();
    let listener = match base.take(LISTENER) {
        Ok(held) => TcpListener::from(held.fd),
        Err(_) => TcpListener::bind("127.0.0.1:0")?,
    };
    listener.set_nonblocking(true)?;
    base.hold(LISTENER, &listener, b"", None)?;
    if let Ok(held) = base.take(CONNECTION) {
        serve(
            &base,
            TcpStream::from(held.fd),
            u64::from_le_bytes(held.attachment.try_into().unwrap_or_default()),
        )?;
    }
    println!("{}", listener.local_addr()?);
    let accept = Event::new(&base, listener, What::READ | What::PERSIST, |event, _| {
        while let Ok((stream, _)) = event.source().accept() {
            if let Err(e) = serve(&event.base(), stream, 0) {
                eprintln!("survive: {e}");
            }
        }
    })?;
    accept.label("survive listener");
    accept.add(None)?;
    println!("server {me} is ready");
    base.dispatch()?;
    Ok(())
}

/// Answers each line with who answers it and the how manieth it is; evd keeps the connection and the count.
fn serve(base: &EventBase, stream: TcpStream, mut lines: u64) -> Outcome {
    stream.set_nonblocking(true)?;
    base.hold_anew(CONNECTION, &stream, &lines.to_le_bytes(), None)?;
    let connection = Event::new(base, stream, What::READ | What::PERSIST, move |event, _| {
        let mut buf = [0; 512];
        match event.source().read(&mut buf) {
            Ok(0) | Err(_) => {
                let _ = event.base().drop_held(CONNECTION);
                let _ = event.free();
            }
            Ok(n) => {
                lines += 1;
                let text = String::from_utf8_lossy(&buf[..n]);
                let answer =
                    format!("line {lines}, {:?}, answered by {}\n", text.trim_end(), std::process::id());
                let _ = event.base().hold_anew(CONNECTION, event.source(), &lines.to_le_bytes(), None);
                let _ = event.source().write_all(answer.as_bytes());
            }
        }
    })?;
    connection.label("survive connection");
    connection.add(None)?;
    connection.detach();
    Ok(())
}

/// The play: a server, its death, its successor.
pub fn play(evd: &PrivateEvd) -> Outcome {
    let (mut first, address) = start(evd)?;
    let mut stream = TcpStream::connect(&address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    let mut ask = |text: &str| -> Result<(String, u64), Box<dyn std::error::Error>> {
        let start = now();
        stream.write_all(format!("{text}\n").as_bytes())?;
        line.clear();
        if answers.read_line(&mut line)? == 0 {
            return Err("the connection ended".into());
        }
        Ok((line.trim_end().to_owned(), now() - start))
    };
    let (answer, ns) = ask("hello")?;
    println!("  server {}: {answer} ({})", first.id(), took(ns));
    let killed = now();
    first.kill()?;
    first.wait()?;
    println!("  server {} is killed with SIGKILL; its connection stands, held by evd", first.id());
    let (mut second, again) = start(evd)?;
    if again != address {
        return Err(format!("the successor listens on {again}, not on {address}").into());
    }
    let (answer, ns) = ask("are you still there?")?;
    println!("  server {}: {answer} ({}; {} after the kill)", second.id(), took(ns), took(now() - killed));
    let expected = format!("answered by {}", second.id());
    second.kill()?;
    second.wait()?;
    if !answer.starts_with("line 2") || !answer.ends_with(&expected) {
        return Err(format!("not the answer of the successor: {answer}").into());
    }
    Ok(())
}

fn start(evd: &PrivateEvd) -> Result<(Child, String), Box<dyn std::error::Error>> {
    let mut child = evd.role("survive-server")?.stdout(Stdio::piped()).spawn()?;
    let Some(out) = child.stdout.take() else { return Err("no pipe".into()) };
    let mut lines = BufReader::new(out).lines();
    let address = lines.next().ok_or("the server did not start")??;
    // The second line says that it waits.
    lines.next().ok_or("the server ended")??;
    Ok((child, address))
}
