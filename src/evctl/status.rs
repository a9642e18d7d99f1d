//! `evctl status` and `evctl bases`: evd, its workers, what its users use, and its bases.
//!
//! evd answers a page at a time; the pages are put together first, so that one listing has one header. `status` gives each base a block of lines,
//! `bases` one line; both have the same objects in JSON. A worker that has been busy with one turn for 2 s is stuck: what it serves waits.

use super::client::{Client, Target};
use super::error::Error;
use super::table::Table;
use super::text::{Paint, comma_listed, duration, features, listed, printable, short_duration, signals};
use evd_proto::reply::{AccountInfo, BaseInfo, StatusPage, WorkerInfo};
use evd_proto::request::Status;
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};

/// The version of all JSON that evctl prints: a field that goes, or means something else, increases it.
pub(super) const SCHEMA_VERSION: u32 = 1;

const STUCK: u64 = 2_000_000_000;

/// Asks for all pages and puts them together.
///
/// # Errors
/// As [`Client::call`].
pub(super) fn ask(client: &mut Client) -> Result<StatusPage, Error> {
    let mut whole: StatusPage = client.call(&Status { after: 0 })?;
    let mut more = whole.more;
    while more {
        let after = whole.bases.last().map_or(0, |b| b.id);
        let mut page: StatusPage = client.call(&Status { after })?;
        // An evd that promises more and gives nothing must not be asked for ever.
        more = page.more && page.bases.last().is_some_and(|b| b.id > after);
        whole.bases.append(&mut page.bases);
    }
    whole.more = false;
    Ok(whole)
}

/// Writes `value` as a document for machines.
///
/// # Errors
/// What stdout gave.
pub(super) fn write_json(value: &Value) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "{value:#}")?;
    Ok(out.flush()?)
}

/// `evctl status`.
///
/// # Errors
/// As [`Client::connect`] and [`Client::call`].
pub(super) fn show(target: &Target, json: bool, paint: Paint) -> Result<(), Error> {
    let page = ask(&mut Client::connect(target)?)?;
    if json {
        return write_json(&whole_as_json(&page));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    write_head(&page, &mut out, paint)?;
    if !page.workers.is_empty() {
        writeln!(out)?;
        workers(&page.workers).write(&mut out, paint)?;
    }
    if !page.accounts.is_empty() {
        writeln!(out)?;
        accounts(&page.accounts).write(&mut out, paint)?;
    }
    for base in &page.bases {
        writeln!(out)?;
        write_base(base, &mut out, paint)?;
    }
    Ok(out.flush()?)
}

/// `evctl bases`.
///
/// # Errors
/// As [`Client::connect`] and [`Client::call`].
pub(super) fn bases(target: &Target, json: bool, paint: Paint) -> Result<(), Error> {
    let page = ask(&mut Client::connect(target)?)?;
    if json {
        let all: Vec<Value> = page.bases.iter().map(base_as_json).collect();
        return write_json(&json!({ "schema_version": SCHEMA_VERSION, "bases": all }));
    }
    let mut table = Table::new(&[
        "BASE",
        "NAME",
        "PID",
        "UID",
        "WORKER",
        "AGE",
        "METHOD",
        "PARKED",
        "LOCAL",
        "TIMERS",
        "SIGNALS",
        "ACTIVE",
        "PER-S",
        "WAKE-UPS",
        "CALLBACKS",
        "UNREAD",
        "NAMES",
    ]);
    for b in &page.bases {
        let mut caught = signals(b.signals);
        caught.extend(signals(b.daemon_signals).iter().map(|s| format!("evd:{s}")));
        let cells = vec![
            b.id.to_string(),
            b.name.clone(),
            b.pid.to_string(),
            b.uid.to_string(),
            b.worker.to_string(),
            short_duration(b.age),
            b.method.clone(),
            b.parked.to_string(),
            b.local.to_string(),
            b.timers.to_string(),
            comma_listed(&caught),
            b.activations.to_string(),
            b.per_second.to_string(),
            b.wakeups.to_string(),
            b.callbacks.to_string(),
            if b.unread > 0 { short_duration(b.unread) } else { String::new() },
            listed(&b.names),
        ];
        table.row(b.unread > 0, cells);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    table.write(&mut out, paint)?;
    Ok(out.flush()?)
}

fn write_head(page: &StatusPage, out: &mut impl Write, paint: Paint) -> io::Result<()> {
    let head = format!("evd {}", printable(&page.version));
    writeln!(out, "{}", paint.bold(&head))?;
    writeln!(out, "  protocol  {}", page.protocol)?;
    writeln!(out, "  process   pid {}, uid {}, up {}", page.pid, page.uid, duration(page.uptime))?;
    writeln!(out, "  methods   {}", listed(&page.methods))?;
    writeln!(out, "  bases     {}", page.bases.len())?;
    let mortal = match printable(&page.mortal) {
        why if why.is_empty() => String::new(),
        why => format!("; they do not survive evd: {why}"),
    };
    writeln!(out, "  holds     {}{mortal}", page.holds)?;
    writeln!(out, "  names     {}", page.names)
}

fn workers(all: &[WorkerInfo]) -> Table {
    let mut table = Table::new(&["WORKER", "UID", "TID", "METHOD", "SESSIONS", "STATE", "BUSY"]);
    for w in all {
        let state = match w.busy {
            0 => "waiting",
            _ if w.busy > STUCK => "stuck",
            _ => "busy",
        };
        let cells = vec![
            w.id.to_string(),
            w.uid.to_string(),
            w.tid.to_string(),
            w.method.clone(),
            w.sessions.to_string(),
            state.to_owned(),
            if w.busy > 0 { short_duration(w.busy) } else { String::new() },
        ];
        table.row(w.busy > STUCK, cells);
    }
    table
}

/// What users use: only what there is something to say of.
fn accounts(all: &[AccountInfo]) -> Table {
    let mut table = Table::new(&["UID", "USES", "NOW", "LIMIT", "REFUSED"]);
    for account in all {
        for u in account.uses.iter().filter(|u| u.used > 0 || u.refused > 0) {
            let cells = vec![
                account.uid.to_string(),
                u.what.name().to_owned(),
                u.used.to_string(),
                u.limit.to_string(),
                u.refused.to_string(),
            ];
            table.row(u.used >= u.limit, cells);
        }
    }
    table
}

fn account_as_json(account: &AccountInfo) -> Value {
    let uses = account.uses.iter().map(|u| {
        let value = json!({ "used": u.used, "limit": u.limit, "refused": u.refused });
        (u.what.name().replace('-', "_"), value)
    });
    let mut object: serde_json::Map<String, Value> = uses.collect();
    object.insert("uid".to_owned(), json!(account.uid));
    Value::Object(object)
}

fn write_base(b: &BaseInfo, out: &mut impl Write, paint: Paint) -> io::Result<()> {
    let head = format!("base {} {}", b.id, printable(&b.name));
    writeln!(out, "{}", paint.bold(&head))?;
    let (age, method) = (duration(b.age), printable(&b.method));
    writeln!(out, "  owner     pid {}, uid {}, connected {age} ago, worker {}", b.pid, b.uid, b.worker)?;
    writeln!(out, "  method    {method} ({})", listed(&features(b.features)))?;
    writeln!(out, "  watches   {} parked, {} local", b.parked, b.local)?;
    writeln!(out, "  timers    {}", b.timers)?;
    let (own, daemon) = (listed(&signals(b.signals)), listed(&signals(b.daemon_signals)));
    writeln!(out, "  signals   own {own}, of evd {daemon}")?;
    writeln!(out, "  names     {}", listed(&b.names))?;
    writeln!(
        out,
        "  activity  {} activations ({} in the last second), {} wake-ups, {} callbacks",
        b.activations, b.per_second, b.wakeups, b.callbacks
    )?;
    if b.unread > 0 {
        let text = format!("  stalled   the client has not read for {}", duration(b.unread));
        writeln!(out, "{}", paint.alarm(&text))?;
    }
    Ok(())
}

fn clean(words: &[String]) -> Vec<String> {
    words.iter().map(|w| printable(w)).collect()
}

fn whole_as_json(page: &StatusPage) -> Value {
    let worker = |w: &WorkerInfo| {
        json!({
            "id": w.id, "uid": w.uid, "tid": w.tid, "method": printable(&w.method), "sessions": w.sessions,
            "busy_ns": w.busy, "stuck": w.busy > STUCK,
        })
    };
    json!({
        "schema_version": SCHEMA_VERSION,
        "version": printable(&page.version),
        "protocol": page.protocol,
        "pid": page.pid,
        "uid": page.uid,
        "uptime_ns": page.uptime,
        "methods": clean(&page.methods),
        "workers": page.workers.iter().map(worker).collect::<Vec<_>>(),
        "accounts": page.accounts.iter().map(account_as_json).collect::<Vec<_>>(),
        "bases": page.bases.iter().map(base_as_json).collect::<Vec<_>>(),
        "holds": page.holds,
        "holds_survive_evd": page.mortal.is_empty(),
        "names": page.names,
    })
}

fn base_as_json(b: &BaseInfo) -> Value {
    json!({
        "id": b.id,
        "name": printable(&b.name),
        "pid": b.pid,
        "uid": b.uid,
        "worker": b.worker,
        "age_ns": b.age,
        "method": printable(&b.method),
        "features": features(b.features),
        "parked": b.parked,
        "local": b.local,
        "timers": b.timers,
        "signals": signals(b.signals),
        "daemon_signals": signals(b.daemon_signals),
        "names": clean(&b.names),
        "activations": b.activations,
        "activations_per_second": b.per_second,
        "wakeups": b.wakeups,
        "callbacks": b.callbacks,
        "unread_ns": b.unread,
    })
}
