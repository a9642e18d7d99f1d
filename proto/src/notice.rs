//! What evd says unasked. Notices have serial 0.

use crate::What;
use crate::frame::{Body, Kind};
use serde::{Deserialize, Serialize};

macro_rules! bodies {
    ($($name:ident),* $(,)?) => { $(impl Body for $name { const KIND: Kind = Kind::$name; })* };
}

bodies!(Active, Closing, Trace, Attend);

/// Something became active. Each id is in it at most once: what happened meanwhile is or-ed and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// Watches.
    #[serde(deserialize_with = "crate::codec::list")]
    pub watches: Vec<ActiveWatch>,
    /// Timers.
    #[serde(deserialize_with = "crate::codec::list")]
    pub timers: Vec<ActiveTimer>,
    /// Named user events.
    #[serde(deserialize_with = "crate::codec::list")]
    pub names: Vec<ActiveName>,
    /// Daemon-scope signals.
    #[serde(deserialize_with = "crate::codec::list")]
    pub signals: Vec<ActiveSignal>,
}

/// One watch that became active. But for an edge-triggered one it is disarmed with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveWatch {
    /// The client's id.
    pub id: u32,
    /// The arm that this answers: if the client has armed it anew since, this is stale.
    pub seq: u32,
    /// What it is ready for.
    pub ready: What,
}

/// One timer that is due; it is no longer set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveTimer {
    /// The client's id.
    pub id: u32,
    /// The deadline it was set with.
    pub deadline: u64,
}

/// One named user event that was triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveName {
    /// The client's id of the subscription.
    pub id: u32,
    /// How often since the last notice.
    pub count: u32,
}

/// One signal that was sent to evd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveSignal {
    /// The signal's number.
    pub signo: i32,
    /// How often since the last notice.
    pub count: u32,
    /// The process that sent the last one; 0: the kernel.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// `si_code` of the last one: how it was sent, see sigaction(2).
    pub code: i32,
}

/// evd ends in an orderly way: nothing follows. Whoever reads this goes on locally.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// For people.
    pub reason: String,
}

/// To evctl: what happened in a base that it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The base.
    pub base: u64,
    /// What its client calls itself.
    pub name: String,
    /// evd's `CLOCK_MONOTONIC` in nanoseconds.
    pub at: u64,
    /// What happened.
    #[serde(deserialize_with = "crate::codec::list")]
    pub entries: Vec<TraceEntry>,
    /// How many entries were left out because the follower did not read.
    pub lost: u32,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// Of what kind.
    pub source: TraceSource,
    /// The client's id of it, or the signal's number.
    pub id: u32,
    /// What it is ready for (of watches).
    pub ready: What,
    /// How often.
    pub count: u32,
    /// The label of the watch, or the name of the event.
    pub label: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceSource {
    /// A parked watch was reported by evd.
    Parked,
    /// A local watch fired in the client, as the client reported.
    Local,
    /// A timer was due.
    Timer,
    /// A named user event was triggered.
    Name,
    /// A signal came to evd.
    Signal,
}

/// To a client: somebody follows its base, so please report local activations before each wait; or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attend {
    /// From now on, or no longer.
    pub on: bool,
}
