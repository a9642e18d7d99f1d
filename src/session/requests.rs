//! What each request does. Those that concern only this client and its base take effect here; the others leave as wishes.

use super::greeting::Request;
use super::{Refusal, State, Wish};
use evd_proto::channel::{Frame, Output};
use evd_proto::frame::{Body, FrameError, Kind};
use evd_proto::name;
use evd_proto::notice::TraceSource;
use evd_proto::reply::{Code, Done, Refused};
use evd_proto::request::{self as ask, Role};
use evd_proto::sys::{self, AsFd, Slot};

/// Queues a refusal.
pub(super) fn refuse(out: &mut Output, serial: u64, code: Code, limit: u64, value: u64, text: String) {
    // A refusal is far shorter than a frame may be.
    let _ = out.push(serial, &Refused { code, limit, value, text, ids: Vec::new() });
}

/// The body of a request that no fds may come with.
pub(super) fn plain<T: Body, B: AsRef<[u8]>>(request: &Request<B>) -> Result<T, FrameError> {
    count(request, 0)?;
    request.read()
}

/// The number of fds must be what the body implies.
pub(super) fn count<B>(request: &Request<B>, wanted: usize) -> Result<(), FrameError> {
    match request.fds.len() {
        came if came == wanted => Ok(()),
        came => Err(FrameError::FdsOfBody { kind: request.header.kind, takes: wanted, came }),
    }
}

/// Watches that could not be armed, by why not.
#[derive(Default)]
struct RefusedArms(Vec<(Refusal, Vec<(u32, u32)>)>);

impl RefusedArms {
    fn note(&mut self, armed: Result<(), Refusal>, id: (u32, u32)) {
        let Err(why) = armed else { return };
        // Over one limit all say the same, whatever each of them asked for.
        let same = |r: &Refusal| {
            (r.code, r.limit, r.value) == (why.code, why.limit, why.value)
                && (r.code == Code::Limit || r.text == why.text)
        };
        match self.0.iter_mut().find(|(r, _)| same(r)) {
            Some((_, ids)) => ids.push(id),
            None => self.0.push((why, vec![id])),
        }
    }

    fn tell(self, serial: u64, out: &mut Output) -> Result<(), FrameError> {
        for (Refusal { code, limit, value, text }, ids) in self.0 {
            out.push(serial, &Refused { code, limit, value, text, ids })?;
        }
        Ok(())
    }
}

impl State {
    /// Takes in one request. Wishes are appended in the order of the requests.
    ///
    /// An error ends the session: the stream of frames is not to be trusted any more.
    pub(super) fn request<B: AsRef<[u8]>>(
        &mut self,
        request: impl Into<Request<B>>,
        out: &mut Output,
        slot: &mut Slot,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), FrameError> {
        let request = request.into();
        let (kind, serial) = (request.header.kind, request.header.serial);
        if serial <= self.last_serial {
            return Err(FrameError::Serial { last: self.last_serial, got: serial });
        }
        self.last_serial = serial;
        let control = matches!(kind, Kind::Status | Kind::Events | Kind::Follow);
        let client = matches!(
            kind,
            Kind::Arm
                | Kind::ArmHandles
                | Kind::Disarm
                | Kind::Timers
                | Kind::Subscribe
                | Kind::Unsubscribe
                | Kind::DaemonSignal
                | Kind::Report
        );
        if (control && self.role != Role::Control) || (client && self.role != Role::Client) {
            let role = if control { "control" } else { "client" };
            let text = format!("{kind:?} is for the {role} role");
            refuse(out, serial, Code::NotAllowed, 0, 0, text);
            return Ok(());
        }
        match kind {
            Kind::Arm => self.arm(request, out, slot),
            Kind::Disarm => self.disarm(request, slot),
            Kind::Timers => self.set_timers(&plain(&request)?, serial, out),
            Kind::Subscribe => {
                wishes.extend(self.subscription(plain(&request)?, serial, out));
                Ok(())
            }
            Kind::Unsubscribe => {
                // Not before what the client asked for ahead of it: a Trigger may reach this subscription.
                wishes.push(Wish::Unsubscribe { id: plain::<ask::Unsubscribe, B>(&request)?.id });
                Ok(())
            }
            Kind::DaemonSignal => self.daemon_signal(plain(&request)?, serial, out),
            Kind::Report => {
                self.told(&plain(&request)?);
                Ok(())
            }
            Kind::Hold => self.hold(request, out, wishes),
            Kind::HoldAll => self.hold_all(request, out, wishes),
            Kind::Attach => self.attach(&request),
            Kind::ArmHandles => self.arm_handles(&plain(&request)?, serial, out),
            _ => {
                let wish = self.passed_on(&request)?;
                match wish.name().map(name::check) {
                    Some(Err(e)) => refuse(out, serial, Code::BadName, 0, 0, e.to_string()),
                    _ => wishes.push(wish),
                }
                Ok(())
            }
        }
    }

    /// The requests that are the server's alone.
    fn passed_on<B: AsRef<[u8]>>(&mut self, request: &Request<B>) -> Result<Wish, FrameError> {
        let serial = request.header.serial;
        Ok(match request.header.kind {
            Kind::Trigger => Wish::Trigger { serial, name: plain::<ask::Trigger, B>(request)?.name },
            Kind::Take => {
                let ask::Take { name, keep } = plain(request)?;
                self.takes = true;
                Wish::Take { serial, name, keep }
            }
            Kind::TakeAll => {
                self.takes = true;
                Wish::TakeAll { serial, prefix: plain::<ask::TakeAll, B>(request)?.prefix }
            }
            Kind::Taken => Wish::Taken { holds: vec![plain::<ask::Taken, B>(request)?.hold] },
            Kind::TakenAll => Wish::Taken { holds: plain::<ask::TakenAll, B>(request)?.holds },
            Kind::ListHolds => Wish::ListHolds { serial, after: plain::<ask::ListHolds, B>(request)?.after },
            Kind::Drop => Wish::DropHold { serial, name: plain::<ask::Drop, B>(request)?.name },
            Kind::Sync => {
                plain::<ask::Sync, B>(request)?;
                Wish::Sync { serial }
            }
            Kind::Status => Wish::Status { serial, after: plain::<ask::Status, B>(request)?.after },
            Kind::Events => {
                let ask::Events { base, from } = plain(request)?;
                Wish::Events { serial, base, from }
            }
            Kind::Follow => Wish::Follow { serial, base: plain::<ask::Follow, B>(request)?.base },
            Kind::Hello => return Err(FrameError::OutOfPlace(Kind::Hello)),
            kind => return Err(FrameError::NotARequest(kind)),
        })
    }

    fn arm<B: AsRef<[u8]>>(
        &mut self,
        request: Request<B>,
        out: &mut Output,
        slot: &mut Slot,
    ) -> Result<(), FrameError> {
        let body: ask::Arm = request.read()?;
        count(&request, body.watches.len())?;
        self.watches.expect(&mut self.base, body.watches.len());
        let mut refused = RefusedArms::default();
        for (arm, fd) in body.watches.iter().zip(request.fds) {
            refused.note(self.watches.arm(&mut self.base, slot, arm, fd), (arm.id, arm.seq));
        }
        slot.clear();
        refused.tell(request.header.serial, out)
    }

    fn arm_handles(
        &mut self,
        body: &ask::ArmHandles,
        serial: u64,
        out: &mut Output,
    ) -> Result<(), FrameError> {
        let mut refused = RefusedArms::default();
        for arm in &body.watches {
            let armed = self.watches.arm_handle(&mut self.base, self.connection.as_fd(), arm);
            refused.note(armed, (arm.id, arm.seq));
        }
        refused.tell(serial, out)
    }

    fn disarm<B: AsRef<[u8]>>(&mut self, request: Request<B>, slot: &mut Slot) -> Result<(), FrameError> {
        let body: ask::Disarm = request.read()?;
        count(&request, body.with_fd.len())?;
        for (id, fd) in body.with_fd.iter().zip(request.fds) {
            self.watches.disarm(&mut self.base, slot, *id, Some(fd));
        }
        slot.clear();
        for id in &body.ids {
            self.watches.disarm(&mut self.base, slot, *id, None);
        }
        Ok(())
    }

    fn set_timers(&mut self, body: &ask::Timers, serial: u64, out: &mut Output) -> Result<(), FrameError> {
        for id in &body.cancel {
            self.timers.cancel(&mut self.base, *id);
        }
        self.timers.expect(body.set.len());
        let limit = self.limits.timers;
        let mut refused =
            Refused { code: Code::Limit, limit: 0, value: 0, text: String::new(), ids: Vec::new() };
        for timer in &body.set {
            let id = timer.id;
            let why = if id >= limit {
                let text = format!("timer {id}: ids of timers must be below {limit}");
                Err((u64::from(limit), u64::from(id), text))
            } else {
                let set = self.timers.set(&mut self.base, id, timer.deadline);
                set.map_err(|over| (over.limit, over.used, over.to_string()))
            };
            if let Err((limit, value, text)) = why {
                refused = Refused { limit, value, text, ..refused };
                refused.ids.push((id, 0));
            }
        }
        if refused.ids.is_empty() { Ok(()) } else { out.push(serial, &refused) }
    }

    fn subscription(&self, body: ask::Subscribe, serial: u64, out: &mut Output) -> Option<Wish> {
        let ask::Subscribe { id, name } = body;
        let limit = self.limits.names;
        if id >= limit {
            let text = format!("subscription {id}: ids must be below {limit}");
            refuse(out, serial, Code::Limit, u64::from(limit), u64::from(id), text);
        } else if let Err(e) = name::check(&name) {
            refuse(out, serial, Code::BadName, 0, 0, e.to_string());
        } else {
            return Some(Wish::Subscribe { serial, id, name });
        }
        None
    }

    fn daemon_signal(
        &mut self,
        body: ask::DaemonSignal,
        serial: u64,
        out: &mut Output,
    ) -> Result<(), FrameError> {
        let ask::DaemonSignal { signo, on } = body;
        if !sys::daemon_scope_allowed(signo) {
            let text = format!(
                "signal {} of evd is not passed on, only USR1, USR2, WINCH and the real-time ones",
                sys::signal_name(signo)
            );
            refuse(out, serial, Code::NotAllowed, 0, 0, text);
            return Ok(());
        }
        if on {
            if let Err(e) = self.base.add_signal(signo) {
                let Refusal { code, limit, value, text } = Refusal::system(&e, e.to_string());
                refuse(out, serial, code, limit, value, text);
                return Ok(());
            }
            self.signals.add(signo);
        } else {
            self.base.remove_signal(signo);
            self.signals.remove(signo);
        }
        out.push(serial, &Done {})
    }

    fn told(&mut self, report: &ask::Report) {
        let now = self.base.now();
        for id in &report.gone {
            self.watches.gone(&mut self.base, *id);
        }
        for local in &report.local {
            self.watches.told(local, now);
        }
        for (id, label) in &report.labels {
            self.watches.label(*id, label);
        }
        self.meter.told(report);
        let Some(trace) = &mut self.trace else { return };
        for local in report.local.iter().filter(|l| l.fired > 0) {
            let label = self.watches.told.get(&local.id).map(|t| t.label.clone()).unwrap_or_default();
            trace.push(super::deliver::entry(TraceSource::Local, local.id, local.ready, local.fired, label));
        }
    }
}

impl<'a> State {
    /// As [`State::request`], for a frame as received.
    pub(super) fn frame(
        &mut self,
        frame: Frame<'a>,
        out: &mut Output,
        slot: &mut Slot,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), FrameError> {
        self.request::<&[u8]>(frame, out, slot, wishes)
    }
}
