//! What the peer of a connection sees when the program closes it: the end, whatever evd has of it.

use crate::parts::*;
use evd_client::{Event, EventBase, LoopFlags, What};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

fn watched(base: &EventBase) -> (Event<UnixStream>, UnixStream) {
    let (near, far) = pair();
    let event = Event::new(base, near, READ, |_, _| panic!("nothing was sent")).unwrap();
    event.add(None).unwrap();
    (event, far)
}

#[test]
fn the_peer_of_a_parked_connection_sees_its_end_when_the_client_closes() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let both: Vec<_> = (0..100).map(|_| watched(&base)).collect();
        park(&base, 100);
        for (event, far) in both {
            drop(event);
            sees_end(far);
        }
    }
}

#[test]
fn the_peer_of_a_parked_tcp_connection_sees_its_end_when_the_client_closes() {
    let evd = evd();
    let base = base(&evd);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_read_timeout(Some(crate::wire::PATIENCE)).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let (event, _) = reader(&base, near);
        park(&base, 1);
        drop(event);
        sees_end(far);
    }
}

#[test]
fn the_peer_sees_the_end_of_a_connection_whose_arm_is_just_sent() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let now = Event::timer(&base, What::empty(), |_, _| {}).unwrap();
        for _ in 0..100 {
            let (event, far) = watched(&base);
            // The wish to wait sends it; evd may or may not have read it when the wait ends.
            now.add(Some(MS / 20)).unwrap();
            base.loop_(LoopFlags::ONCE).unwrap();
            drop(event);
            sees_end(far);
        }
    }
}

#[test]
fn del_and_close_in_a_callback_are_an_end_also_if_the_loop_never_waits() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let (event, far) = watched(&base);
        park(&base, 1);
        let mut parked = Some(event);
        let closes = Event::user(&base, move |_, _| drop(parked.take())).unwrap();
        closes.active(What::READ).unwrap();
        // As a program does that has a loop of its own, and looks in here from time to time.
        for _ in 0..3 {
            base.loop_(LoopFlags::NONBLOCK | LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
        }
        sees_end(far);
    }
}

#[test]
fn a_deleted_event_leaves_the_connection_open_until_it_is_closed() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let (event, mut far) = watched(&base);
        park(&base, 1);
        event.del().unwrap();
        base.sync().unwrap();
        far.write_all(b"x").unwrap();
        run_for(&base, 20 * MS);
        assert_eq!(drain(event.source()), (1, false));
        drop(event);
        sees_end(far);
    }
}
