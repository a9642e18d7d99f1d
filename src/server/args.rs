//! The command line of evd, and each argument's environment variable.

use super::builder::Daemon;
use super::error::Error;
use super::{keeper, log};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};
use evd_proto::{path, sys};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// What evd could not do.
    Error,
    /// What may become a problem.
    Warn,
    /// Start, end, and who was refused.
    Info,
    /// Sessions that come and go.
    Debug,
    /// All there is.
    Trace,
}

/// Hosts event bases for other processes: waits for what is quiet, keeps what must survive, and shows every loop.
#[derive(Clone, Debug, Parser)]
#[command(name = "evd", version, max_term_width = 100)]
pub struct Args {
    /// Where to listen [default: $XDG_RUNTIME_DIR/evd/socket, else /run/evd/socket; on Windows \\.\pipe\evd-USER]
    ///
    /// A socket that the service manager passes goes before this. Clients look at both places, and elsewhere only if EVD_SOCKET or --socket names it. On Windows it is
    /// the name of a pipe.
    #[arg(long, value_name = "PATH", env = "EVD_SOCKET")]
    pub socket: Option<OsString>,
    /// A user who may connect, by number or name, beside evd's own and root; may be repeated
    #[arg(long, value_name = "UID", env = "EVD_ALLOW_UID", value_delimiter = ',')]
    pub allow_uid: Vec<String>,
    /// A group whose members may connect, by number or name; may be repeated
    #[arg(long, value_name = "GID", env = "EVD_ALLOW_GID", value_delimiter = ',')]
    pub allow_gid: Vec<String>,
    /// A group whose members may connect and look at the bases of all users, by number or name; may be repeated
    #[arg(long, value_name = "GID", env = "EVD_ADMIN_GID", value_delimiter = ',')]
    pub admin_gid: Vec<String>,
    /// Let users in whom evd's user namespace does not know, all as one (65534)
    #[arg(long, env = "EVD_ALLOW_OVERFLOW_UID", value_parser = clap::builder::FalseyValueParser::new())]
    pub allow_overflow_uid: bool,
    /// Let all users pass epolls to be watched, not only root and evd's own
    #[arg(long, env = "EVD_ALLOW_NESTED", value_parser = clap::builder::FalseyValueParser::new())]
    pub allow_nested: bool,
    /// Threads that serve one user, at most
    #[arg(long, value_name = "N", env = "EVD_WORKERS_PER_UID", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers_per_uid: u16,
    /// Keep the socket and what is held over evd's own end, without a service manager
    ///
    /// A small process makes the socket, starts evd, stores for it what is held, and starts it again when it dies, or hangs
    /// for 10 s. SIGTERM to it ends both, and then what is held goes. On Linux only.
    #[arg(long)]
    pub keeper: bool,
    /// Run as a service of Windows' service manager, which must be who starts it; on Windows only
    #[arg(long, conflicts_with = "keeper")]
    pub service: bool,
    /// Keep what evd does not need once it runs: exec, mount and other system calls
    #[arg(long, env = "EVD_NO_HARDENING", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_hardening: bool,
    /// What one user may have at most, as NAME=NUMBER with a name that `evctl status` shows; may be repeated
    #[arg(long, value_name = "NAME=N", env = "EVD_QUOTA", value_delimiter = ',')]
    pub quota: Vec<String>,
    /// How much to log to stderr
    #[arg(long, value_name = "LEVEL", env = "EVD_LOG_LEVEL", default_value = "info")]
    pub log_level: Level,
}

/// What the binary does: reads the arguments, runs evd until it is told to stop, and says in one line if that was not possible.
pub fn main() -> ExitCode {
    let matches = Args::command().get_matches();
    if is_given_nothing(&matches) {
        let text = "--socket is given nothing: name a path, or leave it out";
        Args::command().error(ErrorKind::InvalidValue, text).exit();
    }
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    log::start(match args.log_level {
        Level::Error => ::log::LevelFilter::Error,
        Level::Warn => ::log::LevelFilter::Warn,
        Level::Info => ::log::LevelFilter::Info,
        Level::Debug => ::log::LevelFilter::Debug,
        Level::Trace => ::log::LevelFilter::Trace,
    });
    if !args.service {
        return run_and_tell(args).into();
    }
    match sys::run_service(|| run_and_tell(args)) {
        Ok(code) => code.into(),
        Err(e) => {
            // There is nowhere to say that stderr is gone.
            let _ = writeln!(std::io::stderr(), "evd: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs evd; returns its exit status.
fn run_and_tell(args: Args) -> u8 {
    run(args).unwrap_or_else(|e| {
        // There is nowhere to say that stderr is gone.
        let text = evd_proto::name::printable(&e.to_string());
        let _ = writeln!(std::io::stderr(), "evd: {text}");
        e.exit_code()
    })
}

/// An empty variable counts as unset, as for clients. An empty argument is a mistake, as a script's variable that is not set: not the place that was meant.
fn is_given_nothing(matches: &ArgMatches) -> bool {
    matches.value_source("socket") == Some(ValueSource::CommandLine)
        && matches.get_one::<OsString>("socket").is_some_and(|path| path.is_empty())
}

fn run(args: Args) -> Result<u8, Error> {
    let mut builder = Daemon::builder()
        .workers_per_uid(usize::from(args.workers_per_uid))
        .allow_names(args.allow_uid.join(","), args.allow_gid.join(","))
        .admin_names(args.admin_gid.join(","))
        .allow_overflow_uid(args.allow_overflow_uid)
        .allow_nested(args.allow_nested)
        .harden(!args.no_hardening);
    for quota in args.quota.iter().filter(|q| !q.is_empty()) {
        let (what, each) = super::quotas::parse(quota)?;
        builder = builder.quota(what, each);
    }
    // An empty variable counts as unset, as for clients.
    builder = match args.socket.filter(|p| !p.is_empty()) {
        Some(path) => builder.socket(path),
        None => builder.default_socket(path::listen_path()),
    };
    if args.keeper { keeper::run(&builder) } else { builder.run().map(|()| 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sound() {
        Args::command().debug_assert();
        let args = Args::parse_from(["evd", "--allow-uid", "1,2", "--allow-uid", "3", "--log-level", "warn"]);
        assert_eq!((args.allow_uid.len(), args.log_level, args.workers_per_uid), (3, Level::Warn, 1));
        assert!(Args::try_parse_from(["evd", "--workers-per-uid", "0"]).is_err());
        for (socket, is_nothing) in [("", true), ("/a", false)] {
            let matches = Args::command().get_matches_from(["evd", "--socket", socket]);
            assert_eq!(is_given_nothing(&matches), is_nothing);
        }
        assert!(!is_given_nothing(&Args::command().get_matches_from(["evd"])));
    }
}
