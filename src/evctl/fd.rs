//! `evctl fd put`, `fd ls` and `fd rm`: fds that evd holds by name.
//!
//! `put` gives away an fd that the shell opened for it (`3<FILE`), so it looks at the number before it opens anything itself: its own connection would
//! take a free number 3, and would be held in the fd's place.

use super::args::Put;
use super::client::{Client, Target};
use super::error::Error;
use super::sockets::{Sockets, kind_name, one_word};
use super::status::{SCHEMA_VERSION, print, write_json};
use super::table::Table;
use super::text::{Paint, printable, short_duration};
use evd_proto::reply::{Done, HoldInfo, Holds};
use evd_proto::request::{Drop, Hold, ListHolds};
use evd_proto::sys::{self, FileKind};
use serde_json::{Value, json};
use std::io::{self, Write};

/// `evctl fd put`.
///
/// # Errors
/// `Failed` if the number is not open or the attachment can't be read; as [`Client::exchange`].
pub(super) fn put(target: &Target, what: Put) -> Result<(), Error> {
    check_open(what.fd)?;
    let attachment = match (what.attachment, what.attachment_file) {
        (Some(text), _) => text.into_encoded_bytes(),
        (None, Some(file)) => std::fs::read(&file)
            .map_err(|e| Error::Failed(format!("can't read {}: {e}", printable(&file.to_string_lossy()))))?,
        (None, None) => Vec::new(),
    };
    let mut client = Client::connect(target)?;
    let limit = client.welcome().limits.attachment as usize;
    if attachment.len() > limit {
        let len = attachment.len();
        return Err(Error::Failed(format!("the attachment has {len} bytes, at most {limit} are allowed")));
    }
    let ttl = what.ttl.map_or(0, |t| t.as_nanos() as u64);
    let request = Hold { name: what.name, attachment, ttl, replace: what.replace };
    client.hold(&request, what.fd)
}

/// Looks, before anything else is opened, whether `fd` was passed on to us.
fn check_open(fd: i32) -> Result<(), Error> {
    let is_open = sys::is_passed(fd).map_err(|e| Error::Failed(format!("can't look at fd {fd}: {e}")))?;
    if !is_open {
        let text = format!("fd {fd} is not open: open it in the shell ({fd}<FILE), or name another by --fd");
        return Err(Error::Failed(text));
    }
    Ok(())
}

/// `evctl fd rm`.
///
/// # Errors
/// As [`Client::connect`] and [`Client::call`].
pub(super) fn rm(target: &Target, name: String) -> Result<(), Error> {
    let Done {} = Client::connect(target)?.call(&Drop { name })?;
    Ok(())
}

/// `evctl fd ls`.
///
/// # Errors
/// As [`Client::connect`] and [`Client::call`].
pub(super) fn ls(target: &Target, json: bool, paint: Paint) -> Result<(), Error> {
    let holds = ask(&mut Client::connect(target)?)?;
    let any = holds.iter().any(|h| h.kind == FileKind::Socket);
    let sockets = if any { Sockets::load() } else { Sockets::default() };
    print(|out| write_holds(&holds, &sockets, json, paint, out))
}

/// What `evctl fd ls` prints of holds.
///
/// # Errors
/// What `out` gave.
pub(super) fn write_holds(
    holds: &[HoldInfo],
    sockets: &Sockets,
    json: bool,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        let all: Vec<Value> = holds.iter().map(|h| as_json(h, sockets)).collect();
        return write_json(&json!({ "schema_version": SCHEMA_VERSION, "holds": all }), out);
    }
    let mut table = Table::new(&["NAME", "WHAT", "READY", "AGE", "LEFT", "GIVER", "ATTACHMENT"]);
    for h in holds {
        let bytes = if h.attachment == 1 { "1 byte".to_owned() } else { format!("{} bytes", h.attachment) };
        let cells = vec![
            h.name.clone(),
            one_word(&sockets.describe(h.kind, h.ino)) + &count(h).map_or(String::new(), |n| format!(":{n}")),
            h.ready.to_string(),
            short_duration(h.age),
            if h.left > 0 { short_duration(h.left) } else { String::new() },
            format!("{}[{}]", h.giver, h.pid),
            if h.attachment > 0 { bytes } else { String::new() },
        ];
        table.row(false, cells);
    }
    table.write(out, paint)
}

/// What it has counted, if it counts.
fn count(h: &HoldInfo) -> Option<u64> {
    matches!(h.kind, FileKind::EventFd | FileKind::TimerFd).then_some(h.count)
}

fn ask(client: &mut Client) -> Result<Vec<HoldInfo>, Error> {
    let mut all: Vec<HoldInfo> = Vec::new();
    loop {
        let after = all.last().map_or(String::new(), |h| h.name.clone());
        let mut page: Holds = client.call(&ListHolds { after: after.clone() })?;
        // An evd that promises more and gives nothing must not be asked for ever.
        let more = page.more && page.holds.last().is_some_and(|h| h.name > after);
        all.append(&mut page.holds);
        if !more {
            return Ok(all);
        }
    }
}

fn as_json(h: &HoldInfo, sockets: &Sockets) -> Value {
    json!({
        "name": printable(&h.name),
        "kind": kind_name(h.kind),
        "inode": h.ino,
        "what": sockets.describe(h.kind, h.ino),
        "ready": h.ready.iter_names().map(|(n, _)| n).collect::<Vec<_>>(),
        "count": count(h),
        "age_ns": h.age,
        "left_ns": (h.left > 0).then_some(h.left),
        "giver": printable(&h.giver),
        "pid": h.pid,
        "attachment_bytes": h.attachment,
    })
}
