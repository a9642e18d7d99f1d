//! Says no, on a thread of its own.
//!
//! Closing a connection that was never read can block for seconds if what was sent on it lingers (measured), and who is refused is the last one to be
//! trusted there. So neither the acceptor nor a worker does it, and nothing may linger there: see [`sys::close_in_passing`]. The thread is made when the
//! first one is refused and sleeps in between.

use evd_proto::channel::Output;
use evd_proto::reply::{Code, Refused};
use evd_proto::sys::{self, AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

/// Connections that may wait to be closed.
const MOST: usize = 64;

/// Where refused connections go.
#[derive(Default)]
pub(super) struct Reject {
    thread: Option<Sender<(OwnedFd, Option<Refused>)>>,
    /// Those that there was no thread for; they count as waiting. `None`: it is told, and only has to be closed.
    unsent: Vec<(OwnedFd, Option<Refused>)>,
    waiting: Arc<AtomicUsize>,
    /// Said once, and not each time that it is tried.
    is_missing: bool,
}

impl Reject {
    /// Refuses a connection. It is told once, without waiting, and closed.
    pub fn refuse(&mut self, socket: OwnedFd, code: Code, text: String) {
        self.tell(socket, Refused { code, limit: 0, value: 0, text, ids: Vec::new() });
    }

    /// As [`Reject::refuse`], with all that there is to say.
    pub fn tell(&mut self, socket: OwnedFd, refused: Refused) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.unsent.push((socket, Some(refused)));
        self.hand_over();
    }

    /// Gives the thread what it has not got, and makes it if it is not there. `false`: the system has no thread for this now.
    pub fn hand_over(&mut self) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        if self.thread.is_none() {
            self.start();
        }
        let Some(thread) = &self.thread else {
            // To tell them does not wait for anybody, and they need not wait to hear it; to close them would.
            for (socket, refused) in &mut self.unsent {
                refused.take().into_iter().for_each(|r| say(socket, &r));
            }
            return false;
        };
        for one in self.unsent.drain(..) {
            // The thread ends only with its sender.
            let _ = thread.send(one);
        }
        true
    }

    /// Whether so many wait that no more should be accepted for now.
    pub fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= MOST
    }

    fn start(&mut self) {
        let (sender, receiver) = channel::<(OwnedFd, Option<Refused>)>();
        let waiting = Arc::clone(&self.waiting);
        let run = move || {
            while let Ok(first) = receiver.recv() {
                let mut sockets = Vec::new();
                for (socket, refused) in std::iter::once(first).chain(receiver.try_iter().take(MOST)) {
                    refused.iter().for_each(|r| say(&socket, r));
                    sockets.push(socket);
                }
                let count = sockets.len();
                sys::close_in_passing(sockets);
                waiting.fetch_sub(count, Ordering::Relaxed);
            }
        };
        match std::thread::Builder::new().name("evd-reject".to_owned()).spawn(run) {
            Ok(_) => (self.thread, self.is_missing) = (Some(sender), false),
            Err(e) if !self.is_missing => {
                self.is_missing = true;
                log::warn!("no thread to refuse connections with: {e}");
            }
            Err(_) => {}
        }
    }
}

/// Says it as far as there is room for it; who has gone need not hear it.
fn say(socket: &OwnedFd, refused: &Refused) {
    let mut out = Output::default();
    let _ = out.push(0, refused);
    let _ = out.flush(socket.as_fd());
}
