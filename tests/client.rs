//! The conformance suite on the client's `EventBase`, in-process, for each method.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

mod conformance;

use conformance::client::ClientLoop;

conformance!(ClientLoop:
    epoll = "epoll",
    poll = "poll",
    select = "select",
    wepoll = "wepoll",
    win32 = "win32",
);
