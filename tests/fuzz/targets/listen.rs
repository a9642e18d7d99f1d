//! The environment in which a service manager says which sockets it has passed.

use super::script::Script;
use evd_proto::sys;
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;

/// Where passed fds begin. Source: sd_listen_fds(3), SD_LISTEN_FDS_START.
const START: RawFd = 3;
const PLACES: usize = 5;

/// What is passed: the right thing, and others.
struct Things {
    right: OwnedFd,
    others: Vec<OwnedFd>,
}

fn things() -> &'static Things {
    static THINGS: OnceLock<Things> = OnceLock::new();
    THINGS.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("evd-fuzz-{}", std::process::id()));
        let right = UnixListener::bind(&path).expect("a listening socket");
        std::fs::remove_file(&path).expect("it is there");
        let (read, write) = sys::pipe().expect("a pipe");
        let (one, _) = sys::socketpair().expect("a socket pair");
        let inet = TcpListener::bind("127.0.0.1:0").expect("a port");
        let others = [read, write, one, inet.into()];
        Things { right: aside(right.as_fd()), others: others.iter().map(|fd| aside(fd.as_fd())).collect() }
    })
}

/// Whatever stands there, evd takes a listening Unix socket that was passed to it by the right name, or says what is wrong; and it closes nothing else.
pub fn listen(data: &[u8]) {
    let mut script = Script(data);
    let things = things();
    let mut places = Places::free();
    let mut rights = Vec::new();
    for place in 0..PLACES {
        let number = START + place as RawFd;
        match script.below(8) {
            0..=3 => {
                places.put(number, things.right.as_fd());
                rights.push(number);
            }
            4 | 5 => places.put(number, things.others[script.below(4)].as_fd()),
            _ => {}
        }
    }
    let text = |script: &mut Script<'_>| {
        OsString::from_vec(script.bytes(60).iter().copied().filter(|b| *b != 0).collect())
    };
    let count = script.below(PLACES + 3);
    let pid = match script.below(8) {
        0 => text(&mut script),
        1 => "1".into(),
        _ => std::process::id().to_string().into(),
    };
    let fds = match script.below(8) {
        0 => text(&mut script),
        // As many as there can be.
        1 => u32::MAX.to_string().into(),
        _ => count.to_string().into(),
    };
    let names = match script.below(8) {
        0 => None,
        1 => Some(text(&mut script)),
        _ => {
            let one = |script: &mut Script<'_>| {
                ["evd", "", "unknown", "evd.socket", "web", "a\x1bb"][script.below(6)]
            };
            let names: Vec<&str> = (0..count).map(|_| one(&mut script)).collect();
            Some(OsString::from(names.join(":")))
        }
    };
    let is_ours = pid.to_str().is_some_and(|p| p.parse() == Ok(std::process::id()));
    let all = [("LISTEN_PID", Some(pid)), ("LISTEN_FDS", Some(fds)), ("LISTEN_FDNAMES", names.clone())];
    let before = places.open();
    for (name, value) in &all {
        match value {
            // SAFETY: nothing else runs in this process that could read the environment: the fuzzer has one thread, and so has the test over the corpora.
            Some(value) => unsafe { std::env::set_var(name, value) },
            // SAFETY: as above.
            None => unsafe { std::env::remove_var(name) },
        }
    }
    let found = evd::server::probe::passed_listener();
    for (name, _) in &all {
        // SAFETY: as above.
        unsafe { std::env::remove_var(name) };
    }
    let taken = match &found {
        Ok(None) => None,
        Ok(Some(listener)) => {
            assert!(is_ours, "it was passed to another process");
            let number = listener.as_fd().as_raw_fd();
            assert!(rights.contains(&number), "fd {number} is no listening Unix socket");
            let names = names.and_then(|n| n.into_string().ok()).unwrap_or_default();
            let name = names.split(':').nth((number - START) as usize).unwrap_or_default();
            assert!(name == "evd" || !names.contains(':'), "it is named {name:?} of {names:?}");
            Some(number)
        }
        Err(e) => {
            assert!(!e.to_string().is_empty());
            // What was to be the socket and is none is closed.
            places
                .open()
                .iter()
                .zip(&before)
                .position(|(now, before)| now != before)
                .map(|at| START + at as RawFd)
        }
    };
    for (place, (now, before)) in places.open().into_iter().zip(before).enumerate() {
        let number = START + place as RawFd;
        assert!(now == before || taken == Some(number), "fd {number} is closed");
    }
    drop(found);
    places.taken(taken);
}

/// A copy with a number that is never among those that are passed.
fn aside(fd: BorrowedFd<'_>) -> OwnedFd {
    // SAFETY: takes numbers, and gives a new one.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100) };
    assert!(copy >= 100, "{}", std::io::Error::last_os_error());
    // SAFETY: it was made just now.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// The numbers that are passed, taken from whoever had them meanwhile.
struct Places([Option<OwnedFd>; PLACES]);

fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes a number.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

impl Places {
    fn free() -> Places {
        Places(std::array::from_fn(|place| {
            let number = START + place as RawFd;
            if !is_open(number) {
                return None;
            }
            // SAFETY: nobody closes it meanwhile; the copy stands for it.
            let kept = aside(unsafe { BorrowedFd::borrow_raw(number) });
            // SAFETY: nobody uses it before it is put back: see the environment above.
            unsafe { libc::close(number) };
            Some(kept)
        }))
    }

    fn put(&mut self, number: RawFd, what: BorrowedFd<'_>) {
        // SAFETY: takes numbers; this one is free.
        let done = unsafe { libc::dup2(what.as_raw_fd(), number) };
        assert_eq!(done, number);
    }

    fn open(&self) -> [bool; PLACES] {
        std::array::from_fn(|place| is_open(START + place as RawFd))
    }

    /// This one is closed by now.
    fn taken(&self, number: Option<RawFd>) {
        if let Some(number) = number {
            assert!(!is_open(number), "fd {number} is still open");
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for (place, kept) in self.0.iter().enumerate() {
            let number = START + place as RawFd;
            match kept {
                // SAFETY: takes numbers; what is there was put there here.
                Some(kept) => drop(unsafe { libc::dup2(kept.as_raw_fd(), number) }),
                // SAFETY: as above.
                None => drop(unsafe { libc::close(number) }),
            }
        }
    }
}
