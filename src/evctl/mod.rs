//! `evctl`, the program that looks into evd and hands fds over.
//!
//! It is a client like any other, in the control role: `args` says what can be asked, `client` asks it and waits for the answer, `status`,
//! `events`, `follow` and `fd` put the answer into lines or JSON. What other processes chose (names, labels, texts of refusals) is never
//! printed but through `evd_proto::name::printable`. evd itself calls nothing here.

mod args;
mod client;
mod docs;
mod error;
mod events;
mod exec;
mod fd;
mod follow;
#[doc(hidden)]
pub mod probe;
mod sockets;
mod status;
mod table;
mod text;
mod wait;

use args::{Args, Command, FdCommand};
use clap::Parser;
use client::{Client, Target};
use error::Error;
use evd_proto::reply::Triggered;
use evd_proto::{path, request};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How long evd may take to answer, if `--timeout` does not say.
const ANSWER: Duration = Duration::from_secs(5);
/// How long `evctl wait` waits, if `--timeout` does not say.
const READY: Duration = Duration::from_secs(30);

/// Runs `evctl` with the arguments of this process. What it returns is the exit code that `evctl --help` lists.
pub fn main() -> ExitCode {
    // clap itself ends the process on a wrong use (2), and after --help and --version (0).
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if !e.is_quiet() {
                // If stderr is gone as well, there is nobody left to tell.
                let _ = writeln!(io::stderr(), "evctl: {e}");
            }
            e.exit_code()
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    let paint = args.color.paint();
    let socket = args.socket.clone().unwrap_or_else(path::socket_path);
    let target = Target { path: socket, timeout: args.timeout.unwrap_or(ANSWER) };
    match args.command {
        Command::Status { json } => status::show(&target, json, paint),
        Command::Bases { json } => status::bases(&target, json, paint),
        Command::Events { base, follow: false, json } => events::show(&target, base, json, paint),
        Command::Events { base, follow: true, json } => follow::follow(&target, base, json),
        Command::Trigger { name } => trigger(&target, name),
        Command::Wait => wait::until_ready(args.socket.as_deref(), args.timeout.unwrap_or(READY)),
        Command::Fd(FdCommand::Put(what)) => fd::put(&target, what),
        Command::Fd(FdCommand::Exec(what)) => exec::exec(&target, what),
        Command::Fd(FdCommand::Ls { json }) => fd::ls(&target, json, paint),
        Command::Fd(FdCommand::Rm { name }) => fd::rm(&target, name),
        Command::Completions { shell } => docs::completions(shell),
        Command::Man { dir } => docs::man(dir.as_deref()),
    }
}

fn trigger(target: &Target, name: String) -> Result<(), Error> {
    let shown = text::printable(&name);
    let Triggered { reached, queued } = Client::connect(target)?.call(&request::Trigger { name })?;
    let plural = if reached == 1 { "" } else { "s" };
    Ok(writeln!(io::stdout(), "{shown}: {reached} subscriber{plural} got it, {queued} queued")?)
}
