//! Clients that do not read, that are gone though their socket is not, and workers that are stuck.

use crate::users::{as_user, is_root, let_in, socket_of_test};
use crate::wire::*;
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Done, Refused, StatusPage, Took};
use evd_proto::request::{Hold, Status, Subscribe, Sync, Take, Trigger};
use evd_proto::sys;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn bases(control: &mut Raw) -> Vec<String> {
    control.ask::<_, StatusPage>(&Status { after: 0 }).bases.into_iter().map(|b| b.name).collect()
}

/// Asks until evd takes no more, and reads nothing.
fn asks_and_does_not_read(c: &mut Raw) {
    let mut serial = 1_000_000;
    let mut unsent = 0;
    while unsent < 20 {
        let (socket, _, out) = c.channel.split();
        if out.len() < 60_000 {
            serial += 1;
            out.push(serial, &Sync {}).unwrap();
        } else if !out.flush(socket).unwrap() {
            unsent += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn who_does_not_read_his_answers_is_let_go_after_five_seconds_and_little_waits_for_ever() {
    let evd = Evd::start();
    for method in evd::backend::supported(false) {
        let mut asks = Raw::hello(&evd.path(), "asks", method);
        let mut waits = Raw::hello(&evd.path(), "waits", method);
        waits.ask::<_, Done>(&Subscribe { id: 0, name: "n".into() });
        let mut other = evd.control();
        // evd counts from later on.
        let start = Instant::now();
        asks_and_does_not_read(&mut asks);
        // Its socket becomes full of activations.
        let mut queued = 0;
        let fill = Instant::now();
        while queued < 100 {
            let t: evd_proto::reply::Triggered = other.ask(&Trigger { name: "n".into() });
            queued += t.queued;
            assert!(fill.elapsed() < PATIENCE);
        }
        // A few answers are no reason either: who is stopped just after he asked has no more.
        let (answer, asked) = (waits.send(&Sync {}), Instant::now());
        eventually("it is let go", || !bases(&mut other).contains(&"asks".to_owned()));
        assert!(start.elapsed() > Duration::from_secs(5), "{method}: after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_secs(7).saturating_sub(asked.elapsed()));
        assert!(bases(&mut other).contains(&"waits".to_owned()), "{method}: activations are no reason");
        // It finds all of them when it reads.
        waits.answer(answer).read::<Done>();
    }
}

#[test]
fn a_slow_reader_that_takes_a_little_now_and_then_stays() {
    let evd = Evd::start();
    let mut c = evd.client("slow");
    asks_and_does_not_read(&mut c);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        std::thread::sleep(Duration::from_millis(700));
        // About as much as makes the kernel take more.
        for _ in 0..1000 {
            assert!(c.next_or_end().is_some(), "it was let go");
        }
    }
}

#[test]
fn a_process_that_has_ended_is_gone_though_its_child_has_the_socket() {
    let evd = Evd::start();
    let (near, far) = UnixStream::pair().unwrap();
    for method in evd::backend::supported(false) {
        // A shell whose child keeps what it was given open, and which is the one that connects: this test's own connection can't end.
        let exe = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(exe)
            .args(["--exact", "readers::helper_forks", "--ignored", "--nocapture"])
            .env("EVD_TEST_SOCKET", evd.path())
            .env("EVD_TEST_METHOD", method)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut control = evd.control();
        assert!(child.wait().unwrap().success());
        eventually("its base is gone", || bases(&mut control).is_empty());
        // What it sent last counts.
        let serial = control.send(&Take { name: format!("last-{method}"), keep: false });
        assert_eq!(control.answer(serial).kind, Kind::Took);
    }
    drop((near, far));
}

#[test]
#[ignore = "run by others, in a process of its own"]
fn helper_forks() {
    let mut c = Raw::hello(&socket_of_test(), "parent", &std::env::var("EVD_TEST_METHOD").unwrap());
    c.sync();
    // SAFETY: the child only sleeps and exits.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: sleeps longer than anybody waits, then ends without running anything of the parent's.
        unsafe { libc::sleep(60) };
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    let (near, _far) = UnixStream::pair().unwrap();
    let name = format!("last-{}", std::env::var("EVD_TEST_METHOD").unwrap());
    c.send_fds(&Hold { name, attachment: vec![], ttl: 0, replace: false }, &[near.as_raw_fd()]);
    std::process::exit(0);
}

#[test]
fn one_fd_at_a_time_is_on_its_way_to_a_client() {
    let evd = Evd::start();
    let (near, _far) = UnixStream::pair().unwrap();
    let mut giver = evd.client("giver");
    let serial = giver.send_fds(
        &Hold { name: "h".into(), attachment: vec![], ttl: 0, replace: false },
        &[near.as_raw_fd()],
    );
    giver.answer(serial).read::<Done>();
    let mut never = evd.client("never");
    let first = never.send(&Take { name: "h".into(), keep: true });
    let serials: Vec<u64> = (0..300).map(|_| never.send(&Take { name: "h".into(), keep: true })).collect();
    assert_eq!(never.answer(first).read::<Took>().hold, 0);
    let refused = serials.iter().filter(|s| {
        let got = never.answer(**s);
        if got.kind == Kind::Refused {
            let why: Refused = got.read();
            assert_eq!((why.code, why.limit), (Code::Busy, 1), "{}", why.text);
        }
        got.kind == Kind::Refused
    });
    assert!(refused.count() > 100);
    // Whoever reads before he asks again gets one each time.
    for _ in 0..50 {
        let serial = never.send(&Take { name: "h".into(), keep: true });
        assert_eq!(never.answer(serial).kind, Kind::Took);
    }
}

/// Makes its worker hang: a connection that lingers is closed there, because the time of its hold is over.
fn block(c: &mut Raw, seconds: i32) -> (TcpListener, TcpStream) {
    let (listener, never_reads, lingers) = lingering(seconds);
    let hold = Hold { name: "lingers".into(), attachment: vec![], ttl: 100_000_000, replace: true };
    let serial = c.send_fds(&hold, &[lingers.as_fd().as_raw_fd()]);
    c.answer(serial).read::<Done>();
    // evd's is the last.
    drop(lingers);
    (listener, never_reads)
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_blocks_its_worker() {
    let mut c = Raw::hello(&socket_of_test(), "blocks", "");
    let _peer = block(&mut c, 8);
    // Who comes at first waits with the others; later he is told.
    eventually("it is stuck", || {
        std::thread::sleep(Duration::from_millis(100));
        let Ok(mut more) = std::panic::catch_unwind(|| Raw::connect(&socket_of_test())) else { return false };
        let mut look = [sys::PollFd::new(more.channel.as_fd().as_raw_fd(), What::READ)];
        sys::poll(&mut look, Some(Duration::from_millis(50))).unwrap();
        if look[0].ready().is_empty() {
            return false;
        }
        let text = more.is_ended_with(Code::Busy);
        assert!(text.contains("is stuck since"), "{text}");
        true
    });
    // And when it is over all is well.
    c.sync();
    Raw::hello(&socket_of_test(), "after", "").sync();
}

/// Whether a worker of this user is shown as stuck.
pub fn is_stuck(control: &mut Raw, uid: u32) -> bool {
    let page: StatusPage = control.ask(&Status { after: 0 });
    page.workers.iter().any(|w| w.uid == uid && w.busy > 2_000_000_000)
}

#[test]
fn a_stuck_worker_is_shown_and_others_go_on() {
    if !is_root() {
        return;
    }
    let evd = Evd::start_with(|c| {
        c.args(["--allow-uid", "4711"]);
    });
    let_in(&evd);
    let mut mine = evd.client("mine");
    let mut control = evd.control();
    let helper = as_user(4711, "readers::helper_blocks_its_worker", &evd.path());
    let stuck = |control: &mut Raw| is_stuck(control, 4711);
    eventually("it is shown", || stuck(&mut control));
    for _ in 0..20 {
        mine.sync();
        evd.serves();
    }
    assert!(stuck(&mut control), "what we did meanwhile did not wait for it");
    assert!(helper.succeeded());
    eventually("it is well again", || !stuck(&mut control));
}

#[test]
fn with_two_workers_a_stuck_one_gets_no_new_connections() {
    let evd = Evd::start_with(|c| {
        c.args(["--workers-per-uid", "2"]);
    });
    let mut c = evd.client("blocks");
    let blocked = c.welcome.as_ref().unwrap().tid;
    let _peer = block(&mut c, 6);
    let mut control = evd.control();
    eventually("it is stuck", || {
        let page: StatusPage = control.ask(&Status { after: 0 });
        page.workers.iter().any(|w| w.tid == blocked && w.busy > 2_000_000_000)
    });
    let all: Vec<Raw> = (0..10).map(|_| evd.client("new")).collect();
    assert!(all.iter().all(|c| c.welcome.as_ref().unwrap().tid != blocked));
    drop(all);
    c.sync();
}
