//! The decoder of each request, reply and notice.

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
    all!(
        request::Hello,
        request::Arm,
        request::Disarm,
        request::Timers,
        request::Subscribe,
        request::Unsubscribe,
        request::DaemonSignal,
        request::Trigger,
        request::Hold,
        request::Take,
        request::Taken,
        request::ListHolds,
        request::Drop,
        request::Sync,
        request::Report,
        request::Status,
        request::Events,
        request::Follow,
        request::HoldAll,
        request::TakeAll,
        request::TakenAll,
        request::Attach,
        reply::Welcome,
        reply::Done,
        reply::Refused,
        reply::Triggered,
        reply::Took,
        reply::Holds,
        reply::StatusPage,
        reply::EventsPage,
        reply::TookAll,
        reply::Attached,
        notice::Active,
        notice::Closing,
        notice::Trace,
        notice::Attend,
    );
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
