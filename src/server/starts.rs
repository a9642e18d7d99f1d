//! How often evd was started lately without getting to work: state that makes it crash must not make it crash for ever.
//!
//! The times of such starts are in a small file in the service manager's store. A start that has read all that it inherited, and then lived for a moment,
//! empties it, and so does one that is told to end. So an evd that somebody kills again and again is not taken for one that crashes by what it reads.

use super::store::Store;
use evd_proto::sys::{self, AsFd, MemFile, OwnedFd};

/// What the file is stored as.
pub(super) const NAME: &str = "c";
/// After so many starts within the time, the newest parcel is left out.
const DOUBTFUL: usize = 5;
/// After so many, all are.
const HOPELESS: usize = 10;
/// Starts longer ago than this do not count, in nanoseconds.
const LATELY: u64 = 10_000_000_000;
/// How long evd must live after it has read everything, in nanoseconds: long enough for what comes next, and too short for who kills it and waits for it to be back to
/// hit it five times in a row.
pub(super) const LIVES: u64 = 10_000_000;
/// Times that are kept.
const KEPT: usize = 16;

/// What may be read of what was inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    All,
    AllButNewest,
    Nothing,
}

/// The file. Without a store there is none.
#[derive(Debug, Default)]
pub(super) struct Starts(Option<MemFile>);

impl Starts {
    /// Counts this start, and says what the earlier ones mean.
    pub fn count(passed: Option<OwnedFd>, store: &Store) -> (Starts, Trust) {
        let now = sys::monotonic_ns();
        let known = passed.is_some();
        let file = match passed.map_or_else(|| MemFile::new(c"evd-starts"), MemFile::adopt) {
            Ok(file) => file,
            Err(e) => {
                log::warn!("can't count starts: {e}");
                return (Starts(None), Trust::All);
            }
        };
        let mut bytes = vec![0; 8 + 8 * KEPT];
        let read = file.read_at(&mut bytes, 0).unwrap_or(0);
        let mut times = parse(&bytes[..read]);
        times.retain(|t| *t <= now && now - t < LATELY);
        let trust = judge(times.len());
        log::debug!("{} starts before this one came to nothing", times.len());
        times.push(now);
        let starts = Starts(Some(file));
        starts.write(&times);
        if let (false, Some(file)) = (known, &starts.0) {
            if let Err(not) = store.put(NAME, &[file.as_fd()]) {
                log::warn!("can't store the count of starts: {}", not.why);
            }
        }
        (starts, trust)
    }

    /// All is well: earlier starts do not count.
    pub fn forget(&self) {
        self.write(&[]);
    }

    fn write(&self, times: &[u64]) {
        let Some(file) = &self.0 else { return };
        // It is in one page, so that a kill leaves the old or the new content.
        let bytes = format(times);
        let written = file.write_all_at(&bytes, 0).and_then(|()| file.set_len(bytes.len() as u64));
        if let Err(e) = written {
            log::warn!("can't write the count of starts: {e}");
        }
    }
}

fn judge(before: usize) -> Trust {
    match before {
        n if n >= HOPELESS => Trust::Nothing,
        n if n >= DOUBTFUL => Trust::AllButNewest,
        _ => Trust::All,
    }
}

/// Checksum, number of times, the times.
fn format(times: &[u64]) -> Vec<u8> {
    let times = &times[times.len().saturating_sub(KEPT)..];
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&(times.len() as u32).to_le_bytes());
    times.iter().for_each(|t| bytes.extend_from_slice(&t.to_le_bytes()));
    let sum = crc32fast::hash(&bytes[4..]);
    bytes[0..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Nothing, if it can't be read.
fn parse(bytes: &[u8]) -> Vec<u64> {
    let read = || {
        let (sum, rest) = bytes.split_first_chunk::<4>()?;
        let (count, times) = rest.split_first_chunk::<4>()?;
        let len = 8 * usize::try_from(u32::from_le_bytes(*count)).ok().filter(|n| *n <= KEPT)?;
        let all = rest.get(..4 + len)?;
        (crc32fast::hash(all) == u32::from_le_bytes(*sum)).then_some(())?;
        Some(
            times[..len]
                .chunks_exact(8)
                .filter_map(|t| Some(u64::from_le_bytes(t.try_into().ok()?)))
                .collect(),
        )
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_written_and_anything_else_is_nothing() {
        let times: Vec<u64> = (1..30).collect();
        let mut bytes = format(&times);
        bytes.resize(136, 0);
        assert_eq!(parse(&bytes), (14..30).collect::<Vec<_>>());
        for at in 0..136 {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(parse(&wrong).is_empty());
            assert!(parse(&bytes[..at.min(135)]).is_empty());
        }
        assert!(parse(&format(&[])).is_empty());
        assert_eq!(
            [judge(4), judge(5), judge(9), judge(10)],
            [Trust::All, Trust::AllButNewest, Trust::AllButNewest, Trust::Nothing]
        );
    }
}
