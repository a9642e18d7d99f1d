//! Timers: one shot, persistent, and how late each is.
//!
//! `cargo run --example timer`

mod parts;

use evd_client::{Event, EventBase, What};
use std::time::Duration;

fn main() -> std::process::ExitCode {
    parts::main(&[], || {
        let evd = parts::PrivateEvd::start()?;
        let base = EventBase::builder().name("timer").socket(evd.socket()).connect().build()?;
        let start = parts::now();
        let once = Event::timer(&base, What::empty(), move |_, _| {
            println!("  one shot of 50 ms after {}", parts::took(parts::now() - start));
        })?;
        once.add(Some(Duration::from_millis(50)))?;
        let mut due = start;
        let every = Duration::from_millis(20);
        let ticking = Event::timer(&base, What::PERSIST, move |event, _| {
            due += every.as_nanos() as u64;
            println!("  tick {}, late by {}", event.count(), parts::took(parts::now().saturating_sub(due)));
            if event.count() == 5 {
                let _ = event.del();
            }
        })?;
        ticking.add(Some(every))?;
        let looped = base.dispatch()?;
        println!("  nothing left to wait for, after {} callbacks", looped.callbacks);
        evd.stop()
    })
}
