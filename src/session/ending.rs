//! Why a session ends, as the log has it and as the client is told.

use evd_proto::frame::FrameError;
use std::fmt;
use std::io;

/// Why a session ends.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ending {
    /// The client closed its socket.
    Closed,
    /// What came is not the protocol; the client was told.
    Protocol(FrameError),
    /// Fds were lost on the way; the client was told.
    FdsLost,
    /// The client's process has ended, and somebody else has its socket.
    Exited,
    /// It asked, and does not read the answers.
    Slow,
    /// It can't have what it asked for in its `Hello`; it was told why.
    Refused(String),
    /// The socket or the base failed.
    Os(io::Error),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Closed => f.write_str("the client closed it"),
            Ending::Protocol(e) => write!(f, "{e}"),
            Ending::FdsLost => f.write_str("fds were lost on the way: this process is short of them"),
            Ending::Exited => f.write_str("its process has ended"),
            Ending::Slow => f.write_str("it did not read its answers for 5 s"),
            Ending::Refused(why) => f.write_str(why),
            Ending::Os(e) => write!(f, "{e}"),
        }
    }
}

impl From<io::Error> for Ending {
    fn from(e: io::Error) -> Ending {
        match e.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ending::Closed,
            _ => Ending::Os(e),
        }
    }
}
