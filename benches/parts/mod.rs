//! What the figures share: processes in roles, places to run, statistics, the table.

mod evd;
mod place;
mod process;
mod stats;
pub mod table;

pub use self::evd::{Evd, slept};
pub use place::{Placement, on_core, placements};
pub use process::{Control, Kind, Process, Role, run_role, while_stopped};
pub use stats::{Rounds, Samples};
pub use table::Table;

use std::error::Error;

pub type Outcome = Result<(), Box<dyn Error>>;

/// Nanoseconds of the clock that all processes share.
pub fn now() -> u64 {
    evd_proto::sys::monotonic_ns()
}
