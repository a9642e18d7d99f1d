//! The README's program, as it stands there. It runs with evd and without; with evd it may be killed and started again, and nobody who connects meanwhile is turned away.
//!
//! `cargo run --example web`, and `nc 127.0.0.1 8080`

use evd_client::{Event, EventBase, What, hold};
use std::net::TcpListener;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = EventBase::new()?; // evd if it is there, else in-process
    let listener = hold::take_or("web:8080", || TcpListener::bind("127.0.0.1:8080"))?;
    listener.set_nonblocking(true)?;
    let accept = Event::new(&base, listener, What::READ | What::PERSIST, |event, _what| {
        while let Ok((stream, peer)) = event.source().accept() {
            println!("{peer}: {stream:?}");
        }
    })?;
    accept.add(None)?; // event_add
    let tick = Event::timer(&base, What::PERSIST, |_, _| println!("tick"))?;
    tick.add(Some(Duration::from_secs(1)))?;
    let reload = Event::named(&base, "web:reload", |_, _| println!("evctl trigger web:reload"))?;
    reload.add(None)?;
    base.dispatch()?;
    Ok(())
}
