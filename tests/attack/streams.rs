//! Streams of bytes that are no protocol, or only the beginning of it.

use crate::attackers::{told, told_text};
use crate::parts::jitter;
use crate::wire::{Raw, header, hello};
use evd_proto::What;
use evd_proto::frame::{self, Kind};
use evd_proto::reply::{Code, Refused};
use evd_proto::request::{Subscribe, Trigger};
use evd_proto::sys;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

fn greeting() -> Vec<u8> {
    let mut whole = Vec::new();
    frame::encode(&mut whole, 1, 0, &hello("cut", "")).unwrap();
    whole
}

/// Every beginning of a Hello, all at once.
pub fn half_frames(socket: &Path, _: u64) {
    let whole = greeting();
    let mut all: Vec<Raw> = (0..whole.len()).map(|_| Raw::connect(socket)).collect();
    for (n, c) in all.iter_mut().enumerate() {
        c.raw(&whole[..n], &[]);
    }
    std::thread::sleep(Duration::from_millis(20));
}

/// A byte now and then, and never the last one.
pub fn slow_hellos(socket: &Path, _: u64) {
    let whole = greeting();
    let mut all: Vec<Raw> = (0..20).map(|_| Raw::connect(socket)).collect();
    for byte in &whole[..whole.len() - 1] {
        all.iter_mut().for_each(|c| c.raw(&[*byte], &[]));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ends_session(c: &mut Raw) {
    told_text(&c.is_ended_with(Code::Protocol));
}

pub fn length_bombs(socket: &Path, _: u64) {
    let mut inside = header(Kind::Disarm, 8, 0, 0, 9);
    inside.extend_from_slice(&u64::MAX.to_le_bytes());
    let mut varint = header(Kind::Arm, 9, 0, 0, 9);
    varint.extend_from_slice(&[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let bombs = [
        header(Kind::Report, u32::MAX, 0, 0, 9),
        header(Kind::Report, 65_537, 0, 0, 9),
        header(Kind::Arm, 17_000, 1, 0, 9),
        inside,
        varint,
    ];
    for bomb in bombs {
        let mut c = Raw::hello(socket, "bomb", "");
        c.raw(&bomb, &[]);
        ends_session(&mut c);
    }
    // As long as it may be, and nearly all of it there.
    let mut c = Raw::hello(socket, "long", "");
    c.raw(&header(Kind::Report, 65_536, 0, 0, 9), &[]);
    c.raw(&[1; 60_000], &[]);
}

pub fn garbage(socket: &Path, n: u64) {
    let mut random = jitter(n);
    for _ in 0..10 {
        let mut c = Raw::hello(socket, "garbage", "");
        let bytes: Vec<u8> = (0..512).map(|_| random.below(256) as u8).collect();
        c.raw(&bytes, &[]);
        c.raw(&header(Kind::Sync, 0, 0, 0, 1), &[]);
        let mut kind = header(Kind::Sync, 0, 0, 0, 9);
        kind[4] = 0x77;
        let mut known = Raw::hello(socket, "garbage", "");
        known.raw(&kind, &[]);
        ends_session(&mut known);
    }
}

/// More or fewer of them than a frame says, up to as many as there can be.
pub fn lies_about_fds(socket: &Path, _: u64) {
    let null = sys::reserve_fd().unwrap();
    for (says, sends) in [(1, 2), (3, 0), (1, 253), (253, 1), (0, 253)] {
        let mut c = Raw::hello(socket, "liar", "");
        c.raw(&header(Kind::Sync, 0, says, 0, 9), &vec![null.as_raw_fd(); sends]);
        ends_session(&mut c);
    }
    let mut c = Raw::hello(socket, "body", "");
    c.arm(&[(0, 1, What::READ)], &[null.as_raw_fd(); 2]);
    ends_session(&mut c);
    // Fds before there is a session.
    let mut c = Raw::connect(socket);
    c.raw(&greeting()[..9], &[null.as_raw_fd(); 253]);
}

/// What a terminal or a log would take for its own.
pub fn bad_names(socket: &Path, _: u64) {
    let long = "n".repeat(65);
    let mut c = Raw::hello(socket, "names", "");
    for name in ["", "\x1b[2J\x1b]0;x\x07", "a\nevd: warning: forged", "../../etc/passwd", "\u{202e}x", &long]
    {
        let serial = c.send(&Subscribe { id: 0, name: name.to_owned() });
        told(&c.answer(serial).read::<Refused>());
        let serial = c.send(&Trigger { name: name.to_owned() });
        told(&c.answer(serial).read::<Refused>());
        let mut other = Raw::connect(socket);
        other.send(&hello(name, ""));
        other.next_or_end();
    }
}
