//! The floors: the same work by plain system calls, with as many processes, no protocol and no safety of any kind.

pub mod calls;
pub mod echo;
pub mod park;
pub mod relay;
pub mod rounds;
