//! fd numbers, the files behind them, and what their owners and peers see.

use crate::parts::*;
use std::io::Write;
use std::os::fd::AsRawFd;

#[test]
fn the_peer_of_a_parked_connection_sees_its_end_when_the_client_closes() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let (a, b) = pair();
        let (event, _) = reader(&base, a);
        park(&base, 1);
        drop(event);
        sees_end(&b);
    }
}

#[test]
fn two_numbers_of_one_socket_both_get_what_comes_whichever_is_deleted_first() {
    let evd = evd();
    let base = base(&evd);
    for first in [0, 1] {
        let (a, mut b) = pair();
        let twin = a.try_clone().unwrap();
        let mut events = vec![reader(&base, a), reader(&base, twin)];
        until(&base, "one of them is parked", || base.watches() == (1, 1));
        b.write_all(b"1").unwrap();
        until(&base, "it is read by either", || events.iter().map(|(_, n)| n.get()).sum::<usize>() == 1);
        let (gone, _) = events.remove(first);
        drop(gone);
        let left = &events[0].1;
        let before = left.get();
        b.write_all(b"2").unwrap();
        until(&base, "it is read by the other", || left.get() == before + 1);
        until(&base, "the other is parked or here", || base.watches().0 + base.watches().1 == 1);
    }
}

#[test]
fn a_number_that_is_closed_and_used_again_at_once_is_a_new_watch() {
    let evd = evd();
    let base = base(&evd);
    let (mut last, mut same) = (-1, 0);
    for round in 0..100 {
        let (a, mut b) = pair();
        let number = a.as_raw_fd();
        same += usize::from(number == last);
        last = number;
        let (event, bytes) = reader(&base, a);
        if round % 2 == 0 {
            park(&base, 1);
        }
        b.write_all(b"x").unwrap();
        until(&base, "it is read", || bytes.get() == 1);
        drop(event);
        sees_end(&b);
    }
    assert!(same > 0, "no number was used again");
}
