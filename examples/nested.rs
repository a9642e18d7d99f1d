//! The base's fd inside a loop that knows nothing of evd: a plain poll(2).
//!
//! `cargo run --example nested`

mod parts;

use evd_client::{Event, EventBase, LoopFlags, What};
use evd_proto::sys::{PollFd, poll};
use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

fn main() -> std::process::ExitCode {
    parts::main(&[], || {
        let evd = parts::PrivateEvd::start()?;
        let base = EventBase::builder().name("nested").socket(evd.socket()).connect().build()?;
        let (ours, mut theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ended = Rc::new(Cell::new(false));
        let end = Rc::clone(&ended);
        let event = Event::new(&base, ours, What::READ | What::PERSIST, move |event, what| {
            let mut buf = [0; 64];
            let n = event.source().read(&mut buf).unwrap_or(0);
            if n == 0 {
                end.set(true);
                let _ = event.del();
                return;
            }
            println!("  {what}: {}", String::from_utf8_lossy(&buf[..n]));
        })?;
        event.add(None)?;
        let ticks = Rc::new(Cell::new(0));
        let count = Rc::clone(&ticks);
        let timer = Event::timer(&base, What::PERSIST, move |_, _| {
            count.set(count.get() + 1);
            println!("  a timer of the base");
        })?;
        timer.add(Some(Duration::from_millis(30)))?;
        let writer = std::thread::spawn(move || {
            for i in 0..5 {
                std::thread::sleep(Duration::from_millis(15));
                if theirs.write_all(format!("message {i}").as_bytes()).is_err() {
                    return;
                }
            }
        });
        // The outer loop: all it knows of the base is one fd.
        while !ended.get() || ticks.get() == 0 {
            let mut fds = [PollFd::new(base.as_fd().as_raw_fd(), What::READ)];
            if poll(&mut fds, Some(Duration::from_secs(20)))? == 0 {
                return Err("the base's fd did not wake the outer loop".into());
            }
            // One round. NONBLOCK alone would go on for as long as something is active.
            base.loop_(LoopFlags::ONCE | LoopFlags::NONBLOCK)?;
        }
        writer.join().map_err(|_| "the writer failed")?;
        drop((event, timer));
        evd.stop()
    })
}
