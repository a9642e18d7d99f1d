//! What can be asked of `evctl`: the one definition that parsing, `--help`, shell completions and man pages come from.
//!
//! The options for all commands are global, so they may stand before the command or after it. Names are checked here, as evd would check them:
//! a name that can't exist is a wrong use (2) and costs no question.

use super::text::{Color, parse_duration};
use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;
use evd_proto::name;
use evd_proto::request::Selector;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed, or refused by evd
  2    wrong use
  3    evd is not running, or ended while it was asked
  4    not allowed
  124  evd did not answer in time
  126  fd exec: the command can't be run
  127  fd exec: the command was not found";

/// Looks into evd, the event daemon, and hands fds over to it and back.
#[derive(Debug, Parser)]
#[command(name = "evctl", version, after_help = EXIT_CODES, propagate_version = true)]
pub(super) struct Args {
    /// evd's socket [default: EVD_SOCKET, else $XDG_RUNTIME_DIR/evd/socket if it is there, else /run/evd/socket; on Windows EVD_SOCKET or \\.\pipe\evd-USER]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// How long evd may take to answer [default: 5; of wait: 30]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = parse_duration)]
    pub(super) timeout: Option<Duration>,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show evd, its workers and its bases
    Status {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// List bases, a line each
    Bases {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// List watches, timers, named events and signals, or follow them as they happen
    Events {
        /// Only this base; of several with one name the newest
        #[arg(long, value_name = "ID|NAME", value_parser = selector)]
        base: Option<Selector>,
        /// Print activations as they happen, until interrupted
        #[arg(long)]
        follow: bool,
        /// For machines; with --follow one object a line
        #[arg(long)]
        json: bool,
    },
    /// Activate a named event, and say how many subscribers got it
    Trigger {
        /// The event's name
        #[arg(value_parser = checked_name)]
        name: String,
    },
    /// Wait until evd is ready
    Wait,
    /// Give fds to evd, by name, and run commands with them
    #[command(subcommand)]
    Fd(FdCommand),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print evctl's man page, or write all pages
    Man {
        /// Write all pages into this directory
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// The commands about held fds.
#[derive(Debug, Subcommand)]
pub(super) enum FdCommand {
    /// Give an open fd to evd: evctl fd put NAME 3<FILE
    Put(Put),
    /// Run a command with held fds, which it finds as from a service manager (LISTEN_FDS)
    Exec(Exec),
    /// List held fds
    Ls {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Let a held fd go
    Rm {
        /// Its name
        #[arg(value_parser = checked_name)]
        name: String,
    },
}

/// What `fd put` is told.
#[derive(Debug, ClapArgs)]
pub(super) struct Put {
    /// The name it is held by
    #[arg(value_parser = checked_name)]
    pub(super) name: String,
    /// Let it go after this time: 30s, 5m, 2h, 1d or plain seconds
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) ttl: Option<Duration>,
    /// Text that is given back with it
    #[arg(long, value_name = "TEXT")]
    pub(super) attachment: Option<OsString>,
    /// A file whose bytes are given back with it
    #[arg(long, value_name = "FILE", conflicts_with = "attachment")]
    pub(super) attachment_file: Option<PathBuf>,
    /// Replace what is held by this name
    #[arg(long)]
    pub(super) replace: bool,
    /// The number of the fd
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) fd: i32,
}

/// What `fd exec` is told.
#[derive(Debug, ClapArgs)]
pub(super) struct Exec {
    /// Names of held fds, in the order they are passed; =AS is the name that the command sees
    #[arg(required = true, value_name = "NAME[=AS]", value_parser = passed)]
    pub(super) names: Vec<Passed>,
    /// Leave them held, and pass copies
    #[arg(long)]
    pub(super) keep: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

/// A held fd, and the name that it is passed on by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// What it is held by.
    pub(super) name: String,
    /// What stands in LISTEN_FDNAMES.
    pub(super) shown: String,
}

fn checked_name(text: &str) -> Result<String, String> {
    name::check(text).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

fn selector(text: &str) -> Result<Selector, String> {
    match text.parse() {
        Ok(id) => Ok(Selector::Id(id)),
        Err(_) => checked_name(text).map(Selector::Name),
    }
}

/// A colon separates the names in LISTEN_FDNAMES, so a name with one needs another name there. Source: sd_listen_fds(3).
fn passed(text: &str) -> Result<Passed, String> {
    let (name, shown) = text.split_once('=').unwrap_or((text, text));
    let (name, shown) = (checked_name(name)?, checked_name(shown)?);
    if shown.contains(':') {
        return Err(format!("LISTEN_FDNAMES can't hold a colon: say {name}=AS with a name without one"));
    }
    Ok(Passed { name, shown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_number_selects_by_id_and_a_name_by_name() {
        assert_eq!(selector("7"), Ok(Selector::Id(7)));
        assert_eq!(selector("web"), Ok(Selector::Name("web".into())));
        assert!(selector("a b").is_err());
    }

    #[test]
    fn a_name_with_a_colon_needs_another_to_be_passed_on() {
        assert_eq!(passed("web"), Ok(Passed { name: "web".into(), shown: "web".into() }));
        assert_eq!(passed("web:443=web"), Ok(Passed { name: "web:443".into(), shown: "web".into() }));
        assert!(passed("web:443").is_err() && passed("web=").is_err() && passed("a=b=c").is_err());
    }
}
