//! Why something that a client asked for is not done, as it is told.

use super::books::Over;
use evd_proto::reply::Code;
use std::io;

/// A refusal without the request it is of.
#[derive(Debug)]
pub struct Refusal {
    /// Its kind.
    pub code: Code,
    /// The limit, where it is about one; else 0.
    pub limit: u64,
    /// What is over the limit, or the system's error number; else 0.
    pub value: u64,
    /// For people.
    pub text: String,
}

impl Refusal {
    /// One without numbers.
    pub fn new(code: Code, text: String) -> Refusal {
        Refusal { code, limit: 0, value: 0, text }
    }

    /// The system refused it, with `e`; `text` says what.
    pub fn system(e: &io::Error, text: String) -> Refusal {
        let value = e.raw_os_error().unwrap_or(0) as u64;
        Refusal { value, ..Refusal::new(Code::System, text) }
    }
}

impl From<Over> for Refusal {
    fn from(over: Over) -> Refusal {
        let (limit, value) = (over.limit, over.used);
        Refusal { code: Code::Limit, limit, value, text: over.to_string() }
    }
}
