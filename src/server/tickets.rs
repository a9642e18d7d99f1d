//! Questions to other workers. Who asks does not wait: the answers come by mail, and after a second it goes on without those that are missing.

use super::deadlines::Due;
use super::mail::{Asker, Handle, Mail};
use super::registry::Listed;
use super::worker::Worker;
use crate::session::books::Charge;
use evd_proto::reply::{BaseInfo, Resource, Triggered};
use evd_proto::sys;
use std::collections::HashMap;
use std::sync::Arc;

/// How long an answer may take, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// What is asked.
pub(super) enum Pending {
    /// Whether activations reached their clients.
    Trigger(Triggering),
    /// What bases are like.
    Status(Gathering),
    /// What a base waits for.
    Events(u64),
}

/// How many subscribers a trigger reached.
#[derive(Debug, Default)]
pub(super) struct Triggering {
    pub reached: u32,
    pub queued: u32,
}

impl Triggering {
    /// Counts one: in its socket, or not yet, or no more there.
    pub fn add(&mut self, reached: Option<bool>) {
        match reached {
            Some(true) => self.reached += 1,
            Some(false) => self.queued += 1,
            None => {}
        }
    }
}

/// A page of the status that is being put together.
pub(super) struct Gathering {
    pub first: bool,
    /// The bases of the page: for those whose worker does not answer, this is shown.
    pub wanted: Vec<Listed>,
    pub bases: Vec<BaseInfo>,
    pub more: bool,
}

struct Ticket {
    session: u64,
    serial: u64,
    outstanding: u32,
    until: u64,
    what: Pending,
    _charge: Charge,
}

/// Whose question it is, and what he is charged with while it is open.
pub(super) struct Question {
    session: u64,
    serial: u64,
    charge: Charge,
}

/// The open questions of one worker.
#[derive(Default)]
pub(super) struct Tickets {
    last: u64,
    open: HashMap<u64, Ticket>,
}

impl Tickets {
    /// A new number.
    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Worker {
    /// Before others are asked: what it is charged with. `None`: too much is asked already, and the client was told.
    pub(super) fn question(&mut self, session: u64, serial: u64) -> Option<Question> {
        let asker = self.session(session)?;
        match asker.account().charge(Resource::Requests, 1) {
            Ok(charge) => Some(Question { session, serial, charge }),
            Err(over) => {
                asker.reply(serial, &over.refused());
                None
            }
        }
    }

    /// Asks other workers for a session, each by its mail, and answers when all have answered; at once if there is nobody to be asked. `own` is this worker's
    /// part; if too much is asked already, nothing is done.
    pub(super) fn ask(
        &mut self,
        session: u64,
        serial: u64,
        others: Vec<(Arc<Handle>, impl FnOnce(Asker) -> Mail)>,
        own: impl FnOnce(&mut Worker) -> Pending,
    ) {
        let mut question = None;
        if !others.is_empty() {
            question = self.question(session, serial);
            if question.is_none() {
                return;
            }
        }
        let what = own(self);
        let number = self.tickets.next();
        let mut asked = 0;
        for (worker, mail) in others {
            let ticket = Asker { worker: Arc::clone(&self.me), ticket: number };
            asked += u32::from(worker.post(mail(ticket)));
        }
        match question {
            Some(question) if asked > 0 => self.await_answers(number, question, asked, what),
            _ => self.conclude(session, serial, what),
        }
    }

    /// Answers the session when `asked` answers have come, or when it took too long.
    pub(super) fn await_answers(&mut self, number: u64, question: Question, asked: u32, what: Pending) {
        let Question { session, serial, charge } = question;
        let until = sys::monotonic_ns().saturating_add(PATIENCE);
        self.deadlines.add(until, Due::Ticket(number));
        let ticket = Ticket { session, serial, outstanding: asked, until, what, _charge: charge };
        self.tickets.open.insert(number, ticket);
    }

    /// Mail that asks, or that answers.
    pub(super) fn answer(&mut self, mail: Mail) {
        match mail {
            Mail::Trigger { session, id, name, ticket: Asker { worker, ticket } } => {
                let reached = self.activate(session, id, &name);
                worker.post(Mail::Triggered { ticket, reached });
            }
            Mail::AskBases { ids, ticket: Asker { worker, ticket } } => {
                let bases = self.describe(&ids);
                worker.post(Mail::Bases { ticket, bases });
            }
            Mail::AskEvents { base, from, ticket: Asker { worker, ticket } } => {
                let page = self.session(base).map(|s| Box::new(s.events_page(from)));
                worker.post(Mail::Events { ticket, page });
            }
            Mail::Triggered { ticket, reached } => self.answered(ticket, |what| {
                if let Pending::Trigger(result) = what {
                    result.add(reached);
                }
            }),
            Mail::Bases { ticket, mut bases } => self.answered(ticket, |what| {
                if let Pending::Status(page) = what {
                    page.bases.append(&mut bases);
                }
            }),
            Mail::Events { ticket, page } => {
                let Some(open) = self.close_ticket(ticket) else { return };
                let Ticket { session, serial, what, .. } = open;
                match (page, what) {
                    (Some(page), _) => self.reply(session, serial, &*page),
                    (None, Pending::Events(base)) => {
                        self.refuse_unknown(session, serial, format!("base {base} has just ended"));
                    }
                    (None, _) => {}
                }
                self.settle(session);
            }
            _ => {}
        }
    }

    fn answered(&mut self, number: u64, with: impl FnOnce(&mut Pending)) {
        let Some(ticket) = self.tickets.open.get_mut(&number) else { return };
        with(&mut ticket.what);
        ticket.outstanding = ticket.outstanding.saturating_sub(1);
        if ticket.outstanding == 0 {
            if let Some(ticket) = self.close_ticket(number) {
                self.finish(ticket);
            }
        }
    }

    fn close_ticket(&mut self, number: u64) -> Option<Ticket> {
        let ticket = self.tickets.open.remove(&number)?;
        self.deadlines.remove(ticket.until, Due::Ticket(number));
        Some(ticket)
    }

    /// Somebody does not answer: its part is as good as queued, or shown as far as it is known here.
    pub(super) fn ticket_expired(&mut self, number: u64) {
        let Some(mut ticket) = self.close_ticket(number) else { return };
        if let Pending::Trigger(result) = &mut ticket.what {
            result.queued += ticket.outstanding;
        }
        self.finish(ticket);
    }

    fn finish(&mut self, ticket: Ticket) {
        let Ticket { session, serial, what, _charge: charge, .. } = ticket;
        // It is answered: a status shows it no more.
        drop(charge);
        self.conclude(session, serial, what);
        self.settle(session);
    }

    /// Answers with what is known by now.
    fn conclude(&mut self, session: u64, serial: u64, what: Pending) {
        match what {
            Pending::Trigger(Triggering { reached, queued }) => {
                self.reply(session, serial, &Triggered { reached, queued });
            }
            Pending::Status(page) => self.show_status(session, serial, page),
            Pending::Events(base) => {
                let text = format!("the worker that serves base {base} does not answer; it may be stuck");
                if let Some(session) = self.session(session) {
                    session.refuse(serial, evd_proto::reply::Code::Busy, 0, 0, text);
                }
            }
        }
    }
}
