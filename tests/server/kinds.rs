//! What may be watched with a copy kept: kinds of files that are known not to block.

use crate::users::{as_user, is_root, let_in, socket_of_test};
use crate::wire::*;
use evd_proto::What;
use evd_proto::reply::{Code, Welcome};
use evd_proto::request::{ArmHandle, ArmHandles, ArmWatch};
use evd_proto::sys::{self, Wake};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Wraps what a system call returned.
fn own(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the caller passes what a system call has just returned.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn epoll() -> OwnedFd {
    // SAFETY: takes a number.
    own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Arms it with a copy kept; what is wrong with it, if something is.
fn refused(c: &mut Raw, fd: impl AsFd) -> Option<String> {
    let seq = c.last_serial() as u32 + 1;
    c.arm_with(ArmWatch::KEEP, &[(0, seq, What::READ)], &[fd.as_fd().as_raw_fd()]);
    let got = c.sync().into_iter().find(|got| got.kind == evd_proto::frame::Kind::Refused)?;
    let why: evd_proto::reply::Refused = got.read();
    assert_eq!(why.code, Code::NotWatchable, "{}", why.text);
    Some(why.text)
}

#[test]
fn files_that_might_block_are_refused_by_their_kind() {
    let evd = Evd::start();
    let mut c = evd.client("kinds");
    // SAFETY: takes numbers.
    let inotify = own(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) });
    // SAFETY: takes numbers.
    let timer = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) });
    // SAFETY: takes numbers.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) } as i32);
    let (r, w) = sys::pipe().unwrap();
    let fine = [
        Wake::new().unwrap().as_fd().try_clone_to_owned().unwrap(),
        inotify,
        timer,
        process,
        epoll(),
        r,
        w,
        File::open("/dev/ptmx").unwrap().into(),
        File::open("/dev/random").unwrap().into(),
    ];
    for fd in &fine {
        assert_eq!(refused(&mut c, fd), None);
    }
    // With a copy kept, as if they were not known by their inode.
    for (family, kind) in [
        (libc::AF_UNIX, libc::SOCK_SEQPACKET),
        (libc::AF_INET, libc::SOCK_STREAM),
        (libc::AF_INET, libc::SOCK_DGRAM),
        (libc::AF_INET6, libc::SOCK_DGRAM),
        (libc::AF_NETLINK, libc::SOCK_RAW),
        (libc::AF_VSOCK, libc::SOCK_STREAM),
        (libc::AF_PACKET, libc::SOCK_RAW),
    ] {
        // SAFETY: takes numbers.
        let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
        if fd >= 0 {
            assert_eq!(refused(&mut c, own(fd)), None, "family {family}");
        } else {
            // Not every kernel has all of them, and AF_PACKET is root's.
            assert!(family == libc::AF_VSOCK || family == libc::AF_PACKET || family == libc::AF_INET6);
        }
    }
    let (mut near, mut far) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: two live numbers are filled, and no name, settings or size are passed.
    assert_eq!(unsafe { libc::openpty(&mut near, &mut far, none, none.cast(), none.cast()) }, 0);
    for fd in [own(near), own(far)] {
        assert_eq!(refused(&mut c, fd), None, "both sides of a terminal");
    }
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is room for one, which is filled.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `set` was filled above.
    let signals = own(unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC) });
    let text = refused(&mut c, signals).unwrap();
    assert!(text.contains("signalfd"), "{text}");
    let regular = File::open(env!("CARGO_BIN_EXE_evd")).unwrap();
    for (fd, word) in [
        (OwnedFd::from(regular), "always ready"),
        (File::open("/").unwrap().into(), "always ready"),
        (File::open("/dev/null").unwrap().into(), "always ready"),
        // SAFETY: the name is a C string.
        (own(unsafe { libc::memfd_create(c"x".as_ptr(), libc::MFD_CLOEXEC) }), "always ready"),
    ] {
        let text = refused(&mut c, fd).unwrap();
        assert!(text.contains(word), "{text}");
    }
    match File::open("/dev/fuse") {
        Ok(fuse) => {
            let text = refused(&mut c, &fuse).unwrap();
            assert!(text.contains("10:229"), "{text}");
        }
        Err(e) => println!("skipped: no device that may not be watched: {e}"),
    }
    evd.serves();
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_may_not_nest() {
    let mut c = Raw::hello(&socket_of_test(), "nests", "");
    let text = refused(&mut c, epoll()).unwrap();
    assert!(text.contains("--allow-nested"), "{text}");
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_may_nest() {
    let mut c = Raw::hello(&socket_of_test(), "nests", "");
    assert_eq!(refused(&mut c, epoll()), None);
}

#[test]
fn epolls_of_other_users_are_refused_unless_it_is_said() {
    if !is_root() {
        return;
    }
    for (flag, helper) in [(false, "kinds::helper_may_not_nest"), (true, "kinds::helper_may_nest")] {
        let evd = Evd::start_with(|c| {
            c.args(["--allow-uid", "4711"]);
            if flag {
                c.arg("--allow-nested");
            }
        });
        let_in(&evd);
        assert!(as_user(4711, helper, &evd.path()).succeeded());
    }
}

#[test]
fn handles_of_windows_are_refused_and_nobody_is_led_to_send_them() {
    let evd = Evd::start();
    let mut asks = Raw::connect(&evd.path());
    let welcome: Welcome = asks.ask(&evd_proto::request::Hello { features: u64::MAX, ..hello("asks", "") });
    assert_eq!(welcome.features & ArmHandles::FEATURE, 0);
    let arm = |id| ArmHandle { id, seq: 1, interest: What::READ, handle: 4 };
    let serial = asks.send(&ArmHandles { watches: vec![arm(3), arm(5)] });
    let why = asks.refused(serial);
    assert_eq!(
        (why.code, why.value, why.ids),
        (Code::NotWatchable, libc::ENOTSUP as u64, vec![(3, 1), (5, 1)])
    );
    assert!(why.text.contains("only Windows has handles"), "{}", why.text);
    // The ids are free still, and the session goes on.
    let (r, _w) = sys::pipe().unwrap();
    asks.arm(&[(3, 1, What::READ)], &[r.as_raw_fd()]);
    assert!(asks.sync().is_empty());
    let mut control = evd.control();
    let serial = control.send(&ArmHandles { watches: Vec::new() });
    assert_eq!(control.refused(serial).code, Code::NotAllowed);
}
