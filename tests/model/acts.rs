//! What can be done to the model, outside of a loop and in a callback.

use super::{Event, Model, Own};
use crate::ops::{Act, MS, SIGNAL};
use crate::real::Outcome;
use crate::system::PORTS;
use crate::wires::{Kind, Wire, wire};
use evd_proto::What;
use evd_proto::sys::CAN_REPLACE;

impl Model {
    pub(super) fn act(&mut self, act: Act) -> Outcome {
        let (Act::Add(id, _)
        | Act::Del(id)
        | Act::RemoveTimer(id)
        | Act::Activate(id, _)
        | Act::ActivateTimes(id, _)
        | Act::SetPriority(id, _)
        | Act::Finalize(id)
        | Act::Free(id)) = act
        else {
            return self.act_on_base(act);
        };
        let id = usize::from(id);
        if self.events[id].is_none() {
            return Outcome::Nothing;
        }
        self.act_on_event(id, act)
    }

    fn act_on_event(&mut self, id: usize, act: Act) -> Outcome {
        match act {
            Act::Add(_, timeout) => return self.add(id, timeout.map(|t| t * MS)),
            Act::Del(_) => self.del(id),
            // In libevent the interval is kept if no timeout is pending at the moment.
            Act::RemoveTimer(_) if self.libevent && self.e(id).timer.is_none() => {}
            Act::RemoveTimer(_) => {
                let libevent = self.libevent;
                let e = self.e(id);
                (e.timer, e.interval) = (None, 0);
                if libevent && e.port == Some(SIGNAL) {
                    // There the number of calls is where other events have their interval.
                    e.calls = 0;
                }
            }
            Act::Activate(_, what) => self.activate(id, What::from_bits_retain(what), None),
            Act::ActivateTimes(_, times) => self.activate_times(id, What::SIGNAL, times, None),
            Act::SetPriority(_, priority) => {
                if usize::from(priority) >= self.queues.len() || self.e(id).active {
                    return Outcome::Refused;
                }
                self.e(id).priority = usize::from(priority);
            }
            Act::Finalize(_) => {
                self.del(id);
                self.activate(id, What::empty(), None);
                self.e(id).finalizing = true;
            }
            _ if self.e(id).finalizing => return Outcome::Nothing,
            _ => self.free(id),
        }
        Outcome::Done
    }

    fn act_on_base(&mut self, act: Act) -> Outcome {
        match act {
            Act::ActiveByFd(port, what) => self.active_by_fd(port, What::from_bits_retain(what)),
            Act::ActiveBySignal => self.signal_came(1, None),
            // Nobody who asks for it: it is ignored.
            Act::Raise(_) if self.watches[usize::from(SIGNAL)].events.is_empty() => {}
            Act::Raise(times) => self.raised += times,
            Act::Advance(by) => self.clock += by * MS,
            Act::UpdateTime => self.now = self.clock,
            Act::Break => self.stop = true,
            Act::Continue => self.again = self.running,
            Act::Exit(after) => {
                let mut exit = self.event(None, What::empty());
                exit.own = Some(Own::Exit);
                self.events.push(Some(exit));
                let id = self.events.len() - 1;
                match after {
                    Some(after) if after > 0 => drop(self.add(id, Some(after * MS))),
                    _ => self.activate(id, What::TIMEOUT, None),
                }
            }
            act => return self.act_on_wire(act),
        }
        Outcome::Done
    }

    /// The events of the signal become active, newest first.
    pub(super) fn signal_came(&mut self, times: u32, batch: Option<(usize, usize)>) {
        for id in self.watches[usize::from(SIGNAL)].events.clone() {
            let adds_up = !self.libevent;
            let e = self.e(id);
            if e.active && adds_up {
                // While only its timeout is over, that is no call of its own.
                let before = if e.res == What::TIMEOUT { 0 } else { e.calls };
                e.calls = before + times;
            }
            self.activate_times(id, What::SIGNAL, times, batch);
        }
    }

    fn active_by_fd(&mut self, port: u8, what: What) {
        let batch = self.new_batch();
        if what.contains(What::TIMEOUT) {
            // In whatever order.
            for id in 0..self.events.len() {
                if self.events[id].as_ref().is_some_and(|e| e.port == Some(port) && e.timer.is_some()) {
                    self.activate(id, What::TIMEOUT, Some((batch, id)));
                }
            }
        } else {
            self.fire(port, what, What::empty(), batch);
        }
    }

    fn act_on_wire(&mut self, act: Act) -> Outcome {
        let (Act::Write(port, _)
        | Act::Read(port, _)
        | Act::Fill(port)
        | Act::Drain(port)
        | Act::HalfClose(port)
        | Act::Close(port)
        | Act::Reopen(port)) = act
        else {
            unreachable!()
        };
        let (at, kind) = wire(port);
        let ports: Vec<u8> = (0..PORTS).filter(|p| wire(*p).0 == at).collect();
        let w = &mut self.wires[at];
        let (mut edge, mut bytes) = (What::empty(), None);
        match act {
            Act::Write(_, n) if w.may_write(kind, n) => {
                edge.set(What::READ, w.unread == 0);
                w.unread += n;
            }
            Act::Read(_, n) => {
                bytes = Some(n.min(w.unread));
                w.unread -= n.min(w.unread);
            }
            Act::Fill(_) if w.may_fill(kind) => w.full = true,
            Act::Drain(_) if w.full => {
                w.full = false;
                edge = What::WRITE;
            }
            Act::HalfClose(_) if kind == Kind::Socket && !w.closed && !w.half_closed => {
                w.half_closed = true;
                edge = What::READ | What::CLOSED;
            }
            Act::Close(_) if !w.closed => {
                w.close();
                edge = What::READ | What::CLOSED;
            }
            Act::Reopen(_) => {
                *w = Wire::default();
                let is_of =
                    |e: &Option<Event>| e.as_ref().and_then(|e| e.port).is_some_and(|p| ports.contains(&p));
                for id in (0..self.events.len()).filter(|id| is_of(&self.events[*id])).collect::<Vec<_>>() {
                    if CAN_REPLACE { self.del(id) } else { self.free(id) }
                }
            }
            _ => {}
        }
        for port in ports {
            let watch = &mut self.watches[usize::from(port)];
            watch.must |= edge;
            watch.may = true;
        }
        bytes.map_or(Outcome::Done, Outcome::Bytes)
    }
}
