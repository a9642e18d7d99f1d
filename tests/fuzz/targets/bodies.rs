//! The decoder of each request, reply and notice.

#[macro_use]
#[path = "../../../proto/tests/bodies/mod.rs"]
mod every;

use evd_proto::frame::{self, Body, HEADER, Kind};
use evd_proto::{notice, reply, request};

/// What is decoded is encoded to the same bytes again: there is one form of everything, and what is no body is an error. The first byte says the kind.
pub fn bodies(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    macro_rules! all {
        ($($body:ty),* $(,)?) => {
            const CHECKS: &[fn(&[u8])] = &[$(check::<$body>),*];
        };
    }
    each_body!(all);
    CHECKS[usize::from(*kind) % CHECKS.len()](body);
}

fn check<B: Body>(bytes: &[u8]) {
    let Ok(body) = frame::body::<B>(B::KIND, bytes) else { return };
    let mut again = Vec::new();
    frame::encode(&mut again, 7, 0, &body).expect("it was no longer than this");
    assert_eq!(&again[HEADER..], bytes, "{:?} has two forms", B::KIND);
    let other = if B::KIND == Kind::Sync { Kind::Done } else { Kind::Sync };
    assert!(frame::body::<B>(other, bytes).is_err());
}
