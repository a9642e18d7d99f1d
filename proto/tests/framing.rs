//! Streams of frames over a real socket: cut anywhere, with fds, and broken in every way.
//!
//! Whatever comes, a receiver gives the frames that were sent or an error: it never panics, never allocates for a claim, never keeps more fds than
//! a header may announce.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[macro_use]
mod bodies;

use evd_proto::channel::{Channel, Fill, Input, Output, Scratch};
use evd_proto::frame::{self, Body, FrameError, HEADER, Kind, MAX_BODY, MAX_WITH_FDS};
use evd_proto::notice::{Active, Closing};
use evd_proto::reply::Welcome;
use evd_proto::request::{Arm, ArmWatch, Events, Follow, Hold, SetTimer, Sync, Timers};
use evd_proto::sys::{self, identify};
use evd_proto::{MAX_FDS, What};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Notes the largest single allocation of the thread.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

// SAFETY: hands everything to `System` unchanged; the bookkeeping does not allocate.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|l| l.set(l.get().max(layout.size())));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

/// xorshift64*: repeatable, and enough to shuffle bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What a receiver saw of a frame.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: Kind,
    serial: u64,
    body: Vec<u8>,
    /// The inodes of its fds.
    inodes: Vec<u64>,
}

/// The golden frames.
fn vectors() -> Vec<Vec<u8>> {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    };
    let lines = include_str!("vectors.txt").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|l| l.split_once(' ')).map(|(_, text)| hex(text)).collect()
}

fn inode(fd: impl AsFd) -> u64 {
    identify(fd.as_fd()).unwrap().ino
}

/// Takes all frames that are there now.
fn drain(from: BorrowedFd<'_>, input: &mut Input, to: &mut Vec<Seen>) -> Result<Fill, FrameError> {
    let mut scratch = Scratch::new();
    loop {
        let (fill, mut frames) = input.receive(from, &mut scratch).unwrap();
        while let Some(frame) = frames.next()? {
            to.push(Seen {
                kind: frame.header.kind,
                serial: frame.header.serial,
                body: frame.body.to_vec(),
                inodes: frame.fds.iter().map(inode).collect(),
            });
        }
        if fill != Fill::Data {
            return Ok(fill);
        }
    }
}

fn arm(n: usize) -> Arm {
    let watch = |i| ArmWatch { id: i as u32, seq: 1, interest: What::READ, flags: 0 };
    Arm { watches: (0..n).map(watch).collect() }
}

fn timers(n: usize) -> Timers {
    Timers { set: (0..n).map(|i| SetTimer { id: i as u32, deadline: 5 }).collect(), cancel: vec![] }
}

fn bytes_of<B: Body>(serial: u64, fds: usize, body: &B) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, serial, fds, body).unwrap();
    bytes
}

fn seen(bytes: &[u8], inodes: Vec<u64>) -> Seen {
    let header = frame::header(bytes).unwrap().unwrap();
    Seen { kind: header.kind, serial: header.serial, body: bytes[HEADER..].to_vec(), inodes }
}

fn sockets(n: usize) -> Vec<OwnedFd> {
    (0..n).map(|_| sys::socketpair().unwrap().0).collect()
}

fn raw(fds: &[OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}

#[test]
fn any_split_of_a_stream_gives_the_same_frames() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let files = sockets(7);
    for _ in 0..300 {
        let (a, b) = sys::socketpair().unwrap();
        let (mut input, mut got, mut expected) = (Input::default(), Vec::new(), Vec::new());
        // Bytes without fds wait here, so that cuts go across frames.
        let mut waiting: Vec<u8> = Vec::new();
        for serial in 1..=20 {
            let count = if random.below(3) == 0 { 1 + random.below(files.len()) } else { 0 };
            let bytes = match random.below(3) {
                _ if count > 0 => bytes_of(serial, count, &arm(count)),
                0 => bytes_of(serial, 0, &Sync {}),
                1 => bytes_of(serial, 0, &timers(random.below(40))),
                _ => bytes_of(serial, 0, &timers(random.below(1000))),
            };
            expected.push(seen(&bytes, files[..count].iter().map(inode).collect()));
            waiting.extend_from_slice(&bytes);
            let keep = if count > 0 { 0 } else { random.below(waiting.len()) };
            // Everything but `keep` bytes goes now, in pieces, with the fds at the last one.
            let mut now: Vec<u8> = waiting.drain(..waiting.len() - keep).collect();
            while !now.is_empty() {
                let most = now.len().min(1 + random.below(5000));
                let piece = 1 + random.below(most);
                let last = piece == now.len();
                let fds = if last && count > 0 { raw(&files[..count]) } else { vec![] };
                assert_eq!(sys::send(a.as_fd(), &now[..piece], &fds).unwrap(), piece);
                now.drain(..piece);
                if random.below(2) == 0 {
                    assert_eq!(drain(b.as_fd(), &mut input, &mut got), Ok(Fill::Empty));
                }
            }
        }
        sys::send(a.as_fd(), &waiting, &[]).unwrap();
        drop(a);
        assert_eq!(drain(b.as_fd(), &mut input, &mut got), Ok(Fill::End));
        assert!(!input.is_partial());
        assert_eq!(got, expected);
    }
}

/// A receive may end inside a message with fds because its buffer is full: they come with the first part then, maybe with another frame's end.
#[test]
fn fds_find_their_frame_when_a_full_buffer_cuts_the_message() {
    let room = 2 * (HEADER + MAX_BODY);
    let files = sockets(2);
    let small = bytes_of(2, 0, &Sync {});
    let mut last = bytes_of(3, 2, &arm(2));
    let with_fds = [&small[..], &last].concat();
    last = bytes_of(4, 1, &arm(1));
    // `cut` bytes of the message with fds fit the first receive.
    for cut in 0..=with_fds.len() {
        let (a, b) = sys::socketpair().unwrap();
        let mut expected = Vec::new();
        let mut left = room - cut;
        while left > 0 {
            let whole = left.min(60_000);
            let whole = if left - whole < 1000 && left > whole { whole - 1000 } else { whole };
            let reason = "x".repeat(whole - HEADER - 8);
            let bytes = bytes_of(1, 0, &Closing { reason });
            assert_eq!(sys::send(a.as_fd(), &bytes, &[]).unwrap(), whole);
            expected.push(seen(&bytes, vec![]));
            left -= whole;
        }
        assert_eq!(sys::send(a.as_fd(), &with_fds, &raw(&files)).unwrap(), with_fds.len());
        sys::send(a.as_fd(), &last, &raw(&files[1..])).unwrap();
        expected.push(seen(&small, vec![]));
        expected.push(seen(&with_fds[small.len()..], files.iter().map(inode).collect()));
        expected.push(seen(&last, vec![inode(&files[1])]));
        let (mut input, mut got) = (Input::default(), Vec::new());
        assert_eq!(drain(b.as_fd(), &mut input, &mut got), Ok(Fill::Empty), "cut at {cut}");
        assert!(got == expected, "cut at {cut}");
    }
}

#[test]
fn what_waits_goes_with_a_frame_that_has_fds_and_keeps_its_order() {
    let files = sockets(2);
    for waiting in [0, 1, 100, 400, 900, 1500] {
        let (a, b) = sys::socketpair().unwrap();
        let mut output = Output::default();
        output.push(1, &timers(waiting)).unwrap();
        assert!(output.send_with_fds(a.as_fd(), 2, &arm(2), &raw(&files)).unwrap());
        assert!(output.is_empty());
        let (mut input, mut got) = (Input::default(), Vec::new());
        drain(b.as_fd(), &mut input, &mut got).unwrap();
        let inodes = files.iter().map(inode).collect();
        assert_eq!(
            got,
            [seen(&bytes_of(1, 0, &timers(waiting)), vec![]), seen(&bytes_of(2, 2, &arm(2)), inodes)]
        );
    }
}

/// The kernel hands out the fds with the first byte of their message, so that shows whether what waited was in it.
#[test]
fn a_message_with_fds_is_never_longer_than_the_kernel_takes_whole() {
    let files = sockets(1);
    for (waiting, watches, together) in
        [(100, 1, true), (100, 1000, true), (600, 1000, false), (1000, 1, false)]
    {
        let (a, b) = sys::socketpair().unwrap();
        let mut output = Output::default();
        output.push(1, &timers(waiting)).unwrap();
        assert!(output.send_with_fds(a.as_fd(), 2, &arm(watches), &raw(&files)).unwrap());
        let mut fds = Vec::new();
        sys::recv(b.as_fd(), &mut [0], &mut fds).unwrap();
        assert_eq!(fds.len() == 1, together, "{waiting} timers before {watches} watches");
    }
}

#[test]
fn a_frame_with_fds_goes_behind_what_was_sent_in_part() {
    let (a, b) = sys::socketpair().unwrap();
    let files = sockets(1);
    let mut output = Output::default();
    let (mut input, mut got, mut expected) = (Input::default(), Vec::new(), Vec::new());
    let mut serial = 0;
    while output.flush(a.as_fd()).unwrap() {
        serial += 1;
        output.push(serial, &timers(5000)).unwrap();
        expected.push(seen(&bytes_of(serial, 0, &timers(5000)), vec![]));
    }
    assert!(!output.send_with_fds(a.as_fd(), serial + 1, &arm(1), &raw(&files)).unwrap());
    drain(b.as_fd(), &mut input, &mut got).unwrap();
    assert!(output.send_with_fds(a.as_fd(), serial + 1, &arm(1), &raw(&files)).unwrap());
    drain(b.as_fd(), &mut input, &mut got).unwrap();
    expected.push(seen(&bytes_of(serial + 1, 1, &arm(1)), vec![inode(&files[0])]));
    assert!(got == expected);
}

#[test]
fn a_long_frame_without_fds_may_go_the_same_way() {
    let (a, b) = sys::socketpair().unwrap();
    let mut output = Output::default();
    let (mut input, mut got) = (Input::default(), Vec::new());
    for serial in 1..=10 {
        assert!(output.send_with_fds(a.as_fd(), serial, &timers(5000), &[]).unwrap());
    }
    while !output.flush(a.as_fd()).unwrap() {
        drain(b.as_fd(), &mut input, &mut got).unwrap();
    }
    drain(b.as_fd(), &mut input, &mut got).unwrap();
    let expected: Vec<Seen> = (1..=10).map(|s| seen(&bytes_of(s, 0, &timers(5000)), vec![])).collect();
    assert!(got == expected);
}

#[test]
fn a_frame_with_fds_that_can_not_be_sent_leaves_what_waits_as_it_was() {
    let (a, b) = sys::socketpair().unwrap();
    let files = sockets(1);
    let mut output = Output::default();
    output.push(1, &Sync {}).unwrap();
    let before = output.len();
    let closed = RawFd::MAX;
    let error = output.send_with_fds(a.as_fd(), 2, &arm(1), &[closed]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(9), "EBADF: {error}");
    let many = vec![files[0].as_raw_fd(); MAX_FDS + 1];
    let error = output.send_with_fds(a.as_fd(), 2, &arm(1), &many).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    let error = output.send_with_fds(a.as_fd(), 2, &arm(2000), &raw(&files)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    assert_eq!(output.len(), before);
    // A peer that does not read.
    while sys::send(a.as_fd(), &[0; 4096], &[]).is_ok() {}
    assert!(!output.send_with_fds(a.as_fd(), 2, &arm(1), &raw(&files)).unwrap());
    assert_eq!(output.len(), before);
    drop(b);
    assert!(output.send_with_fds(a.as_fd(), 2, &arm(1), &raw(&files)).is_err());
}

#[test]
fn more_fds_than_the_kernel_takes_are_refused_before_it_is_asked() {
    let (a, _b) = sys::socketpair().unwrap();
    let file = &sockets(1)[0];
    for count in [MAX_FDS + 1, 320, 1000, 5000] {
        let error = sys::send(a.as_fd(), b"x", &vec![file.as_raw_fd(); count]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{count}: {error}");
        assert!(frame::encode(&mut Vec::new(), 1, count, &arm(1)).is_err(), "{count}");
    }
}

/// Sends `bytes` with `fds` and gives what the receiver says.
fn receive(bytes: &[u8], fds: &[RawFd]) -> Result<Vec<Seen>, FrameError> {
    let (a, b) = sys::socketpair().unwrap();
    assert_eq!(sys::send(a.as_fd(), bytes, fds).unwrap(), bytes.len());
    drop(a);
    let mut got = Vec::new();
    drain(b.as_fd(), &mut Input::default(), &mut got).map(|_| got)
}

#[test]
fn another_number_of_fds_than_announced_is_an_error() {
    let files = sockets(3);
    let fds = raw(&files);
    let claims = |n| bytes_of(1, n, &arm(2));
    assert_eq!(receive(&claims(2), &fds[..2]).unwrap()[0].inodes.len(), 2);
    for (claimed, came) in [(2, 0), (2, 1), (2, 3), (0, 1), (1, 0)] {
        let error = receive(&claims(claimed), &fds[..came]).unwrap_err();
        assert_eq!(error, FrameError::FdCount { claimed, came });
    }
    // Not the last frame of its message, so the fds are not its.
    let joined = [claims(2), bytes_of(2, 0, &Sync {})].concat();
    assert!(matches!(receive(&joined, &fds[..2]), Err(FrameError::FdCount { claimed: 2, came: 0 })));
    // Known before the frame is whole.
    assert!(matches!(receive(&claims(2)[..20], &fds), Err(FrameError::FdCount { claimed: 2, came: 3 })));
    assert!(matches!(receive(&claims(0)[..20], &fds), Err(FrameError::FdCount { claimed: 0, came: 3 })));
}

/// One message with fds for each byte: no receiver may collect them until the frame is whole.
#[test]
fn fds_that_no_header_announces_are_not_collected() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let file = &sockets(1)[0];
    for claimed in [0, 1, MAX_FDS] {
        let (a, b) = sys::socketpair().unwrap();
        let (mut input, mut got) = (Input::default(), Vec::new());
        let before = open();
        let mut result = Ok(Fill::Empty);
        let mut most = 0;
        for byte in bytes_of(1, claimed, &timers(10)) {
            sys::send(a.as_fd(), &[byte], &vec![file.as_raw_fd(); 200]).unwrap();
            result = drain(b.as_fd(), &mut input, &mut got);
            // Other tests of this process have fds, too.
            most = most.max(open().saturating_sub(before));
            if result.is_err() {
                break;
            }
        }
        assert!(matches!(result, Err(FrameError::FdCount { .. })), "{result:?}");
        assert!(got.is_empty());
        assert!(most < 1500, "{most} fds were collected");
    }
}

#[test]
fn headers_that_can_not_be_are_errors_before_the_body_comes() {
    let header = |len: u32, kind: u16, fds: u8, flags: u8| {
        let mut h = [0; HEADER];
        h[..4].copy_from_slice(&len.to_le_bytes());
        h[4..6].copy_from_slice(&kind.to_le_bytes());
        (h[6], h[7]) = (fds, flags);
        h
    };
    let longest = MAX_BODY as u32;
    let longest_with_fds = (MAX_WITH_FDS - HEADER) as u32;
    for h in [header(longest, 2, 0, 0), header(longest_with_fds, 2, 1, 0), header(0, 2, 253, 0)] {
        frame::header(&h).unwrap().unwrap();
    }
    assert!(matches!(receive(&header(longest + 1, 2, 0, 0), &[]), Err(FrameError::TooLong { .. })));
    assert!(matches!(receive(&header(u32::MAX, 2, 0, 0), &[]), Err(FrameError::TooLong { .. })));
    assert!(matches!(receive(&header(longest_with_fds + 1, 2, 1, 0), &[]), Err(FrameError::TooLong { .. })));
    assert!(matches!(receive(&header(0, 2, 254, 0), &[]), Err(FrameError::FdCount { claimed: 254, .. })));
    for kind in [0, 0x18, 0x80, 0x8b, 0x100, 0x105, 0xffff] {
        assert_eq!(receive(&header(0, kind, 0, 0), &[]).unwrap_err(), FrameError::UnknownKind(kind));
    }
    for flags in [1, 0x80, 0xff] {
        assert_eq!(receive(&header(0, 2, 0, flags), &[]).unwrap_err(), FrameError::UnknownFlags(flags));
    }
    assert!(receive(b"GET / HTTP/1.1\r\n\r\n", &[]).is_err());
    assert!(receive(&[0xff; 4096], &[]).is_err());
}

#[test]
fn a_body_must_be_used_up_exactly() {
    let whole = bytes_of(1, 0, &timers(3));
    for end in HEADER..whole.len() {
        assert!(frame::body::<Timers>(Kind::Timers, &whole[HEADER..end]).is_err(), "{end}");
    }
    let mut longer = whole[HEADER..].to_vec();
    longer.push(0);
    assert!(frame::body::<Timers>(Kind::Timers, &longer).is_err());
    assert!(frame::body::<Sync>(Kind::Sync, &[0]).is_err());
    assert_eq!(frame::body::<Arm>(Kind::Timers, &whole[HEADER..]), Err(FrameError::OutOfPlace(Kind::Timers)));
}

#[test]
fn values_that_no_field_can_have_are_errors() {
    let change = |mut body: Vec<u8>, at: usize, byte: u8| {
        body[at] = byte;
        body
    };
    // A bit that no interest has.
    let arm = bytes_of(1, 0, &arm(1))[HEADER..].to_vec();
    let interest = 8 + 4 + 4;
    assert!(frame::body::<Arm>(Kind::Arm, &change(arm.clone(), interest, 0x80)).is_ok());
    assert!(frame::body::<Arm>(Kind::Arm, &change(arm, interest, 0x40)).is_err());
    // A bool and an option that are neither 0 nor 1.
    let hold = Hold { name: "a".into(), attachment: vec![], ttl: 0, replace: true };
    let hold = bytes_of(1, 0, &hold)[HEADER..].to_vec();
    let replace = hold.len() - 1;
    assert!(frame::body::<Hold>(Kind::Hold, &change(hold.clone(), replace, 0)).is_ok());
    assert!(frame::body::<Hold>(Kind::Hold, &change(hold.clone(), replace, 2)).is_err());
    assert!(frame::body::<Follow>(Kind::Follow, &[0]).is_ok());
    assert!(frame::body::<Follow>(Kind::Follow, &[2]).is_err());
    // A text that is not UTF-8.
    assert!(frame::body::<Hold>(Kind::Hold, &change(hold, 8, 0xff)).is_err());
}

#[test]
fn a_length_bomb_is_an_error_and_allocates_nothing_for_it() {
    // In every frame there is, at every place where a length may be.
    for whole in vectors() {
        let header = frame::header(&whole).unwrap().unwrap();
        for at in HEADER..(whole.len() + 1).saturating_sub(8) {
            for length in [1u64 << 60, u64::MAX, 1 << 32, 1 << 20, 70_000] {
                let mut bomb = whole.clone();
                bomb[at..at + 8].copy_from_slice(&length.to_le_bytes());
                LARGEST.set(0);
                read_any(header.kind, &bomb[HEADER..]);
                let largest = LARGEST.get();
                assert!(largest <= MAX_BODY, "{:?}: {largest} bytes for {length} at {at}", header.kind);
            }
        }
    }
    let mut bomb = [0; 32];
    bomb[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(frame::body::<Active>(Kind::Active, &bomb).is_err());
}

/// Reads a body as what its header says; whether it can be read.
fn read_any(kind: Kind, body: &[u8]) -> bool {
    use evd_proto::{notice, reply, request};
    macro_rules! read {
        ($($place:ident :: $name:ident),* $(,)?) => {
            match kind { $(Kind::$name => frame::body::<$place::$name>(kind, body).is_ok(),)* }
        };
    }
    each_body!(read)
}

#[test]
fn mutated_frames_are_read_or_refused_and_nothing_else_happens() {
    let vectors = vectors();
    assert!(vectors.len() >= 30);
    let mut random = Random(42);
    let (mut read, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = vectors[round % vectors.len()].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(6) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                3 => bytes.truncate(at.max(1)),
                4 => bytes.insert(at, random.next() as u8),
                _ => bytes.extend(random.next().to_le_bytes()),
            }
        }
        LARGEST.set(0);
        // As a stream: frames, an incomplete one at the end, or an error.
        let mut rest = &bytes[..];
        let fine = loop {
            match frame::header(rest) {
                Ok(Some(h)) if rest.len() >= HEADER + h.len => {
                    if !read_any(h.kind, &rest[HEADER..HEADER + h.len]) {
                        break false;
                    }
                    rest = &rest[HEADER + h.len..];
                }
                Ok(_) => break true,
                Err(_) => break false,
            }
        };
        assert!(LARGEST.get() <= MAX_BODY, "{} bytes for {bytes:02x?}", LARGEST.get());
        if fine {
            read += 1;
        } else {
            refused += 1;
        }
        // The same over a socket, now and then with an fd: never a panic.
        if round % 10 == 0 {
            let file = &sockets(1)[0];
            let fds = if random.below(2) == 0 { vec![file.as_raw_fd()] } else { vec![] };
            let _ = receive(&bytes, &fds);
        }
    }
    assert!(read > 1000 && refused > 1000, "mutations should do both: {read} read, {refused} refused");
}

#[test]
fn a_channel_carries_the_longest_body_both_ways() {
    let (a, b) = sys::socketpair().unwrap();
    let (mut a, mut b) = (Channel::new(a), Channel::new(b));
    let longest = Closing { reason: "x".repeat(MAX_BODY - 8) };
    let too_long = Closing { reason: "x".repeat(MAX_BODY - 7) };
    assert!(a.output.push(0, &too_long).is_err());
    assert!(a.output.is_empty());
    for _ in 0..20 {
        a.output.push(0, &longest).unwrap();
    }
    // More than a socket buffer: both sides work in turns.
    let mut got = 0;
    let mut scratch = Scratch::new();
    while got < 20 {
        a.flush().unwrap();
        let (socket, input, _) = b.split();
        let (_, mut frames) = input.receive(socket, &mut scratch).unwrap();
        while let Some(frame) = frames.next().unwrap() {
            assert_eq!(frame.read::<Closing>().unwrap(), longest);
            got += 1;
        }
    }
    assert!(a.output.is_empty());
    assert!(b.output.is_empty());
}

#[test]
fn a_wrong_kind_of_body_is_told_apart_from_a_broken_one() {
    let welcome = frame::body::<Welcome>(Kind::Done, &[]);
    assert_eq!(welcome, Err(FrameError::OutOfPlace(Kind::Done)));
    assert!(matches!(frame::body::<Events>(Kind::Events, &[]), Err(FrameError::Body(Kind::Events, _))));
}
