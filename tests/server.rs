//! evd as its clients meet it: a real process on a private socket, and a client that speaks the bare protocol. Whatever a client does wrong, one that does no
//! wrong beside it notices nothing.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "server/wire.rs"]
mod wire;

use evd_proto::What;
use evd_proto::notice::Closing;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use wire::*;

#[test]
fn a_write_becomes_an_activation_once_for_each_arm() {
    let evd = Evd::start();
    let mut c = evd.client("one");
    let w = c.welcome.clone().unwrap();
    assert_eq!((w.version, w.method.as_str(), w.pid), (1, "epoll", evd.pid()));
    let (mut near, far) = UnixStream::pair().unwrap();
    c.arm(&[(5, 1, What::READ)], &[far.as_raw_fd()]);
    near.write_all(b"x").unwrap();
    let a = c.active();
    assert_eq!((a.watches[0].id, a.watches[0].seq, a.watches[0].ready), (5, 1, What::READ));
    near.write_all(b"y").unwrap();
    assert!(c.sync().is_empty(), "one-shot: it is disarmed");
    c.arm(&[(5, 2, What::READ)], &[far.as_raw_fd()]);
    assert_eq!(c.active().watches[0].seq, 2, "it is still readable");
}

#[test]
fn sigterm_ends_it_in_order() {
    let mut evd = Evd::start();
    let mut c = evd.client("one");
    evd.signal(15);
    c.next().read::<Closing>();
    assert!(c.next_or_end().is_none());
    assert!(evd.child.wait().unwrap().success());
    assert!(!evd.path().exists());
}
