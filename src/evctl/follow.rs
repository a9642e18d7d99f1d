//! `evctl events --follow`: activations as they happen, a line each, as strace does it for system calls.
//!
//! `TIME BASE NAME SOURCE ID READY COUNT LABEL WHAT`, columns as in every listing but not padded, as nobody knows what comes. evd stamps with its monotonic
//! clock; the wall-clock time is counted back from now. Each line goes out at once (stdout is line-buffered by Rust's own rule). It ends with evd,
//! with the reader of stdout, or with Ctrl-C, for which the signal's ordinary action is right.
//!
//! What happened does not say what file it happened to, so that it stays small. A base's watches are asked for when one of them shows up, and again after
//! a second: a number that is used again for another file may be shown as the older one for that long.

use super::client::{Client, Target};
use super::error::Error;
use super::events;
use super::table::{whole, word};
use super::text::printable;
use evd_proto::notice::{Trace, TraceEntry, TraceSource};
use evd_proto::reply::Done;
use evd_proto::request::{Follow, Selector};
use evd_proto::sys::{local_time, monotonic_ns, signal_name};
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// `evctl events --follow`; returns only with an error, as it has no end of its own.
///
/// # Errors
/// `NotRunning` when evd ends; as [`Client::connect`] and [`Client::call`].
pub(super) fn follow(target: &Target, base: Option<Selector>, json: bool) -> Result<(), Error> {
    let mut client = Client::connect(target)?;
    let ahead = ahead(client.welcome().now);
    let Done {} = client.call(&Follow { base })?;
    let mut out = io::stdout().lock();
    let mut files = Files::default();
    loop {
        let trace: Trace = client.notice()?;
        let at = wall_clock(trace.at, ahead);
        write_trace(&trace, at, json, &mut out, |entry| what(&mut files, &mut client, &trace, entry))?;
    }
}

/// What `evctl events --follow` prints of one notice, with what each entry happened to.
///
/// # Errors
/// What `out` gave.
pub(super) fn write_trace(
    trace: &Trace,
    at: u64,
    json: bool,
    out: &mut impl Write,
    mut what: impl FnMut(&TraceEntry) -> String,
) -> io::Result<()> {
    for entry in &trace.entries {
        let what = what(entry);
        let line = if json { json_line(trace, entry, at, &what) } else { line(trace, entry, at, &what) };
        writeln!(out, "{line}")?;
    }
    let (base, name, lost) = (trace.base, &trace.name, trace.lost);
    match json {
        _ if lost == 0 => Ok(()),
        true => {
            let name = printable(name);
            let value = json!({ "time_ns": at, "base": base, "name": name, "source": "lost", "count": lost });
            writeln!(out, "{value}")
        }
        false => writeln!(out, "{} {base} {} lost - - {lost} - -", clock(at), word(name)),
    }
}

/// How long what is known of a base's files is good for, in nanoseconds.
const GOOD_FOR: u64 = 1_000_000_000;
/// The same for what is not known: a watch may be new.
const UNKNOWN_FOR: u64 = 50_000_000;

/// What the watches of bases are.
#[derive(Debug, Default)]
struct Files(HashMap<u64, Known>);

/// The files of one base by the ids of their watches, and when they were asked for.
#[derive(Debug)]
struct Known {
    at: u64,
    files: HashMap<u32, String>,
}

impl Files {
    /// What a watch is; empty if evd can't say. That evd has ended is not said here: what it had told before is still to be shown.
    fn describe(&mut self, client: &mut Client, base: u64, id: u32) -> String {
        let now = monotonic_ns();
        let age = |k: &Known| now.saturating_sub(k.at);
        let old = |k: &Known| age(k) >= GOOD_FOR;
        let lacks = |k: &Known| !k.files.contains_key(&id) && age(k) >= UNKNOWN_FOR;
        if self.0.get(&base).is_none_or(|k| old(k) || lacks(k)) {
            // Also what ended: else bases that come and go would be kept for ever.
            self.0.retain(|_, known| !old(known));
            let files = events::files(client, Selector::Id(base)).unwrap_or_default();
            self.0.insert(base, Known { at: monotonic_ns(), files });
        }
        self.0.get(&base).and_then(|known| known.files.get(&id)).cloned().unwrap_or_default()
    }
}

/// What it happened to: a file, the name of an event, a signal.
fn what(files: &mut Files, client: &mut Client, t: &Trace, e: &TraceEntry) -> String {
    named(e).unwrap_or_else(|| files.describe(client, t.base, e.id))
}

/// As [`what`], of what the notice itself names: no files.
pub(super) fn named(e: &TraceEntry) -> Option<String> {
    match e.source {
        TraceSource::Parked | TraceSource::Local => None,
        TraceSource::Timer => Some(String::new()),
        TraceSource::Name => Some(printable(&e.label)),
        TraceSource::Signal => Some(signal_name(i32::try_from(e.id).unwrap_or(0))),
    }
}

/// How far evd's clock is ahead of ours: both have one clock, unless evd is in another time namespace. What a slow answer makes of the
/// difference is not that.
fn ahead(evd: u64) -> i128 {
    let difference = i128::from(evd) - i128::from(monotonic_ns());
    if difference.abs() > 60_000_000_000 { difference } else { 0 }
}

/// Nanoseconds since 1970 of evd's monotonic `at`.
fn wall_clock(at: u64, ahead: i128) -> u64 {
    let ago = i128::from(monotonic_ns()) + ahead - i128::from(at);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let then = i128::try_from(now).unwrap_or(i128::MAX).saturating_sub(ago);
    u64::try_from(then.max(0)).unwrap_or(u64::MAX)
}

fn clock(at: u64) -> String {
    let t = local_time(at / 1_000_000_000);
    format!("{:02}:{:02}:{:02}.{:06}", t.hour, t.minute, t.second, at / 1000 % 1_000_000)
}

fn line(t: &Trace, e: &TraceEntry, at: u64, what: &str) -> String {
    let (clock, name, label, what) = (clock(at), word(&t.name), word(label(e)), whole(what));
    let (base, id, ready, count) = (t.base, e.id, e.ready, e.count);
    format!("{clock} {base} {name} {} {id} {ready} {count} {label} {what}", source(e))
}

fn json_line(t: &Trace, e: &TraceEntry, at: u64, what: &str) -> String {
    let value = json!({
        "time_ns": at,
        "base": t.base,
        "name": printable(&t.name),
        "source": source(e),
        "id": e.id,
        "ready": e.ready.iter_names().map(|(n, _)| n).collect::<Vec<_>>(),
        "count": e.count,
        "label": printable(label(e)),
        "what": what,
    });
    value.to_string()
}

/// What the client called it.
fn label(e: &TraceEntry) -> &str {
    match e.source {
        TraceSource::Name | TraceSource::Signal => "",
        _ => e.label.trim(),
    }
}

fn source(e: &TraceEntry) -> &'static str {
    match e.source {
        TraceSource::Parked => "parked",
        TraceSource::Local => "local",
        TraceSource::Timer => "timer",
        TraceSource::Name => "name",
        TraceSource::Signal => "signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_off_is_another_clock_and_a_late_answer_is_not() {
        assert_eq!(ahead(monotonic_ns().saturating_sub(1_000_000_000)), 0);
        assert!(ahead(monotonic_ns() + 3_600_000_000_000) > 3_599_000_000_000);
    }

    #[test]
    fn what_happened_earlier_has_an_earlier_wall_clock_time() {
        let now = monotonic_ns();
        let (then, later) = (wall_clock(now.saturating_sub(5_000_000_000), 0), wall_clock(now, 0));
        assert!(later - then >= 4_000_000_000.min(now), "{then} {later}");
    }
}
