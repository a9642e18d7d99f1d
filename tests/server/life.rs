//! Starting, being refused, running short, stopping.

use crate::users::{as_user, is_root, let_in, socket_of_test};
use crate::wire::*;
use evd_proto::frame::Kind;
use evd_proto::notice::Closing;
use evd_proto::reply::{Code, StatusPage, Triggered};
use evd_proto::request::{Status, Subscribe, Trigger};
use evd_proto::sys;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

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
    for (path, word) in [(&long, "must have 1 to"), (&missing, "does not exist"), (&file, "not a socket")] {
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
    if !is_root() {
        return;
    }
    let evd = Evd::start_with(|c| {
        c.args(["--allow-uid", "4711"]);
    });
    let_in(&evd);
    let mut mine = evd.client("mine");
    mine.ask::<_, evd_proto::reply::Done>(&Subscribe { id: 0, name: "roots".into() });
    assert!(as_user(4711, "life::helper_is_welcome_and_sees_only_its_own", &evd.path()).succeeded());
    assert!(as_user(4712, "life::helper_is_not_allowed", &evd.path()).succeeded());
    evd.serves();
}

#[test]
fn out_of_fds_is_said_and_passes() {
    let evd = Evd::start_with(|c| {
        limit_files(c, 40);
    });
    let mut first = evd.client("first");
    let mut others = Vec::new();
    let mut refused = 0;
    while refused < 3 {
        let mut c = Raw::connect(&evd.path());
        c.send_if_open(&hello("many", ""));
        let got = c.next();
        if got.kind == Kind::Refused {
            // What one user may have is a part of what evd may open.
            let code = got.read::<evd_proto::reply::Refused>().code;
            assert!(matches!(code, Code::OutOfFds | Code::Limit), "{code:?}");
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
        c.send_if_open(&hello("again", ""));
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

/// A service manager's end of the notifications.
struct Manager(std::os::unix::net::UnixDatagram);

impl Manager {
    fn new(dir: &Dir) -> (Manager, std::path::PathBuf) {
        let path = dir.0.join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (Manager(socket), path)
    }

    fn told(&self) -> String {
        let mut buf = [0; 256];
        let n = self.0.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    }

    /// The next notification that begins so; others are passed over.
    fn hears(&self, begin: &str) -> String {
        loop {
            let told = self.told();
            if told.starts_with(begin) {
                return told;
            }
        }
    }
}

#[test]
fn the_service_manager_passes_the_socket_and_is_told() {
    let dir = Dir::new();
    let (manager, notify) = Manager::new(&dir);
    let listener = std::os::unix::net::UnixListener::bind(dir.socket()).unwrap();
    // sh makes the number 3 and then becomes evd, so that the pid is the one announced.
    let c = command(&dir.0.join("unused"));
    let evd = c.get_program().to_owned();
    let mut sh = std::process::Command::new("sh");
    sh.arg("-c").arg("exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=evd exec \"$0\" \"$@\"").arg(evd);
    sh.args(c.get_args()).env("NOTIFY_SOCKET", &notify);
    let mut child =
        sh.stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(listener))).spawn().unwrap();
    // This one closes what it is to store: evd finds that out, and says so.
    let ready = loop {
        match manager.told() {
            text if text.contains("READY=1") => break text,
            text => assert!(text.contains("FDSTORE") || text == "BARRIER=1", "{text}"),
        }
    };
    let mortal = "; holds do not survive evd: the service manager stores no fds";
    assert!(ready.starts_with(&format!("READY=1\nSTATUS=0 bases, 0 workers{mortal}")), "{ready}");
    let c = Raw::hello(&dir.socket(), "one", "");
    assert_eq!(manager.told().trim(), "STATUS=1 base, 1 worker");
    drop(c);
    assert!(manager.told().contains("STATUS=0 bases"));
    sys::send_signal(child.id() as i32, libc::SIGTERM).unwrap();
    while !manager.told().contains("STOPPING=1") {}
    assert!(child.wait().unwrap().success());
    assert!(dir.socket().exists(), "it is not evd's to remove");
}

#[test]
fn a_watchdog_hears_of_it_at_half_its_interval_and_nobody_is_woken_for_that() {
    let dir = Dir::new();
    let (manager, notify) = Manager::new(&dir);
    let evd = Evd::start_with(|c| {
        c.env("NOTIFY_SOCKET", &notify).env("FDSTORE", "0").env("WATCHDOG_USEC", "200000");
    });
    let client = evd.client("idle");
    let tid = client.welcome.as_ref().unwrap().tid;
    let sleeps = || {
        let text = std::fs::read_to_string(format!("/proc/{}/task/{tid}/status", evd.pid())).unwrap();
        text.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    manager.hears("STATUS=1 base");
    eventually("its worker sleeps", || sys::process_state(evd.pid(), tid) == sys::ProcessState::Waiting);
    let begin = std::time::Instant::now();
    manager.hears("WATCHDOG=1");
    let before = sleeps();
    for _ in 0..10 {
        manager.hears("WATCHDOG=1");
    }
    assert!(begin.elapsed() >= std::time::Duration::from_millis(900), "{:?}", begin.elapsed());
    assert_eq!(sleeps(), before, "an idle worker was woken");
}

/// Stops one thread of another process, and no other, as long as this lives.
struct Halted(i32);

impl Halted {
    fn new(tid: i32) -> Halted {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: both requests take no memory of ours.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, none, none) };
        assert_eq!(seized, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: as above.
        let asked = unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none) };
        assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: a null status is not written to.
        let stopped = unsafe { libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(stopped, tid);
        Halted(tid)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the request takes no memory of ours.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

#[test]
fn a_worker_that_is_stuck_is_named_and_does_not_count() {
    let dir = Dir::new();
    let (manager, notify) = Manager::new(&dir);
    let evd = Evd::start_with(|c| {
        c.env("NOTIFY_SOCKET", &notify).env("FDSTORE", "0").env("WATCHDOG_USEC", "1000000");
    });
    let client = evd.client("one");
    manager.hears("STATUS=1 base, 1 worker\n");
    let halted = Halted::new(client.welcome.as_ref().unwrap().tid);
    // Nobody reads this connection: it is mail for the worker that is halted.
    let mut late = Raw::connect(&evd.path());
    let user = sys::effective_ids().0;
    assert_eq!(
        manager.hears("STATUS=1 base, 1 worker; stuck"),
        format!("STATUS=1 base, 1 worker; stuck: user {user}\n")
    );
    manager.hears("WATCHDOG=1");
    drop(halted);
    manager.hears("STATUS=1 base, 1 worker\n");
    late.greet(&hello("late", ""));
    evd.serves();
}

#[test]
fn a_watchdog_of_another_process_is_not_ours() {
    let dir = Dir::new();
    let (manager, notify) = Manager::new(&dir);
    let evd = Evd::start_with(|c| {
        c.env("NOTIFY_SOCKET", &notify)
            .env("FDSTORE", "0")
            .env("WATCHDOG_USEC", "1000")
            .env("WATCHDOG_PID", "1");
    });
    evd.serves();
    evd.signal(libc::SIGTERM);
    loop {
        let told = manager.told();
        assert!(!told.contains("WATCHDOG"), "{told}");
        if told.contains("STOPPING") {
            break;
        }
    }
}

#[test]
fn sighup_reloads_and_ends_nothing() {
    let dir = Dir::new();
    let (manager, notify) = Manager::new(&dir);
    let mut evd = Evd::start_with(|c| {
        c.env("NOTIFY_SOCKET", &notify).env("FDSTORE", "0").args(["--allow-uid", "root"]);
    });
    let mut client = evd.client("stays");
    let before = sys::monotonic_ns() / 1000;
    evd.signal(libc::SIGHUP);
    let told = manager.hears("RELOADING=1");
    let at = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&told).trim().parse::<u64>().unwrap();
    assert!((before..=sys::monotonic_ns() / 1000).contains(&at), "{at}");
    manager.hears("READY=1");
    client.sync();
    evd.serves();
    assert_eq!(evd.child.try_wait().unwrap(), None);
    // Without a service manager it is the same.
    let alone = Evd::start();
    let mut client = alone.client("stays");
    alone.signal(libc::SIGHUP);
    client.sync();
    alone.serves();
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
    // The threads go to sleep; a second after who looked whether evd is there has left, his memory is given back. After that none of them wakes.
    let mut last = switches();
    eventually("nothing moves", || {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let now = switches();
        std::mem::replace(&mut last, now) == now
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(switches(), last);
}
