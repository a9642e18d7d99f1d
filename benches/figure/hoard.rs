//! The client of the figures that look at evd itself: it parks what it is given, and waits.

use crate::parts::{Control, Evd, Kind, Outcome, Process};
use evd_client::{Event, EventBase, What};
use std::error::Error;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A client with parked sockets and timers far away.
pub struct Hoard {
    pub process: Process,
    /// The other ends of what is parked.
    kept: Vec<OwnedFd>,
}

impl Hoard {
    /// Starts one that has nothing yet.
    pub fn start(core: usize, evd: &Evd) -> Result<Hoard, Box<dyn Error>> {
        Ok(Hoard { process: Process::start("hoard", core, Some(evd.socket()))?, kept: Vec::new() })
    }

    /// Parks that many more, and waits until evd has them.
    pub fn add(&mut self, sockets: usize, timers: usize) -> Outcome {
        let control = &mut self.process.control;
        control.say(&[sockets as u64, timers as u64])?;
        self.kept.extend(control.give_new(Kind::Sockets, sockets)?);
        let parked = control.hear()?;
        if parked != [self.kept.len() as u64, 0] {
            return Err(format!("{parked:?} are parked and local, not all of {}", self.kept.len()).into());
        }
        Ok(())
    }

    /// Lets it run its loop, for good.
    pub fn run(&mut self) -> Outcome {
        Ok(self.process.control.say(&[0, 0])?)
    }
}

/// Hears how many sockets and timers more it gets; says how many watches are parked and local. Told of none, it runs its loop.
pub fn client(mut control: Control) -> Outcome {
    let base = EventBase::connect()?;
    let (mut sockets, mut timers) = (Vec::new(), Vec::new());
    loop {
        let [more_sockets, more_timers] = control.hear()?[..] else { return Err("told nothing".into()) };
        if (more_sockets, more_timers) == (0, 0) {
            base.dispatch()?;
            return Err("the loop has ended".into());
        }
        for fd in control.take(more_sockets as usize)? {
            let event = Event::new(&base, fd, What::READ | What::PERSIST, |_, _| {})?;
            event.add(None)?;
            sockets.push(event);
        }
        for i in 0..more_timers {
            let event = Event::timer(&base, What::PERSIST, |_, _| {})?;
            event.add(Some(Duration::from_secs(3600) + Duration::from_millis(i)))?;
            timers.push(event);
        }
        base.sync()?;
        let (parked, local) = base.watches();
        control.say(&[parked as u64, local as u64])?;
    }
}
