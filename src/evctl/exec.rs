//! `evctl fd exec`: becomes a command that finds held fds as a service manager would pass them.
//!
//! Nothing is lost at any point. A taken fd stays held until `Taken`, and a connection that ends before that leaves it held: so whatever can fail is done
//! first (the command is looked up, all fds arrive), `Taken` is sent last and its effect waited for. If exec fails all the same, the fds are held
//! again, from copies: exec may have closed the originals by then.

use super::args::{Exec, Passed};
use super::client::{Client, Target};
use super::error::Error;
use super::text::printable;
use evd_proto::reply::{Done, Took};
use evd_proto::request::{Hold, Sync, Take, Taken};
use evd_proto::sys::{AsRawFd, OwnedFd, check_exec, exec_with_fds};
use std::ffi::{OsStr, OsString};
use std::io;

/// `evctl fd exec`: returns only on failure.
///
/// # Errors
/// `Exec` if the command can't be run; `Usage` if a name is given twice; as [`Client::exchange`].
pub(super) fn exec(target: &Target, what: Exec) -> Result<(), Error> {
    for (i, p) in what.names.iter().enumerate() {
        if what.names[..i].iter().any(|q| q.name == p.name) {
            return Err(Error::Usage(format!("{} is given twice", p.name)));
        }
    }
    let program = what.command.first().map_or(OsStr::new(""), OsString::as_os_str);
    look_up(program)?;
    let mut client = Client::connect(target)?;
    let mut fds = Vec::new();
    let mut copies = Vec::new();
    let mut taken = Vec::new();
    for Passed { name, shown } in &what.names {
        let (took, fd) = take(&mut client, name, what.keep)?;
        taken.push(Taken { hold: took.hold });
        let Took { attachment, ttl, .. } = took;
        copies.push(Hold { name: name.clone(), attachment, ttl, replace: false });
        fds.push((shown.clone(), fd));
    }
    // Exec replaces the numbers from 3 on. The connection and the fds have taken at least as many free ones and are still open, so the copies come
    // to lie behind them.
    let copies: Vec<(Hold, OwnedFd)> = copies
        .into_iter()
        .zip(&fds)
        .map(|(hold, (_, fd))| Ok((hold, fd.try_clone()?)))
        .collect::<io::Result<_>>()
        .map_err(|e| Error::Failed(format!("no fds are left for what is to be taken: {e}")))?;
    if !what.keep {
        for t in &taken {
            client.tell(t)?;
        }
        let Done {} = client.call(&Sync {})?;
    }
    drop(client);
    let e = exec_with_fds(&what.command, fds);
    let program = printable(&program.to_string_lossy());
    let code = if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    let lost = if what.keep { String::new() } else { put_back(target, &copies) };
    Err(Error::Exec(code, format!("can't run {program}: {e}{lost}")))
}

fn take(client: &mut Client, name: &str, keep: bool) -> Result<(Took, OwnedFd), Error> {
    let (took, mut fds) = client.take(&Take { name: name.to_owned(), keep })?;
    match (fds.pop(), fds.is_empty()) {
        (Some(fd), true) => Ok((took, fd)),
        _ => Err(Error::Failed(format!("evd's answer for {name} did not bring one fd"))),
    }
}

/// Holds again what a failed exec was to get. Says what did not work.
fn put_back(target: &Target, copies: &[(Hold, OwnedFd)]) -> String {
    let mut wrong = String::new();
    let mut client = Client::connect(target);
    for (hold, fd) in copies {
        let result = match &mut client {
            Ok(client) => client.hold(hold, fd.as_raw_fd()),
            Err(e) => Err(Error::Failed(e.to_string())),
        };
        if let Err(e) = result {
            wrong.push_str(&format!("; {} can't be held again: {e}", hold.name));
        }
    }
    wrong
}

/// Fails if `program` can't be run, as far as a look tells; exec itself has the last word.
fn look_up(program: &OsStr) -> Result<(), Error> {
    let shown = printable(&program.to_string_lossy());
    check_exec(program).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::Exec(127, format!("can't run {shown}: there is no such command")),
        io::ErrorKind::PermissionDenied => {
            Error::Exec(126, format!("can't run {shown}: it is not an executable file"))
        }
        _ => Error::Failed(format!("can't run {shown}: {e}")),
    })
}
