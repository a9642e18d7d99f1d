//! Looking over the loop's shoulder: watchers before and after each wait, and a hook for callbacks that take too long.

use crate::state::Core;
use crate::{EventBase, EventKey};
use evd_proto::What;
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// When a watcher runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Prepare,
    Check,
}

pub(crate) type Callback = dyn FnMut(&EventBase, Option<Duration>);

/// The watchers of a base, in the order in which they were made.
#[derive(Default)]
pub(crate) struct Watchers {
    all: Vec<(u64, Moment, Rc<RefCell<Callback>>)>,
    next: u64,
}

impl Watchers {
    pub fn watch(&self, moment: Moment) -> bool {
        !self.all.is_empty() && self.all.iter().any(|(_, m, _)| *m == moment)
    }

    pub fn ids(&self, moment: Moment) -> Vec<u64> {
        self.all.iter().filter(|(_, m, _)| *m == moment).map(|(id, ..)| *id).collect()
    }

    pub fn get(&self, id: u64) -> Option<Rc<RefCell<Callback>>> {
        self.all.iter().find(|(i, ..)| *i == id).map(|(.., c)| Rc::clone(c))
    }
}

/// A watcher of a base's loop; it ends when this is dropped, also inside its own callback.
///
/// Watchers are no events: a loop with nothing but watchers is empty. Source: libevent 2.2, `evwatch_prepare_new`, `evwatch_check_new`.
#[must_use = "the watcher ends when this is dropped"]
#[derive(Debug)]
pub struct Watcher {
    core: Weak<Core>,
    id: u64,
}

impl Watcher {
    /// The base it watches: libevent's `evwatch_base`. `None` if that is gone.
    pub fn base(&self) -> Option<EventBase> {
        self.core.upgrade().map(|core| EventBase::from_core(&core))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let position = core.watchers.borrow().all.iter().position(|(id, ..)| *id == self.id);
        let gone = position.map(|at| core.watchers.borrow_mut().all.remove(at));
        // The closure's own drop may come back to the base: no borrow lives here.
        drop(gone);
    }
}

/// A callback that took too long: see [`EventBase::on_slow`].
#[derive(Clone, Debug)]
pub struct Slow {
    /// Whose callback it was.
    pub event: EventKey,
    /// What its user calls it: see [`Event::label`](crate::Event::label).
    pub label: String,
    /// What it was called with.
    pub what: What,
    /// How long it ran.
    pub took: Duration,
}

pub(crate) type SlowCallback = Rc<RefCell<dyn FnMut(&EventBase, &Slow)>>;

impl EventBase {
    /// Calls `callback` just before each wait, with the time that the wait may last; `None`: for ever. With [`Duration::ZERO`] it only looks.
    pub fn prepare(&self, callback: impl FnMut(&EventBase, Option<Duration>) + 'static) -> Watcher {
        self.watcher(Moment::Prepare, Rc::new(RefCell::new(callback)))
    }

    /// Calls `callback` just after each wait: what became ready is active then, and due timers are not yet.
    pub fn check(&self, mut callback: impl FnMut(&EventBase) + 'static) -> Watcher {
        self.watcher(Moment::Check, Rc::new(RefCell::new(move |base: &EventBase, _| callback(base))))
    }

    fn watcher(&self, moment: Moment, callback: Rc<RefCell<Callback>>) -> Watcher {
        let mut watchers = self.core().watchers.borrow_mut();
        let id = watchers.next;
        watchers.next += 1;
        watchers.all.push((id, moment, callback));
        Watcher { core: Rc::downgrade(self.core()), id }
    }

    /// Calls `callback` after each callback of an event that ran for `limit` or longer, so that nobody has to guess which one holds up the loop. It
    /// replaces one that was set before. While one is set each callback costs two looks at the clock, and [`Event::callback_times`](crate::Event::callback_times) adds up.
    pub fn on_slow(&self, limit: Duration, callback: impl FnMut(&EventBase, &Slow) + 'static) {
        let mut state = self.core().state.borrow_mut();
        state.slow_limit = crate::events::nanos(limit);
        state.timed_callbacks = true;
        drop(state);
        let before = self.core().on_slow.borrow_mut().replace(Rc::new(RefCell::new(callback)));
        drop(before);
    }
}
