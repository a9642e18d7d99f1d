//! What evd makes of numbers of handles that a client claims to have, said by the bare protocol.

use crate::handles::{event, find, set};
use crate::parts::*;
use evd_proto::channel::{Channel, Scratch};
use evd_proto::frame::{Body, Kind};
use evd_proto::notice::{Active, ActiveWatch};
use evd_proto::reply::{Code, Done, Refused, Welcome};
use evd_proto::request::{ArmHandle, ArmHandles, Disarm, Hello, Role, Sync};
use evd_proto::sys::{self, AsFd, AsRawFd, PollFd, WaitHandle};
use evd_proto::{OLDEST_VERSION, PROTOCOL_VERSION, What};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::windows::io::{AsHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::ptr::null;
use windows_sys::Win32::Foundation::{ERROR_INVALID_HANDLE, ERROR_NOT_SUPPORTED};
use windows_sys::Win32::System::Threading::{CreateMutexW, CreateSemaphoreW, CreateWaitableTimerW};

/// A session that says what it likes.
struct Raw {
    channel: Channel,
    scratch: Scratch,
    serial: u64,
    came: VecDeque<(Kind, u64, Vec<u8>)>,
}

impl Raw {
    fn connect(path: &Path) -> Raw {
        let channel = Channel::new(sys::connect(path).unwrap());
        let mut raw = Raw { channel, scratch: Scratch::new(), serial: 0, came: VecDeque::new() };
        raw.say(&Hello {
            versions: (OLDEST_VERSION, PROTOCOL_VERSION),
            features: ArmHandles::FEATURE,
            role: Role::Client,
            name: "raw".to_owned(),
            method: String::new(),
            avoid: Vec::new(),
            require: 0,
        });
        let welcome: Welcome = raw.hear().1;
        assert_eq!(welcome.features, ArmHandles::FEATURE);
        raw
    }

    fn say<B: Body>(&mut self, body: &B) -> u64 {
        self.serial += 1;
        self.channel.output.push(self.serial, body).unwrap();
        assert!(self.channel.flush().unwrap());
        self.serial
    }

    fn next(&mut self) -> (Kind, u64, Vec<u8>) {
        loop {
            if let Some(first) = self.came.pop_front() {
                return first;
            }
            let mut one = [PollFd::new(self.channel.as_fd().as_raw_fd(), What::READ)];
            assert_eq!(sys::poll(&mut one, Some(PATIENCE)).unwrap(), 1, "evd says nothing");
            let (socket, input, _) = self.channel.split();
            let (_, mut frames) = input.receive(socket, &mut self.scratch).unwrap();
            while let Some(frame) = frames.next().unwrap() {
                self.came.push_back((frame.header.kind, frame.header.serial, frame.body.to_vec()));
            }
        }
    }

    fn hear<B: Body>(&mut self) -> (u64, B) {
        let (kind, serial, body) = self.next();
        (serial, evd_proto::frame::body(kind, &body).unwrap())
    }

    fn arm(&mut self, id: u32, seq: u32, handle: u32) -> u64 {
        self.say(&ArmHandles { watches: vec![ArmHandle { id, seq, interest: What::READ, handle }] })
    }

    /// What is said about this number.
    fn refused(&mut self, handle: u32) -> Refused {
        let seq = self.serial as u32 + 1;
        let serial = self.arm(9, seq, handle);
        let (of, why): (u64, Refused) = self.hear();
        assert_eq!((of, why.ids.as_slice()), (serial, &[(9, seq)][..]), "{}", why.text);
        why
    }

    /// Nothing was said before the answer to this.
    fn is_quiet(&mut self) {
        let serial = self.say(&Sync {});
        assert_eq!(self.hear::<Done>().0, serial);
    }

    fn active(&mut self) -> Vec<ActiveWatch> {
        self.hear::<Active>().1.watches
    }
}

fn number_of(handle: &impl AsHandle) -> u32 {
    WaitHandle(handle.as_handle()).as_raw_fd() as u32
}

fn own(raw: windows_sys::Win32::Foundation::HANDLE) -> OwnedHandle {
    assert!(!raw.is_null(), "{}", io::Error::last_os_error());
    // SAFETY: it was just made; nobody else owns it.
    unsafe { OwnedHandle::from_raw_handle(raw) }
}

/// Makes handles until one has a number that others do not have, says that, and sets the event when it is told to.
pub fn owner(_socket: &Path, args: &[&str]) {
    let mut all: Vec<OwnedHandle> = Vec::new();
    while all.last().is_none_or(|last| number_of(last) < 20_000) {
        all.push(event(&format!("{}-{}", args[0], all.len()), true));
    }
    let last = all.last().unwrap();
    say(number_of(last));
    hear();
    set(last);
    say("set");
    hear();
}

#[test]
fn a_claimed_handle_is_the_clients_own_or_none() {
    let evd = Evd::start();
    let mut raw = Raw::connect(evd.socket());
    let name = format!(r"Local\evd-claims-{}", std::process::id());
    let mut other = Process::start("owner", evd.socket(), &[&name]);
    let number: u32 = other.line().parse().unwrap();
    // It is open there, and not here.
    let why = raw.refused(number);
    assert_eq!((why.code, why.value), (Code::NotWatchable, ERROR_INVALID_HANDLE.into()), "{}", why.text);
    assert!(why.text.contains("not open in the client's process"), "{}", why.text);
    other.tell("set it");
    other.says("set");
    raw.is_quiet();
}

#[test]
fn numbers_that_are_no_handles_and_handles_that_are_not_to_be_waited_for_are_refused() {
    let evd = Evd::start();
    let mut raw = Raw::connect(evd.socket());
    // None; no multiple of 4; what stands for the own process, thread and tokens; not open.
    for bad in [0, 1, 6, u32::MAX, u32::MAX - 1, u32::MAX - 3, u32::MAX - 5, 0x8000_0000, 0x7fff_fffc] {
        let why = raw.refused(bad);
        assert_eq!(
            (why.code, why.value),
            (Code::NotWatchable, ERROR_INVALID_HANDLE.into()),
            "{bad:#x}: {}",
            why.text
        );
        assert!(why.text.contains(&format!("{bad:#x}")), "{}", why.text);
    }
    let file = OwnedHandle::from(File::open(std::env::current_exe().unwrap()).unwrap());
    // SAFETY: no attributes and no name.
    let mutex = own(unsafe { CreateMutexW(null(), 0, null()) });
    let listener = listener();
    for bad in [number_of(&file), number_of(&mutex), listener.as_raw_fd() as u32] {
        let why = raw.refused(bad);
        assert_eq!((why.code, why.value), (Code::NotWatchable, ERROR_NOT_SUPPORTED.into()), "{}", why.text);
        assert!(why.text.contains("neither a process"), "{}", why.text);
    }
    let auto = event(&format!(r"Local\evd-auto-{}", std::process::id()), false);
    set(&auto);
    // SAFETY: no attributes and no name.
    let semaphore = own(unsafe { CreateSemaphoreW(null(), 1, 1, null()) });
    // SAFETY: no attributes and no name.
    let timer = own(unsafe { CreateWaitableTimerW(null(), 0, null()) });
    for bad in [&auto, &semaphore, &timer] {
        let why = raw.refused(number_of(bad));
        assert_eq!((why.code, why.value), (Code::NotWatchable, ERROR_NOT_SUPPORTED.into()), "{}", why.text);
        assert!(why.text.contains("takes its signal"), "{}", why.text);
    }
    let signalled = |handle| sys::is_signalled(WaitHandle(handle).as_raw_fd()).unwrap();
    assert!(signalled(&auto) && signalled(&semaphore), "evd has waited for none of them");
    raw.is_quiet();
}

#[test]
fn an_armed_handle_is_reported_once_for_each_arm_and_not_after_a_disarm() {
    let evd = Evd::start();
    let mut raw = Raw::connect(evd.socket());
    let name = format!(r"Local\evd-armed-{}", std::process::id());
    let event = event(&name, true);
    let number = number_of(&event);
    raw.arm(3, 1, number);
    raw.is_quiet();
    set(&event);
    let active = |seq| vec![ActiveWatch { id: 3, seq, ready: What::READ }];
    assert_eq!(raw.active(), active(1));
    raw.is_quiet();
    // It is set still: an arm is answered at once.
    raw.arm(3, 2, number);
    assert_eq!(raw.active(), active(2));
    let serial = raw.arm(3, 2, number);
    let (of, why): (u64, Refused) = raw.hear();
    assert_eq!((of, why.code), (serial, Code::BadRequest), "a seq must be newer: {}", why.text);
    let only = ArmHandle { id: 3, seq: 3, interest: What::WRITE | What::CLOSED, handle: number };
    raw.say(&ArmHandles { watches: vec![only] });
    raw.is_quiet();
    // evd has one of its own.
    drop(event);
    assert!(find(&name).is_some());
    raw.say(&Disarm { with_fd: Vec::new(), ids: vec![3] });
    raw.is_quiet();
    assert!(find(&name).is_none());
}

#[test]
fn a_report_ends_what_evd_has_of_a_handle() {
    let evd = Evd::start();
    let mut raw = Raw::connect(evd.socket());
    let name = format!(r"Local\evd-reported-{}", std::process::id());
    let event = event(&name, true);
    raw.arm(4, 1, number_of(&event));
    raw.is_quiet();
    set(&event);
    drop(event);
    assert_eq!(raw.active(), [ActiveWatch { id: 4, seq: 1, ready: What::READ }]);
    raw.is_quiet();
    assert!(find(&name).is_none());
    // A process that has ended is reported for as long as somebody knows it.
    let mut child = std::process::Command::new("cmd").args(["/c", "exit"]).spawn().unwrap();
    child.wait().unwrap();
    for seq in 2..5 {
        raw.arm(4, seq, number_of(&child));
        assert_eq!(raw.active(), [ActiveWatch { id: 4, seq, ready: What::READ }]);
        raw.is_quiet();
    }
}
