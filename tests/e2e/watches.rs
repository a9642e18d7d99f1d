//! Watches that go to evd and come back.

use crate::parts::*;
use std::io::Write;

#[test]
fn a_busy_watch_is_served_here_and_parked_again_when_it_is_quiet_each_time() {
    let evd = evd();
    let base = base(&evd);
    let mut all = Vec::new();
    for _ in 0..3 {
        let (near, far) = pair();
        all.push((reader(&base, near), far, 0));
    }
    for round in 0..9 {
        park(&base, 3);
        let ((_, got), far, sent) = &mut all[round % 3];
        until(&base, "it is busy, and here", || {
            if got.get() == *sent {
                far.write_all(b"x").unwrap();
                *sent += 1;
            }
            base.watches() == (2, 1)
        });
        until(&base, "all of it is read", || got.get() == *sent);
    }
}
