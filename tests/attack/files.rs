//! Files that a server had better not touch, and touched again and again.

use crate::attackers::told;
use crate::parts::{drain, pair};
use crate::wire::{Raw, lingering};
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::notice::Active;
use evd_proto::reply::Refused;
use evd_proto::request::{ArmWatch, Disarm, Hold, Sync};
use evd_proto::sys::{self, Wake};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// So long is anything held here.
pub const HELD_NS: u64 = 1_000_000_000;

fn own(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the caller passes what a system call has just returned.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Everything has an answer when this returns; what was refused is noted.
pub fn sync(c: &mut Raw) {
    let last = c.send(&Sync {});
    loop {
        let got = c.next();
        if got.kind == Kind::Refused {
            told(&got.read::<Refused>());
        }
        if got.serial == last {
            return;
        }
    }
}

/// Waits until so many watches have fired.
pub fn fired(c: &mut Raw, mut many: usize) {
    while many > 0 {
        let got = c.next();
        if got.kind == Kind::Active {
            many -= got.read::<Active>().watches.len();
        }
    }
}

pub fn hold(c: &mut Raw, name: &str, bytes: usize, fd: RawFd) -> u64 {
    let hold = Hold { name: name.to_owned(), attachment: vec![7; bytes], ttl: HELD_NS, replace: true };
    c.send_fds(&hold, &[fd])
}

fn epoll() -> OwnedFd {
    // SAFETY: takes a number.
    own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

pub fn hostile_kinds(socket: &Path, _: u64) {
    let (one, other) = (epoll(), epoll());
    let mut entry = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    // SAFETY: `entry` is live for the call.
    unsafe { libc::epoll_ctl(one.as_raw_fd(), libc::EPOLL_CTL_ADD, other.as_raw_fd(), &mut entry) };
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is room for one, which is filled.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: `set` was filled above.
    let signals = own(unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC) });
    // SAFETY: the name is a C string.
    let memory = own(unsafe { libc::memfd_create(c"x".as_ptr(), libc::MFD_CLOEXEC) });
    // SAFETY: takes numbers.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) } as i32);
    let path = File::options().read(true).custom_flags(libc::O_PATH).open("/").unwrap();
    let files = [
        File::open("/proc/self/exe").unwrap().into(),
        File::open("/").unwrap().into(),
        File::open("/proc/self/mem").unwrap().into(),
        File::open("/dev/null").unwrap().into(),
        File::open("/dev/urandom").unwrap().into(),
        OwnedFd::from(path),
        one,
        other,
        signals,
        memory,
        process,
    ];
    for keep in [0, ArmWatch::KEEP] {
        let mut c = Raw::hello(socket, "kinds", "");
        for seq in 1..5 {
            for (id, fd) in files.iter().enumerate() {
                c.arm_with(keep, &[(id as u32, seq, What::READ | What::WRITE)], &[fd.as_raw_fd()]);
                hold(&mut c, &format!("kind-{id}"), 0, fd.as_raw_fd());
            }
        }
        sync(&mut c);
    }
}

/// What is always ready, armed again as soon as it was.
pub fn hang_ups(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "hup", "");
    // SAFETY: takes numbers.
    let unconnected = own(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) });
    let (closed, _) = pair();
    let (pipe, _) = sys::pipe().unwrap();
    let fds = [unconnected.as_raw_fd(), closed.as_raw_fd(), pipe.as_raw_fd()];
    for seq in 1..200 {
        c.arm(&[0, 1, 2].map(|id| (id, seq, What::READ | What::CLOSED)), &fds);
        fired(&mut c, fds.len());
    }
}

/// The session's own socket, watched, held and kept: who closes it then?
pub fn own_connection(socket: &Path, _: u64) {
    for flags in [0, ArmWatch::KEEP, ArmWatch::EDGE] {
        let mut c = Raw::hello(socket, "itself", "");
        let fd = c.channel.as_fd().as_raw_fd();
        c.arm_with(flags, &[(0, 1, What::READ | What::WRITE)], &[fd]);
        hold(&mut c, "itself", 0, fd);
        sync(&mut c);
    }
    std::thread::sleep(Duration::from_millis(5));
}

/// Dups of one file, numbers that are another file each time, ids that are armed before they were answered.
pub fn many_numbers(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "numbers", "");
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    for seq in 1..60 {
        let dups: Vec<OwnedFd> = (0..5).map(|_| sys::duplicate(near.as_fd()).unwrap()).collect();
        let (fresh, _) = pair();
        for (id, fd) in dups.iter().map(AsRawFd::as_raw_fd).chain([fresh.as_raw_fd()]).enumerate() {
            c.arm(&[(id as u32 % 3, seq * 10 + id as u32, What::READ)], &[fd]);
        }
        if seq % 3 == 0 {
            c.send(&Disarm { with_fd: vec![], ids: vec![0, 1, 2, 77] });
        }
        sync(&mut c);
    }
}

/// Edge-triggered ones that stay armed while their files go, and fire all the time.
pub fn edges(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "edges", "");
    let (near, mut far) = pair();
    let wake = Wake::new().unwrap();
    c.arm_with(ArmWatch::EDGE, &[(0, 1, What::READ | What::WRITE)], &[near.as_raw_fd()]);
    c.arm_with(ArmWatch::EDGE | ArmWatch::KEEP, &[(1, 1, What::READ)], &[wake.as_fd().as_raw_fd()]);
    for _ in 0..100 {
        far.write_all(&[0; 10]).unwrap();
        drain(&near);
        wake.notify();
        c.arm_with(ArmWatch::EDGE, &[(2, c.serial as u32 + 1, What::READ)], &[pair().0.as_raw_fd()]);
        sync(&mut c);
    }
}

/// Its worker waits for the close. Not more of them than it gets done with.
pub fn lingering_closes(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "lingers", "");
    let (_listener, _peer, lingers) = lingering(1);
    hold(&mut c, "lingers", 0, lingers.as_raw_fd());
    sync(&mut c);
    drop(lingers);
    std::thread::sleep(2 * Duration::from_nanos(HELD_NS));
}

/// Sockets in flight in each other, given away.
pub fn sockets_in_sockets(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "cycles", "");
    for i in 0..50 {
        let (a, b) = sys::socketpair().unwrap();
        sys::send(a.as_fd(), b"x", &[a.as_raw_fd(), b.as_raw_fd()]).unwrap();
        sys::send(b.as_fd(), b"x", &[a.as_raw_fd()]).unwrap();
        c.arm(&[(i, 1, What::READ | What::CLOSED)], &[a.as_raw_fd()]);
        hold(&mut c, &format!("cycle-{}", i % 10), 0, b.as_raw_fd());
    }
    sync(&mut c);
}
