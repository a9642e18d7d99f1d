//! The conformance suite's loop over the client's `EventBase`: in-process, or with what is quiet at an evd.

use super::{Closed, Files, Fired, Id, Loop, Refused, os};
use evd::backend::{Features, Mode};
use evd_client::{Error, Event, EventBase, LoopFlags, NoFd};
use evd_proto::What;
use evd_proto::sys::{AsFd, AsRawFd, BorrowedFd, PollFd, poll};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The number that the case has opened: it keeps it open for as long as the watch is there.
#[derive(Clone, Copy)]
struct Number(i32);

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // A case ends its watch before it closes the fd.
        os::lend(self.0)
    }
}

type Log = Rc<RefCell<Vec<Fired>>>;

/// An `EventBase` under test.
pub struct ClientLoop {
    base: EventBase,
    log: Log,
    watches: HashMap<Id, (Event<Number>, Mode)>,
    timers: HashMap<Id, Event<NoFd>>,
    signals: Vec<Event<NoFd>>,
    deadline: Event<NoFd>,
    woken: Arc<AtomicBool>,
    next: Id,
}

impl ClientLoop {
    /// Takes over a base that was just made.
    pub fn over(base: EventBase) -> ClientLoop {
        let deadline = Event::timer(&base, What::empty(), |_, _| {}).unwrap();
        ClientLoop {
            base,
            log: Rc::default(),
            watches: HashMap::new(),
            timers: HashMap::new(),
            signals: Vec::new(),
            deadline,
            woken: Arc::default(),
            next: 0,
        }
    }
}

impl ClientLoop {
    /// As `poll_outside`, for a base that a message of evd may wake in vain: what counts is that something is active then.
    pub fn poll_outside_for_something(&mut self, ms: u64) -> bool {
        let deadline = Instant::now() + Duration::from_millis(ms);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.poll_outside(left.as_millis() as u64) {
                return false;
            }
            self.base.loop_(LoopFlags::ONCE | LoopFlags::NONBLOCK).unwrap();
            if !self.log.borrow().is_empty() {
                return true;
            }
        }
    }
}

impl Loop for ClientLoop {
    fn open(method: &str) -> Option<ClientLoop> {
        let base = EventBase::builder().local().method(method).ignore_env().build().ok()?;
        Some(ClientLoop::over(base))
    }

    fn features(&self) -> Features {
        self.base.features()
    }

    fn files(&self) -> Files {
        Files::Reported
    }

    fn closed(&self) -> Closed {
        Closed::of(self.base.method(), self.base.features())
    }

    fn watch(&mut self, old: Option<Id>, fd: BorrowedFd<'_>, what: What, mode: Mode) -> Result<Id, Refused> {
        if mode == Mode::Edge && !self.features().contains(Features::ET) {
            return Err(Refused::Edge);
        }
        let id = old.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        // The old event's place in the log goes to the new one; adding it first keeps the watch of the fd.
        let before = self.watches.remove(&id);
        let flags = match mode {
            Mode::Level => What::PERSIST,
            Mode::Edge => What::PERSIST | What::ET,
            Mode::OneShot => What::empty(),
        };
        let log = Rc::clone(&self.log);
        let event = Event::new(&self.base, Number(fd.as_raw_fd()), what | flags, move |_, what| {
            log.borrow_mut().push(Fired::Ready(id, what & What::IO));
        })
        .unwrap();
        let result = event.add(None);
        drop(before);
        match result {
            Ok(()) => {
                self.watches.insert(id, (event, mode));
                Ok(id)
            }
            Err(Error::BadFd) => Err(Refused::BadFd),
            Err(e) => Err(Refused::Other(e.to_string())),
        }
    }

    fn unwatch(&mut self, id: Id) {
        self.watches.remove(&id);
    }

    fn timer(&mut self, old: Option<Id>, after: Duration) -> Id {
        if let Some(id) = old {
            self.timers[&id].add(Some(after)).unwrap();
            return id;
        }
        self.next += 1;
        let (id, log) = (self.next, Rc::clone(&self.log));
        let event =
            Event::timer(&self.base, What::empty(), move |_, _| log.borrow_mut().push(Fired::Timer(id)))
                .unwrap();
        event.add(Some(after)).unwrap();
        self.timers.insert(id, event);
        id
    }

    fn cancel(&mut self, id: Id) {
        self.timers[&id].del().unwrap();
    }

    fn catch_signal(&mut self, signo: i32) {
        let log = Rc::clone(&self.log);
        let event = Event::signal(&self.base, signo, move |_, _| {
            let mut log = log.borrow_mut();
            // One call for each time it came: counted together.
            if let Some(Fired::Signal(s, n)) = log.last_mut() {
                if *s == signo {
                    return *n += 1;
                }
            }
            log.push(Fired::Signal(signo, 1));
        })
        .unwrap();
        event.add(None).unwrap();
        self.signals.push(event);
    }

    fn waker(&mut self) -> Box<dyn Fn() + Send> {
        let (handle, woken) = (self.base.handle(), Arc::clone(&self.woken));
        Box::new(move || {
            woken.store(true, Ordering::SeqCst);
            handle.post(|_| {});
        })
    }

    fn wait(&mut self, ms: u64) -> Vec<Fired> {
        if !self.log.borrow().is_empty() {
            return std::mem::take(&mut *self.log.borrow_mut());
        }
        self.deadline.add(Some(Duration::from_millis(ms))).unwrap();
        self.base.loop_(LoopFlags::ONCE).unwrap();
        self.deadline.del().unwrap();
        if self.woken.swap(false, Ordering::SeqCst) {
            self.log.borrow_mut().push(Fired::Wake);
        }
        std::mem::take(&mut *self.log.borrow_mut())
    }

    fn poll_outside(&mut self, ms: u64) -> bool {
        let fd = self.base.pollable().unwrap();
        let mut fds = [PollFd::new(fd.as_raw_fd(), What::READ)];
        poll(&mut fds, Some(Duration::from_millis(ms))).unwrap() == 1
    }
}
