//! Why a command failed, and the exit code that says so.
//!
//! Scripts go by the code and people by the text, so each variant is one code. What evd refused is kept as it came: some commands match on its
//! code (a base that ended between two questions is no error of a listing).

use super::text::printable;
use evd_proto::reply::{Code, Refused};
use std::process::ExitCode;
use std::{fmt, io};

/// Why a command failed.
#[derive(Debug)]
#[non_exhaustive]
pub(super) enum Error {
    /// A wrong use that clap can't see: 2.
    Usage(String),
    /// Nobody listens, or evd ended while it was asked: 3.
    NotRunning(String),
    /// This user may not connect: 4.
    NotAllowed(String),
    /// evd did not answer in time: 124.
    TimedOut(String),
    /// evd refused: 4 if it is not allowed, 3 if evd is stopping, else 1.
    Refused(Refused),
    /// The command of `fd exec` can't be run: 126 or 127, as a shell has it.
    Exec(u8, String),
    /// stdout takes no more. Quiet, and no failure, if its reader has left: `evctl status | head -1` is an ordinary use.
    Output(io::Error),
    /// Anything else: 1.
    Failed(String),
}

impl Error {
    /// Whether there is nothing to tell.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Error::Output(_) if self.is_quiet() => 0,
            Error::Usage(_) => 2,
            Error::NotRunning(_) => 3,
            Error::Refused(Refused { code: Code::Stopping, .. }) => 3,
            Error::NotAllowed(_) => 4,
            Error::Refused(Refused { code: Code::NotAllowed, .. }) => 4,
            Error::TimedOut(_) => 124,
            Error::Exec(code, _) => *code,
            Error::Refused(_) | Error::Output(_) | Error::Failed(_) => 1,
        })
    }

    /// Whether evd refused with `code`.
    pub(super) fn is_refusal(&self, code: Code) -> bool {
        matches!(self, Error::Refused(r) if r.code == code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text)
            | Error::NotRunning(text)
            | Error::NotAllowed(text)
            | Error::TimedOut(text)
            | Error::Exec(_, text)
            | Error::Failed(text) => f.write_str(text),
            Error::Output(e) => write!(f, "can't write to stdout: {e}"),
            Error::Refused(r) => refusal(r, f),
        }
    }
}

fn refusal(r: &Refused, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if r.code == Code::Version {
        return write!(
            f,
            "evctl {} speaks protocol {} to {}, and this evd {} to {}: install both from one release",
            env!("CARGO_PKG_VERSION"),
            evd_proto::OLDEST_VERSION,
            evd_proto::PROTOCOL_VERSION,
            r.limit,
            r.value
        );
    }
    let why = match r.code {
        Code::NotAllowed => "not allowed",
        Code::BadName => "bad name",
        Code::BadRequest => "bad request",
        Code::Protocol => "protocol error",
        Code::Limit => "over a limit",
        Code::OutOfFds => "evd has no fds left",
        Code::FdsLost => "fds were lost on the way",
        Code::Unknown => "unknown",
        Code::Exists => "exists",
        Code::Busy => "busy",
        Code::NoMethod => "no such method",
        Code::NotWatchable => "can't be watched",
        Code::Stopping => "evd is stopping",
        Code::System => "system error",
        Code::Version => "version",
    };
    f.write_str(why)?;
    if !r.text.is_empty() {
        write!(f, ": {}", printable(&r.text))?;
    }
    match r.code {
        Code::Limit => write!(f, " (limit {}, asked or in use {})", r.limit, r.value),
        Code::NotWatchable | Code::System if r.value != 0 => {
            write!(f, " ({})", io::Error::from_raw_os_error(r.value as i32))
        }
        _ => Ok(()),
    }
}

impl std::error::Error for Error {}

/// `?` on an `io::Error` is for writes to stdout; every other call says what it was about.
impl From<io::Error> for Error {
    fn from(e: io::Error) -> Error {
        Error::Output(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_refusal_names_both_sides() {
        let r = Refused { code: Code::Version, limit: 7, value: 9, text: String::new(), ids: Vec::new() };
        let text = Error::Refused(r).to_string();
        assert!(text.contains("protocol 1 to 1") && text.contains("evd 7 to 9"), "{text}");
    }
}
