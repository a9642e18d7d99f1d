//! The tables of `src/backend/README.md` tell the truth: of the methods that this machine has, and of other systems' over their models.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[allow(dead_code)]
#[cfg_attr(not(target_os = "linux"), path = "models/none.rs")]
mod models;
#[allow(dead_code)]
#[cfg_attr(unix, path = "conformance/os.rs")]
#[cfg_attr(windows, path = "conformance/windows.rs")]
mod os;

use evd::backend::{self, Entry, Features, Interest, Mode, WatchError};
use evd::base::{Activation, Base, Clock, Config};
use evd_proto::What;
use evd_proto::sys::{self, AsFd};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::Shutdown;
use std::path::Path;

/// A row by the headlines of its columns.
type Row = BTreeMap<String, String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The table that has this column.
fn table(column: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("src/backend/README.md")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let blocks = lines.split(|line| !line.starts_with('|')).filter(|block| block.len() > 2);
    let found: Vec<_> = blocks.filter(|block| cells(block[0]).iter().any(|c| c == column)).collect();
    let [block] = found[..] else { panic!("{} tables have a column {column:?}", found.len()) };
    let head = cells(block[0]);
    let row = |line: &&str| {
        let cells = cells(line);
        assert_eq!(cells.len(), head.len(), "{line}");
        assert!(!cells[0].is_empty(), "{line}");
        head.iter().cloned().zip(cells).collect()
    };
    block[2..].iter().map(row).collect()
}

/// Each method's row of the first table.
fn rows() -> BTreeMap<String, Row> {
    let rows = table("features");
    let count = rows.len();
    let rows: BTreeMap<String, Row> = rows.into_iter().map(|row| (row["method"].clone(), row)).collect();
    assert_eq!(rows.len(), count, "a method is there twice");
    rows
}

/// What the cell promises for this system: `FLAG` or `FLAG on SYSTEM and SYSTEM`, with commas between; what comes after a semicolon is not about libevent's flags.
fn promised(cell: &str) -> Features {
    let mut features = Features::empty();
    for part in cell.split(';').next().unwrap().split(',').map(str::trim).filter(|part| *part != "none") {
        let (flag, systems) = part.split_once(" on ").map_or((part, None), |(flag, on)| (flag, Some(on)));
        let flag = Features::from_name(flag).unwrap_or_else(|| panic!("{flag:?} is no feature"));
        let here = std::env::consts::OS;
        if systems.is_none_or(|on| on.split(" and ").any(|system| system.eq_ignore_ascii_case(here))) {
            features |= flag;
        }
    }
    features
}

/// Runs a test with a base of each method that can be had, and its row. A model of wepoll's driver takes every file for a socket: it is left out.
fn each(test: impl Fn(&str, &Row, Base)) {
    let rows = rows();
    for method in backend::methods() {
        println!("method {}", method.name);
        let config = Config { method: Some(method.name.into()), ignore_env: true, ..Config::default() };
        test(method.name, &rows[method.name], Base::new(&config).unwrap());
    }
    for model in models::NAMES.into_iter().filter(|name| !name.starts_with("wepoll")) {
        println!("{model}");
        let base = Base::on(models::open(model).unwrap(), Clock::Monotonic);
        let method = model.split(' ').next().unwrap();
        test(method, &rows[method], base);
    }
}

const READ: Interest = Interest { what: What::READ, mode: Mode::Level };

fn wait(base: &mut Base) -> Vec<Activation> {
    let mut out = Vec::new();
    base.wait(Some(os::LOOK), &mut out).unwrap();
    out
}

#[test]
fn every_method_of_the_conformance_suite_is_in_each_table() {
    let suite = std::fs::read_to_string(root().join("tests/backends.rs")).unwrap();
    let suite = suite.split_once("conformance!(BaseLoop:").unwrap().1.split_once(");").unwrap().0;
    let tested: BTreeSet<String> =
        suite.split('"').skip(1).step_by(2).map(|name| name.split(' ').next().unwrap().to_owned()).collect();
    let listed: BTreeSet<String> = rows().into_keys().collect();
    assert_eq!(tested, listed);
    for column in ["type-checked", "source"] {
        let rows = table(column);
        let methods = rows.iter().flat_map(|row| row["method"].split(", ").map(str::to_owned));
        assert_eq!(methods.collect::<BTreeSet<String>>(), listed, "the table with the column {column:?}");
        assert!(rows.iter().all(|row| column != "source" || !row["source"].is_empty()));
    }
    assert!(backend::methods().iter().all(|m| listed.contains(m.name)));
}

#[test]
fn each_method_is_where_the_table_says() {
    for (method, row) in rows() {
        let path = root().join("src/backend").join(row["folder or file"].trim_matches('`'));
        assert!(path.exists(), "{method}: {}", path.display());
        assert!(row.values().all(|cell| !cell.is_empty()), "{method}: an empty cell");
    }
}

#[test]
fn features_are_those_of_the_table() {
    each(|method, row, base| assert_eq!(base.features(), promised(&row["features"]), "{method}"));
    for method in backend::methods() {
        assert_eq!(method.features, promised(&rows()[method.name]["features"]), "{}", method.name);
    }
}

#[test]
fn an_edge_can_be_had_where_the_table_says_et() {
    each(|method, row, mut base| {
        let (r, _w) = os::pipe();
        let edge = Interest { what: What::READ, mode: Mode::Edge };
        let can = base.watch(r.as_fd(), 1, edge, Entry::New).is_ok();
        assert_eq!(can, promised(&row["features"]).contains(Features::ET), "{method}");
    });
}

#[test]
fn a_half_close_is_told_where_the_table_says_so() {
    each(|method, row, mut base| {
        let (a, b) = os::connection();
        let closed = Interest { what: What::CLOSED, mode: Mode::Level };
        base.watch(a.as_fd(), 1, closed, Entry::New).unwrap();
        b.shutdown(Shutdown::Write).unwrap();
        let told = wait(&mut base)
            .iter()
            .any(|a| matches!(a, Activation::Ready { ready, .. } if ready.contains(What::CLOSED)));
        let cell = &row["features"];
        let says = promised(cell).contains(Features::EARLY_CLOSE) || cell.contains("CLOSED beyond");
        assert_eq!(told, says, "{method}");
    });
}

#[test]
fn a_regular_file_can_be_watched_where_the_table_says_so() {
    let Some(file) = os::always_ready() else { return };
    each(|method, row, mut base| {
        let got = base.watch(file.as_fd(), 1, READ, Entry::New);
        if row["can watch"].contains("no regular files") {
            assert!(matches!(got, Err(WatchError::AlwaysReady)), "{method}: {got:?}");
            return;
        }
        got.unwrap();
        assert!(promised(&row["features"]).contains(Features::FDS), "{method}");
        assert_eq!(wait(&mut base), [Activation::Ready { token: 1, ready: What::READ }], "{method}");
    });
}

#[test]
fn a_number_closed_while_watched_is_told_of_as_the_table_says() {
    sys::raise_open_files().unwrap();
    each(|method, row, mut base| {
        let (r, mut w) = os::pipe();
        let (dead, _dead_w) = os::pipe();
        // A number that nothing else takes meanwhile.
        let high = os::dup_above(dead.as_fd(), 9000);
        base.watch(high.as_fd(), 1, READ, Entry::New).unwrap();
        base.watch(r.as_fd(), 2, READ, Entry::New).unwrap();
        drop((dead, high));
        w.write_all(b"x").unwrap();
        for _ in 0..2 {
            let out = wait(&mut base);
            let told =
                |token| out.iter().any(|a| matches!(a, Activation::Ready { token: t, .. } if *t == token));
            assert!(told(2), "{method}: the others go on");
            assert_eq!(told(1), row["closed while watched"].starts_with("reported"), "{method}: {out:?}");
        }
    });
}

/// As the table of defects says; a kernel that no longer does so has a newer table.
#[test]
fn a_dup_keeps_an_entry_of_epoll_alive() {
    each(|method, _, mut base| {
        if method != "epoll" {
            return;
        }
        let (r, mut w) = os::pipe();
        let kept = os::dup_above(r.as_fd(), 9500);
        base.watch(r.as_fd(), 1, READ, Entry::New).unwrap();
        drop(r);
        w.write_all(b"x").unwrap();
        assert_eq!(wait(&mut base), [Activation::Ready { token: 1, ready: What::READ }]);
        drop(kept);
        assert_eq!(wait(&mut base), []);
    });
}
