//! No evd, one that may not be asked, or one that can't give what is wanted: each is said clearly, and a base that may be local goes on.

use crate::parts::*;
use crate::role::{Process, say};
use crate::wire::{Evd, PATIENCE};
use evd_client::{Error, Event, EventBase, Features, LinkState};
use evd_proto::reply::Code;
use evd_proto::sys;
use std::io::{ErrorKind, Write};
use std::path::Path;

fn connect(socket: &Path) -> Error {
    EventBase::builder().patience(PATIENCE).socket(socket).connect().build().expect_err("it connected")
}

/// A base without evd works.
fn works(base: &EventBase) {
    let (near, mut far) = pair();
    let (_event, got) = reader(base, near);
    far.write_all(b"x").unwrap();
    until(base, "it works", || got.get() == 1);
}

/// A base that takes evd if it can works without.
fn new_works(socket: &Path) -> LinkState {
    let base = EventBase::builder().patience(PATIENCE).socket(socket).build().unwrap();
    works(&base);
    assert_eq!(base.watches().0, 0, "nothing is parked anywhere");
    base.link()
}

#[test]
fn an_evd_that_does_not_run_is_said_with_its_path() {
    let d = dir();
    let stale = d.0.join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    for socket in [d.socket(), d.0.join("no/such/directory/socket"), stale] {
        let error = connect(&socket);
        let text = error.to_string();
        assert!(text.contains("not running") && text.contains(socket.to_str().unwrap()), "{text}");
        assert!(matches!(error, Error::NotRunning { path, .. } if path == socket));
        assert_eq!(new_works(&socket), LinkState::Local);
    }
}

#[test]
fn a_socket_path_that_can_not_be_is_said_with_the_reason() {
    let d = dir();
    let file = d.0.join("file");
    std::fs::write(&file, "").unwrap();
    let long = d.0.join("x".repeat(120));
    let through = file.join("socket");
    for (socket, kind) in [(long, ErrorKind::InvalidInput), (through, ErrorKind::NotADirectory)] {
        let error = connect(&socket);
        assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
        assert!(matches!(&error, Error::Os(e) if e.kind() == kind), "{error:?}");
        assert_eq!(new_works(&socket), LinkState::Local);
    }
    // A file that is no socket: nobody listens there.
    assert!(matches!(connect(&file), Error::NotRunning { .. }));
}

#[test]
fn the_place_of_evd_is_found_by_the_environment() {
    let (evd, nobody) = (evd(), dir());
    let is_there = Process::start_with("by_environment", &evd.path(), &["up"], |c| {
        c.env("EVD_SOCKET", evd.path());
    });
    is_there.says("as expected");
    is_there.ends();
    // Where the runtime directory is that of a user session.
    std::fs::create_dir(nobody.0.join("evd")).unwrap();
    std::os::unix::fs::symlink(evd.path(), nobody.0.join("evd/socket")).unwrap();
    let by_directory = Process::start_with("by_environment", &evd.path(), &["up"], |c| {
        c.env_remove("EVD_SOCKET").env("XDG_RUNTIME_DIR", &nobody.0);
    });
    by_directory.says("as expected");
    by_directory.ends();
    let local = Process::start_with("by_environment", &nobody.socket(), &["local"], |c| {
        c.env("EVD_SOCKET", nobody.socket());
    });
    local.says("as expected");
    local.ends();
}

/// A role: a base with nothing said about where evd is.
pub fn by_environment(_: &Path, args: &[&str]) {
    let base = EventBase::new().unwrap();
    assert_eq!(is_up(&base), args[0] == "up", "{:?}", base.link());
    match args[0] {
        "up" => assert!(is_up(&EventBase::connect().unwrap())),
        _ => assert!(matches!(EventBase::connect(), Err(Error::NotRunning { .. }))),
    }
    works(&base);
    say("as expected");
}

#[test]
fn other_users_are_told_that_they_may_not_and_go_on_without() {
    if sys::effective_ids().0 != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    // One socket that only its owner may open, and one that is open to all but not for all.
    let closed = evd();
    let open = Evd::start_with(|c| {
        dies_with_us(c).args(["--allow-uid", "4711"]);
    });
    for evd in [&closed, &open] {
        lets_others_in(evd);
        let base = base(evd);
        let (near, mut far) = pair();
        let (_event, got) = reader(&base, near);
        park(&base, 1);
        let role = if std::ptr::eq(evd, &closed) { "shut_out" } else { "turned_away" };
        let other = Process::start_as(4712, role, &evd.path());
        other.says("it was told");
        other.ends();
        far.write_all(b"x").unwrap();
        until(&base, "others are served", || got.get() == 1);
        assert_eq!(status(evd)["bases"].as_array().unwrap().len(), 1);
    }
    let allowed = Process::start_as(4711, "welcome", &open.path());
    allowed.says("it works");
    allowed.ends();
}

/// A role: a user who may not open the socket.
pub fn shut_out(socket: &Path, _: &[&str]) {
    let error = connect(socket);
    assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
    assert!(matches!(&error, Error::Os(e) if e.kind() == ErrorKind::PermissionDenied), "{error:?}");
    assert_eq!(new_works(socket), LinkState::Local);
    say("it was told");
}

/// A role: a user whom evd does not serve.
pub fn turned_away(socket: &Path, _: &[&str]) {
    match connect(socket) {
        Error::Refused(why) => {
            assert_eq!(why.code, Code::NotAllowed);
            assert!(why.text.contains("4712") && why.text.contains("--allow-uid"), "{}", why.text);
        }
        e => panic!("{e:?}"),
    }
    assert!(matches!(new_works(socket), LinkState::Away { why } if why.contains("--allow-uid")));
    say("it was told");
}

/// A role: a user whom evd serves.
pub fn welcome(socket: &Path, _: &[&str]) {
    let base = base_at(socket, "welcome");
    let (near, mut far) = pair();
    let (_event, got) = reader(&base, near);
    park(&base, 1);
    far.write_all(b"x").unwrap();
    until(&base, "it works", || got.get() == 1);
    say("it works");
}

/// What a wish for a method gives, whether evd is there or not.
fn no_method(evd: &Evd, wish: impl Fn(evd_client::Builder) -> evd_client::Builder) -> String {
    let build = |b: evd_client::Builder| wish(b.patience(PATIENCE).socket(evd.path())).build();
    let texts = [
        build(EventBase::builder().connect()),
        build(EventBase::builder().local()),
        build(EventBase::builder()),
    ]
    .map(|r| match r {
        Err(e @ Error::Method(_)) => e.to_string(),
        other => panic!("{other:?}"),
    });
    assert!(texts.iter().all(|t| *t == texts[0]), "{texts:?}");
    texts[0].clone()
}

#[test]
fn a_method_that_is_not_there_or_not_wanted_is_said_with_what_there_is() {
    let evd = evd();
    let unknown = no_method(&evd, |b| b.method("kqueue9").ignore_env());
    assert!(unknown.contains("kqueue9") && unknown.contains("epoll"), "{unknown}");
    let avoided = no_method(&evd, |b| b.method("poll").avoid_method("poll").ignore_env());
    assert!(avoided.contains("poll") && avoided.contains("avoided"), "{avoided}");
    let none =
        no_method(&evd, |b| b.avoid_method("epoll").avoid_method("poll").avoid_method("select").ignore_env());
    assert!(
        none.contains("no method fits") && none.contains("select is avoided by the configuration"),
        "{none}"
    );
    let lacking = no_method(&evd, |b| b.method("select").require_features(Features::ET).ignore_env());
    assert!(lacking.contains("select lacks"), "{lacking}");
    // One that is avoided is simply not taken, here and at evd.
    let builder = EventBase::builder()
        .patience(PATIENCE)
        .socket(evd.path())
        .name("avoids")
        .connect()
        .avoid_method("epoll");
    let base = builder.ignore_env().build().unwrap();
    assert_ne!(base.method(), "epoll");
    assert_eq!(base_info(&evd, "avoids").unwrap()["method"], base.method());
    assert_eq!(status(&evd)["bases"].as_array().unwrap().len(), 1, "nobody else got a session");
}

#[test]
fn methods_that_the_environment_disables_are_not_used_here_nor_at_evd() {
    let evd = evd();
    let process = Process::start_with("disabled", &evd.path(), &[], |c| {
        c.env("EVENT_NOEPOLL", "1");
    });
    process.says("epoll is not used");
    assert_eq!(base_info(&evd, "disabled").unwrap()["method"], "poll");
    drop(process);
}

/// A role: somebody disabled epoll.
pub fn disabled(socket: &Path, _: &[&str]) {
    let new = || EventBase::builder().patience(PATIENCE).socket(socket).name("disabled").connect();
    match new().method("epoll").build() {
        Err(e @ Error::Method(_)) => assert!(e.to_string().contains("EVENT_NOEPOLL"), "{e}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(new().ignore_env().build().unwrap().method(), "epoll");
    let base = new().build().unwrap();
    assert_eq!(base.method(), "poll");
    let (near, mut far) = pair();
    let (_event, got) = reader(&base, near);
    park(&base, 1);
    far.write_all(b"x").unwrap();
    until(&base, "it works", || got.get() == 1);
    say("epoll is not used");
    crate::role::hear();
}

#[test]
fn an_evd_without_the_bases_method_refuses_it_and_the_base_goes_on() {
    let evd = Evd::start_with(|c| {
        dies_with_us(c).env("EVENT_NOPOLL", "1");
    });
    let other = base(&evd);
    let builder = || EventBase::builder().patience(PATIENCE).socket(evd.path()).method("poll").ignore_env();
    match builder().connect().build() {
        Err(Error::Refused(why)) => {
            assert!(why.code == Code::NoMethod && why.text.contains("EVENT_NOPOLL"), "{why:?}");
        }
        result => panic!("{result:?}"),
    }
    let base = builder().build().unwrap();
    works(&base);
    assert!(why_away(&base).contains("EVENT_NOPOLL"));
    let (near, mut far) = pair();
    let (event, got) = reader(&other, near);
    park(&other, 1);
    far.write_all(b"x").unwrap();
    until(&other, "others are served", || got.get() == 1);
    drop::<Event<_>>(event);
}
