//! A service manager that does not do all that it is told, or not at once. What it must never be is the last one to close what a client gave: that may block.

use crate::kept::*;
use crate::wire::{Dir, Raw, command, eventually};
use evd_proto::reply::{Code, Done, Refused, Took};
use evd_proto::request::{Drop as DropHold, Take, Taken};
use evd_proto::sys::{Notification, NotifyReceiver};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Works,
    /// Of a parcel it takes the fds, and there is no room for its log.
    Full,
    /// It does not read.
    Deaf,
    /// It stores nothing any more.
    StoresNone,
    /// It has not heard what it is to remove.
    KeepsAll,
}

#[derive(Default)]
struct Store {
    mode: Mode,
    kept: Vec<(String, OwnedFd)>,
    /// What it was told to remove and has not come to close yet: it does so with the next barrier.
    leaving: Vec<OwnedFd>,
    /// It has read all that it was told since its mode was changed.
    is_idle: bool,
    /// Parcels that nobody else had any more when it closed them.
    orphans: usize,
}

impl Store {
    fn take_in(&mut self, said: Notification) {
        let Notification { text, mut fds, .. } = said;
        let value = |key: &str| {
            text.lines().find_map(|l| l.strip_prefix(key).and_then(|l| l.strip_prefix('='))).unwrap_or("")
        };
        let name = value("FDNAME");
        if value("FDSTOREREMOVE") == "1" && self.mode != Mode::KeepsAll {
            let all = std::mem::take(&mut self.kept);
            let (gone, kept) = all.into_iter().partition(|(n, _)| n == name);
            self.kept = kept;
            let is_parcel = name.starts_with('h');
            self.leaving.extend(gone.into_iter().map(|(_, fd)| fd).filter(|_| is_parcel));
        }
        if value("FDSTORE") == "1" {
            match self.mode {
                Mode::Full => fds.truncate(if name.starts_with("th") { 0 } else { 1 }),
                Mode::StoresNone => fds.clear(),
                Mode::Works | Mode::Deaf | Mode::KeepsAll => {}
            }
            self.kept.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
        }
        if text == "BARRIER=1" {
            self.close_leaving();
        }
    }

    fn close_leaving(&mut self) {
        for fd in self.leaving.drain(..) {
            let mut look = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
            // SAFETY: `look` is one live pollfd.
            assert!(unsafe { libc::poll(&mut look, 1, 0) } >= 0);
            // The end that evd has of it is closed.
            self.orphans += usize::from(look.revents & libc::POLLHUP != 0);
        }
    }
}

struct Manager {
    store: Arc<Mutex<Store>>,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    listener: UnixListener,
    evd: Option<Child>,
    dir: Dir,
}

impl Manager {
    fn start() -> Manager {
        let dir = Dir::new();
        let receiver = NotifyReceiver::bind(&dir.0.join("notify")).unwrap();
        let (store, ends) = (Arc::<Mutex<Store>>::default(), Arc::new(AtomicBool::new(false)));
        let (its, done) = (Arc::clone(&store), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let mut store = its.lock().unwrap();
                let said = if store.mode == Mode::Deaf { None } else { receiver.next().unwrap() };
                match said {
                    Some(said) => store.take_in(said),
                    None => {
                        store.is_idle = store.mode != Mode::Deaf;
                        drop(store);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        });
        let listener = UnixListener::bind(dir.socket()).unwrap();
        let mut manager = Manager { store, ends, thread: Some(thread), listener, evd: None, dir };
        manager.start_evd();
        manager
    }

    fn start_evd(&mut self) {
        let evd = command(&self.dir.0.join("unused"));
        let store = self.store();
        let mut passed = vec![("evd".to_owned(), self.listener.as_fd())];
        passed.extend(store.kept.iter().map(|(name, fd)| (name.clone(), fd.as_fd())));
        let names: Vec<&str> = passed.iter().map(|(n, _)| n.as_str()).collect();
        // Above those that they get in the child.
        let copies: Vec<OwnedFd> = passed
            .iter()
            .map(|(_, fd)| {
                // SAFETY: fcntl takes numbers here.
                let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 500) };
                assert!(copy >= 0, "{}", std::io::Error::last_os_error());
                // SAFETY: it is new, and nobody else's.
                unsafe { OwnedFd::from_raw_fd(copy) }
            })
            .collect();
        let numbers: Vec<i32> = copies.iter().map(AsRawFd::as_raw_fd).collect();
        // sh, as the number of the process is to be known.
        let mut sh = Command::new("sh");
        sh.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(evd.get_program()).args(evd.get_args());
        for (name, value) in evd.get_envs() {
            match value {
                Some(value) => sh.env(name, value),
                None => sh.env_remove(name),
            };
        }
        sh.env("LISTEN_FDS", numbers.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("FDSTORE", "100")
            .env("NOTIFY_SOCKET", self.dir.0.join("notify"))
            .stderr(File::options().append(true).create(true).open(self.dir.0.join("log")).unwrap())
            .stdin(Stdio::null());
        let pass = move || {
            for (number, copy) in (3..).zip(&numbers) {
                // SAFETY: dup2 takes numbers. What the child has there goes with its exec anyway.
                if unsafe { libc::dup2(*copy, number) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec only dup2 is called, which is async-signal-safe.
        unsafe { dies_with_us(&mut sh).pre_exec(pass) };
        let child = sh.spawn().unwrap();
        drop(store);
        self.evd = Some(child);
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn becomes(&self, mode: Mode) {
        let mut store = self.store();
        (store.mode, store.is_idle) = (mode, false);
    }

    fn kill(&mut self) {
        let mut evd = self.evd.take().unwrap();
        evd.kill().unwrap();
        evd.wait().unwrap();
    }

    fn session(&self) -> Raw {
        Raw::hello(&self.dir.socket(), "client", "")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.0.join("log")).unwrap()
    }

    /// A parcel of which it has nothing any more was evd's to close.
    fn is_never_the_last(&self) {
        eventually("nothing of it is stored", || {
            let store = self.store();
            store.is_idle && !store.kept.iter().any(|(n, _)| n.starts_with('h'))
        });
        let orphans = {
            let mut store = self.store();
            store.close_leaving();
            store.orphans
        };
        assert_eq!(orphans, 0, "the service manager was the last to close a parcel");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(mut evd) = self.evd.take() {
            let _ = evd.kill();
            let _ = evd.wait();
        }
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

/// Gives something to hold, and keeps nothing of it.
fn put(raw: &mut Raw, name: &str) -> (crate::wire::Got, Thing) {
    let (fd, thing) = thing(0, name);
    (ask(raw, &hold(name, b"", 0, false), &[fd.as_raw_fd()]).unwrap(), thing)
}

fn is_refused(got: &crate::wire::Got) {
    let why: Refused = got.read();
    assert_eq!(why.code, Code::System, "{}", why.text);
    assert!(why.text.contains("can't be stored"), "{}", why.text);
}

#[test]
fn what_a_full_store_has_taken_is_evds_to_close() {
    let manager = Manager::start();
    let mut raw = manager.session();
    manager.becomes(Mode::Full);
    let (got, refused) = put(&mut raw, "refused");
    is_refused(&got);
    manager.is_never_the_last();
    eventually("it is closed", || !refused.is_open());
    manager.becomes(Mode::Works);
    let (got, held) = put(&mut raw, "held");
    got.read::<Done>();
    assert!(held.is_open());
    // The same when one leaves the store because it is made anew.
    ask(&mut raw, &DropHold { name: "held".into() }, &[]).unwrap().read::<Done>();
    eventually("it is closed", || !held.is_open());
    manager.is_never_the_last();
}

#[test]
fn what_a_store_may_have_that_does_not_answer_is_evds_to_close() {
    let manager = Manager::start();
    let mut raw = manager.session();
    manager.becomes(Mode::Deaf);
    let (got, refused) = put(&mut raw, "refused");
    is_refused(&got);
    manager.becomes(Mode::Works);
    manager.is_never_the_last();
    // Before anything else is stored.
    let (got, held) = put(&mut raw, "held");
    got.read::<Done>();
    eventually("it is closed", || !refused.is_open());
    assert!(held.is_open());
}

#[test]
fn what_is_held_and_let_go_while_the_store_does_not_answer_is_what_counts() {
    let mut manager = Manager::start();
    let mut raw = manager.session();
    for name in ["first", "second", "stays"] {
        put(&mut raw, name).0.read::<Done>();
    }
    manager.becomes(Mode::Deaf);
    ask(&mut raw, &DropHold { name: "first".into() }, &[]).unwrap().read::<Done>();
    // The new parcel is on its way: it will be stored when nobody counts on it any more, and stay if evd could not tell that it is to leave.
    eventually("it is given up", || manager.log().contains("can't be stored anew"));
    let (got, _late) = put(&mut raw, "late");
    got.read::<Done>();
    ask(&mut raw, &DropHold { name: "second".into() }, &[]).unwrap().read::<Done>();
    drop(raw);
    manager.kill();
    manager.becomes(Mode::KeepsAll);
    eventually("it has read all", || manager.store().is_idle);
    manager.becomes(Mode::Works);
    manager.start_evd();
    let names: Vec<String> = list(&mut manager.session()).unwrap().into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["late", "stays"]);
}

#[test]
fn what_was_let_go_stays_gone_though_it_can_not_be_stored_anew() {
    let mut manager = Manager::start();
    let mut raw = manager.session();
    let all = ["dropped", "stays", "taken"].map(|name| {
        let (got, thing) = put(&mut raw, name);
        got.read::<Done>();
        thing
    });
    drop(raw);
    manager.kill();
    manager.becomes(Mode::Full);
    manager.start_evd();
    let mut raw = manager.session();
    ask(&mut raw, &DropHold { name: "dropped".into() }, &[]).unwrap().read::<Done>();
    let mut got = ask(&mut raw, &Take { name: "taken".into(), keep: false }, &[]).unwrap();
    all[2].check(got.fds.pop().unwrap(), "taken");
    tell(&mut raw, &Taken { hold: got.read::<Took>().hold }, &[]).unwrap();
    assert_eq!(list(&mut raw).unwrap().len(), 1);
    assert!(manager.log().contains("can't be stored anew"), "{}", manager.log());
    drop(raw);
    manager.kill();
    manager.becomes(Mode::Works);
    manager.start_evd();
    let names: Vec<String> = list(&mut manager.session()).unwrap().into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["stays"]);
    eventually("the others are closed", || !all[0].is_open() && !all[2].is_open());
    assert!(all[1].is_open());
}

#[test]
fn a_service_manager_that_stores_nothing_any_more_stops_nobody() {
    let mut manager = Manager::start();
    let mut raw = manager.session();
    put(&mut raw, "old").0.read::<Done>();
    drop(raw);
    manager.kill();
    manager.becomes(Mode::StoresNone);
    manager.start_evd();
    let mut raw = manager.session();
    ask(&mut raw, &DropHold { name: "old".into() }, &[]).unwrap().read::<Done>();
    // Until the time has come at which the parcel would be made anew, and behind that.
    for n in 0..200 {
        let (got, _thing) = put(&mut raw, &format!("n{n}"));
        got.read::<Done>();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(list(&mut raw).unwrap().len(), 200);
}

#[test]
fn a_service_manager_that_is_deaf_when_evd_starts_stores_what_comes_later() {
    let mut manager = Manager::start();
    let mut raw = manager.session();
    let (got, _old) = put(&mut raw, "old");
    got.read::<Done>();
    drop(raw);
    manager.kill();
    manager.becomes(Mode::Deaf);
    manager.start_evd();
    eventually("it has given up to wait", || manager.log().contains("does not answer"));
    manager.becomes(Mode::Works);
    let mut raw = manager.session();
    let (got, _new) = put(&mut raw, "new");
    got.read::<Done>();
    drop(raw);
    manager.kill();
    manager.start_evd();
    let names: Vec<String> = list(&mut manager.session()).unwrap().into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["new", "old"]);
}
