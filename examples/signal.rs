//! Signals of both scopes: to this process, and to evd.
//!
//! `cargo run --example signal`

mod parts;

use evd_client::{Event, EventBase};
use evd_proto::sys::{send_signal, signal_number};

fn main() -> std::process::ExitCode {
    parts::main(&[], || {
        let evd = parts::PrivateEvd::start()?;
        let base = EventBase::builder().name("signal").socket(evd.socket()).connect().build()?;
        let usr1 = signal_number("USR1").ok_or("no USR1")?;
        let usr2 = signal_number("USR2").ok_or("no USR2")?;
        let own = Event::signal(&base, usr1, |event, what| {
            println!("  USR1 to this process: {what}, call {}", event.count());
            let _ = event.del();
        })?;
        own.add(None)?;
        let daemon = Event::daemon_signal(&base, usr2, |event, what| {
            println!("  USR2 to evd: {what}, came {} time(s)", event.times());
            let _ = event.del();
        })?;
        daemon.add(None)?;
        base.sync()?;
        send_signal(std::process::id() as i32, usr1)?;
        send_signal(evd.pid(), usr2)?;
        println!("  {} callbacks", base.dispatch()?.callbacks);
        evd.stop()
    })
}
