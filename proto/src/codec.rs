//! Bodies to bytes and back: the only place that names bincode.
//!
//! The layout is fixed and ours (SPEC.md): little-endian, integers of fixed size, lengths as u64, enum variants as u32. bincode's serde adapter with a
//! limit refuses a text that claims more than a body can have before it allocates; of lists see [`list`]. Trailing bytes are refused here. The crate is no longer developed (RUSTSEC-2025-0141), which
//! is why the bytes are written down: wincode reads the same ones.

use crate::frame::MAX_BODY;
use bincode::error::DecodeError;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

const LAYOUT: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<MAX_BODY>,
> = bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<MAX_BODY>();

/// A body that is not what its kind says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError(String);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}

/// Appends the bytes of `body` to `to`.
///
/// # Errors
/// If they are more than [`MAX_BODY`]; `to` is then as it was.
pub(crate) fn encode<T: Serialize>(body: &T, to: &mut Vec<u8>) -> Result<(), CodecError> {
    let before = to.len();
    let result = bincode::serde::encode_into_std_write(body, to, LAYOUT);
    match result {
        Ok(_) if to.len() - before <= MAX_BODY => Ok(()),
        Ok(n) => {
            to.truncate(before);
            Err(CodecError(format!("a body of {n} bytes is over the limit of {MAX_BODY}")))
        }
        Err(e) => {
            to.truncate(before);
            Err(CodecError(e.to_string()))
        }
    }
}

/// Reads a body that takes up all of `bytes`.
///
/// # Errors
/// If it is cut short, too long, has trailing bytes, an unknown variant or flag, or a text that is not UTF-8.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bincode::serde::decode_from_slice(bytes, LAYOUT) {
        Ok((body, used)) if used == bytes.len() => Ok(body),
        Ok((_, used)) => Err(CodecError(format!("{} bytes after the end of the body", bytes.len() - used))),
        Err(e) => Err(CodecError(words(e))),
    }
}

/// bincode's errors name its own types: they are said in words of SPEC.md.
fn words(e: DecodeError) -> String {
    match e {
        DecodeError::UnexpectedEnd { additional } => {
            format!("it ends too early, {additional} bytes or more are missing")
        }
        DecodeError::LimitExceeded => "it claims more than a body can have".to_owned(),
        DecodeError::Utf8 { .. } => "a string is not UTF-8".to_owned(),
        DecodeError::InvalidBooleanValue(n) => format!("a bool is {n}, and not 0 or 1"),
        DecodeError::UnexpectedVariant { found, .. } => {
            format!("an optional field begins with {found}, and not with 0 or 1")
        }
        DecodeError::OtherString(text) => text,
        e => e.to_string(),
    }
}

/// Reads a list: what every `Vec` of a body is read with.
///
/// serde's own reader reserves up to 1 MiB for what the sender claims, before the first element is there; this one never more than a longest body.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Elements<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
            let most = MAX_BODY / size_of::<T>().max(1);
            let mut list = Vec::with_capacity(from.size_hint().unwrap_or(0).min(most));
            while let Some(element) = from.next_element()? {
                list.push(element);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(Elements(PhantomData))
}
