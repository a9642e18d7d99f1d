//! Clients in processes of their own: what they do.

use crate::process::play;
use crate::script;

#[test]
#[ignore = "a part that other tests start in a process of its own"]
fn role() {
    play(&[("session", script::session)]);
}
