//! Holds: fds that evd keeps by name, beyond their owner's life.

use crate::Error;
use crate::line::{Line, Reply};
use crate::state::State;
use evd_proto::name;
use evd_proto::reply::{Code, HoldInfo, Refused};
use evd_proto::request::{Drop, Hold, ListHolds, Take, Taken};
use evd_proto::sys::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How often it is asked for a held fd that evd can't send just then, and the pause that becomes longer each time.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// A held fd that was taken.
#[derive(Debug)]
pub struct Held {
    /// The fd.
    pub fd: OwnedFd,
    /// What was given with it.
    pub attachment: Vec<u8>,
    /// How long evd would have held it still; `None`: for ever.
    pub ttl: Option<Duration>,
}

/// Whoever has a line to evd and can wait for an answer.
pub(crate) trait HoldTarget {
    fn request(&mut self, send: impl Fn(&mut Line) -> Result<Option<u64>, Error>) -> Result<Reply, Error>;
    fn tell(&mut self, body: &Taken) -> Result<(), Error>;
    /// The longest attachment that evd takes, in bytes.
    fn longest_attachment(&mut self) -> usize;

    fn hold(
        &mut self,
        key: &str,
        fd: BorrowedFd<'_>,
        attachment: &[u8],
        ttl: Option<Duration>,
        replace: bool,
    ) -> Result<(), Error> {
        name::check(key).map_err(|e| Error::BadName(e.to_string()))?;
        let limit = self.longest_attachment();
        if attachment.len() > limit {
            // What evd would say; but far beyond the limit it would not even fit a frame.
            let text = format!("an attachment of {} bytes, at most {limit} are kept", attachment.len());
            let (limit, value) = (limit as u64, attachment.len() as u64);
            return Err(Refused { code: Code::Limit, limit, value, text, ids: Vec::new() }.into());
        }
        let ttl = match ttl {
            None => 0,
            Some(t) => u64::try_from(t.as_nanos()).unwrap_or(u64::MAX).max(1),
        };
        let body = Hold { name: key.to_owned(), attachment: attachment.to_vec(), ttl, replace };
        let number = fd.as_raw_fd();
        self.request(|line| Ok(line.send_with_fds(&body, &[number])?)).map(drop)
    }

    fn take(&mut self, key: &str, keep: bool) -> Result<Held, Error> {
        name::check(key).map_err(|e| Error::BadName(e.to_string()))?;
        let body = Take { name: key.to_owned(), keep };
        let mut tries = 0;
        let reply = loop {
            match self.request(|line| line.post(&body).map(Some)) {
                // One fd at a time is on its way to us; by now we have read it, and what came behind it.
                Err(Error::Refused(r)) if r.code == Code::Busy && r.limit == 1 && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE * tries.saturating_sub(1));
                }
                other => break other?,
            }
        };
        match reply {
            Reply::Took(took, fd) => {
                if took.hold != 0 {
                    // Only now evd lets its own go.
                    self.tell(&Taken { hold: took.hold })?;
                }
                let ttl = (took.ttl != 0).then(|| Duration::from_nanos(took.ttl));
                Ok(Held { fd, attachment: took.attachment, ttl })
            }
            _ => Err(Error::Lost),
        }
    }

    fn list(&mut self) -> Result<Vec<HoldInfo>, Error> {
        let mut all: Vec<HoldInfo> = Vec::new();
        loop {
            let after = all.last().map(|h| h.name.clone()).unwrap_or_default();
            match self.request(|line| line.post(&ListHolds { after: after.clone() }).map(Some))? {
                Reply::Holds(page) => {
                    let more = page.more && !page.holds.is_empty();
                    all.extend(page.holds);
                    if !more {
                        return Ok(all);
                    }
                }
                _ => return Err(Error::Lost),
            }
        }
    }

    fn drop_held(&mut self, key: &str) -> Result<(), Error> {
        name::check(key).map_err(|e| Error::BadName(e.to_string()))?;
        let body = Drop { name: key.to_owned() };
        self.request(|line| line.post(&body).map(Some)).map(drop)
    }
}

impl HoldTarget for State {
    fn longest_attachment(&mut self) -> usize {
        self.link.up().map_or(usize::MAX, |up| up.welcome.limits.attachment as usize)
    }

    fn request(&mut self, send: impl Fn(&mut Line) -> Result<Option<u64>, Error>) -> Result<Reply, Error> {
        self.ask(send)
    }

    fn tell(&mut self, body: &Taken) -> Result<(), Error> {
        if let Some(up) = self.link.up() {
            up.line.post(body)?;
        }
        // At once, also inside a callback: until then others find it busy.
        self.flush_link();
        Ok(())
    }
}
