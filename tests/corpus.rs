//! The inputs that the fuzzer found worth keeping, and those that once failed, through the functions that it fuzzes.
//!
//! See `tests/fuzz/README.md`. One test, so that nothing else runs in this process: a target sets environment variables and fd numbers.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn what_was_kept_is_fine() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut bytes = 0;
    for (name, target) in targets::ALL {
        let mut inputs: Vec<_> =
            fs::read_dir(corpora.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 5, "{name} has a corpus of {}", inputs.len());
        for input in &inputs {
            let data = fs::read(input).unwrap();
            bytes += data.len();
            if let Err(why) = std::panic::catch_unwind(|| target(&data)) {
                eprintln!("{} fails", input.display());
                std::panic::resume_unwind(why);
            }
        }
        println!("{name}: {} inputs", inputs.len());
        // None is empty, and any other is what it is.
        target(&[]);
    }
    assert!(bytes < 300 * 1024, "the corpora have {bytes} bytes");
}
