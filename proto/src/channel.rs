//! Frames and fds over a non-blocking socket.
//!
//! The kernel attaches fds to the **last byte** of what one receive brought (it ends a read behind such a message, never before it). So everything
//! that was received is parsed before the next receive, and fds go to the frame that holds the last byte; any other frame must claim none.

use crate::frame::{self, Body, FrameError, Header};
use crate::sys::{self, AsFd, BorrowedFd, OwnedFd, RawFd};
use std::io;

/// Where bytes are received: one for a thread serves all of its channels, which keep only what is not yet a whole frame.
pub struct Scratch(Box<[u8]>);

impl Scratch {
    /// Room for the longest frame that is not complete yet, and for one more receive of the longest frame.
    const SIZE: usize = 2 * (frame::HEADER + frame::MAX_BODY);

    /// Makes one.
    pub fn new() -> Scratch {
        Scratch(vec![0; Scratch::SIZE].into_boxed_slice())
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

/// How a receive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Something came; there may be more.
    Data,
    /// Nothing is there now.
    Empty,
    /// The peer has closed.
    End,
    /// The kernel could not give us all fds: the session must end. What came is in the frames and is closed with them.
    FdsLost,
}

/// What was received and is not a whole frame yet.
#[derive(Debug, Default)]
pub struct Input {
    rest: Vec<u8>,
    /// Fds of the frame that `rest` is the beginning of, or, if they came ahead, of the first frame from there on that claims some.
    fds: Vec<OwnedFd>,
    /// The receive that brought `fds` may have ended inside their message.
    ahead: bool,
}

/// One frame, as received.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its body's bytes.
    pub body: &'a [u8],
    /// Its fds: as many as the header says.
    pub fds: Vec<OwnedFd>,
}

impl Frame<'_> {
    /// Reads the body.
    ///
    /// # Errors
    /// As [`frame::body`].
    pub fn read<B: Body>(&self) -> Result<B, FrameError> {
        frame::body(self.header.kind, self.body)
    }
}

/// The frames of one receive. All must be taken before the next receive; what is left at the end is kept in the [`Input`].
#[derive(Debug)]
pub struct Frames<'a> {
    input: &'a mut Input,
    bytes: &'a [u8],
    at: usize,
    /// Fds that came with this receive.
    late: Vec<OwnedFd>,
    /// This receive filled its buffer.
    full: bool,
}

impl Input {
    /// Receives once.
    ///
    /// # Errors
    /// What `recvmsg` gave, but for "nothing is there" and an end.
    pub fn receive<'a>(
        &'a mut self,
        from: BorrowedFd<'_>,
        scratch: &'a mut Scratch,
    ) -> io::Result<(Fill, Frames<'a>)> {
        let kept = self.rest.len();
        scratch.0[..kept].copy_from_slice(&self.rest);
        let mut late = Vec::new();
        let fill = match sys::recv(from, &mut scratch.0[kept..], &mut late) {
            Ok(got) => {
                let fill = match got {
                    sys::Received { fds_lost: true, .. } => Fill::FdsLost,
                    sys::Received { len: 0, .. } => Fill::End,
                    _ => Fill::Data,
                };
                (fill, got.len)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => (Fill::Empty, 0),
            Err(e) => return Err(e),
        };
        self.rest.clear();
        let full = kept + fill.1 == scratch.0.len();
        let bytes = &scratch.0[..kept + fill.1];
        Ok((fill.0, Frames { input: self, bytes, at: 0, late, full }))
    }

    /// Whether a frame has begun that is not complete.
    pub fn is_partial(&self) -> bool {
        !self.rest.is_empty()
    }
}

impl<'a> Frames<'a> {
    /// Whether the receive filled its buffer, so that more is likely to be there. If not, the socket was empty then, or fds ended the receive: a
    /// level-triggered wait tells.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The next whole frame; `None`: there is none left.
    ///
    /// # Errors
    /// A header or a number of fds that can't be. The stream is worthless then.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator over results would invite going on after an error"
    )]
    pub fn next(&mut self) -> Result<Option<Frame<'a>>, FrameError> {
        let bytes = &self.bytes[self.at..];
        let header = frame::header(bytes)?;
        let whole = header.and_then(|h| Some((h, bytes.get(..frame::HEADER + h.len)?)));
        let Some((header, whole)) = whole else {
            self.check_waiting(header)?;
            return Ok(None);
        };
        self.at += whole.len();
        let mut fds = Vec::new();
        if header.fds > 0 || !self.input.ahead {
            fds.append(&mut self.input.fds);
        }
        if self.at == self.bytes.len() && (header.fds > 0 || !self.full) {
            fds.append(&mut self.late);
        }
        if fds.len() != header.fds {
            return Err(FrameError::FdCount { claimed: header.fds, came: fds.len() });
        }
        Ok(Some(Frame { header, body: &whole[frame::HEADER..], fds }))
    }

    /// Fds that wait for the rest of their frame are no more than it may have: else each byte of a long frame could bring another 253.
    fn check_waiting(&self, header: Option<Header>) -> Result<(), FrameError> {
        let came = self.input.fds.len() + self.late.len();
        let ahead = if self.late.is_empty() { self.input.ahead } else { self.full };
        let claimed = match header {
            Some(header) if !ahead => header.fds,
            _ => crate::MAX_FDS,
        };
        if came > claimed { Err(FrameError::FdCount { claimed, came }) } else { Ok(()) }
    }
}

impl Drop for Frames<'_> {
    fn drop(&mut self) {
        self.input.rest.extend_from_slice(&self.bytes[self.at..]);
        if !self.late.is_empty() {
            self.input.fds.append(&mut self.late);
            self.input.ahead = self.full;
        }
    }
}

/// What is to be sent and was not taken yet.
#[derive(Debug, Default)]
pub struct Output {
    buf: Vec<u8>,
    /// Bytes of `buf` that are gone already.
    at: usize,
}

impl Output {
    /// Appends a frame without fds.
    ///
    /// # Errors
    /// If the body is over the limit; nothing is appended then.
    pub fn push<B: Body>(&mut self, serial: u64, body: &B) -> Result<(), FrameError> {
        frame::encode(&mut self.buf, serial, 0, body)
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what waits: the peer is gone.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.at = 0;
    }

    /// Sends what waits, as far as the peer takes it. `true`: all of it.
    ///
    /// # Errors
    /// What `sendmsg` gave, but for "would block".
    pub fn flush(&mut self, to: BorrowedFd<'_>) -> io::Result<bool> {
        while !self.is_empty() {
            match sys::send(to, &self.buf[self.at..], &[]) {
                Ok(n) => self.at += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if self.is_empty() {
            self.clear();
            // A rare large burst must not stay allocated in every session.
            if self.buf.capacity() > 2 * frame::MAX_BODY {
                self.buf = Vec::new();
            }
        } else if self.at > frame::MAX_BODY {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        Ok(self.is_empty())
    }

    /// Sends a frame with fds, behind what waits. `false`: the peer does not take it now (it does not read, or too many fds of this user are in flight),
    /// and nothing of it was sent. Without fds it is pushed, and `true`.
    ///
    /// # Errors
    /// What `sendmsg` gave: `EBADF` if one of `fds` is not open, `EINVAL` if one can't be passed. Nothing of the frame was sent. A body over
    /// the limit is `InvalidInput`.
    pub fn send_with_fds<B: Body>(
        &mut self,
        to: BorrowedFd<'_>,
        serial: u64,
        body: &B,
        fds: &[RawFd],
    ) -> io::Result<bool> {
        let too_long = |e: FrameError| io::Error::new(io::ErrorKind::InvalidInput, e);
        if fds.is_empty() {
            // It may be longer than what the kernel takes whole.
            self.push(serial, body).map_err(too_long)?;
            return self.flush(to).map(|_| true);
        }
        // What waits goes in the same call if it is small and whole: fds belong to the last byte, which is this frame's.
        if (self.at > 0 || self.len() > frame::MAX_WITH_FDS / 2) && !self.flush(to)? {
            return Ok(false);
        }
        let before = self.buf.len();
        frame::encode(&mut self.buf, serial, fds.len(), body).map_err(too_long)?;
        if self.buf.len() > frame::MAX_WITH_FDS {
            let tail = self.buf.split_off(before);
            let flushed = self.flush(to)?;
            if !flushed {
                return Ok(false);
            }
            self.buf = tail;
            return self.send_whole(to, 0, fds);
        }
        self.send_whole(to, before, fds)
    }

    /// Sends all of `buf` with `fds`, or takes the frame from `before` on out again.
    fn send_whole(&mut self, to: BorrowedFd<'_>, before: usize, fds: &[RawFd]) -> io::Result<bool> {
        match sys::send(to, &self.buf, fds) {
            Ok(n) => {
                debug_assert_eq!(n, self.buf.len(), "at most 16 KiB with fds are one kernel buffer");
                self.at = n;
                if self.is_empty() {
                    self.clear();
                }
                Ok(true)
            }
            Err(e) => {
                self.buf.truncate(before);
                let later = e.kind() == io::ErrorKind::WouldBlock
                    || e.raw_os_error() == Some(sys::TOO_MANY_IN_FLIGHT);
                if later { Ok(false) } else { Err(e) }
            }
        }
    }
}

/// A socket with both directions.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// What comes in.
    pub input: Input,
    /// What goes out.
    pub output: Output,
}

impl Channel {
    /// Speaks over `socket`, which must be non-blocking.
    pub fn new(socket: OwnedFd) -> Channel {
        Channel { socket, input: Input::default(), output: Output::default() }
    }

    /// Both directions and the socket, to be borrowed apart.
    pub fn split(&mut self) -> (BorrowedFd<'_>, &mut Input, &mut Output) {
        (self.socket.as_fd(), &mut self.input, &mut self.output)
    }

    /// Sends what waits; see [`Output::flush`].
    ///
    /// # Errors
    /// As [`Output::flush`].
    pub fn flush(&mut self) -> io::Result<bool> {
        self.output.flush(self.socket.as_fd())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
