//! What goes through a pipe: chunks, each of some bytes and the sockets that belong to them.
//!
//! A pipe has no side channel as Unix sockets have for fds. So what is one `sendmsg` there is one chunk here, and what is in it comes out as a `recvmsg` would give it: SPEC.md, "On Windows".
//!
//! | bytes | what |
//! |---|---|
//! | 4 | number of bytes, 1 to 65,536, little-endian |
//! | 4 | number of sockets, 0 to 253, little-endian |
//! | 628 each | the sockets, as `passing` describes them |
//! | | the bytes |

use super::passing;
use crate::sys::MAX_FDS;
use std::io;

/// The most bytes of one chunk.
pub(super) const MOST: usize = 64 * 1024;
const HEAD: usize = 8;

/// Begins a chunk: the descriptions of its sockets are appended to it, then its bytes.
pub(super) fn begin(bytes: usize, sockets: usize) -> Vec<u8> {
    let mut to = Vec::with_capacity(HEAD + sockets * passing::LEN + bytes);
    to.extend_from_slice(&(bytes as u32).to_le_bytes());
    to.extend_from_slice(&(sockets as u32).to_le_bytes());
    to
}

/// A chunk as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    /// The descriptions of its sockets, one after the other.
    pub sockets: &'a [u8],
    pub bytes: &'a [u8],
    /// What is behind it.
    pub rest: &'a [u8],
}

/// Takes the first chunk of `came` apart; `None`: it is not whole yet.
///
/// # Errors
/// `InvalidData`: this is no chunk.
pub(super) fn first(came: &[u8]) -> io::Result<Option<Raw<'_>>> {
    let Some((head, behind)) = came.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [a, b, c, d, e, f, g, h] = *head;
    let (len, count) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    if len == 0 || len as usize > MOST || count as usize > MAX_FDS {
        let text =
            format!("a chunk of {len} bytes and {count} sockets; it has 1 to {MOST} and at most {MAX_FDS}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let Some((sockets, behind)) = behind.split_at_checked(count as usize * passing::LEN) else {
        return Ok(None);
    };
    let whole = behind.split_at_checked(len as usize);
    Ok(whole.map(|(bytes, rest)| Raw { sockets, bytes, rest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_cut_where_they_end_and_what_is_none_is_refused() {
        let mut all = begin(3, 0);
        all.extend_from_slice(b"abc");
        all.extend(begin(1, 1));
        all.extend_from_slice(&[7; passing::LEN]);
        all.extend_from_slice(b"x");
        let one = first(&all).unwrap().unwrap();
        assert_eq!((one.bytes, one.sockets.len()), (&b"abc"[..], 0));
        let two = first(one.rest).unwrap().unwrap();
        assert_eq!((two.bytes, two.sockets.len(), two.rest.len()), (&b"x"[..], passing::LEN, 0));
        for cut in 0..one.rest.len() {
            assert_eq!(first(&one.rest[..cut]).unwrap(), None, "{cut}");
        }
        for (bytes, sockets) in [(0, 0), (MOST + 1, 0), (1, MAX_FDS + 1), (usize::MAX >> 32, 0)] {
            assert_eq!(first(&begin(bytes, sockets)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
