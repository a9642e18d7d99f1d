//! Held fds outlive evd in systemd's own fd store: two entries a user, however many he holds.

use crate::lab::{BOB, Lab, said};
use crate::parts::eventually;
use evd_proto::sys;
use serde_json::Value;

const UNIT: &str = "evd.service";

fn held(lab: &Lab) -> Vec<(String, u64)> {
    let all: Value = serde_json::from_str(&lab.run(&["evctl", "fd", "ls", "--json"])).unwrap();
    let one = |h: &Value| (h["name"].as_str().unwrap().to_owned(), h["attachment_bytes"].as_u64().unwrap());
    all["holds"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn what_is_held_outlives_kills_and_restarts_and_is_stored_as_two_fds_a_user() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    lab.run(&["systemctl", "enable", "--now", "evd.socket", UNIT]);
    let stored = || lab.show(UNIT, "NFileDescriptorStore");
    assert_eq!(stored(), "1", "the count of starts");
    let put = |name: &str| format!("evctl fd put {name} --attachment of:{name} 3</etc/passwd");
    let all: Vec<String> = (10..40).map(|n| put(&format!("n:{n}"))).collect();
    lab.run(&["sh", "-ec", &all.join("\n")]);
    assert_eq!(stored(), "3");
    let mut bob = lab.command_as(BOB, lab.group("evd"), &[], "sh");
    said(bob.args(["-ec", &put("bobs")]));
    assert_eq!(stored(), "5");
    let expected: Vec<(String, u64)> = (10..40).map(|n| (format!("n:{n}"), 7)).collect();
    assert_eq!(held(&lab), expected);
    for round in 0..12 {
        let old = lab.evd_pid().unwrap();
        if round % 3 == 2 {
            lab.run(&["systemctl", "restart", UNIT]);
        } else {
            sys::send_signal(old, libc::SIGKILL).unwrap();
        }
        eventually("another evd is there", || lab.evd_pid().is_some_and(|pid| pid != old));
        lab.run(&["evctl", "wait"]);
        assert_eq!(held(&lab), expected, "round {round}");
        eventually("nothing of the old one is stored", || stored() == "5");
    }
    let bobs = said(lab.command_as(BOB, lab.group("evd"), &[], "evctl").args(["fd", "ls"]));
    assert!(bobs.contains("bobs") && !bobs.contains("n:10"), "{bobs}");
    // What comes out is what went in.
    let text = lab.run(&["evctl", "fd", "exec", "n:10=file", "--", "sh", "-c", "head -c 5 <&3"]);
    assert_eq!(text, "root:");
    let all: Vec<String> = (11..40).map(|n| format!("evctl fd rm n:{n}")).collect();
    lab.run(&["sh", "-ec", &all.join("\n")]);
    eventually("nothing is stored but bob's", || stored() == "3");
    assert!(lab.run(&["evctl", "status", "--json"]).contains("\"holds_survive_evd\": true"));
}

#[test]
fn who_finds_the_store_full_is_told_and_costs_the_others_nothing() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    // The count of starts, one user's parcel, and evd's look whether there is room.
    lab.write("/etc/systemd/system/evd.service.d/small.conf", "[Service]\nFileDescriptorStoreMax=4\n");
    lab.run(&["systemctl", "daemon-reload"]);
    lab.run(&["systemctl", "enable", "--now", "evd.socket", UNIT]);
    let stored = || lab.show(UNIT, "NFileDescriptorStore");
    lab.run(&["sh", "-c", "evctl fd put ours 3</etc/passwd"]);
    assert_eq!(stored(), "3");
    for _ in 0..3 {
        let mut bob = lab.command_as(BOB, lab.group("evd"), &[], "sh");
        let out = bob.args(["-c", "evctl fd put bobs 3</etc/passwd"]).output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && text.contains("store"), "{text}");
        let list = said(lab.command_as(BOB, lab.group("evd"), &[], "evctl").args(["fd", "ls", "--json"]));
        assert!(!list.contains("bobs"), "what was refused is not held: {list}");
        eventually("nothing of it is stored", || stored() == "3");
    }
    // There is no room for a new parcel beside the old one: what is let go stays gone all the same, and what is held survives.
    lab.run(&["sh", "-c", "evctl fd put gone 3</etc/passwd; evctl fd rm gone"]);
    let old = lab.evd_pid().unwrap();
    sys::send_signal(old, libc::SIGKILL).unwrap();
    eventually("another evd is there", || lab.evd_pid().is_some_and(|pid| pid != old));
    lab.run(&["evctl", "wait"]);
    assert_eq!(held(&lab), [("ours".to_owned(), 0)]);
    // Without a store at all holds are held, and the status says that they are mortal.
    lab.write("/etc/systemd/system/evd.service.d/small.conf", "[Service]\nFileDescriptorStoreMax=0\n");
    lab.run(&["systemctl", "daemon-reload"]);
    lab.run(&["systemctl", "restart", UNIT]);
    lab.run(&["sh", "-c", "evctl wait && evctl fd put mortal 3</etc/passwd"]);
    let status = lab.run(&["evctl", "status"]);
    assert!(status.contains("they do not survive evd: the service manager stores no fds"), "{status}");
    assert!(lab.show(UNIT, "StatusText").contains("holds do not survive evd"));
}

#[test]
fn a_stop_and_start_keeps_what_is_held_where_systemd_can() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    let version = lab.run(&["systemctl", "--version"]);
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/preserve.conf");
    lab.install(&source, "/etc/systemd/system/evd.service.d/preserve.conf");
    lab.run(&["systemctl", "enable", "--now", "evd.socket", UNIT]);
    lab.run(&["sh", "-c", "evctl fd put ours 3</etc/passwd"]);
    lab.run(&["systemctl", "stop", UNIT]);
    lab.run(&["systemctl", "start", UNIT]);
    lab.run(&["evctl", "wait"]);
    let expected: &[(String, u64)] = &[("ours".to_owned(), 0)];
    // An older one takes no notice of the setting: then they go, and with them all that is stored.
    assert_eq!(held(&lab), if version >= 254 { expected } else { &[] });
    assert_eq!(lab.show(UNIT, "NFileDescriptorStore"), if version >= 254 { "3" } else { "1" });
}
