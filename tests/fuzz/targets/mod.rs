//! What is fuzzed: each target takes any bytes, and panics where evd does something that it must never do.
//!
//! The fuzzer runs these functions (`fuzz_targets`), and so does `cargo test` over the inputs that were kept (`tests/corpus.rs`). The bytes are read as a script by
//! `Script`, so that few of them say much, and a change of one byte is a small change.

mod bodies;
mod evd;
mod frames;
mod listen;
mod printed;
mod records;
mod script;

pub use bodies::bodies;
pub use evd::{handshake, session};
pub use frames::frames;
pub use listen::listen;
pub use printed::printed;
pub use records::records;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const ALL: [(&str, Target); 7] = [
    ("frames", frames),
    ("bodies", bodies),
    ("handshake", handshake),
    ("session", session),
    ("listen", listen),
    ("printed", printed),
    ("records", records),
];
