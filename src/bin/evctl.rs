//! evctl.
fn main() {}
