//! What a client or evctl asks of evd.
//!
//! Requests are pipelined and carry increasing serials. The ones that say "no reply" are answered only when something was refused.

use crate::What;
use crate::frame::{Body, Kind};
use crate::sys::FileKind;
use serde::{Deserialize, Serialize};

macro_rules! bodies {
    ($($name:ident),* $(,)?) => { $(impl Body for $name { const KIND: Kind = Kind::$name; })* };
}

bodies!(
    Hello,
    Arm,
    Disarm,
    Timers,
    Subscribe,
    Unsubscribe,
    DaemonSignal,
    Trigger,
    Hold,
    Take,
    Taken,
    ListHolds,
    Drop,
    Sync,
    Report,
    Status,
    Events,
    Follow,
    HoldAll,
    TakeAll,
    TakenAll,
    Attach,
    ArmHandles,
);

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A program with an event base.
    Client,
    /// evctl, or another inspector: it has no base.
    Control,
}

/// The first request of a connection. Answered by `Welcome` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest and newest protocol version that the client speaks.
    pub versions: (u16, u16),
    /// Feature bits that the client knows: [`FEATURES`](crate::FEATURES).
    pub features: u64,
    /// Who speaks.
    pub role: Role,
    /// What the client calls itself (`[A-Za-z0-9._:-]{1,64}`).
    pub name: String,
    /// The method its base must have; empty: evd's choice.
    pub method: String,
    /// Methods its base must not have.
    #[serde(deserialize_with = "crate::codec::list")]
    pub avoid: Vec<String>,
    /// Features (libevent's EV_FEATURE bits) its base must have.
    pub require: u32,
}

/// Parks watches: one fd for each entry, in the same order. No reply but for those refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// The watches.
    #[serde(deserialize_with = "crate::codec::list")]
    pub watches: Vec<ArmWatch>,
}

/// One watch to park. It replaces what its id was before, and is one-shot but for [`ArmWatch::EDGE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmWatch {
    /// The client's index of the watch, below the limit in `Welcome`.
    pub id: u32,
    /// Counts the arms of this id; an activation names the one it answers.
    pub seq: u32,
    /// READ, WRITE and CLOSED.
    pub interest: What,
    /// [`ArmWatch::EDGE`], [`ArmWatch::KEEP`].
    pub flags: u8,
}

impl ArmWatch {
    /// Edge-triggered: stays armed.
    pub const EDGE: u8 = 1;
    /// The file's identity is not unique (eventfd, timerfd...): evd keeps its copy while the watch is armed.
    pub const KEEP: u8 = 2;
}

/// Parks watches of handles, which evd pulls out of the client's process: on Windows only, and only if `Welcome` has [`ArmHandles::FEATURE`]. No reply but for those refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmHandles {
    /// The watches.
    #[serde(deserialize_with = "crate::codec::list")]
    pub watches: Vec<ArmHandle>,
}

impl ArmHandles {
    /// The feature bit of who knows this request.
    pub const FEATURE: u64 = 1;
}

/// One handle to park: as [`ArmWatch`] without flags, and one-shot. evd has a duplicate while it is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmHandle {
    /// The client's index of the watch: the same as those of [`Arm`].
    pub id: u32,
    /// Counts the arms of this id.
    pub seq: u32,
    /// READ, WRITE and CLOSED; only READ is ever reported.
    pub interest: What,
    /// The handle's number in the client's process.
    pub handle: u32,
}

/// Takes watches back. No reply. The edge-triggered ones come first, each with its fd if the client still has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disarm {
    /// Watches whose fd is attached, in this order: their kernel entry goes at once.
    #[serde(deserialize_with = "crate::codec::list")]
    pub with_fd: Vec<u32>,
    /// The others.
    #[serde(deserialize_with = "crate::codec::list")]
    pub ids: Vec<u32>,
}

/// Sets and cancels timers. No reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// Timers to set, or to set anew.
    #[serde(deserialize_with = "crate::codec::list")]
    pub set: Vec<SetTimer>,
    /// Ids of timers to cancel.
    #[serde(deserialize_with = "crate::codec::list")]
    pub cancel: Vec<u32>,
}

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTimer {
    /// The client's index of the timer.
    pub id: u32,
    /// When, in evd's `CLOCK_MONOTONIC` nanoseconds.
    pub deadline: u64,
}

/// Subscribes to a named user event. Answered by `Done` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The client's index of the subscription.
    pub id: u32,
    /// The event's name, in the table of the client's uid.
    pub name: String,
}

/// Ends a subscription. No reply; one that does not exist is not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// The subscription.
    pub id: u32,
}

/// Asks for a signal that is sent to evd itself, or no longer. Answered by `Done` or `Refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonSignal {
    /// The signal: USR1, USR2, WINCH or a real-time one.
    pub signo: i32,
    /// Wanted from now on, or no longer.
    pub on: bool,
}

/// Activates a named user event. Answered by `Triggered` once it is in the sockets of its subscribers, or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The event's name.
    pub name: String,
}

/// Gives evd an fd to keep, by name: one fd is attached. Answered by `Done` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The name, in the table of the client's uid.
    pub name: String,
    /// Bytes that are given back with the fd.
    #[serde(deserialize_with = "crate::codec::list")]
    pub attachment: Vec<u8>,
    /// Nanoseconds until evd lets it go; 0: never.
    pub ttl: u64,
    /// Replace what is held under this name, instead of being refused.
    pub replace: bool,
}

/// Asks for a held fd. Answered by `Took` with the fd, or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// The name.
    pub name: String,
    /// Leave it held, and give a copy.
    pub keep: bool,
}

/// Says that the fd of a `Took` has arrived: only now evd lets its own go. No reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The number that `Took` gave.
    pub hold: u64,
}

/// Asks what is held for the client's uid. Answered by `Holds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHolds {
    /// Only names after this one; empty: from the start.
    pub after: String,
}

/// Lets a held fd go. Answered by `Done` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// The name.
    pub name: String,
}

/// Answered by `Done` when everything sent before it has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {}

/// What evd can't see by itself: it is shown by evctl. No reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Watches that became local, or whose count changed, since the last report.
    #[serde(deserialize_with = "crate::codec::list")]
    pub local: Vec<LocalWatch>,
    /// Watches that are no more.
    #[serde(deserialize_with = "crate::codec::list")]
    pub gone: Vec<u32>,
    /// New labels of watches.
    #[serde(deserialize_with = "crate::codec::list")]
    pub labels: Vec<(u32, String)>,
    /// Own-scope signals that are caught: bit n is signal n (n from 1 to 63; bit 0 is signal 64).
    pub signals: u64,
    /// Callbacks run since the base was made.
    pub callbacks: u64,
    /// Times the loop woke up since the base was made.
    pub wakeups: u64,
}

/// A watch that the client serves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalWatch {
    /// The watch's id.
    pub id: u32,
    /// What it is waited for, with ET if edge-triggered; nothing: it is parked again, and only `fired` and `ready` count.
    pub interest: What,
    /// What the file is.
    pub kind: FileKind,
    /// Its inode.
    pub ino: u64,
    /// Activations that the client saw by itself since its last report.
    pub fired: u32,
    /// What they were, or-ed.
    pub ready: What,
}

/// Asks for evd's status, a page at a time. Answered by `StatusPage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Only bases with greater ids; 0: from the start.
    pub after: u64,
}

/// Which base is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// By its id.
    Id(u64),
    /// By its name: the newest base of that name.
    Name(String),
}

/// Asks for the watches and timers of one base, a page at a time. Answered by `EventsPage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The base.
    pub base: Selector,
    /// Where to go on: a page's `next`; (0, 0) from the start.
    pub from: (u8, u32),
}

/// Asks for `Trace` notices of a base's activations as they happen, until the connection ends. Answered by `Done` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// The base; `None`: all that the asker may see.
    pub base: Option<Selector>,
}

/// Gives evd several fds to keep, all or none: one fd for each entry, in the same order. Answered by `Done` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldAll {
    /// What is to be held; no name twice.
    #[serde(deserialize_with = "crate::codec::list")]
    pub holds: Vec<HoldOne>,
    /// Replace what is held under these names, instead of being refused.
    pub replace: bool,
}

/// One of them, as in [`Hold`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldOne {
    /// The name.
    pub name: String,
    /// Bytes that are given back with the fd.
    #[serde(deserialize_with = "crate::codec::list")]
    pub attachment: Vec<u8>,
    /// Nanoseconds until evd lets it go; 0: never.
    pub ttl: u64,
}

/// Asks for held fds by the beginning of their names, as many as fit a frame, those that can be read first. Answered by `TookAll` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeAll {
    /// The beginning; empty: all.
    pub prefix: String,
}

/// Says that fds of `Took` or `TookAll` have arrived: only now evd lets its own go. Also for those of a session that ended before this could be said. No reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenAll {
    /// Their numbers.
    #[serde(deserialize_with = "crate::codec::list")]
    pub holds: Vec<u64>,
}

/// Sends the beginning of the attachment of the next `Hold`, or of the first one of the next `HoldAll`: a frame with fds has no room for a long one. Several add up.
/// No reply; if it is too long, the `Hold` is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// What goes before the rest.
    #[serde(deserialize_with = "crate::codec::list")]
    pub bytes: Vec<u8>,
}

impl Attach {
    /// Bytes of an attachment that evd and its clients send with the fd, as a frame with fds is short; a longer one goes ahead of it as a whole.
    pub const INLINE: usize = 8192;
    /// Bytes of one piece that goes ahead.
    pub const PIECE: usize = 60_000;

    /// What is to be sent ahead of a `Hold` with this attachment, which is empty then. Nothing if it is short.
    pub fn ahead(attachment: &mut Vec<u8>) -> Vec<Attach> {
        if attachment.len() <= Attach::INLINE {
            return Vec::new();
        }
        let long = std::mem::take(attachment);
        long.chunks(Attach::PIECE).map(|piece| Attach { bytes: piece.to_vec() }).collect()
    }
}
