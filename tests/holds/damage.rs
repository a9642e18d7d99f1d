//! What an earlier evd has left is damaged, of another version, or more than there is room for: it is said, and costs nothing else.

use crate::kept::*;
use crate::wire::{Got, eventually, limit_files};
use evd_proto::reply::{Code, Done, Refused, Took};
use evd_proto::request::{Drop as DropHold, ListHolds, Take, TakeAll};
use evd_proto::sys;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const OTHER: u32 = 61_234;

fn is_root() -> bool {
    let root = sys::effective_ids().0 == 0;
    if !root {
        println!("skipped: only root can be somebody else");
    }
    root
}

fn lets_others_in(c: &mut std::process::Command) {
    c.args(["--allow-uid", &OTHER.to_string()]);
}

/// A session of another user, who holds `name`.
fn others(keeper: &Keeper, name: &str) -> Thing {
    let (fd, thing) = thing(0, name);
    let mut raw = keeper.session_of(OTHER);
    ask(&mut raw, &hold(name, b"of another", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    thing
}

/// Holds `count` things of root.
fn put(keeper: &Keeper, count: usize) -> Vec<Thing> {
    let mut raw = keeper.session();
    let one = |n: usize| {
        let (fd, thing) = thing(0, "x");
        let body = hold(&format!("n:{n:03}"), b"attached", 0, false);
        ask(&mut raw, &body, &[fd.as_raw_fd()]).unwrap().read::<Done>();
        thing
    };
    (0..count).map(one).collect()
}

fn names(keeper: &Keeper) -> Vec<String> {
    list(&mut keeper.session()).unwrap().into_iter().map(|h| h.name).collect()
}

#[test]
fn damaged_records_are_left_out_with_a_word_and_cost_nothing_else() {
    if !is_root() {
        return;
    }
    // What is done to root's records, what is said of it, and how many of root's three holds are left.
    type Damage = fn(&std::fs::File);
    let cases: [(&str, Damage, usize); 6] = [
        ("its records are damaged", |f| f.write_all_at(b"X", 0).unwrap(), 0),
        ("its records are damaged", |f| f.write_all_at(b"XX", 16).unwrap(), 0),
        ("its records are damaged", |f| f.set_len(0).unwrap(), 0),
        ("version 9, and this evd knows 1 and older", |f| f.write_all_at(&[9, 0], 4).unwrap(), 0),
        (
            "end early: the last change is left out",
            |f| f.set_len(f.metadata().unwrap().len() - 1).unwrap(),
            2,
        ),
        (
            "end early: the last change is left out",
            |f| {
                let len = f.metadata().unwrap().len();
                f.write_all_at(b"?", len - 3).unwrap();
            },
            2,
        ),
    ];
    for (text, damage, left) in cases {
        let keeper = Keeper::start_with(lets_others_in);
        let rest = keeper.fds();
        let theirs = others(&keeper, "theirs");
        let ours = put(&keeper, 3);
        let logs = keeper.stored_files("evd-holds");
        let of_root = |f: &&std::fs::File| {
            let mut uid = [0; 4];
            f.read_exact_at(&mut uid, 8).unwrap();
            uid == [0; 4]
        };
        damage(logs.iter().find(of_root).unwrap());
        keeper.kill();
        assert_eq!(names(&keeper).len(), left, "{text}");
        assert!(keeper.log().contains(text), "{text}");
        eventually("what is not held is closed", || ours.iter().filter(|t| t.is_open()).count() == left);
        // The other user's are all there, and root can hold again, and that outlives evd.
        let mut raw = keeper.session_of(OTHER);
        let mut got = ask(&mut raw, &Take { name: "theirs".into(), keep: true }, &[]).unwrap();
        let fd = got.fds.pop().unwrap();
        assert_eq!(got.read::<Took>().attachment, b"of another");
        theirs.check(fd, "theirs");
        ask(&mut raw, &DropHold { name: "theirs".into() }, &[]).unwrap().read::<Done>();
        drop(raw);
        let (fd, again) = thing(0, "again");
        let mut raw = keeper.session();
        ask(&mut raw, &hold("z", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
        drop((raw, fd));
        keeper.kill();
        assert_eq!(names(&keeper).len(), left + 1);
        assert!(again.is_open());
        let mut raw = keeper.session();
        for name in names(&keeper) {
            ask(&mut raw, &DropHold { name }, &[]).unwrap().read::<Done>();
        }
        drop(raw);
        eventually("nothing is left", || keeper.fds() == rest);
    }
}

#[test]
fn what_there_are_no_fds_for_stays_stored_until_there_are() {
    let keeper = Keeper::start_replaceable(|c| limit_files(c, 2000));
    let things = put(&keeper, 600);
    // The next evd may open fewer than it inherits.
    keeper.replace("ulimit -n 300");
    keeper.kill();
    let take = Take { name: "n:007".into(), keep: true };
    for _ in 0..2 {
        let mut raw = keeper.session();
        let refused = |got: Option<Got>| {
            let why: Refused = got.unwrap().read();
            assert_eq!(why.code, Code::OutOfFds, "{}", why.text);
        };
        refused(ask(&mut raw, &take, &[]));
        refused(ask(&mut raw, &TakeAll { prefix: "n:".into() }, &[]));
        refused(ask(&mut raw, &ListHolds { after: String::new() }, &[]));
        refused(ask(&mut raw, &DropHold { name: "n:007".into() }, &[]));
        let (fd, _far) = thing(0, "x");
        refused(ask(&mut raw, &hold("new", b"", 0, true), &[fd.as_raw_fd()]));
        drop(raw);
        assert!(keeper.log().contains("can't be read now"), "it is said");
        keeper.kill();
    }
    assert!(things.iter().all(Thing::is_open));
    keeper.replace("");
    keeper.kill();
    assert_eq!(names(&keeper).len(), 600);
    assert!(things.iter().all(Thing::is_open));
}

#[test]
fn an_evd_that_comes_to_nothing_again_and_again_goes_on_without_what_it_reads() {
    if !is_root() {
        return;
    }
    for (starts, text) in [(5, "WITHOUT the newest"), (10, "WITHOUT any")] {
        let keeper = Keeper::start_with(lets_others_in);
        let rest = keeper.fds();
        let ours = put(&keeper, 2);
        let theirs = others(&keeper, "theirs");
        // Of so many starts just now nothing has come.
        eventually("it is sure of itself", || keeper.is_settled());
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&(starts as u32).to_le_bytes());
        (0..starts).for_each(|_| bytes.extend_from_slice(&sys::monotonic_ns().to_le_bytes()));
        let sum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        keeper.stored_files("evd-starts")[0].write_all_at(&bytes, 0).unwrap();
        keeper.kill();
        assert!(keeper.log().contains(text), "{text}");
        // The newest parcel is that of the other user.
        assert_eq!(names(&keeper).len(), if starts == 5 { 2 } else { 0 });
        assert!(list(&mut keeper.session_of(OTHER)).unwrap().is_empty());
        eventually("it is closed", || !theirs.is_open());
        if starts == 10 {
            eventually("all are closed, and nothing is stored", || keeper.fds() == rest);
        }
        // And that start was a good one.
        let open = ours.iter().filter(|t| t.is_open()).count();
        eventually("it is sure of itself", || keeper.is_settled());
        keeper.kill();
        assert_eq!(names(&keeper).len(), open);
    }
}

/// Files of the keeper: for tests that look behind it.
trait Files {
    fn stored_files(&self, name: &str) -> Vec<std::fs::File>;
}

impl Files for Keeper {
    fn stored_files(&self, name: &str) -> Vec<std::fs::File> {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        let is_it = |path: &std::path::PathBuf| {
            std::fs::read_link(path).is_ok_and(|l| l.to_string_lossy().contains(name))
        };
        let paths = all.flatten().map(|e| e.path()).filter(is_it);
        paths.map(|path| OpenOptions::new().read(true).write(true).open(path).unwrap()).collect()
    }
}
