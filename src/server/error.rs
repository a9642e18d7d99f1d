//! Why there is no evd.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why an evd did not start, or could not go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The arguments, or a variable that stands for one, make no sense.
    Usage(String),
    /// Another evd serves this path.
    AlreadyRunning {
        /// The socket's path.
        path: PathBuf,
    },
    /// Another evd serves this path, but its socket is gone from there, so that nobody finds it.
    SocketGone {
        /// The socket's path.
        path: PathBuf,
    },
    /// The socket can't be made.
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What the service manager passed can't be used.
    Passed(io::Error),
    /// The system refused something that evd can't do without.
    Os {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The exit code that goes with it: 2 for usage, 75 (try again later) if another evd is there, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::AlreadyRunning { .. } | Error::SocketGone { .. } => 75,
            _ => 1,
        }
    }

    pub(super) fn os(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Os { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) => f.write_str(text),
            Error::AlreadyRunning { path } => {
                write!(
                    f,
                    "another evd serves {}; stop it, or give another path with --socket",
                    path.display()
                )
            }
            Error::SocketGone { path } => {
                write!(
                    f,
                    "another evd serves {}, but the socket is gone: somebody removed it; restart that evd",
                    path.display()
                )
            }
            Error::Socket { path, source } => {
                write!(f, "can't listen at {}: ", path.display())?;
                match source.kind() {
                    io::ErrorKind::NotFound => {
                        // Of a bare name it is the one that evd is in.
                        let dir =
                            path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
                        match dir.exists() {
                            true => write!(
                                f,
                                "no files can be made in {}; give another path with --socket",
                                dir.display()
                            ),
                            false => {
                                write!(f, "the directory {} does not exist; make it first", dir.display())
                            }
                        }
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "no permission ({source}); run as its owner, or give a path with --socket")
                    }
                    io::ErrorKind::AlreadyExists => {
                        write!(f, "{source}; move it away, or give another path with --socket")
                    }
                    io::ErrorKind::InvalidInput => {
                        write!(f, "{source}; give another path with --socket")
                    }
                    _ => write!(f, "{source}"),
                }
            }
            Error::Passed(e) => {
                write!(
                    f,
                    "the socket from the service manager can't be used: {e}; LISTEN_FDNAMES must name one `evd`"
                )
            }
            Error::Os { what, source } => write!(f, "can't {what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Socket { source, .. } | Error::Passed(source) | Error::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}
