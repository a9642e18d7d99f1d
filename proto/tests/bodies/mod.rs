//! Every body that a frame can have, for whoever looks at all of them.

/// Calls the macro `$with` with all of them, each as `request::Name`, `reply::Name` or `notice::Name`.
macro_rules! each_body {
    ($with:ident) => {
        $with!(
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
            request::ArmHandles,
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
        )
    };
}
