//! The splitter of the stream: frames cut anywhere, fds anywhere, and garbage between.

use super::script::{Script, Traced};
use evd_proto::MAX_FDS;
use evd_proto::channel::{Fill, Input, Scratch};
use evd_proto::frame::{HEADER, Kind, MAX_BODY, header};
use evd_proto::sys;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd, RawFd};

const PIPES: usize = 3;

/// A frame that an honest peer has sent: where it is in the stream, and the inodes of its fds.
struct Sent {
    at: usize,
    len: usize,
    inodes: Vec<u64>,
}

struct Run {
    to: OwnedFd,
    from: OwnedFd,
    scratch: Scratch,
    input: Input,
    pipes: Vec<Traced>,
    /// All bytes that were sent, and how many of them were taken as frames.
    stream: Vec<u8>,
    at: usize,
    /// What must come while the peer was honest; `None`: it was not.
    expected: Option<VecDeque<Sent>>,
    over: bool,
}

/// A receiver gives the frames that were sent, each with its fds, or an error. What a peer sends that breaks the rules is an error or a frame of just the bytes that
/// were sent; all fds are closed in the end.
pub fn frames(data: &[u8]) {
    let (to, from) = sys::socketpair().expect("a socket pair");
    let mut run = Run {
        to,
        from,
        scratch: Scratch::new(),
        input: Input::default(),
        pipes: (0..PIPES).map(|_| Traced::new()).collect(),
        stream: Vec::new(),
        at: 0,
        expected: Some(VecDeque::new()),
        over: false,
    };
    let mut script = Script(data);
    while !script.is_over() && !run.over {
        match script.below(4) {
            0 => run.receive(),
            1 => run.raw(&mut script),
            _ => run.frame(&mut script),
        }
    }
    while !run.over && run.receive_once() {}
    if let (Some(left), false) = (&run.expected, run.over) {
        assert!(left.is_empty() && !run.input.is_partial(), "{} frames were not received", left.len());
    }
    let pipes = run.pipes;
    drop((run.to, run.from, run.input));
    pipes.into_iter().for_each(Traced::finish);
}

impl Run {
    /// Any bytes, with any fds.
    fn raw(&mut self, script: &mut Script<'_>) {
        let fds = script.below(8).saturating_sub(4);
        let bytes = script.bytes(255);
        self.expected = None;
        self.send(bytes, &self.some(fds, 0));
    }

    /// A frame of one of all kinds, in pieces; its fds are with the last one, or elsewhere.
    fn frame(&mut self, script: &mut Script<'_>) {
        let kinds: Vec<u16> = (0..0x110).filter(|k| header_of(*k).is_some()).collect();
        let kind = kinds[script.below(kinds.len())];
        let (fds, first) = (script.below(16), script.below(PIPES));
        let fds = match fds {
            0..=7 => 0,
            15 => MAX_FDS,
            n => n - 7,
        };
        let len = match script.byte() {
            n @ 0..=199 => usize::from(n),
            // As long as it may be, or about so.
            n if fds > 0 => 16_384 - HEADER + 2 - usize::from(n % 8),
            n => MAX_BODY + 2 - usize::from(n % 8),
        };
        let pieces = 1 + script.below(4);
        let honest = script.below(8) != 0;
        let mut frame = Vec::with_capacity(HEADER + len);
        frame.extend_from_slice(&(len as u32).to_le_bytes());
        frame.extend_from_slice(&kind.to_le_bytes());
        frame.extend_from_slice(&[fds as u8, 0]);
        frame.extend_from_slice(&script.number().to_le_bytes());
        frame.extend((0..len).map(|i| i as u8));
        let legal = matches!(header(&frame), Ok(Some(_)));
        if !honest || !legal {
            self.expected = None;
        }
        let sent = self.some(fds, first);
        if let Some(expected) = &mut self.expected {
            let inodes = (0..fds).map(|n| self.pipes[(first + n) % PIPES].ino()).collect();
            expected.push_back(Sent { at: self.stream.len(), len: frame.len(), inodes });
        }
        let mut rest = &frame[..];
        for piece in (0..pieces).rev() {
            let cut = if piece == 0 { rest.len() } else { (script.number() as usize).min(rest.len()) };
            let (now, later) = rest.split_at(cut);
            rest = later;
            let at_last = rest.is_empty();
            match (honest, at_last) {
                (true, false) => self.send(now, &[]),
                (true, true) => return self.send(now, &sent),
                (false, _) => {
                    // Some of them with each piece, or none.
                    let part = script.below(sent.len() + 1);
                    self.send(now, &sent[..part]);
                }
            }
        }
    }

    /// Numbers of `n` fds, the first of them given.
    fn some(&self, n: usize, first: usize) -> Vec<RawFd> {
        (0..n).map(|i| self.pipes[(first + i) % PIPES].number()).collect()
    }

    /// Sends all of it; what does not fit waits until something was received.
    fn send(&mut self, mut bytes: &[u8], fds: &[RawFd]) {
        // Fds go with a byte.
        while !bytes.is_empty() && !self.over {
            // Without fds the kernel may take a part; with them all or nothing, up to 16 KiB.
            let (plain, with) = if fds.is_empty() {
                (bytes, &[][..])
            } else {
                bytes.split_at(bytes.len().saturating_sub(8192))
            };
            let (now, fds) = if plain.is_empty() { (with, fds) } else { (plain, &[][..]) };
            match sys::send(self.to.as_fd(), now, fds) {
                Ok(n) => {
                    self.stream.extend_from_slice(&now[..n]);
                    bytes = &bytes[n..];
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    self.receive_once();
                }
                Err(e) => panic!("send: {e}"),
            }
        }
    }

    fn receive(&mut self) {
        self.receive_once();
    }

    /// `true`: something came.
    fn receive_once(&mut self) -> bool {
        let (fill, mut frames) =
            self.input.receive(self.from.as_fd(), &mut self.scratch).expect("our peer is there");
        assert!(matches!(fill, Fill::Data | Fill::Empty), "{fill:?}");
        loop {
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(e) => {
                    assert!(self.expected.is_none(), "an honest peer is refused: {e}");
                    self.over = true;
                    return false;
                }
            };
            let head = frame.header;
            assert_eq!((frame.body.len(), frame.fds.len()), (head.len, head.fds));
            let whole = &self.stream[self.at..][..HEADER + head.len];
            assert_eq!(header(whole), Ok(Some(head)));
            assert_eq!(frame.body, &whole[HEADER..]);
            if let Some(expected) = &mut self.expected {
                let sent = expected.pop_front().expect("no more frames were sent");
                assert_eq!((self.at, whole.len()), (sent.at, sent.len));
                let inode = |fd: &OwnedFd| sys::identify(fd.as_fd()).expect("it is open").ino;
                assert_eq!(frame.fds.iter().map(inode).collect::<Vec<_>>(), sent.inodes);
            }
            self.at += whole.len();
        }
        fill == Fill::Data
    }
}

/// The kind of this number, if there is one.
pub fn header_of(kind: u16) -> Option<Kind> {
    let mut bytes = [0; HEADER];
    bytes[4..6].copy_from_slice(&kind.to_le_bytes());
    header(&bytes).ok().flatten().map(|h| h.kind)
}
