//! Requests that give evd fds to hold, one or many, and long attachments, which come ahead in frames without fds.

use super::books::{Account, Charge};
use super::greeting::Request;
use super::requests::{count, plain, refuse};
use super::{Shares, State, Wish};
use evd_proto::channel::Output;
use evd_proto::frame::FrameError;
use evd_proto::name;
use evd_proto::reply::{Code, Resource};
use evd_proto::request::{self as ask, HoldOne};
use evd_proto::sys::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// What is to be held.
#[derive(Debug)]
pub struct Gift {
    /// Its name.
    pub name: String,
    /// The fd.
    pub fd: OwnedFd,
    /// What is given back with it.
    pub attachment: Vec<u8>,
    /// Nanoseconds; 0: for ever.
    pub ttl: u64,
}

/// The beginning of an attachment whose fd has not come yet: a session has at most one.
#[derive(Debug)]
pub(super) struct Attaching {
    bytes: Vec<u8>,
    /// What `bytes` is charged with.
    charge: Charge,
    /// So many have come, also if they were not kept.
    came: u64,
    /// Why they were not.
    refused: Option<(u64, u64, String)>,
}

impl Attaching {
    pub fn new(account: &Arc<Account>) -> Attaching {
        let charge = account.charge_anyway(Resource::HoldBytes, 0);
        Attaching { bytes: Vec::new(), charge, came: 0, refused: None }
    }

    fn add(&mut self, bytes: &[u8], limit: usize) {
        self.came += bytes.len() as u64;
        if self.came > limit as u64 {
            let text = format!("an attachment of {} bytes, at most {limit} are kept", self.came);
            self.give_up((limit as u64, self.came, text));
        } else if self.refused.is_none() {
            match self.charge.more(bytes.len() as u64) {
                Ok(()) => self.bytes.extend_from_slice(bytes),
                Err(over) => self.give_up((over.limit, over.used, over.to_string())),
            }
        }
    }

    fn give_up(&mut self, why: (u64, u64, String)) {
        self.refused = Some(why);
        self.bytes = Vec::new();
        self.charge.set_anyway(0);
    }

    /// What has come, and whether it is all of it. The hold is charged by itself.
    fn take(&mut self) -> Result<Vec<u8>, (u64, u64, String)> {
        self.came = 0;
        self.charge.set_anyway(0);
        let bytes = std::mem::take(&mut self.bytes);
        self.refused.take().map_or(Ok(bytes), Err)
    }
}

impl State {
    pub(super) fn attach<B: AsRef<[u8]>>(&mut self, request: &Request<B>) -> Result<(), FrameError> {
        let ask::Attach { bytes } = plain(request)?;
        self.attaching.add(&bytes, self.limits.attachment as usize);
        Ok(())
    }

    pub(super) fn hold<B: AsRef<[u8]>>(
        &mut self,
        request: Request<B>,
        out: &mut Output,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), FrameError> {
        count(&request, 1)?;
        let ask::Hold { name, attachment, ttl, replace } = request.read()?;
        let one = HoldOne { name, attachment, ttl };
        self.give(request.header.serial, vec![one], request.fds, replace, out, wishes);
        Ok(())
    }

    pub(super) fn hold_all<B: AsRef<[u8]>>(
        &mut self,
        request: Request<B>,
        out: &mut Output,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), FrameError> {
        let ask::HoldAll { holds, replace } = request.read()?;
        count(&request, holds.len())?;
        self.give(request.header.serial, holds, request.fds, replace, out, wishes);
        Ok(())
    }

    /// Passes them on, if each could be held.
    fn give(
        &mut self,
        serial: u64,
        mut holds: Vec<HoldOne>,
        fds: Vec<OwnedFd>,
        replace: bool,
        out: &mut Output,
        wishes: &mut Vec<Wish>,
    ) {
        match self.attaching.take() {
            Ok(mut bytes) if !bytes.is_empty() => {
                if let Some(first) = holds.first_mut() {
                    bytes.append(&mut first.attachment);
                    first.attachment = bytes;
                }
            }
            Ok(_) => {}
            Err((limit, value, text)) => return refuse(out, serial, Code::Limit, limit, value, text),
        }
        let limit = self.limits.attachment as usize;
        let most = Shares::now().kept;
        if holds.is_empty() {
            return refuse(out, serial, Code::BadRequest, 0, 0, "nothing is to be held".to_owned());
        }
        for (HoldOne { name, attachment, .. }, fd) in holds.iter().zip(&fds) {
            if let Err(e) = name::check(name) {
                return refuse(out, serial, Code::BadName, 0, 0, e.to_string());
            }
            if attachment.len() > limit {
                let text = format!("an attachment of {} bytes, at most {limit} are kept", attachment.len());
                return refuse(out, serial, Code::Limit, limit as u64, attachment.len() as u64, text);
            }
            if fd.as_raw_fd() >= most {
                // The rest is for what comes and goes.
                let text = format!("evd has no fds left to hold {name:?}");
                return refuse(out, serial, Code::OutOfFds, most as u64, fd.as_raw_fd() as u64, text);
            }
        }
        let gifts = holds.into_iter().zip(fds);
        let gifts =
            gifts.map(|(HoldOne { name, attachment, ttl }, fd)| Gift { name, fd, attachment, ttl }).collect();
        wishes.push(Wish::Hold { serial, gifts, replace });
    }
}
