//! What evd answers. A reply carries the serial of its request.

use crate::What;
use crate::frame::{Body, Kind};
use crate::sys::FileKind;
use serde::{Deserialize, Serialize};

macro_rules! bodies {
    ($($name:ident),* $(,)?) => { $(impl Body for $name { const KIND: Kind = Kind::$name; })* };
}

bodies!(Welcome, Done, Refused, Triggered, Took, Holds, StatusPage, EventsPage, TookAll, Attached);

/// The answer to `Hello`: the session stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from now on.
    pub version: u16,
    /// Feature bits that both know.
    pub features: u64,
    /// The base's id, unique for this evd; 0 for the control role.
    pub base: u64,
    /// The method of the base.
    pub method: String,
    /// Its features, as libevent's EV_FEATURE bits.
    pub method_features: u32,
    /// evd's process, as evd sees it.
    pub pid: i32,
    /// The thread that serves this session.
    pub tid: i32,
    /// evd's `CLOCK_MONOTONIC`, in nanoseconds, when it wrote this.
    pub now: u64,
    /// What the client must keep to.
    pub limits: Limits,
}

/// Limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Ids of watches must be below this.
    pub watches: u32,
    /// Ids of timers must be below this.
    pub timers: u32,
    /// Ids of subscriptions must be below this.
    pub names: u32,
    /// At most so many fds in one frame.
    pub fds_per_frame: u32,
    /// Longest attachment of a hold, in bytes.
    pub attachment: u32,
}

/// It is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// No common protocol version: `limit` is evd's oldest, `value` its newest.
    Version,
    /// The peer's user or groups may not do this.
    NotAllowed,
    /// A name with other characters than allowed, or too long.
    BadName,
    /// Something in the request makes no sense; the text says what.
    BadRequest,
    /// The stream of frames is broken; the session ends.
    Protocol,
    /// A limit is reached: `limit` says which value, `value` what was asked or is in use.
    Limit,
    /// evd has no fds left for this.
    OutOfFds,
    /// Fds were lost on the way; the session ends.
    FdsLost,
    /// No such name, base or hold.
    Unknown,
    /// The name is taken.
    Exists,
    /// Somebody is just taking it.
    Busy,
    /// No method satisfies what the base asked for.
    NoMethod,
    /// The kernel refuses to watch this fd: `value` is its errno.
    NotWatchable,
    /// evd is stopping.
    Stopping,
    /// An error of the system: `value` is its errno.
    System,
}

/// The request, or a part of it, is refused; nothing of the refused part took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub code: Code,
    /// The limit, if there is one.
    pub limit: u64,
    /// Its current or wanted value.
    pub value: u64,
    /// For people: what was wrong, and what would be right.
    pub text: String,
    /// Of an `Arm`: the ids and seqs that were refused; of a `Timers`: the ids, each with a 0. The others of the frame stand.
    #[serde(deserialize_with = "crate::codec::list")]
    pub ids: Vec<(u32, u32)>,
}

/// The answer to `Trigger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triggered {
    /// Subscribers that have it in their socket.
    pub reached: u32,
    /// Subscribers whose socket is full or whose worker is stuck: they get it later.
    pub queued: u32,
}

/// The answer to `Take`: one fd is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// To be named in `Taken`; 0 if it was a copy.
    pub hold: u64,
    /// What was given with the fd.
    #[serde(deserialize_with = "crate::codec::list")]
    pub attachment: Vec<u8>,
    /// Nanoseconds that were left; 0: no limit.
    pub ttl: u64,
}

/// The answer to `TakeAll`: one fd is attached for each entry, in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TookAll {
    /// What is given, those that can be read first.
    #[serde(deserialize_with = "crate::codec::list")]
    pub holds: Vec<TookOne>,
    /// Whether there are more: ask again.
    pub more: bool,
}

/// One of them, as in [`Took`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TookOne {
    /// To be named in `TakenAll`.
    pub hold: u64,
    /// Its name.
    pub name: String,
    /// What was given with the fd.
    #[serde(deserialize_with = "crate::codec::list")]
    pub attachment: Vec<u8>,
    /// Nanoseconds that were left; 0: no limit.
    pub ttl: u64,
}

/// Comes before a `Took` or `TookAll` of the same serial: the beginning of its (first) attachment, if that is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// What goes before the rest.
    #[serde(deserialize_with = "crate::codec::list")]
    pub bytes: Vec<u8>,
}

/// A page of the answer to `ListHolds`, ordered by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// The holds.
    #[serde(deserialize_with = "crate::codec::list")]
    pub holds: Vec<HoldInfo>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// One held fd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its inode.
    pub ino: u64,
    /// What it is ready for now.
    pub ready: What,
    /// What a counter (a held name) or a timer has counted and nobody has taken.
    pub count: u64,
    /// Bytes of the attachment.
    pub attachment: u32,
    /// Nanoseconds since it was given.
    pub age: u64,
    /// Nanoseconds until it is let go; 0: never.
    pub left: u64,
    /// Who gave it.
    pub pid: i32,
    /// What the giver called itself.
    pub giver: String,
}

/// A page of the answer to `Status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusPage {
    /// evd's version.
    pub version: String,
    /// The newest protocol version it speaks.
    pub protocol: u16,
    /// Its process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Nanoseconds since it started.
    pub uptime: u64,
    /// The methods it can use, best first.
    #[serde(deserialize_with = "crate::codec::list")]
    pub methods: Vec<String>,
    /// Its workers, as far as the asker may see them; only on the first page.
    #[serde(deserialize_with = "crate::codec::list")]
    pub workers: Vec<WorkerInfo>,
    /// What each user uses, as far as the asker may see it; only on the first page.
    #[serde(deserialize_with = "crate::codec::list")]
    pub accounts: Vec<AccountInfo>,
    /// Bases, ordered by id.
    #[serde(deserialize_with = "crate::codec::list")]
    pub bases: Vec<BaseInfo>,
    /// Held fds of the asker's uid (of all, for root).
    pub holds: u32,
    /// Why held fds do not survive evd's own end; empty: they do.
    pub mortal: String,
    /// Named user events likewise.
    pub names: u32,
    /// Whether there are more bases after the last.
    pub more: bool,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its number.
    pub id: u32,
    /// The user it serves.
    pub uid: u32,
    /// Its thread.
    pub tid: i32,
    /// The method it waits with.
    pub method: String,
    /// Sessions it has, evctl's included.
    pub sessions: u32,
    /// Nanoseconds it has been busy with one turn; 0 while it waits. Over 2 s: stuck.
    pub busy: u64,
}

/// One base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseInfo {
    /// Its id.
    pub id: u64,
    /// What the client calls itself.
    pub name: String,
    /// The client's process.
    pub pid: i32,
    /// The client's user.
    pub uid: u32,
    /// The worker that serves it.
    pub worker: u32,
    /// Nanoseconds since it connected.
    pub age: u64,
    /// Its method.
    pub method: String,
    /// Its features, as libevent's EV_FEATURE bits.
    pub features: u32,
    /// Watches parked at evd.
    pub parked: u32,
    /// Watches that the client serves itself, as it last reported.
    pub local: u32,
    /// Timers at evd.
    pub timers: u32,
    /// Own-scope signals, as in `Report`.
    pub signals: u64,
    /// Daemon-scope signals likewise.
    pub daemon_signals: u64,
    /// Named user events it subscribed to.
    #[serde(deserialize_with = "crate::codec::list")]
    pub names: Vec<String>,
    /// Activations that evd has sent.
    pub activations: u64,
    /// Activations in the last whole second.
    pub per_second: u32,
    /// Times that evd woke up for this base.
    pub wakeups: u64,
    /// Callbacks that the client has run, as it last reported.
    pub callbacks: u64,
    /// Nanoseconds since the client's socket is full; 0: it reads.
    pub unread: u64,
}

/// A page of the answer to `Events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPage {
    /// The base.
    pub base: u64,
    /// What its client calls itself.
    pub name: String,
    /// Watches, ordered by id.
    #[serde(deserialize_with = "crate::codec::list")]
    pub watches: Vec<WatchInfo>,
    /// Timers, ordered by id.
    #[serde(deserialize_with = "crate::codec::list")]
    pub timers: Vec<TimerInfo>,
    /// Named user events, ordered by id.
    #[serde(deserialize_with = "crate::codec::list")]
    pub names: Vec<NameInfo>,
    /// Daemon-scope signals.
    #[serde(deserialize_with = "crate::codec::list")]
    pub signals: Vec<SignalInfo>,
    /// Where the next page starts, to be sent as `from`; `None`: this was the last.
    pub next: Option<(u8, u32)>,
}

/// Where a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// evd waits for it.
    Parked,
    /// The client serves it itself.
    Local,
    /// It fired and is about to be one of the two.
    Between,
}

/// One watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchInfo {
    /// Its id.
    pub id: u32,
    /// Where it is.
    pub place: Place,
    /// What is waited for, with ET if edge-triggered.
    pub interest: What,
    /// What the file is, if known.
    pub kind: Option<FileKind>,
    /// Its inode, 0 if not known.
    pub ino: u64,
    /// What the client calls it.
    pub label: String,
    /// Activations in all.
    pub count: u64,
    /// Nanoseconds since the last one; 0: never.
    pub last: u64,
}

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerInfo {
    /// Its id.
    pub id: u32,
    /// Nanoseconds left.
    pub left: u64,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameInfo {
    /// Its id.
    pub id: u32,
    /// The event's name.
    pub name: String,
    /// Activations in all.
    pub count: u64,
}

/// One daemon-scope signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalInfo {
    /// Its number.
    pub signo: i32,
    /// How often it came.
    pub count: u64,
}

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// What a user is charged for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Resource {
            $($(#[$doc])* $name,)*
        }

        impl Resource {
            /// All of them, in the order of their numbers.
            pub const ALL: [Resource; [$($text),*].len()] = [$(Resource::$name),*];

            /// What it is called.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Resource::$name => $text,)*
                }
            }
        }
    };
}

resources! {
    /// Connections, evctl's included.
    Connections = "connections",
    /// Watches that evd waits for.
    Watches = "watches",
    /// Files that the kernel has in evd's epolls, at most: it does not tell when one is closed. Counted anew when the limit is reached.
    Entries = "entries",
    /// Fds that evd keeps while their watches are armed.
    Copies = "copies",
    /// Timers that are set.
    Timers = "timers",
    /// Subscriptions to named user events.
    Names = "names",
    /// Held fds.
    Holds = "holds",
    /// Bytes that are held with them.
    HoldBytes = "hold-bytes",
    /// Bytes of the tables of watches and timers.
    Tables = "table-bytes",
    /// Bytes that wait for clients to read them.
    Output = "output-bytes",
    /// Questions to other threads that are not answered yet.
    Requests = "requests",
    /// Threads that serve one base only.
    Threads = "threads",
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What one user uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// The user.
    pub uid: u32,
    /// By what is used.
    #[serde(deserialize_with = "crate::codec::list")]
    pub uses: Vec<Use>,
}

/// How much of something a user uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// What it is.
    pub what: Resource,
    /// How much is in use, or reserved for a session.
    pub used: u64,
    /// How much may be now: others' use lowers it.
    pub limit: u64,
    /// How often more was refused.
    pub refused: u64,
}
