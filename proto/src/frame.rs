//! Frames: a header of 16 bytes and a body.

use crate::MAX_FDS;
use crate::codec::{self, CodecError};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// Bytes of a header.
pub const HEADER: usize = 16;
/// The longest body.
pub const MAX_BODY: usize = 65_536;
/// The longest frame (header and body) that carries fds: it fits one kernel buffer, so `sendmsg` takes all of it or nothing.
pub const MAX_WITH_FDS: usize = 16_384;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs, reason = "each is documented at its body type")]
pub enum Kind {
    Hello = 0x01,
    Arm = 0x02,
    Disarm = 0x03,
    Timers = 0x04,
    Subscribe = 0x05,
    Unsubscribe = 0x06,
    DaemonSignal = 0x07,
    Trigger = 0x08,
    Hold = 0x09,
    Take = 0x0a,
    Taken = 0x0b,
    ListHolds = 0x0c,
    Drop = 0x0d,
    Sync = 0x0e,
    Report = 0x0f,
    Status = 0x10,
    Events = 0x11,
    Follow = 0x12,
    HoldAll = 0x13,
    TakeAll = 0x14,
    TakenAll = 0x15,
    Attach = 0x16,
    ArmHandles = 0x17,
    Welcome = 0x81,
    Done = 0x82,
    Refused = 0x83,
    Triggered = 0x84,
    Took = 0x85,
    Holds = 0x86,
    StatusPage = 0x87,
    EventsPage = 0x88,
    TookAll = 0x89,
    Attached = 0x8a,
    Active = 0x101,
    Closing = 0x102,
    Trace = 0x103,
    Attend = 0x104,
}

impl Kind {
    const ALL: [Kind; 37] = [
        Kind::Hello,
        Kind::Arm,
        Kind::Disarm,
        Kind::Timers,
        Kind::Subscribe,
        Kind::Unsubscribe,
        Kind::DaemonSignal,
        Kind::Trigger,
        Kind::Hold,
        Kind::Take,
        Kind::Taken,
        Kind::ListHolds,
        Kind::Drop,
        Kind::Sync,
        Kind::Report,
        Kind::Status,
        Kind::Events,
        Kind::Follow,
        Kind::HoldAll,
        Kind::TakeAll,
        Kind::TakenAll,
        Kind::Attach,
        Kind::ArmHandles,
        Kind::Welcome,
        Kind::Done,
        Kind::Refused,
        Kind::Triggered,
        Kind::Took,
        Kind::Holds,
        Kind::StatusPage,
        Kind::EventsPage,
        Kind::TookAll,
        Kind::Attached,
        Kind::Active,
        Kind::Closing,
        Kind::Trace,
        Kind::Attend,
    ];

    fn from_wire(n: u16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| *k as u16 == n)
    }
}

/// A body that can be sent: it knows its kind.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind its frames have.
    const KIND: Kind;
}

/// A header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub len: usize,
    /// What the body is.
    pub kind: Kind,
    /// How many fds belong to this frame.
    pub fds: usize,
    /// Requests count up from 1; a reply has its request's; a notice has 0.
    pub serial: u64,
}

/// What makes a stream of frames invalid. It ends the session: after it nothing can be told from garbage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The header names a kind that nobody knows.
    UnknownKind(u16),
    /// The header has flags that nobody knows.
    UnknownFlags(u8),
    /// The body is longer than allowed.
    TooLong {
        /// What the header says.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The header claims another number of fds than came with the frame.
    FdCount {
        /// What the header says.
        claimed: usize,
        /// How many came.
        came: usize,
    },
    /// The header has the number of fds that came, but the body is one for another number.
    FdsOfBody {
        /// What the body is.
        kind: Kind,
        /// How many it takes.
        takes: usize,
        /// How many came.
        came: usize,
    },
    /// The body is not what the kind says.
    Body(Kind, CodecError),
    /// A serial that is not greater than the one before.
    Serial {
        /// The last one.
        last: u64,
        /// This one.
        got: u64,
    },
    /// A kind that may not come now.
    OutOfPlace(Kind),
    /// The first frame of a client, which must be a `Hello`.
    NotHello(Kind),
    /// A client sent what only evd sends.
    NotARequest(Kind),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::UnknownKind(k) => write!(f, "unknown kind of frame {k:#06x}"),
            FrameError::UnknownFlags(b) => write!(f, "unknown flags {b:#04x} in a frame's header"),
            FrameError::TooLong { len, limit } => {
                write!(f, "a body of {len} bytes, at most {limit} are allowed")
            }
            FrameError::FdCount { claimed, .. } if *claimed > MAX_FDS => {
                write!(f, "a frame claims {claimed} fds, at most {MAX_FDS} are allowed")
            }
            FrameError::FdCount { came, .. } if *came > MAX_FDS => {
                write!(f, "{came} fds came before their frame was whole, at most {MAX_FDS} are allowed")
            }
            FrameError::FdCount { claimed, came } => write!(
                f,
                "a frame claims {claimed} fds, but {came} came with it: fds belong to the frame that ends with their message"
            ),
            FrameError::FdsOfBody { kind, takes, came } => {
                write!(f, "{kind:?} with this body takes {takes} fds, but {came} came with it")
            }
            FrameError::Body(kind, e) => write!(f, "the body of {kind:?} is malformed: {e}"),
            FrameError::Serial { last, got } => write!(f, "serial {got} after {last}: serials must increase"),
            FrameError::OutOfPlace(Kind::Hello) => {
                f.write_str("Hello is not allowed here: it comes once, as the first frame")
            }
            FrameError::OutOfPlace(kind) => write!(f, "{kind:?} is not allowed here"),
            FrameError::NotHello(kind) => write!(f, "{kind:?} came first: the first frame must be Hello"),
            FrameError::NotARequest(kind) => write!(f, "{kind:?} is not a request: only evd sends it"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends a whole frame to `to`.
///
/// # Errors
/// If the body or the number of fds is over the limit; `to` is then as it was.
pub fn encode<B: Body>(to: &mut Vec<u8>, serial: u64, fds: usize, body: &B) -> Result<(), FrameError> {
    if fds > MAX_FDS {
        return Err(FrameError::FdCount { claimed: fds, came: MAX_FDS });
    }
    let start = to.len();
    to.extend_from_slice(&[0; HEADER]);
    let limit = if fds > 0 { MAX_WITH_FDS - HEADER } else { MAX_BODY };
    if let Err(e) = codec::encode(body, to) {
        to.truncate(start);
        return Err(FrameError::Body(B::KIND, e));
    }
    let len = to.len() - start - HEADER;
    if len > limit {
        to.truncate(start);
        return Err(FrameError::TooLong { len, limit });
    }
    let header = &mut to[start..start + HEADER];
    header[0..4].copy_from_slice(&(len as u32).to_le_bytes());
    header[4..6].copy_from_slice(&(B::KIND as u16).to_le_bytes());
    header[6] = fds as u8;
    header[8..16].copy_from_slice(&serial.to_le_bytes());
    Ok(())
}

/// Reads the header at the start of `bytes`; `None` if there are fewer than [`HEADER`].
///
/// # Errors
/// An unknown kind or flag, a body or a number of fds over the limits.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(h) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32::from_le_bytes([h[0], h[1], h[2], h[3]]) as usize;
    let kind = u16::from_le_bytes([h[4], h[5]]);
    let (fds, flags) = (usize::from(h[6]), h[7]);
    let serial = u64::from_le_bytes([h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15]]);
    let kind = Kind::from_wire(kind).ok_or(FrameError::UnknownKind(kind))?;
    if flags != 0 {
        return Err(FrameError::UnknownFlags(flags));
    }
    let limit = if fds > 0 { MAX_WITH_FDS - HEADER } else { MAX_BODY };
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    if fds > MAX_FDS {
        return Err(FrameError::FdCount { claimed: fds, came: MAX_FDS });
    }
    Ok(Some(Header { len, kind, fds, serial }))
}

/// Reads a body.
///
/// # Errors
/// [`FrameError::Body`], or [`FrameError::OutOfPlace`] if the frame is of another kind.
pub fn body<B: Body>(kind: Kind, bytes: &[u8]) -> Result<B, FrameError> {
    if kind != B::KIND {
        return Err(FrameError::OutOfPlace(kind));
    }
    codec::decode(bytes).map_err(|e| FrameError::Body(kind, e))
}
