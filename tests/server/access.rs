//! Who may do what: four roles, all verbs. And what is logged of it.

use crate::users::{as_member, as_user, is_root, let_in, socket_of_test};
use crate::wire::*;
use evd_proto::frame::{Body, Kind};
use evd_proto::notice::Trace;
use evd_proto::reply::{Code, Done, EventsPage, Holds, StatusPage, Took, Triggered};
use evd_proto::request::{
    Drop as DropHold, Events, Follow, Hello, Hold, ListHolds, Role, Selector, Status, Subscribe, Take, Taken,
    Trigger,
};
use evd_proto::sys;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

const USER: u32 = 4711;
const ADMIN: u32 = 4712;
const ADMINS: u32 = 4800;
const STRANGER: u32 = 4713;

/// What evd logs goes to this file.
fn logs_to(c: &mut std::process::Command, path: &Path) {
    c.env("EVD_LOG_LEVEL", "info").stderr(Stdio::from(std::fs::File::create(path).unwrap()));
}

fn is_refused<B: Body>(c: &mut Raw, body: &B, code: Code) {
    let serial = c.send(body);
    assert_eq!(c.refused(serial).code, code);
}

/// All verbs, as somebody who is not root: what is root's is there for him or it is not, and his own is.
fn all_verbs(sees_all: bool) {
    let socket = socket_of_test();
    let mut base = Raw::hello(&socket, "own", "");
    base.ask::<_, Done>(&Subscribe { id: 0, name: "own".into() });
    let mut c = Raw::connect(&socket);
    c.greet(&Hello { role: Role::Control, ..hello("ctl", "") });
    let roots = || Selector::Name("roots".into());

    // Nobody but root has what root holds, or triggers what root named.
    assert!(c.ask::<_, Holds>(&ListHolds { after: String::new() }).holds.is_empty());
    is_refused(&mut c, &Trigger { name: "roots".into() }, Code::Unknown);
    is_refused(&mut c, &Take { name: "roots".into(), keep: true }, Code::Unknown);
    is_refused(&mut c, &Take { name: "roots".into(), keep: false }, Code::Unknown);
    is_refused(&mut c, &DropHold { name: "roots".into() }, Code::Unknown);
    c.send(&Taken { hold: 1 });

    // What is one's own.
    assert_eq!(c.ask::<_, Triggered>(&Trigger { name: "own".into() }).reached, 1);
    let (near, _far) = UnixStream::pair().unwrap();
    let hold = Hold { name: "roots".into(), attachment: vec![], ttl: 0, replace: true };
    let serial = c.send_fds(&hold, &[near.as_raw_fd()]);
    c.answer(serial).read::<Done>();
    let list = c.ask::<_, Holds>(&ListHolds { after: String::new() });
    assert_eq!(list.holds.len(), 1, "the same name, and another hold");
    let serial = c.send(&Take { name: "roots".into(), keep: true });
    c.answer(serial).read::<Took>();
    c.ask::<_, Done>(&DropHold { name: "roots".into() });

    // What may be looked at.
    let page: StatusPage = c.ask(&Status { after: 0 });
    let has = |name: &str| page.bases.iter().find(|b| b.name == name).map(|b| b.id);
    let uids: Vec<u32> = page.accounts.iter().map(|a| a.uid).collect();
    let workers: Vec<u32> = page.workers.iter().map(|w| w.uid).collect();
    assert!(has("own").is_some());
    assert_eq!(
        (has("roots").is_some(), uids.contains(&0), workers.contains(&0)),
        (sees_all, sees_all, sees_all)
    );
    // Ids are small numbers: who guesses one learns nothing.
    for id in 1..20 {
        let own = has("own") == Some(id);
        let serial = c.send(&Events { base: Selector::Id(id), from: (0, 0) });
        let got = c.answer(serial);
        assert!(got.kind == Kind::Refused || own || sees_all, "base {id}");
    }
    let serial = c.send(&Events { base: roots(), from: (0, 0) });
    let got = c.answer(serial);
    if sees_all {
        assert_eq!(got.read::<EventsPage>().names[0].name, "roots");
    } else {
        assert_eq!(got.kind, Kind::Refused);
    }
    let serial = c.send(&Follow { base: Some(roots()) });
    assert_eq!(c.answer(serial).kind, if sees_all { Kind::Done } else { Kind::Refused });
    c.ask::<_, Done>(&Follow { base: None });

    // Root's base is active again and again; so is this one.
    let (mut own, mut others) = (0, 0);
    eventually("what is to be seen has been seen", || {
        for _ in 0..50 {
            assert_eq!(base.ask::<_, Triggered>(&Trigger { name: "own".into() }).reached, 1);
        }
        let serial = c.send(&evd_proto::request::Sync {});
        loop {
            let got = c.next();
            match got.kind {
                Kind::Trace if got.read::<Trace>().name == "own" => own += 1,
                Kind::Trace => others += 1,
                _ if got.serial == serial => break,
                _ => {}
            }
        }
        own > 0 && (others > 0 || !sees_all)
    });
    assert!(own > 0);
    assert_eq!(others > 0, sees_all);
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_user() {
    all_verbs(false);
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_admin() {
    all_verbs(true);
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_stranger() {
    for _ in 0..200 {
        let mut c = Raw::connect(&socket_of_test());
        c.is_ended_with(Code::NotAllowed);
    }
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_welcome() {
    Raw::hello(&socket_of_test(), "somebody", "").sync();
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_overflow() {
    let mut c = Raw::connect(&socket_of_test());
    let text = c.is_ended_with(Code::NotAllowed);
    assert!(text.contains("--allow-overflow-uid"), "{text}");
}

#[test]
fn each_role_does_what_it_may_and_who_looks_at_others_is_logged() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    let log = dir.0.join("log");
    let evd = Evd::start_with(|c| {
        c.args(["--allow-uid", &USER.to_string(), "--admin-gid", &ADMINS.to_string()]);
        logs_to(c, &log);
    });
    let_in(&evd);
    let mut base = evd.client("roots");
    base.ask::<_, Done>(&Subscribe { id: 0, name: "roots".into() });
    let (near, _far) = UnixStream::pair().unwrap();
    let hold = Hold { name: "roots".into(), attachment: vec![], ttl: 0, replace: false };
    let serial = base.send_fds(&hold, &[near.as_raw_fd()]);
    base.answer(serial).read::<Done>();
    let mut helpers = vec![
        as_user(USER, "access::helper_user", &evd.path()),
        // By a supplementary group, and by the main one.
        as_member(ADMIN, ADMIN, &[1, ADMINS], "access::helper_admin", &evd.path()),
        as_member(ADMIN + 100, ADMINS, &[], "access::helper_admin", &evd.path()),
        as_user(STRANGER, "access::helper_stranger", &evd.path()),
    ];
    // Its activations are what they see, or don't.
    eventually("they have ended", || {
        let serial = base.send(&Trigger { name: "roots".into() });
        while base.next().serial != serial {}
        helpers.iter_mut().all(|h| h.has_ended())
    });
    for helper in helpers {
        assert!(helper.succeeded());
    }
    let list: Holds = base.ask(&ListHolds { after: String::new() });
    assert_eq!(list.holds.len(), 1, "what root holds is still there");

    let text = std::fs::read_to_string(&log).unwrap();
    let lines = |word: &str| text.lines().filter(|l| l.contains(word)).count();
    for admin in [ADMIN, ADMIN + 100] {
        assert!(lines(&format!("of user {admin} looks at user 0")) >= 2, "{text}");
        assert_eq!(lines(&format!("of user {admin} follows all users")), 1, "{text}");
    }
    assert_eq!(lines(&format!("of user {USER} looks")), 0, "{text}");
    // Somebody who is refused again and again does not fill the log.
    let refused = lines("refused process");
    assert!((20..40).contains(&refused), "{refused} lines of one user: {text}");
    evd.signal(libc::SIGTERM);
    let mut evd = evd;
    evd.child.wait().unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    let dropped = |l: &str| {
        Some(
            l.strip_suffix(&format!(" lines that user {STRANGER} caused were dropped"))?
                .rsplit_once(' ')?
                .1
                .parse::<usize>()
                .unwrap(),
        )
    };
    let dropped: usize = text.lines().filter_map(dropped).sum();
    assert_eq!(dropped + refused, 200, "each line is there or counted: {text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn members_of_a_group_are_let_in_by_any_of_their_groups() {
    if !is_root() {
        return;
    }
    let evd = Evd::start_with(|c| {
        c.args(["--allow-gid", "4900"]);
    });
    let_in(&evd);
    // The file's group is the only one that is allowed.
    assert!(as_member(5001, 5001, &[4900], "access::helper_welcome", &evd.path()).succeeded());
    assert!(as_member(5001, 4900, &[], "access::helper_welcome", &evd.path()).succeeded());
}

#[test]
fn those_whom_no_namespace_knows_are_refused_unless_it_is_said() {
    if !is_root() {
        return;
    }
    let overflow = sys::overflow_uid();
    for (flag, helper) in [(false, "access::helper_overflow"), (true, "access::helper_welcome")] {
        let evd = Evd::start_with(|c| {
            c.args(["--allow-uid", &overflow.to_string()]);
            if flag {
                c.arg("--allow-overflow-uid");
            }
        });
        let_in(&evd);
        assert!(as_user(overflow, helper, &evd.path()).succeeded());
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let (read, write) = UnixStream::pair().unwrap();
    let evd = Evd::start_with(|c| {
        c.env("EVD_LOG_LEVEL", "debug").stderr(Stdio::from(std::os::fd::OwnedFd::from(write)));
    });
    // Each session causes lines: far more than a socket takes.
    for i in 0..3000 {
        let mut c = evd.client(&"n".repeat(64));
        if i % 100 == 0 {
            c.sync();
        }
    }
    evd.serves();
    drop(read);
}
