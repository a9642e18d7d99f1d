//! Handles of Windows that clients have watched by evd, each in a process of its own.

use crate::parts::*;
use crate::random::{Random, number};
use evd_client::{Event, EventBase, WaitHandle, What};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr::null;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use windows_sys::Win32::Foundation::{HANDLE, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    CreateEventW, EVENT_ALL_ACCESS, OpenEventW, OpenProcess, PROCESS_SYNCHRONIZE, ResetEvent, SetEvent,
    WaitForSingleObject,
};

/// Kills; `EVD_KILLS=1000` is for a long run.
const KILLS: u64 = 20;

fn own(raw: HANDLE) -> io::Result<OwnedHandle> {
    if raw.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made; nobody else owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

fn wide(name: &str) -> Vec<u16> {
    name.encode_utf16().chain([0]).collect()
}

/// A name that no other event has.
fn name() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!(r"Local\evd-apart-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}

pub fn event(name: &str, manual: bool) -> OwnedHandle {
    let name = wide(name);
    // SAFETY: no attributes, and a name that ends with a zero.
    own(unsafe { CreateEventW(null(), manual.into(), 0, name.as_ptr()) }).unwrap()
}

/// The event of this name, if anybody has it open.
pub fn find(name: &str) -> Option<OwnedHandle> {
    let name = wide(name);
    // SAFETY: a name that ends with a zero.
    own(unsafe { OpenEventW(EVENT_ALL_ACCESS, 0, name.as_ptr()) }).ok()
}

pub fn set(event: &impl AsHandle) {
    // SAFETY: an open handle.
    assert_ne!(unsafe { SetEvent(event.as_handle().as_raw_handle()) }, 0);
}

fn reset(event: &impl AsHandle) {
    // SAFETY: an open handle.
    assert_ne!(unsafe { ResetEvent(event.as_handle().as_raw_handle()) }, 0);
}

fn is_signalled(event: &impl AsHandle) -> bool {
    // SAFETY: an open handle.
    unsafe { WaitForSingleObject(event.as_handle().as_raw_handle(), 0) == WAIT_OBJECT_0 }
}

/// A process that ends when its input does.
fn process() -> Child {
    Command::new("cmd").args(["/c", "pause"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Watches what its arguments name, and tells when that is signalled, and after that, and at each change of the link, how many are at evd and how many here: events `manual=NAME` and
/// `auto=NAME`, which it makes, and processes `process=PID`.
pub fn waiter(socket: &Path, args: &[&str]) {
    let base = base(socket, "waiter");
    let told = Rc::new(Cell::new((usize::MAX, 0)));
    let link = Rc::clone(&told);
    base.on_link(move |_, state| {
        say(if matches!(state, evd_client::LinkState::Up { .. }) { "up" } else { "away" });
        link.set((usize::MAX, 0));
    });
    let events: Vec<_> = args.iter().map(|what| waits(&base, what, Rc::clone(&told))).collect();
    serve(&base, || {
        let now = base.watches();
        let is_news = told.get() != now && now.0 + now.1 == events.iter().filter(|e| e.is_pending()).count();
        // An auto-reset event is never at evd; all else is in the end.
        if is_news && now.1 == args.iter().filter(|a| a.starts_with("auto")).count() {
            told.set(now);
            say(format!("{} at evd", now.0));
        }
        false
    });
}

/// How many there are with a state to be looked at.
fn waits(base: &EventBase, what: &str, told: Rc<Cell<(usize, usize)>>) -> Watched {
    let (kind, name) = what.split_once('=').unwrap();
    let handle = match kind {
        "manual" | "auto" => event(name, kind == "manual"),
        // SAFETY: takes numbers.
        _ => own(unsafe { OpenProcess(PROCESS_SYNCHRONIZE, 0, name.parse().unwrap()) }).unwrap(),
    };
    let (is_process, is_manual) = (kind == "process", kind == "manual");
    let line = format!("{kind} is signalled");
    let ended = Rc::new(Cell::new(false));
    let of = Rc::clone(&ended);
    let event = Event::new(base, WaitHandle(handle), What::READ | What::PERSIST, move |event, what| {
        assert_eq!(what, What::READ);
        if is_manual {
            assert!(is_signalled(&event.source().0), "it was reported, and is not signalled");
            reset(&event.source().0);
        }
        if is_process {
            event.del().unwrap();
            of.set(true);
        }
        told.set((usize::MAX, 0));
        say(&line);
    });
    let event = event.unwrap();
    event.add(None).unwrap();
    Watched { event: RefCell::new(event), ended }
}

struct Watched {
    #[allow(dead_code, reason = "it is watched for as long as this lives")]
    event: RefCell<Event<WaitHandle<OwnedHandle>>>,
    ended: Rc<Cell<bool>>,
}

impl Watched {
    fn is_pending(&self) -> bool {
        !self.ended.get()
    }
}

#[test]
fn an_event_and_the_end_of_a_process_wake_who_has_parked_them() {
    let evd = Evd::start();
    let (mut child, name) = (process(), name());
    let args = [format!("manual={name}"), format!("process={}", child.id())];
    let client = Process::start("waiter", evd.socket(), &args.each_ref().map(String::as_str));
    client.comes_to("2 at evd");
    let events = evctl(evd.socket(), &["events", "--base", "waiter"]);
    assert_eq!(events.matches("parked").count(), 2, "{events}");
    assert!(events.contains("process") && events.contains("handle"), "{events}");
    let event = find(&name).unwrap();
    for _ in 0..3 {
        set(&event);
        client.says("manual is signalled");
        client.says("2 at evd");
    }
    drop(child.stdin.take());
    client.says("process is signalled");
    client.says("1 at evd");
    child.wait().unwrap();
}

#[test]
fn what_a_wait_takes_stays_with_its_client_and_is_reported_once() {
    let evd = Evd::start();
    let names = [name(), name()];
    let args = [format!("auto={}", names[0]), format!("manual={}", names[1])];
    let client = Process::start("waiter", evd.socket(), &args.each_ref().map(String::as_str));
    client.comes_to("1 at evd");
    let events = evctl(evd.socket(), &["events", "--base", "waiter"]);
    assert_eq!((events.matches("parked").count(), events.matches("local").count()), (1, 1), "{events}");
    let [auto, manual] = names.each_ref().map(|n| find(n).unwrap());
    for _ in 0..3 {
        set(&auto);
        client.says("auto is signalled");
        client.says("1 at evd");
        assert!(!is_signalled(&auto));
    }
    // Its next line is this one: nothing was told twice.
    set(&manual);
    client.says("manual is signalled");
}

#[test]
fn a_client_that_is_killed_leaves_no_handle_open() {
    let evd = Evd::start();
    let name = name();
    let mut client = Process::start("waiter", evd.socket(), &[&format!("manual={name}")]);
    client.comes_to("1 at evd");
    assert!(find(&name).is_some());
    client.kill();
    eventually("nobody has its event", || find(&name).is_none());
    let status = evctl(evd.socket(), &["status", "--json"]);
    assert!(!status.contains("waiter"), "{status}");
}

#[test]
fn evd_takes_no_more_handles_than_a_user_may_have_watches() {
    for quota in ["watches=1", "copies=1"] {
        let evd = Evd::start_with(&["--quota", quota]);
        let names = [name(), name()];
        let args = names.each_ref().map(|n| format!("manual={n}"));
        let client = Process::start("waiter", evd.socket(), &args.each_ref().map(String::as_str));
        eventually("both are watched", || {
            // It may not be there yet.
            let out = evctl_output(evd.socket(), &["events", "--base", "waiter"]);
            let events = String::from_utf8_lossy(&out.stdout);
            (events.matches("parked").count(), events.matches("local").count()) == (1, 1)
        });
        let status = evctl(evd.socket(), &["status"]);
        assert!(status.contains(&quota[..quota.len() - 2]), "{status}");
        for n in names.iter().chain(&names) {
            set(&find(n).unwrap());
            client.comes_to("manual is signalled");
        }
    }
}

#[test]
fn handles_are_watched_whatever_becomes_of_evd() {
    let kills = number("EVD_KILLS").unwrap_or(KILLS);
    let mut random = Random(number("EVD_SEED").unwrap_or_else(|| u64::from(std::process::id())));
    println!("EVD_SEED={}", random.0);
    let mut evd = Evd::start();
    let names = [name(), name(), name()];
    let mut args: Vec<String> = names[..2].iter().map(|n| format!("manual={n}")).collect();
    args.push(format!("auto={}", names[2]));
    let mut child = process();
    args.push(format!("process={}", child.id()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut client = Process::start("waiter", evd.socket(), &args);
    client.comes_to("3 at evd");
    let signal = |random: &mut Random, client: &Process| {
        let n = random.below(3) as usize;
        let event = find(&names[n]).expect("the client has it");
        set(&event);
        client.comes_to(if n == 2 { "auto is signalled" } else { "manual is signalled" });
        assert!(!is_signalled(&event));
    };
    for _ in 0..kills {
        for _ in 0..random.below(6) {
            signal(&mut random, &client);
            std::thread::sleep(random.below(30) as u32 * MS);
        }
        if random.one_in(5) {
            client.kill();
            eventually("nobody has its events", || find(&names[0]).is_none());
            client = Process::start("waiter", evd.socket(), &args);
            // It has made them then.
            client.comes_to("3 at evd");
            continue;
        }
        evd.kill();
        // While nobody is there, too.
        if random.one_in(2) {
            signal(&mut random, &client);
        }
        evd.start_again();
        if random.one_in(2) {
            client.comes_to("3 at evd");
        }
    }
    drop(child.stdin.take());
    client.comes_to("process is signalled");
    child.wait().unwrap();
}
