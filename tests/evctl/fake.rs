//! A scripted evd: it speaks the protocol, and answers what the test wants.
//!
//! One thread serves one connection after the other. The hello is answered by itself unless the script wants to; every other request goes to the
//! script, which may answer, say more, or end the connection. What came is noted, so that a test can look at the order.

use evd_proto::What;
use evd_proto::channel::{Channel, Fill, Frame, Scratch};
use evd_proto::frame::{Body, Kind};
use evd_proto::reply::{Code, Limits, Refused, Welcome};
use evd_proto::sys::{self, PollFd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// What the script says to a request.
pub enum Next {
    /// It has answered.
    Answered,
    /// The connection ends.
    Close,
}

/// A directory of its own, removed at the end.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("evctl-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The scripted evd.
pub struct Fake {
    pub dir: Dir,
    pub path: PathBuf,
    /// The kinds of all requests, in order.
    pub came: Arc<Mutex<Vec<Kind>>>,
}

/// One connection, as the script sees it.
pub struct Peer {
    channel: Channel,
    /// The serial of the request.
    pub serial: u64,
}

impl Peer {
    pub fn reply<B: Body>(&mut self, body: &B) -> Next {
        self.say(self.serial, body, &[])
    }

    pub fn reply_with_fd<B: Body>(&mut self, body: &B, fd: &OwnedFd) -> Next {
        self.say(self.serial, body, &[fd.as_raw_fd()])
    }

    pub fn notice<B: Body>(&mut self, body: &B) -> Next {
        self.say(0, body, &[])
    }

    pub fn refuse(&mut self, code: Code, text: &str) -> Next {
        self.reply(&Refused { code, limit: 3, value: 5, text: text.to_owned(), ids: Vec::new() })
    }

    fn say<B: Body>(&mut self, serial: u64, body: &B, fds: &[RawFd]) -> Next {
        let (socket, _, output) = self.channel.split();
        if fds.is_empty() {
            output.push(serial, body).unwrap();
            // One who has left meanwhile is not the script's business.
            let _ = output.flush(socket);
        } else {
            assert!(output.send_with_fds(socket, serial, body, fds).unwrap());
        }
        Next::Answered
    }
}

pub fn welcome() -> Welcome {
    let limits = Limits { watches: 1, timers: 1, names: 1, fds_per_frame: 253, attachment: 64 };
    Welcome {
        version: evd_proto::PROTOCOL_VERSION,
        features: 0,
        base: 0,
        method: String::new(),
        method_features: 0,
        pid: 1,
        tid: 1,
        now: sys::monotonic_ns(),
        limits,
    }
}

impl Fake {
    /// Starts one that answers by `script`.
    pub fn start(mut script: impl FnMut(&mut Peer, Frame<'_>) -> Next + Send + 'static) -> Fake {
        Fake::with_hello(move |peer, frame| match frame.header.kind {
            Kind::Hello => peer.reply(&welcome()),
            _ => script(peer, frame),
        })
    }

    /// As `start`, and the script also answers the hello.
    pub fn with_hello(mut script: impl FnMut(&mut Peer, Frame<'_>) -> Next + Send + 'static) -> Fake {
        let dir = Dir::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let came = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&came);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                let mut peer = Peer { channel: Channel::new(stream.into()), serial: 0 };
                serve(&mut peer, &mut script, &noted);
            }
        });
        Fake { dir, path, came }
    }

    pub fn came(&self) -> Vec<Kind> {
        self.came.lock().unwrap().clone()
    }
}

fn serve(peer: &mut Peer, script: &mut impl FnMut(&mut Peer, Frame<'_>) -> Next, noted: &Mutex<Vec<Kind>>) {
    let mut scratch = Scratch::new();
    let mut input = std::mem::take(&mut peer.channel.input);
    loop {
        let socket = peer.channel.as_fd().try_clone_to_owned().unwrap();
        let mut wait = [PollFd::new(socket.as_raw_fd(), What::READ)];
        sys::poll(&mut wait, None).unwrap();
        let Ok((fill, mut frames)) = input.receive(socket.as_fd(), &mut scratch) else { return };
        while let Some(frame) = frames.next().unwrap() {
            noted.lock().unwrap().push(frame.header.kind);
            peer.serial = frame.header.serial;
            if let Next::Close = script(peer, frame) {
                return;
            }
        }
        if fill == Fill::End {
            return;
        }
    }
}

/// `evctl` with a clean environment.
pub fn evctl(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evctl"));
    command.arg("--socket").arg(socket).args(args);
    for name in ["EVD_SOCKET", "XDG_RUNTIME_DIR", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// What a run gave: exit code, stdout, stderr.
pub fn run(socket: &Path, args: &[&str]) -> (i32, String, String) {
    taken_apart(evctl(socket, args).output().unwrap())
}

pub fn taken_apart(o: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (o.status.code().unwrap(), text(o.stdout), text(o.stderr))
}

/// As `run` of what must succeed: stdout.
pub fn shown(socket: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(socket, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}\n{out}");
    out
}
