//! `evctl events`: what bases wait for, one line for each watch, timer, named event and signal of evd.
//!
//! All four share one table, so that `grep` and `awk` see one format: what a kind does not have is `-`. The base's own signals are not here: evd
//! knows only which they are, and `evctl status` shows that.

use super::client::{Client, Target};
use super::error::Error;
use super::sockets::{Sockets, kind_name};
use super::status::{self, SCHEMA_VERSION, print, write_json};
use super::table::Table;
use super::text::{Paint, duration, printable, short_duration};
use evd_proto::reply::{Code, EventsPage, Place, WatchInfo};
use evd_proto::request::{Events, Selector};
use evd_proto::sys::{FileKind, signal_name};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

/// `evctl events`.
///
/// # Errors
/// As [`Client::connect`] and [`Client::call`].
pub(super) fn show(target: &Target, base: Option<Selector>, json: bool, paint: Paint) -> Result<(), Error> {
    let mut client = Client::connect(target)?;
    let bases = match base {
        Some(base) => vec![ask(&mut client, base)?],
        None => all(&mut client)?,
    };
    let sockets = sockets(&bases);
    print(|out| write_events(&bases, &sockets, json, paint, out))
}

/// What `evctl events` prints of bases.
///
/// # Errors
/// What `out` gave.
pub(super) fn write_events(
    bases: &[EventsPage],
    sockets: &Sockets,
    json: bool,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        let all: Vec<Value> = bases.iter().map(|b| base_as_json(b, sockets)).collect();
        return write_json(&json!({ "schema_version": SCHEMA_VERSION, "bases": all }), out);
    }
    let mut table =
        Table::new(&["BASE", "NAME", "SOURCE", "ID", "PLACE", "INTEREST", "COUNT", "LAST", "LABEL", "WHAT"]);
    bases.iter().for_each(|b| add_rows(b, sockets, &mut table));
    table.write(out, paint)
}

/// What the watches of a base are, by id.
///
/// # Errors
/// As [`Client::call`].
pub(super) fn files(client: &mut Client, base: Selector) -> Result<HashMap<u32, String>, Error> {
    let page = ask(client, base)?;
    let sockets = sockets(std::slice::from_ref(&page));
    Ok(page.watches.iter().map(|w| (w.id, describe(w, &sockets))).collect())
}

/// The machine's sockets, if one of them is watched.
fn sockets(bases: &[EventsPage]) -> Sockets {
    let is_socket = |w: &WatchInfo| w.kind == Some(FileKind::Socket);
    let any = bases.iter().any(|b| b.watches.iter().any(is_socket));
    if any { Sockets::load() } else { Sockets::default() }
}

/// Asks for all pages of one base and puts them together.
fn ask(client: &mut Client, base: Selector) -> Result<EventsPage, Error> {
    let mut from = (0, 0);
    let mut whole: EventsPage = client.call(&Events { base, from })?;
    // From here on by id: meanwhile another base may have taken the name. An evd that does not go forward must not be asked for ever.
    while let Some(next) = whole.next.take().filter(|n| *n > from) {
        from = next;
        let page = client.call(&Events { base: Selector::Id(whole.base), from });
        let mut page: EventsPage = match page {
            Err(e) if e.is_refusal(Code::Unknown) => break,
            other => other?,
        };
        whole.watches.append(&mut page.watches);
        whole.timers.append(&mut page.timers);
        whole.names.append(&mut page.names);
        whole.signals.append(&mut page.signals);
        whole.next = page.next;
    }
    Ok(whole)
}

/// All bases that evd shows us. One that ends between the two questions is left out.
fn all(client: &mut Client) -> Result<Vec<EventsPage>, Error> {
    let mut pages = Vec::new();
    for base in status::ask(client)?.bases {
        match ask(client, Selector::Id(base.id)) {
            Ok(page) => pages.push(page),
            Err(e) if e.is_refusal(Code::Unknown) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(pages)
}

fn add_rows(b: &EventsPage, sockets: &Sockets, table: &mut Table) {
    let mut add = |source: &str, id: String, rest: [String; 6]| {
        let mut cells = vec![b.base.to_string(), b.name.clone(), source.to_owned(), id];
        cells.extend(rest);
        table.row(false, cells);
    };
    let none = String::new;
    for w in &b.watches {
        let last = if w.last > 0 { short_duration(w.last) } else { none() };
        let (place, interest) = (place_name(w.place).to_owned(), w.interest.to_string());
        let what = describe(w, sockets);
        add("watch", w.id.to_string(), [place, interest, w.count.to_string(), last, w.label.clone(), what]);
    }
    for t in &b.timers {
        let what = format!("in {}", duration(t.left));
        add("timer", t.id.to_string(), [none(), "TIMEOUT".into(), none(), none(), none(), what]);
    }
    for n in &b.names {
        let count = n.count.to_string();
        add("name", n.id.to_string(), [none(), none(), count, none(), none(), n.name.clone()]);
    }
    for s in &b.signals {
        let (count, name) = (s.count.to_string(), signal_name(s.signo));
        add("signal", s.signo.to_string(), [none(), "SIGNAL".into(), count, none(), none(), name]);
    }
}

fn describe(w: &WatchInfo, sockets: &Sockets) -> String {
    w.kind.map_or(String::new(), |kind| sockets.describe(kind, w.ino))
}

fn place_name(place: Place) -> &'static str {
    match place {
        Place::Parked => "parked",
        Place::Local => "local",
        Place::Between => "between",
    }
}

fn base_as_json(b: &EventsPage, sockets: &Sockets) -> Value {
    let watch = |w: &WatchInfo| {
        json!({
            "id": w.id,
            "place": place_name(w.place),
            "interest": w.interest.iter_names().map(|(n, _)| n).collect::<Vec<_>>(),
            "kind": w.kind.map(kind_name),
            "inode": w.ino,
            "what": describe(w, sockets),
            "label": printable(&w.label),
            "count": w.count,
            "last_ns": (w.last > 0).then_some(w.last),
        })
    };
    let timers = b.timers.iter().map(|t| json!({ "id": t.id, "left_ns": t.left }));
    let names = b.names.iter().map(|n| json!({ "id": n.id, "name": printable(&n.name), "count": n.count }));
    let signals =
        b.signals.iter().map(|s| json!({ "signo": s.signo, "name": signal_name(s.signo), "count": s.count }));
    json!({
        "base": b.base,
        "name": printable(&b.name),
        "watches": b.watches.iter().map(watch).collect::<Vec<_>>(),
        "timers": timers.collect::<Vec<_>>(),
        "names": names.collect::<Vec<_>>(),
        "signals": signals.collect::<Vec<_>>(),
    })
}
