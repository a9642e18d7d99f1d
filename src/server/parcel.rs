//! A parcel: all held fds of one user, kept where they outlive evd.
//!
//! The fds are in flight in a socketpair of evd's own, up to 253 a message; nobody reads it while evd lives. Its receiving end and the log that says what
//! is what (see `records`) are in the service manager's store, under one name: so thousands of holds are two stored fds. A new hold is one more message and one more
//! entry; what is let go is one more entry, and is really closed when the parcel is made anew without it.
//!
//! All of this happens in a worker of the user: closing what is in flight can block.

use super::book::Held;
use super::records::{self, Log, Record};
use super::store::{NotStored, Store};
use crate::session::Shares;
use evd_proto::sys::{self, AsFd, AsRawFd, MemFile, OwnedFd, RawFd};
use std::io;

/// Bytes that may be on their way in a parcel. The system's own limit is likely lower: some hundred single fds, or many times 253 of them.
const BUFFER: i32 = 4 << 20;
/// Bytes of a log that are read; what is behind is not.
const LONGEST_LOG: usize = 256 << 20;
/// A log is read and written in such parts.
const PART: usize = 1 << 20;

/// All that the log of a parcel has that does not count.
const VOID: &[u8] = b"void";

/// A parcel that this evd has made.
pub(super) struct Parcel {
    /// What it is stored as.
    name: String,
    tx: OwnedFd,
    rx: OwnedFd,
    log: MemFile,
    /// Bytes of the log that count.
    pub len: u64,
    /// Fds in it.
    pub sent: u32,
}

impl Parcel {
    /// Makes a parcel of `holds`. It is not stored yet.
    ///
    /// # Errors
    /// Out of fds or memory; too many are in flight (`ETOOMANYREFS`).
    pub fn pack<'a>(
        uid: u32,
        generation: u64,
        holds: impl Iterator<Item = (&'a String, &'a Held)>,
    ) -> io::Result<Parcel> {
        let (tx, rx) = sys::socketpair()?;
        sys::enlarge_send_buffer(tx.as_fd(), BUFFER)?;
        let log = MemFile::new(c"evd-holds")?;
        let name = name(uid, generation);
        let mut parcel = Parcel { name, tx, rx, log, len: 0, sent: 0 };
        let mut text = records::head(uid, generation).to_vec();
        let mut fds: Vec<RawFd> = Vec::new();
        for (name, held) in holds {
            let position = parcel.sent + fds.len() as u32;
            records::put(&mut text, held.number, position, held, name);
            fds.push(held.fd.as_raw_fd());
            if fds.len() == sys::MAX_FDS {
                parcel.send(&fds)?;
                fds.clear();
            }
            if text.len() >= PART {
                parcel.write(&text)?;
                text.clear();
            }
        }
        if !fds.is_empty() {
            parcel.send(&fds)?;
        }
        parcel.write(&text)?;
        Ok(parcel)
    }

    /// Stores it. From now on it outlives evd.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn store(&self, store: &Store) -> Result<(), NotStored> {
        store.put(&self.name, &[self.rx.as_fd(), self.log.as_fd()])
    }

    /// Has it count nothing from now on, wherever it may be: for one that is perhaps stored, and is not used.
    ///
    /// # Errors
    /// None is expected.
    pub fn void(&self) -> io::Result<()> {
        self.log.set_len(0)?;
        self.log.write_all_at(VOID, 0)
    }

    /// Adds holds, all or none, at most 253. An error leaves at most fds behind that nothing says anything of.
    ///
    /// # Errors
    /// `WouldBlock`: it is full, and must be made anew. `ETOOMANYREFS`; `ENOMEM`.
    pub fn add_all<'a>(&mut self, holds: impl Iterator<Item = (&'a str, &'a Held)>) -> io::Result<()> {
        let (mut text, mut fds) = (Vec::new(), Vec::new());
        for (name, held) in holds {
            records::put(&mut text, held.number, self.sent + fds.len() as u32, held, name);
            fds.push(held.fd.as_raw_fd());
        }
        self.send(&fds)?;
        self.write(&text)
    }

    /// Says that these are no longer held.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn forget(&mut self, numbers: impl Iterator<Item = u64>) -> io::Result<()> {
        self.write(&all_gone(numbers))
    }

    /// One message of the parcel: the position of its first fd, and the fds.
    fn send(&mut self, fds: &[RawFd]) -> io::Result<()> {
        sys::send(self.tx.as_fd(), &self.sent.to_le_bytes(), fds)?;
        self.sent += fds.len() as u32;
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        append(&self.log, &mut self.len, text)
    }
}

fn all_gone(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut text = Vec::new();
    numbers.for_each(|n| records::gone(&mut text, n));
    text
}

fn append(log: &MemFile, len: &mut u64, text: &[u8]) -> io::Result<()> {
    // A write that fails half way is written over by the next one.
    log.write_all_at(text, *len)?;
    *len += text.len() as u64;
    Ok(())
}

/// What a parcel is stored as: short, as all names together are one variable of the next evd.
fn name(uid: u32, generation: u64) -> String {
    format!("h{uid:x}.{generation:x}")
}

/// The user and the generation of a stored parcel, by its name.
pub(super) fn parse_name(name: &str) -> Option<(u32, u64)> {
    let (uid, generation) = name.strip_prefix('h')?.split_once('.')?;
    Some((u32::from_str_radix(uid, 16).ok()?, u64::from_str_radix(generation, 16).ok()?))
}

/// What another evd has left in the store under one name.
pub(super) struct Left {
    pub name: String,
    pub uid: u32,
    pub generation: u64,
    pub fds: Vec<OwnedFd>,
    /// Its log, once that was looked for: it is not in `fds` then.
    log: Option<MemFile>,
    /// The bytes of the log that count, once it was read.
    end: Option<u64>,
}

impl Left {
    /// One of which no fds have been found yet.
    pub fn new(name: String, uid: u32, generation: u64) -> Left {
        Left { name, uid, generation, fds: Vec::new(), log: None, end: None }
    }

    /// Says that these are no longer held, if it was read.
    ///
    /// # Errors
    /// As [`Parcel::forget`].
    pub fn forget(&mut self, numbers: impl Iterator<Item = u64>) -> io::Result<()> {
        match (&self.log, &mut self.end) {
            (Some(log), Some(end)) => append(log, end, &all_gone(numbers)),
            _ => Ok(()),
        }
    }

    /// Reads what is in it, without taking it out: whoever is killed meanwhile leaves all as it was. Damage is logged, and what can be read is returned; `None`:
    /// nothing of it can be.
    ///
    /// # Errors
    /// There are no fds or no memory for it now: another time it may be read.
    pub fn unpack(&mut self) -> io::Result<Option<Vec<(Record, OwnedFd)>>> {
        let is_socket =
            |fd: &OwnedFd| matches!(sys::identify(fd.as_fd()), Ok(f) if f.kind == sys::FileKind::Socket);
        if self.log.is_none() {
            if let Some(at) = self.fds.iter().position(|fd| !is_socket(fd)) {
                self.log = Some(MemFile::adopt(self.fds.remove(at))?);
            }
        }
        let (Some(rx), Some(file)) = (self.fds.iter().find(|fd| is_socket(fd)), &self.log) else {
            log::error!("parcel {} of user {} is not whole: it is left out", self.name, self.uid);
            return Ok(None);
        };
        let mut start = [0; VOID.len() + 1];
        if matches!(file.read_at(&mut start, 0), Ok(n) if start[..n] == *VOID) {
            log::info!("parcel {} of user {} does not count: it came too late", self.name, self.uid);
            return Ok(None);
        }
        let log = match read_log(file) {
            Ok(Ok(log)) if (log.uid, log.generation) == (self.uid, self.generation) => log,
            Ok(Ok(_)) => {
                log::error!("parcel {} has the records of another one: it is left out", self.name);
                return Ok(None);
            }
            Ok(Err(e)) => {
                log::error!("parcel {} of user {} can't be read: {e}", self.name, self.uid);
                return Ok(None);
            }
            Err(e) if sys::is_shortage(&e) => return Err(e),
            Err(e) => {
                log::error!("parcel {} of user {} can't be read: {e}", self.name, self.uid);
                return Ok(None);
            }
        };
        if log.live.len() >= Shares::now().kept as usize {
            // Do not take the last ones from others in order to find out.
            return Err(sys::shortage());
        }
        if !log.whole {
            // The usual end of an evd that was killed while it wrote: nobody was told yet that it was done.
            log::info!("the records of parcel {} end early: the last change is left out", self.name);
        }
        let mut fds = match look_through(rx) {
            Ok(fds) => fds,
            Err(e) if sys::is_shortage(&e) => return Err(e),
            Err(e) => {
                log::error!("the fds of parcel {} of user {} can't be read: {e}", self.name, self.uid);
                return Ok(None);
            }
        };
        let mut found = Vec::with_capacity(log.live.len());
        for record in log.live {
            match fds.get_mut(record.position as usize).and_then(Option::take) {
                Some(fd) => found.push((record, fd)),
                None => log::error!("the fd of {:?} of user {} is lost", record.name, self.uid),
            }
        }
        self.end = Some(log.end);
        Ok(Some(found))
    }
}

/// A parcel in which nothing counts any more, and which the service manager may have still. It is kept so that the last one to close it, and with it what clients
/// gave, is a worker of its user, and not the service manager.
pub(super) struct Leaving {
    name: String,
    _fds: Vec<OwnedFd>,
}

impl Leaving {
    /// Takes them out of the store. Then they are to be dropped.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn leave(all: &[Leaving], store: &Store) -> io::Result<()> {
        store.remove(all.iter().map(|one| one.name.as_str()))
    }
}

impl From<Parcel> for Leaving {
    fn from(Parcel { name, tx, rx, log, .. }: Parcel) -> Leaving {
        Leaving { name, _fds: vec![tx, rx, log.into()] }
    }
}

impl From<Left> for Leaving {
    fn from(Left { name, mut fds, log, .. }: Left) -> Leaving {
        fds.extend(log.map(OwnedFd::from));
        Leaving { name, _fds: fds }
    }
}

fn read_log(file: &MemFile) -> io::Result<Result<Log, records::Unreadable>> {
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST_LOG {
        let len = bytes.len();
        bytes.resize(len + PART, 0);
        let got = file.read_at(&mut bytes[len..], len as u64)?;
        bytes.truncate(len + got);
        if got == 0 {
            break;
        }
    }
    Ok(records::read(&bytes))
}

/// Copies of all fds, by their positions.
fn look_through(rx: &OwnedFd) -> io::Result<Vec<Option<OwnedFd>>> {
    sys::peek_from_start(rx.as_fd())?;
    let mut all: Vec<Option<OwnedFd>> = Vec::new();
    loop {
        let (mut text, mut fds) = ([0; 4], Vec::new());
        let got = match sys::peek_next(rx.as_fd(), &mut text, &mut fds) {
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(all),
            Err(e) => return Err(e),
        };
        if got.fds_lost {
            // Better none than some: the parcel stays in the store, and another time there may be room.
            return Err(sys::shortage());
        }
        if got.len < text.len() {
            return Ok(all);
        }
        if u32::from_le_bytes(text) as usize != all.len() {
            log::error!("a parcel has a hole at {}: what is behind it is left out", all.len());
            return Ok(all);
        }
        all.extend(fds.into_iter().map(Some));
    }
}
