//! What is written down about held fds, so that the next evd finds it: a log in memory that outlives the process.
//!
//! One log goes with one parcel (see `parcel`): which of the fds in flight there is which hold. It is only ever appended to, and each entry has its length and
//! its checksum: a write that was torn by a kill is the last one, was not acknowledged to anybody, and reading ends before it. Whatever rewrites, writes a new log
//! from the start. So there is never a moment in which the older state is gone and the newer one is not whole.
//!
//! Numbers are little-endian. A log begins with a head of [`HEAD`] bytes: `evdH`, version `u16`, 2 bytes of zero, uid `u32`, checksum `u32` of the other bytes,
//! generation `u64`. Then entries: length of the body `u32`, checksum of the body `u32`, body. A body begins with its kind, one byte; an entry of a kind that is
//! not known is passed over.

use evd_proto::name;

/// The version that is written; newer ones are not read.
const VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"evdH";
/// Bytes of the head.
pub(super) const HEAD: usize = 24;
/// The longest body of an entry: an attachment and some names.
const LONGEST: usize = (1 << 16) + 512;
const PUT: u8 = 1;
const GONE: u8 = 2;

/// One hold, as it is written down. Times are nanoseconds of `CLOCK_MONOTONIC`, which goes on over a restart of evd; what holds fds does not survive a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The hold's number.
    pub number: u64,
    /// How many fds are before it in the parcel.
    pub position: u32,
    pub since: u64,
    /// 0: never.
    pub expires: u64,
    pub pid: i32,
    pub name: String,
    pub giver: String,
    pub attachment: Vec<u8>,
}

/// What a log says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub uid: u32,
    pub generation: u64,
    /// Holds that were not let go.
    pub live: Vec<Record>,
    /// Whether it was read to its end.
    pub whole: bool,
    /// Where what can be read ends, in bytes, and the next entry goes.
    pub end: u64,
}

/// Why a log can't be read at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not one of ours, or its head is damaged.
    Foreign,
    /// A newer evd has written it.
    Version(u16),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unreadable::Foreign => f.write_str("its records are damaged"),
            Unreadable::Version(v) => {
                write!(f, "its records have version {v}, and this evd knows {VERSION} and older")
            }
        }
    }
}

/// The head of a new log.
pub(super) fn head(uid: u32, generation: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0..4].copy_from_slice(&MAGIC);
    head[4..6].copy_from_slice(&VERSION.to_le_bytes());
    head[8..12].copy_from_slice(&uid.to_le_bytes());
    head[16..24].copy_from_slice(&generation.to_le_bytes());
    let sum = head_sum(&head);
    head[12..16].copy_from_slice(&sum.to_le_bytes());
    head
}

fn head_sum(head: &[u8; HEAD]) -> u32 {
    let mut copy = *head;
    copy[12..16].fill(0);
    crc32fast::hash(&copy)
}

/// Appends "this is held" to `to`. The names and the attachment are within their limits.
pub(super) fn put(to: &mut Vec<u8>, number: u64, position: u32, hold: &super::book::Held, name: &str) {
    entry(to, |body| {
        body.push(PUT);
        body.extend_from_slice(&number.to_le_bytes());
        body.extend_from_slice(&position.to_le_bytes());
        body.extend_from_slice(&hold.since.to_le_bytes());
        body.extend_from_slice(&hold.expires.to_le_bytes());
        body.extend_from_slice(&hold.pid.to_le_bytes());
        for text in [name, &hold.giver] {
            body.push(text.len() as u8);
            body.extend_from_slice(text.as_bytes());
        }
        body.extend_from_slice(&hold.attachment);
    });
}

/// Appends "this is no longer held" to `to`.
pub(super) fn gone(to: &mut Vec<u8>, number: u64) {
    entry(to, |body| {
        body.push(GONE);
        body.extend_from_slice(&number.to_le_bytes());
    });
}

/// Appends an entry with what `write` writes.
pub(super) fn entry(to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend_from_slice(&[0; 8]);
    write(to);
    let body = &to[start + 8..];
    let (len, sum) = (body.len() as u32, crc32fast::hash(body));
    to[start..start + 4].copy_from_slice(&len.to_le_bytes());
    to[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Reads a log as far as it can be read.
///
/// # Errors
/// Nothing of it can be.
pub(super) fn read(bytes: &[u8]) -> Result<Log, Unreadable> {
    let (head, mut rest) = bytes.split_first_chunk::<HEAD>().ok_or(Unreadable::Foreign)?;
    let mut fields = Fields(&head[4..]);
    let version = fields.number().map(u16::from_le_bytes).ok_or(Unreadable::Foreign)?;
    if head[0..4] != MAGIC {
        return Err(Unreadable::Foreign);
    }
    if version > VERSION {
        return Err(Unreadable::Version(version));
    }
    if head[12..16] != head_sum(head).to_le_bytes() {
        return Err(Unreadable::Foreign);
    }
    fields = Fields(&head[8..]);
    let uid = fields.u32().ok_or(Unreadable::Foreign)?;
    fields = Fields(&head[16..]);
    let generation = fields.u64().ok_or(Unreadable::Foreign)?;
    // By name, as a later entry takes the place of an earlier one.
    let mut live: std::collections::BTreeMap<String, Record> = Default::default();
    let mut names: std::collections::HashMap<u64, String> = Default::default();
    let mut whole = true;
    while !rest.is_empty() {
        let Some((body, after)) = next(rest) else {
            // A log that grew in steps may end with zeroes; anything else is an entry that was torn.
            whole = rest.iter().all(|b| *b == 0);
            break;
        };
        rest = after;
        match body.split_first() {
            Some((&PUT, body)) => {
                let Some(record) = record(body) else {
                    whole = false;
                    continue;
                };
                names.insert(record.number, record.name.clone());
                live.insert(record.name.clone(), record);
            }
            Some((&GONE, body)) => {
                let Some(number) = Fields(body).u64() else { continue };
                let Some(name) = names.remove(&number) else { continue };
                // Its name may have gone over to another hold.
                if live.get(&name).is_some_and(|r| r.number == number) {
                    live.remove(&name);
                }
            }
            _ => whole = false,
        }
    }
    let end = (bytes.len() - rest.len()) as u64;
    Ok(Log { uid, generation, live: live.into_values().collect(), whole, end })
}

/// The body of the next entry, and what is behind it; `None`: there is no whole one.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Fields(bytes);
    let (len, sum) = (fields.u32()? as usize, fields.u32()?);
    if len == 0 || len > LONGEST {
        return None;
    }
    let (body, rest) = fields.0.split_at_checked(len)?;
    (crc32fast::hash(body) == sum).then_some((body, rest))
}

fn record(body: &[u8]) -> Option<Record> {
    let mut fields = Fields(body);
    let (number, position) = (fields.u64()?, fields.u32()?);
    let (since, expires) = (fields.u64()?, fields.u64()?);
    let pid = i32::from_le_bytes(fields.number()?);
    let (name, giver) = (fields.text()?, fields.text()?);
    name::check(&name).ok()?;
    Some(Record { number, position, since, expires, pid, name, giver, attachment: fields.0.to_vec() })
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (number, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*number)
    }

    fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.number().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let [len] = self.number::<1>()?;
        let (text, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::Held;
    use super::*;

    fn held(attachment: &[u8]) -> Held {
        let fd = evd_proto::sys::reserve_fd().unwrap();
        Held::for_test(fd, attachment)
    }

    /// Three holds, of which the second is replaced and the third let go.
    fn log() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = head(7, 99).to_vec();
        let mut ends = vec![bytes.len()];
        for (number, name, attachment) in
            [(1, "a", &b"one"[..]), (2, "b", b""), (3, "c", &[9; 300]), (4, "b", b"two")]
        {
            put(&mut bytes, number, number as u32 - 1, &held(attachment), name);
            ends.push(bytes.len());
        }
        for number in [2, 3] {
            gone(&mut bytes, number);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, _) = log();
        let log = read(&bytes).unwrap();
        assert_eq!((log.uid, log.generation, log.whole), (7, 99, true));
        let live: Vec<_> =
            log.live.iter().map(|r| (r.number, r.position, &*r.name, &*r.attachment)).collect();
        assert_eq!(live, [(1, 0, "a", &b"one"[..]), (4, 3, "b", b"two")]);
        assert_eq!((log.live[0].pid, &*log.live[0].giver), (1, "test"));
    }

    #[test]
    fn a_write_that_was_torn_anywhere_leaves_what_was_before_it() {
        let (bytes, ends) = log();
        for cut in 0..bytes.len() {
            // Cut off, and followed by the zeroes of a file that had grown already, and with a byte that is wrong.
            let mut zeroed = bytes[..cut].to_vec();
            zeroed.resize(bytes.len(), 0);
            let mut wrong = bytes.clone();
            wrong[cut] ^= 0x40;
            for torn in [&bytes[..cut], &zeroed, &wrong] {
                // An entry that ends in zeroes may be whole all the same.
                let whole = |e: &&usize| torn.get(..**e) == bytes.get(..**e);
                let known = ends.iter().take_while(whole).count();
                if known == 0 {
                    assert!(read(torn).is_err() || torn[..HEAD] == bytes[..HEAD], "at {cut}");
                    continue;
                }
                let before = read(&bytes[..ends[known - 1]]).unwrap();
                assert_eq!(read(torn).unwrap().live, before.live, "at {cut}");
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let (good, _) = log();
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..20_000 {
            let mut next = || {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x
            };
            let mut bytes = if round % 2 == 0 {
                (0..next() % 200).map(|_| next() as u8).collect()
            } else {
                let mut b = good.clone();
                for _ in 0..1 + next() % 4 {
                    let at = next() as usize % b.len();
                    b[at] = next() as u8;
                }
                b
            };
            let _ = read(&bytes);
            // With a head that is right, too.
            if bytes.len() > HEAD {
                bytes[..HEAD].copy_from_slice(&head(1, 1));
                assert!(read(&bytes).unwrap().live.len() <= 4);
            }
        }
        let mut newer = head(1, 1);
        newer[4] = 2;
        assert_eq!(read(&newer), Err(Unreadable::Version(2)));
    }
}
