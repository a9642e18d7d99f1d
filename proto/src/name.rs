//! Names that people choose: of clients, user events and holds.

use std::fmt;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 64;
/// The longest label of a watch, in bytes.
pub const MAX_LABEL: usize = 64;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(f, "{name} is not a name: 1 to {MAX_NAME} of A-Z a-z 0-9 . _ : - are allowed")
    }
}

impl std::error::Error for NameError {}

/// Checks a name: 1 to 64 bytes of `[A-Za-z0-9._:-]`.
///
/// # Errors
/// Says what is allowed.
pub fn check(name: &str) -> Result<(), NameError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fine) {
        Ok(())
    } else {
        Err(NameError(shown(name)))
    }
}

/// `text` as a message shows it: quoted, [`printable`], and cut after [`MAX_NAME`] characters, which an ellipsis says. So a message fits a frame and a line of a
/// log, however long what a peer sent is.
pub fn shown(text: &str) -> String {
    let head: String = text.chars().take(MAX_NAME).collect();
    let more = if head.len() < text.len() { "..." } else { "" };
    format!("{:?}{more}", printable(&head))
}

/// `text` with everything that could steer a terminal replaced by `?`: for what others chose and people read.
pub fn printable(text: &str) -> String {
    // Control characters, and those that reorder or hide text (bidirectional marks, zero width).
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if hidden(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_printed_safely() {
        for good in ["a", "web:443", "A.b_c-9", &"x".repeat(64)] {
            check(good).unwrap();
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            let text = check(bad).unwrap_err().to_string();
            assert!(!text.contains('\n'), "{text}");
        }
        assert_eq!(shown("a \x1bb"), "\"a ?b\"");
        assert_eq!(shown(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
        assert_eq!(shown(&"x".repeat(65)), format!("\"{}\"...", "x".repeat(64)));
        assert!(shown(&"\"".repeat(60_000)).len() < 200);
        assert_eq!(printable("a\x1b[31m\u{202e}\u{9b}b"), "a?[31m??b");
    }
}
