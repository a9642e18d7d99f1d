//! Starting, being refused, running short, stopping.

use crate::wire::*;
use evd_proto::frame::Kind;
use evd_proto::notice::Closing;
use evd_proto::reply::{Code, StatusPage, Triggered};
use evd_proto::request::{Status, Subscribe, Trigger};
use evd_proto::sys;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

#[test]
fn sigterm_and_sigint_end_it_in_order() {
    for signo in [libc::SIGTERM, libc::SIGINT] {
        let mut evd = Evd::start();
        let mut all: Vec<_> =
            evd::backend::supported(false).iter().map(|m| Raw::hello(&evd.path(), "one", m)).collect();
        let mut silent = Raw::connect(&evd.path());
        evd.signal(signo);
        for c in &mut all {
            c.next().read::<Closing>();
            assert!(c.next_or_end().is_none());
        }
        // It may have been accepted or still have waited.
        if let Some(got) = silent.next_or_end() {
            assert_eq!(got.kind, Kind::Refused);
        }
        assert!(evd.child.wait().unwrap().success());
        assert!(!evd.path().exists());
    }
}

#[test]
fn what_is_wrong_with_the_socket_is_said_in_one_line() {
    let evd = Evd::start();
    let dir = &evd.dir.0;
    let live = outcome(command(&evd.path()));
    assert_eq!(live.0, Some(75), "{}", live.1);
    assert!(live.1.contains("another evd serves"), "{}", live.1);
    let long = dir.join("x".repeat(120));
    let missing = dir.join("not/there");
    let file = dir.join("file");
    std::fs::write(&file, "").unwrap();
    for (path, word) in [(&long, "shorter path"), (&missing, "does not exist"), (&file, "not a socket")] {
        let (code, text) = outcome(command(path));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(word) && text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let mut usage = command(&file);
    usage.args(["--allow-uid", "nobody-by-name"]);
    let (code, text) = outcome(usage);
    assert_eq!(code, Some(2), "{text}");
    evd.serves();
}

#[test]
fn only_the_owner_may_connect_unless_others_are_allowed() {
    let mode = |evd: &Evd| std::fs::metadata(evd.path()).unwrap().permissions().mode() & 0o777;
    let evd = Evd::start();
    assert_eq!(mode(&evd), 0o600);
    let uid = Evd::start_with(|c| {
        c.args(["--allow-uid", "4711"]);
    });
    assert_eq!(mode(&uid), 0o666);
    let own = sys::effective_ids().1;
    let gid = Evd::start_with(|c| {
        c.arg("--allow-gid").arg(own.to_string());
    });
    assert_eq!(mode(&gid), 0o660);
    assert_eq!(std::fs::metadata(gid.path()).unwrap().gid(), own);
}

#[test]
fn a_stale_socket_is_replaced() {
    let dir = Dir::new();
    drop(std::os::unix::net::UnixListener::bind(dir.socket()).unwrap());
    let mut child = command(&dir.socket()).spawn().unwrap();
    eventually("it listens", || sys::connect(&dir.socket()).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(dir.socket().exists(), "killed: nobody removed it");
    let mut next = command(&dir.socket()).spawn().unwrap();
    eventually("its successor listens", || sys::connect(&dir.socket()).is_ok());
    next.kill().unwrap();
    next.wait().unwrap();
}

/// Runs one of the ignored tests below in a process of another user.
fn as_user(uid: u32, test: &str, socket: &std::path::Path) -> bool {
    let exe = std::env::current_exe().unwrap();
    // The test binary may lie where others can't read it.
    let copy = std::env::temp_dir().join(format!("evd-test-as-{}-{uid}", std::process::id()));
    std::fs::copy(exe, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut c = std::process::Command::new(&copy);
    c.args(["--exact", test, "--ignored"]).env("EVD_TEST_SOCKET", socket).uid(uid).gid(uid).current_dir("/");
    let ok = c.output().unwrap().status.success();
    std::fs::remove_file(copy).unwrap();
    ok
}

fn socket_of_test() -> std::path::PathBuf {
    std::env::var_os("EVD_TEST_SOCKET").expect("run by another test").into()
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_is_welcome_and_sees_only_its_own() {
    let mut c = Raw::hello(&socket_of_test(), "other", "");
    c.ask::<_, evd_proto::reply::Done>(&Subscribe { id: 0, name: "mine".into() });
    let mut control = Raw::connect(&socket_of_test());
    control.greet(&evd_proto::request::Hello { role: evd_proto::request::Role::Control, ..hello("c", "") });
    let page: StatusPage = control.ask(&Status { after: 0 });
    let names: Vec<_> = page.bases.iter().map(|b| b.name.as_str()).collect();
    assert_eq!((names, page.workers.len(), page.names), (vec!["other"], 1, 1));
    let t: Triggered = control.ask(&Trigger { name: "mine".into() });
    assert_eq!(t.reached, 1);
    let serial = control.send(&Trigger { name: "roots".into() });
    assert_eq!(control.refused(serial).code, Code::Unknown);
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_is_not_allowed() {
    let mut c = Raw::connect(&socket_of_test());
    let text = c.is_ended_with(Code::NotAllowed);
    assert!(text.contains("--allow-uid"), "{text}");
}

#[test]
fn other_users_are_served_apart_or_refused() {
    if sys::effective_ids().0 != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    let evd = Evd::start_with(|c| {
        c.args(["--allow-uid", "4711"]);
    });
    std::fs::set_permissions(&evd.dir.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut mine = evd.client("mine");
    mine.ask::<_, evd_proto::reply::Done>(&Subscribe { id: 0, name: "roots".into() });
    assert!(as_user(4711, "life::helper_is_welcome_and_sees_only_its_own", &evd.path()));
    assert!(as_user(4712, "life::helper_is_not_allowed", &evd.path()));
    evd.serves();
}

#[test]
fn out_of_fds_is_said_and_passes() {
    let evd = Evd::start_with(|c| {
        let limit = || {
            let lim = libc::rlimit { rlim_cur: 40, rlim_max: 40 };
            // SAFETY: `lim` is live for the call.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &lim) };
            Ok(())
        };
        // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe.
        unsafe { c.pre_exec(limit) };
    });
    let mut first = evd.client("first");
    let mut others = Vec::new();
    let mut refused = 0;
    while refused < 3 {
        let mut c = Raw::connect(&evd.path());
        c.send(&hello("many", ""));
        let got = c.next();
        if got.kind == Kind::Refused {
            assert_eq!(got.read::<evd_proto::reply::Refused>().code, Code::OutOfFds);
            refused += 1;
        } else {
            others.push(c);
        }
        assert!(first.sync().is_empty());
    }
    assert!(others.len() > 3);
    // A frame whose fds do not fit ends its session, and gives all of them back.
    let (r, _w) = sys::pipe().unwrap();
    let mut lost = others.pop().unwrap();
    let watches: Vec<_> = (0..30).map(|i| (i, 1, evd_proto::What::READ)).collect();
    lost.arm(&watches, &[r.as_raw_fd(); 30]);
    lost.is_ended_with(Code::FdsLost);
    drop((others, lost));
    eventually("it accepts again", || {
        let mut c = Raw::connect(&evd.path());
        c.send(&hello("again", ""));
        c.next().kind == Kind::Welcome
    });
    assert!(first.sync().is_empty());
}

#[test]
fn an_evd_in_this_process_ends_with_its_owner() {
    let dir = Dir::new();
    let daemon = evd::Daemon::builder().socket(dir.socket()).workers_per_uid(2).spawn().unwrap();
    assert_eq!(daemon.socket(), dir.socket());
    let again = evd::Daemon::builder().socket(dir.socket()).spawn().unwrap_err();
    assert_eq!(again.exit_code(), 75);
    let mut all = [Raw::hello(&dir.socket(), "a", ""), Raw::hello(&dir.socket(), "b", "")];
    let tid = |c: &Raw| c.welcome.as_ref().unwrap().tid;
    assert_ne!(tid(&all[0]), tid(&all[1]), "two workers may serve one user");
    drop(daemon);
    for c in &mut all {
        c.next().read::<Closing>();
        assert!(c.next_or_end().is_none());
    }
    assert!(!dir.socket().exists());
}

#[test]
fn the_service_manager_passes_the_socket_and_is_told() {
    let dir = Dir::new();
    let notify = dir.0.join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.socket()).unwrap();
    // sh makes the number 3 and then becomes evd, so that the pid is the one announced.
    let c = command(&dir.0.join("unused"));
    let evd = c.get_program().to_owned();
    let mut sh = std::process::Command::new("sh");
    sh.arg("-c").arg("exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=evd exec \"$0\" \"$@\"").arg(evd);
    sh.args(c.get_args()).env("NOTIFY_SOCKET", &notify);
    let mut child =
        sh.stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(listener))).spawn().unwrap();
    let told = || {
        let mut buf = [0; 256];
        let n = manager.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    };
    // This one closes what it is to store: evd finds that out, and says so.
    let ready = loop {
        match told() {
            text if text.contains("READY=1") => break text,
            text => assert!(text.contains("FDSTORE") || text == "BARRIER=1", "{text}"),
        }
    };
    assert!(ready.contains("holds do not survive evd: the service manager stores no fds"), "{ready}");
    let c = Raw::hello(&dir.socket(), "one", "");
    assert!(told().starts_with("STATUS=1 base, 1 worker; holds do not survive evd"));
    drop(c);
    assert!(told().contains("STATUS=0 bases"));
    sys::send_signal(child.id() as i32, libc::SIGTERM).unwrap();
    while !told().contains("STOPPING=1") {}
    assert!(child.wait().unwrap().success());
    assert!(dir.socket().exists(), "it is not evd's to remove");
}

#[test]
fn an_idle_evd_makes_no_system_calls() {
    let evd = Evd::start();
    let mut c = evd.client("idle");
    let (_near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    c.arm(&[(0, 1, evd_proto::What::READ)], &[far.as_raw_fd()]);
    c.timers(&[(0, sys::monotonic_ns() + 3_600_000_000_000)], &[]);
    c.sync();
    let switches = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", evd.pid())).unwrap();
        tasks
            .map(|t| {
                let text = std::fs::read_to_string(t.unwrap().path().join("status")).unwrap();
                let line = text.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap();
                line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
            })
            .sum()
    };
    // The threads go to sleep; after that none of them wakes.
    let mut last = switches();
    eventually("nothing moves", || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = switches();
        std::mem::replace(&mut last, now) == now
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(switches(), last);
}
