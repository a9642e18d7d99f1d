//! `evctl wait`: until evd answers, for scripts that start it.
//!
//! Ready means that a hello was answered by a welcome; a socket alone says nothing, as a service manager makes it before evd runs. Only what passes by
//! itself is tried again: a refusal for this user, or by version, is as true later.

use super::client::{Client, Target};
use super::error::Error;
use super::text::duration;
use evd_proto::path;
use evd_proto::reply::Code;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(200);

/// Waits until evd at `socket` is ready; without it at the place where it is then, see [`path::socket_path`].
///
/// # Errors
/// `TimedOut` after `timeout`; what does not pass by itself at once.
pub(super) fn until_ready(socket: Option<&Path>, timeout: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    let mut pause = FIRST;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let path = socket.map_or_else(path::socket_path, Path::to_owned);
        let why = match Client::connect(&Target { path, timeout: left }) {
            Ok(_) => return Ok(()),
            Err(e @ Error::NotRunning(_)) => e,
            Err(e) if e.is_refusal(Code::Stopping) => e,
            // Its own waiting time would be that of the last try.
            Err(Error::TimedOut(_)) => Error::Failed("it does not answer".to_owned()),
            Err(e) => return Err(e),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let waited = duration(timeout.as_nanos() as u64);
            return Err(Error::TimedOut(format!("evd was not ready within {waited}: {why}")));
        }
        sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST);
    }
}
