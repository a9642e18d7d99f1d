//! What can go wrong, as values to match on.

use evd::backend::WatchError;
use evd::base::BaseError;
use evd_proto::reply::{Code, Refused};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What went wrong. Unless a variant says otherwise, nothing has changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at evd's socket.
    NotRunning {
        /// The socket that was tried.
        path: PathBuf,
        /// What connecting gave.
        cause: io::Error,
    },
    /// evd said no.
    Refused(Box<Refused>),
    /// evd speaks other versions of the protocol.
    WrongVersion {
        /// Our oldest and newest.
        ours: (u16, u16),
        /// evd's oldest and newest.
        theirs: (u16, u16),
    },
    /// The fd is not open.
    BadFd,
    /// The fd can't be watched, for this reason.
    NotWatchable(&'static str),
    /// Flags that don't combine, or don't fit the event's kind.
    Combination(&'static str),
    /// The event is about to be finalized.
    Finalizing,
    /// The event is pending or active, and must not be for this.
    Pending,
    /// This base was made before a fork, and this is the child.
    Forked,
    /// evd went away, or did not answer in time. The base goes on locally.
    ///
    /// What was asked for may have been done or not, also later: evd that was frozen does what it finds in its socket when it goes on. When the link is up again,
    /// [`EventBase::list_held`](crate::EventBase::list_held) tells what is held, and how often a held name was triggered. What was taken and did not arrive is still held.
    Lost,
    /// evd did not answer in time.
    TimedOut,
    /// A loop of this base is running already.
    Reentrant,
    /// A value that is out of its range; the text says which.
    OutOfRange(&'static str),
    /// Not a name: 1 to 64 of `A-Z a-z 0-9 . _ : -`.
    BadName(String),
    /// This needs evd, and the base is local, or evd is away just now.
    NeedsEvd,
    /// No method fits what was asked for.
    Method(BaseError),
    /// An error of the system.
    Os(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotRunning { path, cause } => {
                write!(f, "evd is not running at {}: {cause}", path.display())
            }
            Error::Refused(r) => write!(f, "evd refused: {}", evd_proto::name::printable(&r.text)),
            Error::WrongVersion { ours, theirs } => write!(
                f,
                "evd speaks protocol versions {} to {}, this client {} to {}",
                theirs.0, theirs.1, ours.0, ours.1
            ),
            Error::BadFd => f.write_str("the fd is not open"),
            Error::NotWatchable(why) => write!(f, "the fd can't be watched: {why}"),
            Error::Combination(what) => write!(f, "flags that don't combine: {what}"),
            Error::Finalizing => f.write_str("the event is about to be finalized"),
            Error::Pending => f.write_str("the event is pending or active: delete it first"),
            Error::Forked => f.write_str("this base belongs to the parent process"),
            Error::Lost => f.write_str("the connection to evd is lost"),
            Error::TimedOut => f.write_str("evd did not answer in time"),
            Error::Reentrant => f.write_str("a loop of this base is running already"),
            Error::OutOfRange(what) => write!(f, "out of range: {what}"),
            Error::BadName(text) => f.write_str(text),
            Error::NeedsEvd => f.write_str("this needs evd, and the base is local, or evd is away"),
            Error::Method(e) => write!(f, "{e}"),
            Error::Os(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::NotRunning { cause: e, .. } | Error::Os(e) => Some(e),
            Error::Method(e) => Some(e),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Error {
        Error::Os(e)
    }
}

impl From<BaseError> for Error {
    fn from(e: BaseError) -> Error {
        Error::Method(e)
    }
}

impl From<WatchError> for Error {
    fn from(e: WatchError) -> Error {
        match e {
            WatchError::AlwaysReady => Error::NotWatchable("it is always ready"),
            WatchError::BadFd => Error::BadFd,
            WatchError::Loop => Error::NotWatchable("it would wait for itself, or is nested too deep"),
            WatchError::Unsupported(what) => Error::Combination(what),
            WatchError::Full => {
                Error::NotWatchable("the kernel's limit on watches is reached (fs.epoll.max_user_watches)")
            }
            WatchError::Os(e) => Error::Os(e),
            other => Error::Os(io::Error::other(other.to_string())),
        }
    }
}

impl From<Refused> for Error {
    fn from(r: Refused) -> Error {
        match r.code {
            Code::Version => Error::WrongVersion {
                ours: (evd_proto::OLDEST_VERSION, evd_proto::PROTOCOL_VERSION),
                theirs: (r.limit as u16, r.value as u16),
            },
            _ => Error::Refused(Box::new(r)),
        }
    }
}
