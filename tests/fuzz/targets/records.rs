//! What an evd that starts reads of what an earlier one has written down about held fds.

use super::script::Script;
use evd::server::probe::{read_records, records_entry, records_head};

/// Anything is read without harm: names are names, and each is there once; what was whole before a write that was torn stays.
pub fn records(data: &[u8]) {
    let _ = read_records(data);
    let mut script = Script(data);
    let mut log = records_head(7);
    while !script.is_over() {
        let whole = log.len();
        let before = read_records(&log).expect("the head is right");
        match script.below(8) {
            0 => log.extend_from_slice(script.bytes(255)),
            1 => records_entry(&mut log, script.bytes(255)),
            2 => {
                let mut body = vec![2];
                body.extend_from_slice(&u64::from(script.byte() % 8).to_le_bytes());
                records_entry(&mut log, &body);
            }
            _ => {
                let mut body = vec![1];
                body.extend_from_slice(&u64::from(script.byte() % 8).to_le_bytes());
                body.extend_from_slice(&(script.number() as u32).to_le_bytes());
                body.extend_from_slice(&script.number().to_le_bytes());
                body.extend_from_slice(&script.number().to_le_bytes());
                body.extend_from_slice(&1i32.to_le_bytes());
                for text in [script.name(), script.text(40)] {
                    body.push(text.len() as u8);
                    body.extend_from_slice(text.as_bytes());
                }
                body.extend_from_slice(script.bytes(255));
                records_entry(&mut log, &body);
            }
        }
        let (uid, live) = read_records(&log).expect("the head is right");
        assert_eq!(uid, 7);
        for (at, (_, name, _)) in live.iter().enumerate() {
            assert!(evd_proto::name::check(name).is_ok(), "{name:?} is no name");
            assert!(live[..at].iter().all(|other| other.1 != *name), "{name:?} is there twice");
        }
        // The same, torn anywhere in what was written last.
        let cut = whole + usize::from(script.byte()) % (log.len() - whole + 1);
        let torn = read_records(&log[..cut]).expect("the head is right");
        assert!(cut == log.len() || torn == before, "a write that was torn changed what was before it");
    }
}
