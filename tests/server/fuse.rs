//! A file of a file system whose server stops answering: who closes it waits for as long as that server likes, and nobody can kill him.

use crate::readers::is_stuck;
use crate::users::{is_root, let_in, socket_of_test};
use crate::wire::*;
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Refused};
use evd_proto::request::ArmWatch;
use evd_proto::sys::{self, PollFd};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Requests, by the numbers of linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const OPEN: u32 = 14;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

fn ok(done: i32) {
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Mounts a file system, seen by the calling thread only.
fn mount(device: &File) {
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", device.as_raw_fd());
    // SAFETY: takes numbers.
    ok(unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) });
    let (none, all) = (std::ptr::null(), c"/".as_ptr());
    // SAFETY: the name is a C string; no data is passed.
    ok(unsafe { libc::mount(none, all, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) });
    let (kind, at) = (c"fuse".as_ptr(), c"/mnt".as_ptr());
    // SAFETY: the names and the options are C strings.
    ok(unsafe { libc::mount(kind, at, kind, libc::MS_NODEV | libc::MS_NOSUID, options.as_ptr().cast()) });
}

/// Answers a request.
fn answer(mut device: &File, request: &[u8]) {
    let (mut error, mut body) = (0, Vec::new());
    match kind(request) {
        // Version 7.31, and nothing special.
        INIT => body = [&7u32.to_ne_bytes()[..], &31u32.to_ne_bytes(), &[0; 56]].concat(),
        // File 2, for ever, that may be read; who asks for more than its kind asks here.
        LOOKUP => {
            body = vec![0; 128];
            (body[0], body[40], body[104]) = (2, 2, 1);
            body[16..20].fill(0xff);
            body[100..104].copy_from_slice(&(libc::S_IFREG | 0o444).to_ne_bytes());
        }
        OPEN => body = vec![0; 16],
        FLUSH => {}
        FORGET | BATCH_FORGET | INTERRUPT => return,
        _ => error = -libc::ENOSYS,
    }
    let header =
        [&(16 + body.len() as u32).to_ne_bytes()[..], &error.to_ne_bytes(), &request[8..16]].concat();
    // Who asked may have gone.
    let _ = device.write(&[header, body].concat());
}

/// Whether one of our own threads asks.
fn is_ours(request: &[u8]) -> bool {
    let thread = u32::from_ne_bytes(request[32..36].try_into().unwrap());
    std::path::Path::new(&format!("/proc/self/task/{thread}")).exists()
}

fn kind(request: &[u8]) -> u32 {
    u32::from_ne_bytes(request[4..8].try_into().unwrap())
}

/// Who has such a file, and serves it: of what others than itself ask when they close it nothing is answered, but told by its stdin. When that ends, or its time
/// is over, so does the file system, and who waited goes on. All of it is in one process, and not in the test's: whoever forks or ends with such a file waits too.
#[test]
#[ignore = "run by others, as a process of its own"]
fn helper_passes_a_file_and_falls_silent() {
    let device = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap());
    // SAFETY: stdin is a socket here, which nothing else of this process uses.
    let mut test = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let ((says, mounted), mounts) = (channel(), Arc::clone(&device));
    let passes = std::thread::spawn(move || {
        mount(&mounts);
        drop(mounts);
        says.send(()).unwrap();
        let file = File::open("/mnt/file").unwrap();
        let mut c = as_uid(4711, || Raw::hello(&socket_of_test(), "passes", ""));
        c.arm_with(ArmWatch::KEEP, &[(0, 1, What::READ)], &[file.as_raw_fd()]);
        drop(file);
        // The answer comes when evd could close it.
        let got = c.sync().into_iter().find(|got| got.kind == Kind::Refused).expect("it is refused");
        let why: Refused = got.read();
        assert_eq!(why.code, Code::NotWatchable, "{}", why.text);
    });
    // A device that is not mounted can't be read.
    mounted.recv().unwrap();
    let (mut request, until) = (vec![0; 1 << 17], Instant::now() + 2 * PATIENCE);
    while Instant::now() < until {
        let mut both = [device.as_fd(), test.as_fd()].map(|fd| PollFd::new(fd.as_raw_fd(), What::READ));
        sys::poll(&mut both, Some(Duration::from_secs(1))).unwrap();
        if !both[1].ready().is_empty() {
            break;
        }
        if both[0].ready().is_empty() {
            continue;
        }
        let n = device.as_ref().read(&mut request).unwrap();
        match kind(&request) {
            FLUSH if !is_ours(&request) => test.write_all(b"!").unwrap(),
            INIT | FORGET | BATCH_FORGET | INTERRUPT => answer(&device, &request[..n]),
            kind => {
                assert!(is_ours(&request), "evd asks for {kind}");
                answer(&device, &request[..n]);
            }
        }
    }
    drop(device);
    passes.join().unwrap();
}

#[test]
fn a_file_whose_server_is_silent_stops_only_who_passed_it() {
    if !is_root() {
        return;
    }
    if let Err(e) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        return println!("skipped: needs FUSE: {e}");
    }
    let evd = Evd::start_with(|c| {
        c.args(["--allow-uid", "4711"]);
    });
    let_in(&evd);
    let (mut mine, mut control) = (evd.client("mine"), evd.control());
    let fds = evd.fds();
    let (mut near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", "fuse::helper_passes_a_file_and_falls_silent", "--ignored"]);
    c.env("EVD_TEST_SOCKET", evd.path()).stdin(OwnedFd::from(far)).stdout(Stdio::null());
    let mut silent = c.spawn().unwrap();
    drop(c);
    // evd refused it by its kind, without a question. But what was passed must be closed.
    near.read_exact(&mut [0]).expect("evd closes it");
    let stuck = |control: &mut Raw| is_stuck(control, 4711);
    eventually("it is shown", || stuck(&mut control));
    for _ in 0..20 {
        mine.sync();
        evd.serves();
    }
    assert!(stuck(&mut control), "what we did meanwhile did not wait for it");
    near.shutdown(Shutdown::Both).unwrap();
    assert!(silent.wait().unwrap().success());
    eventually("nothing of it is left", || evd.fds() == fds);
    mine.sync();
}
