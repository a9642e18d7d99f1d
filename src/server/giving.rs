//! Giving held fds back: one, or as many as fit a frame.

use super::book::Given;
use super::worker::Worker;
use crate::session::Refusal;
use evd_proto::frame::Body;
use evd_proto::reply::{Code, Took, TookAll, TookOne};
use evd_proto::request::Attach;
use evd_proto::sys::{AsRawFd, RawFd};

/// Bytes of the entries of one `TookAll`: it has fds, so it is at most 16 KiB.
pub(super) const ROOM: usize = 15_000;

impl Worker {
    /// Gives session `id` a held fd.
    pub(super) fn take(&mut self, id: u64, serial: u64, name: &str, keep: bool) {
        let given = match self.shared.holds.take(self.me.uid, name, id, keep) {
            Ok(given) => given,
            Err(e) => return self.refuse(id, serial, e),
        };
        let Given { number, fd, attachment, left } = &given;
        let (ahead, attachment) = split(attachment);
        let took = Took { hold: *number, attachment, ttl: *left };
        self.send(id, serial, ahead, &took, &[fd.as_raw_fd()], &[*number]);
    }

    /// Gives session `id` what is held under names that begin with `prefix`.
    pub(super) fn take_all(&mut self, id: u64, serial: u64, prefix: &str) {
        let most = self.shared.limits.fds_per_frame as usize;
        let (given, more) = match self.shared.holds.take_all(self.me.uid, prefix, id, most) {
            Ok(given) => given,
            Err(e) => return self.refuse(id, serial, e),
        };
        let fds: Vec<RawFd> = given.iter().map(|(_, g)| g.fd.as_raw_fd()).collect();
        let numbers: Vec<u64> = given.iter().map(|(_, g)| g.number).collect();
        let mut holds = Vec::with_capacity(given.len());
        let mut ahead: &[u8] = &[];
        for (name, Given { number, attachment, left, .. }) in &given {
            // At most the first one is long.
            let (long, attachment) = split(attachment);
            if !long.is_empty() {
                ahead = long;
            }
            holds.push(TookOne { hold: *number, name: name.clone(), attachment, ttl: *left });
        }
        self.send(id, serial, ahead, &TookAll { holds, more }, &fds, &numbers);
    }

    fn send<B: Body>(
        &mut self,
        id: u64,
        serial: u64,
        ahead: &[u8],
        took: &B,
        fds: &[RawFd],
        numbers: &[u64],
    ) {
        let why = match self.session(id).map(|s| s.reply_with_fds(serial, ahead, took, fds)) {
            Some(Ok(true)) => return,
            Some(Ok(false)) => {
                let text = "fds are on their way, or the socket is full: read what is in it and try again";
                Refusal { code: Code::Busy, limit: 1, value: 1, text: text.to_owned() }
            }
            Some(Err(e)) => Refusal::system(&e, format!("what is held can't be passed: {e}")),
            None => return self.shared.holds.left(self.me.uid, id, numbers),
        };
        self.refuse(id, serial, why);
        self.shared.holds.left(self.me.uid, id, numbers);
    }
}

/// What of an attachment goes ahead of its fd, and what with it.
fn split(attachment: &[u8]) -> (&[u8], Vec<u8>) {
    if attachment.len() > Attach::INLINE { (attachment, Vec::new()) } else { (&[], attachment.to_vec()) }
}
