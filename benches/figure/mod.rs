//! The figures: for each, how it is measured, and what evd's client does in it.

pub mod busy;
pub mod fds;
pub mod hoard;
pub mod idle;
pub mod memory;
pub mod park;
pub mod rounds;
pub mod sparse;
