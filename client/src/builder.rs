//! `Builder`: libevent's `event_config`, and where evd is.

use crate::events::nanos;
use crate::line::Introduction;
use crate::link::{Link, LinkState, PATIENCE};
use crate::mailbox::Shared;
use crate::park::{NEVER_QUIET, Park};
use crate::queues::Queues;
use crate::state::{Core, Flow, Limits, NIL, State};
use crate::{Error, EventBase};
use evd::backend::Features;
use evd::base::{Base, Clock, Config};
use evd_proto::path;
use evd_proto::request::Role;
use evd_proto::sys::generation;
use slab::Slab;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Local,
    Evd,
    Either,
}

/// What a base is to be like. Made by [`EventBase::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    socket: Option<PathBuf>,
    wanted: Wanted,
    config: Config,
    priorities: usize,
    linger: Duration,
    patience: Duration,
    liveness: Duration,
    limits: Limits,
    no_cache_time: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            name: String::new(),
            socket: None,
            wanted: Wanted::Either,
            config: Config::default(),
            priorities: 1,
            linger: Duration::from_millis(20),
            patience: PATIENCE,
            liveness: Duration::from_secs(1),
            limits: Limits::default(),
            no_cache_time: false,
        }
    }
}

impl Builder {
    /// What evctl calls this base: 1 to 64 of `A-Z a-z 0-9 . _ : -`. Without it: the program's name.
    pub fn name(mut self, name: &str) -> Builder {
        self.name = name.to_owned();
        self
    }

    /// evd's socket, instead of the one that [`path::socket_path`] finds: `EVD_SOCKET`, else `$XDG_RUNTIME_DIR/evd/socket` if it is there, else `/run/evd/socket`.
    pub fn socket(mut self, path: impl AsRef<Path>) -> Builder {
        self.socket = Some(path.as_ref().to_owned());
        self
    }

    /// evd must be there, or building fails.
    pub fn connect(mut self) -> Builder {
        self.wanted = Wanted::Evd;
        self
    }

    /// Without evd.
    pub fn local(mut self) -> Builder {
        self.wanted = Wanted::Local;
        self
    }

    /// The method it must have, by libevent's name: `epoll`, `poll`, `select`.
    pub fn method(mut self, name: &str) -> Builder {
        self.config.method = Some(name.to_owned());
        self
    }

    /// A method it must not have: `event_config_avoid_method`. May be called several times; unknown names are ignored.
    pub fn avoid_method(mut self, name: &str) -> Builder {
        self.config.avoid.push(name.to_owned());
        self
    }

    /// Features its method must have: `event_config_require_features`.
    pub fn require_features(mut self, features: Features) -> Builder {
        self.config.require = features;
        self
    }

    /// Ignores `EVENT_NO<METHOD>` in the environment: `EVENT_BASE_FLAG_IGNORE_ENV`.
    pub fn ignore_env(mut self) -> Builder {
        self.config.ignore_env = true;
        self
    }

    /// Number of priorities, 1 to 255: `event_base_priority_init`.
    pub fn priorities(mut self, count: usize) -> Builder {
        self.priorities = count;
        self
    }

    /// How long a watch that fired at least twice stays in-process after it was last active, before evd waits for it again. 20 ms unless told;
    /// zero parks whatever is quiet at once.
    pub fn linger(mut self, linger: Duration) -> Builder {
        self.linger = linger;
        self
    }

    /// How long building may wait for evd's answer. 2 s unless told.
    pub fn patience(mut self, patience: Duration) -> Builder {
        self.patience = patience;
        self
    }

    /// How often a base that relies on evd looks whether evd still runs (by /proc, which costs evd nothing). 1 s unless told.
    pub fn liveness(mut self, every: Duration) -> Builder {
        // Whatever is longer is never, and may be added to.
        self.liveness = every.clamp(Duration::from_millis(10), Duration::from_secs(1 << 30));
        self
    }

    /// After each callback in a queue of `min_priority` or less urgent: looks for new events again if `callbacks` have run or `interval` is over. More urgent
    /// queues run to their end. `None`: no such limit. The calls of a signal that came several times count as one. Without it a queue runs to its end: libevent's
    /// `event_config_set_max_dispatch_interval`.
    pub fn max_dispatch(
        mut self,
        interval: Option<Duration>,
        callbacks: Option<u64>,
        min_priority: usize,
    ) -> Builder {
        self.limits.interval = interval.map_or(u64::MAX, nanos);
        self.limits.callbacks = callbacks.unwrap_or(u64::MAX);
        self.limits.min_priority = min_priority;
        self
    }

    /// How many rounds in a row a less urgent queue that has something may be passed over for a more urgent one; then it is its turn, and of several one after
    /// the other. Without it an event of priority 0 that is active all the time starves the rest, as in libevent.
    pub fn fairness(mut self, rounds: u32) -> Builder {
        self.limits.fairness = rounds;
        self
    }

    /// Takes the time anew whenever a deadline is counted from it, instead of once for each wait: `EVENT_BASE_FLAG_NO_CACHE_TIME`.
    pub fn no_cache_time(mut self) -> Builder {
        self.no_cache_time = true;
        self
    }

    /// Collects changes of watches and tells the kernel of them just before it waits, so that what is deleted and added again in one round costs no system call:
    /// `EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST`, or `EVENT_EPOLL_USE_CHANGELIST` in the environment. For epoll; other methods need none. An fd that can't be
    /// watched is then noticed, and logged, only with the wait.
    pub fn changelist(mut self) -> Builder {
        self.config.changelist = true;
        self
    }

    /// What the base takes the time from; for tests.
    #[doc(hidden)]
    pub fn clock(mut self, clock: Clock) -> Builder {
        self.config.clock = clock;
        self
    }

    /// Makes the base.
    ///
    /// # Errors
    /// `Method`: no method fits. `OutOfRange`: the number of priorities. `BadName`. With [`Builder::connect`] also `NotRunning`, `Refused`,
    /// `WrongVersion`, `TimedOut`, `Lost`.
    pub fn build(self) -> Result<EventBase, Error> {
        if !(1..=255).contains(&self.priorities) {
            return Err(Error::OutOfRange("1 to 255 priorities"));
        }
        let name = if self.name.is_empty() { program_name() } else { self.name };
        evd_proto::name::check(&name).map_err(|e| Error::BadName(e.to_string()))?;
        let mut base = Base::new(&self.config)?;
        let waker = base.waker()?;
        if evd::backend::is_in_environment("EVENT_SHOW_METHOD") {
            eprintln!("[msg] evd using: {}", base.method());
        }
        let who = Introduction {
            role: Role::Client,
            name,
            // evd's counterpart has the method that the base has here: what the user sees is what evd uses.
            method: base.method().split(' ').next().unwrap_or_default().to_owned(),
            avoid: self.config.avoid.clone(),
            require: self.config.require.bits(),
        };
        let link = Link::new(self.socket.unwrap_or_else(path::socket_path), who, self.liveness);
        // The last value means that nothing is parked at all.
        let linger = nanos(self.linger).min(NEVER_QUIET);
        let linger = if self.wanted == Wanted::Local { u64::MAX } else { linger };
        let mut state = State {
            base,
            events: Slab::new(),
            timings: Vec::new(),
            counts: HashMap::new(),
            calls: HashMap::new(),
            watches: Slab::new(),
            by_fd: Vec::new(),
            signals: BTreeMap::new(),
            daemon_signals: BTreeMap::new(),
            names: BTreeMap::new(),
            named: HashMap::new(),
            labels: HashMap::new(),
            queues: Queues::new(self.priorities),
            inserted: 0,
            timed: 0,
            common: Vec::new(),
            slacks: HashMap::new(),
            senders: BTreeMap::new(),
            laters: Vec::new(),
            limits: self.limits,
            passed_over: 0,
            last_helped: 0,
            stop_next: false,
            virtuals: 0,
            most_virtuals: 0,
            most_active: 0,
            most_added: 0,
            wall: None,
            no_cache_time: self.no_cache_time,
            timed_callbacks: false,
            slow_limit: u64::MAX,
            times: Vec::new(),
            outs: Vec::new(),
            always: Vec::new(),
            flow: Flow { current: NIL, ..Flow::default() },
            link,
            park: Park::new(linger),
            next_generation: 0,
            nested: false,
            callbacks: 0,
            wakeups: 0,
            activations: Vec::new(),
            polls: Vec::new(),
        };
        match self.wanted {
            Wanted::Local => {}
            Wanted::Evd => state.connect_now(self.patience)?,
            Wanted::Either => match state.connect_now(self.patience) {
                Ok(()) => {}
                // Not there: nobody pays for looking again.
                Err(Error::NotRunning { .. }) => state.park.linger = u64::MAX,
                Err(Error::Os(e)) => {
                    log::info!("evd: {e}");
                    state.park.linger = u64::MAX;
                }
                Err(e) => {
                    log::info!("evd: {e}");
                    state.connect_later();
                    state.link.state = LinkState::Away { why: e.to_string() };
                }
            },
        }
        state.link.news.clear();
        let core = Core {
            state: RefCell::new(state),
            shared: RefCell::new(Arc::new(Shared::new(waker))),
            inbox: RefCell::default(),
            generation: Cell::new(generation()),
            noted: Cell::new(false),
            handles: Cell::new(0),
            detached: RefCell::new(HashMap::new()),
            pollable: OnceCell::new(),
            on_link: RefCell::new(None),
            watchers: RefCell::default(),
            on_slow: RefCell::new(None),
        };
        Ok(EventBase::from_core(&Rc::new(core)))
    }
}

/// The program's name, with what a name may not have left out.
pub(crate) fn program_name() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let stem = Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let fine = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    let name: String = stem.chars().filter(fine).take(evd_proto::name::MAX_NAME).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}
