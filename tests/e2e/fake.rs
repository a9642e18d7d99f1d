//! Listeners at evd's place that are no good evd.

use crate::wire::PATIENCE;
use evd_proto::frame::encode;
use evd_proto::notice::Closing;
use evd_proto::reply::{Code, Limits, Refused, Welcome};
use evd_proto::{PROTOCOL_VERSION, sys};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What it does about a Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is not answered.
    Silent,
    /// It closes the connection at once, and does not read.
    Closes,
    /// A refusal.
    Refuses,
    /// A refusal by the version.
    WrongVersion,
    /// Bytes that are no frames.
    Garbage,
    /// A Welcome of a process that nobody can see, and then nothing any more.
    Deaf,
    /// A Welcome and a goodbye with one send. The connection stays.
    Brief,
    /// A Welcome, and another one when it hears something again.
    Twice,
}

/// One that listens until it is dropped; its connections end with it.
pub struct Fake {
    path: PathBuf,
    met: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn at(path: &Path, manner: Manner) -> Fake {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (met, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&met), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut kept = Vec::new();
            while !end.load(Ordering::SeqCst) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                if answer(&mut stream, manner) {
                    kept.push(stream);
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Fake { path: path.to_owned(), met, stop, thread: Some(thread) }
    }

    /// How many connections it has dealt with.
    pub fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Does what it does, and tells whether the connection stays.
fn answer(stream: &mut UnixStream, manner: Manner) -> bool {
    if manner == Manner::Closes {
        return false;
    }
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // One send, so one read.
    let _ = stream.read(&mut [0; 4096]);
    let mut bytes = Vec::new();
    let refused = |code, limit, value, text: &str| Refused {
        code,
        limit,
        value,
        text: text.to_owned(),
        ids: Vec::new(),
    };
    match manner {
        Manner::Refuses => encode(&mut bytes, 1, 0, &refused(Code::NotAllowed, 0, 0, "not you")).unwrap(),
        Manner::WrongVersion => encode(&mut bytes, 1, 0, &refused(Code::Version, 7, 9, "too old")).unwrap(),
        Manner::Garbage => bytes = vec![0xff; 100],
        Manner::Twice => {
            encode(&mut bytes, 1, 0, &welcome()).unwrap();
            let _ = stream.write_all(&bytes);
            let _ = stream.read(&mut [0; 4096]);
        }
        Manner::Deaf => encode(&mut bytes, 1, 0, &welcome()).unwrap(),
        Manner::Brief => {
            encode(&mut bytes, 1, 0, &welcome()).unwrap();
            encode(&mut bytes, 0, 0, &Closing { reason: "enough".to_owned() }).unwrap();
        }
        Manner::Silent | Manner::Closes => {}
    }
    let _ = stream.write_all(&bytes);
    matches!(manner, Manner::Silent | Manner::Deaf | Manner::Brief | Manner::Twice)
}

/// A Welcome of a process that nobody can see.
pub fn welcome() -> Welcome {
    let limits = Limits { watches: 1000, timers: 1000, names: 1000, fds_per_frame: 100, attachment: 10 };
    Welcome {
        version: PROTOCOL_VERSION,
        features: 0,
        base: 1,
        method: "epoll".to_owned(),
        method_features: 0,
        pid: 0,
        tid: 0,
        now: sys::monotonic_ns(),
        limits,
    }
}
