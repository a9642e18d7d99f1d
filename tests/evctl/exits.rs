//! How `evctl` ends: its exit codes and what it says, `wait`, `trigger`, completions and pages.

use crate::fake::{Dir, Fake, Next, evctl, run, shown, taken_apart, welcome};
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Refused, Triggered};
use evd_proto::request::{Hello, Role, Trigger};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

#[test]
fn trigger_says_how_many_got_it() {
    let fake = Fake::start(|peer, frame| match frame.read::<Trigger>().unwrap().name.as_str() {
        "one" => peer.reply(&Triggered { reached: 1, queued: 0 }),
        "many" => peer.reply(&Triggered { reached: 3, queued: 2 }),
        _ => peer.refuse(Code::Unknown, "nobody has subscribed to it"),
    });
    assert_eq!(shown(&fake.path, &["trigger", "one"]), "one: 1 subscriber got it, 0 queued\n");
    assert_eq!(shown(&fake.path, &["trigger", "many"]), "many: 3 subscribers got it, 2 queued\n");
    let (code, out, err) = run(&fake.path, &["trigger", "none"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "evctl: unknown: nobody has subscribed to it\n");
}

#[test]
fn a_wrong_use_is_2_and_asks_nothing() {
    let fake = Fake::start(|_, _| Next::Close);
    let wrong: [&[&str]; 9] = [
        &[],
        &["nonsense"],
        &["trigger"],
        &["trigger", "a b"],
        &["events", "--base", "ä"],
        &["status", "--timeout", "soon"],
        &["fd", "put", "x", "--fd", "-1"],
        &["fd", "exec", "web:443", "--", "true"],
        &["fd", "exec", "a", "a", "--", "true"],
    ];
    for args in wrong {
        let (code, out, err) = run(&fake.path, args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(!err.is_empty());
    }
    assert_eq!(fake.came(), []);
}

#[test]
fn an_evd_that_is_not_there_is_3_and_the_message_names_the_path() {
    let dir = Dir::new();
    let path = dir.join("socket");
    let (code, _, err) = run(&path, &["status"]);
    assert_eq!(code, 3);
    assert!(err.starts_with("evctl: evd is not running: there is no socket at "), "{err}");
    assert!(err.contains(path.to_str().unwrap()) && err.contains("EVD_SOCKET"), "{err}");
    // A socket file that nobody serves any more.
    drop(UnixListener::bind(&path).unwrap());
    // A child that another test has just forked has a copy of it until its exec.
    while UnixStream::connect(&path).is_ok() {}
    let (code, _, err) = run(&path, &["status"]);
    assert_eq!(code, 3);
    assert!(err.contains("nobody listens at"), "{err}");
}

#[test]
fn an_evd_whose_socket_was_removed_is_not_said_not_to_run() {
    let fake = Fake::start(|_, _| Next::Close);
    std::fs::remove_file(&fake.path).unwrap();
    let (code, _, err) = run(&fake.path, &["status"]);
    assert_eq!(code, 3);
    let gone =
        format!("evctl: evd runs, but nobody can reach it: its socket {} is gone", fake.path.display());
    assert!(err.starts_with(&gone), "{err}");
}

#[test]
fn the_socket_is_found_by_the_environment() {
    let fake = Fake::start(|peer, _| peer.reply(&Triggered { reached: 1, queued: 0 }));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_evctl"));
    command.args(["trigger", "x"]).env("EVD_SOCKET", &fake.path);
    assert_eq!(taken_apart(command.output().unwrap()).0, 0);
}

#[test]
fn both_places_are_named_where_none_has_a_socket() {
    let dir = Dir::new();
    let status = |name: &str, value: &std::path::Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_evctl"));
        command.env_remove("EVD_SOCKET").env_remove("XDG_RUNTIME_DIR").env(name, value).arg("status");
        taken_apart(command.output().unwrap())
    };
    let user = dir.join("evd/socket");
    if !std::path::Path::new("/run/evd/socket").exists() {
        let (code, _, err) = status("XDG_RUNTIME_DIR", &dir.join("."));
        assert_eq!(code, 3);
        let both =
            format!("there is no socket at {}, nor at /run/evd/socket", dir.join("./evd/socket").display());
        assert!(err.contains(&both), "{err}");
    }
    // What is named is the only one.
    let (code, _, err) = status("EVD_SOCKET", &user);
    assert_eq!(code, 3);
    assert!(err.contains(user.to_str().unwrap()) && !err.contains("/run/evd"), "{err}");
}

#[test]
fn the_systems_evd_is_found_where_the_user_has_none() {
    if evd_proto::sys::effective_ids().0 != 0 {
        println!("skipped: only root can mount a /run of its own");
        return;
    }
    let system = Fake::start(|peer, _| peer.reply(&Triggered { reached: 1, queued: 0 }));
    let users = Fake::start(|peer, _| peer.reply(&Triggered { reached: 2, queued: 0 }));
    let runtime = Dir::new();
    let reached = || {
        let script = "mount -t tmpfs none /run && mkdir /run/evd && ln -s \"$1\" /run/evd/socket && exec \"$0\" trigger x";
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_evctl")]).arg(&system.path);
        command.env_remove("EVD_SOCKET").env("XDG_RUNTIME_DIR", runtime.join(""));
        let (code, out, err) = taken_apart(command.output().unwrap());
        assert_eq!(code, 0, "{err}");
        out
    };
    assert!(reached().contains("1 subscriber got"));
    std::fs::create_dir(runtime.join("evd")).unwrap();
    std::os::unix::fs::symlink(&users.path, runtime.join("evd/socket")).unwrap();
    assert!(reached().contains("2 subscribers got"));
}

#[test]
fn an_evd_that_ends_while_it_is_asked_is_3() {
    let closes = Fake::start(|_, _| Next::Close);
    assert_eq!(run(&closes.path, &["status"]).0, 3);
    let at_once = Fake::with_hello(|_, _| Next::Close);
    assert_eq!(run(&at_once.path, &["status"]).0, 3);
    let stops = Fake::start(|peer, _| {
        peer.notice(&evd_proto::notice::Closing { reason: "upgrade".to_owned() });
        Next::Close
    });
    let (code, _, err) = run(&stops.path, &["status"]);
    assert_eq!((code, err.as_str()), (3, "evctl: evd is stopping: upgrade\n"));
}

#[test]
fn what_is_not_allowed_is_4() {
    let never = Fake::with_hello(|peer, _| {
        // A user that may not connect is refused before anything of it is read: there is no serial to name.
        peer.serial = 0;
        peer.refuse(Code::NotAllowed, "uid 33 is not allowed")
    });
    let (code, _, err) = run(&never.path, &["status"]);
    assert_eq!((code, err.as_str()), (4, "evctl: not allowed: uid 33 is not allowed\n"));
    let not_this = Fake::start(|peer, _| peer.refuse(Code::NotAllowed, "it is root's"));
    assert_eq!(run(&not_this.path, &["trigger", "x"]).0, 4);
}

#[test]
fn a_socket_that_may_not_be_opened_is_4() {
    use std::os::unix::process::CommandExt;
    let fake = Fake::start(|_, _| Next::Close);
    evd_proto::sys::restrict_file_mode(&fake.path, 0o000, None).unwrap();
    let mut command = evctl(&fake.path, &["status"]);
    if evd_proto::sys::effective_ids().0 == 0 {
        // Root may open every socket, so it asks as nobody; a copy, as the program may lie where nobody else gets.
        let dir = fake.path.parent().unwrap();
        let copy = dir.join("evctl");
        std::fs::copy(command.get_program(), &copy).unwrap();
        evd_proto::sys::restrict_file_mode(dir, 0o755, None).unwrap();
        evd_proto::sys::restrict_file_mode(&copy, 0o755, None).unwrap();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = std::process::Command::new(copy);
        command.args(args).uid(65_534).gid(65_534);
    }
    let output = loop {
        match command.output() {
            // A child that another test has just forked still has the copy open for writing, until it execs.
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    let (code, _, err) = taken_apart(output);
    assert_eq!(code, 4);
    assert!(err.starts_with("evctl: this user may not connect to "), "{err}");
}

#[test]
fn an_evd_that_does_not_answer_is_124() {
    let silent = Fake::with_hello(|_, _| Next::Answered);
    let (code, _, err) = run(&silent.path, &["status", "--timeout", "0.05"]);
    assert_eq!(code, 124);
    assert!(err.contains("does not answer (waited 50ms)"), "{err}");
}

#[test]
fn hello_is_in_the_control_role_and_a_version_refusal_names_both_sides() {
    let old = Fake::with_hello(|peer, frame| {
        let hello: Hello = frame.read().unwrap();
        assert_eq!((hello.role, hello.name.as_str()), (Role::Control, "evctl"));
        assert_eq!(hello.versions, (evd_proto::OLDEST_VERSION, evd_proto::PROTOCOL_VERSION));
        peer.reply(&Refused { code: Code::Version, limit: 7, value: 9, text: String::new(), ids: Vec::new() })
    });
    let (code, _, err) = run(&old.path, &["status"]);
    assert_eq!(code, 1);
    assert!(err.contains("protocol 1 to 1") && err.contains("this evd 7 to 9"), "{err}");
}

#[test]
fn an_answer_of_another_kind_is_an_error_and_no_panic() {
    let wrong = Fake::start(|peer, _| peer.reply(&Triggered { reached: 1, queued: 0 }));
    let (code, _, err) = run(&wrong.path, &["status"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "evctl: what evd sent can't be read: Triggered is not allowed here\n")
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let fake = Fake::start(|peer, _| peer.reply(&Triggered { reached: 1, queued: 0 }));
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    for args in [&["trigger", "x"][..], &["completions", "bash"], &["man"], &["--help"]] {
        let mut command = evctl(&fake.path, args);
        command.stdout(OwnedFd::from(writer.try_clone().unwrap())).stderr(Stdio::piped());
        let (code, _, err) = taken_apart(command.output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn wait_tries_until_evd_is_ready() {
    let mut hellos = 0;
    let fake = Fake::with_hello(move |peer, _| {
        hellos += 1;
        match hellos {
            1 => Next::Close,
            2 => {
                peer.refuse(Code::Stopping, "");
                Next::Close
            }
            _ => peer.reply(&welcome()),
        }
    });
    assert_eq!(shown(&fake.path, &["wait"]), "");
    assert_eq!(fake.came(), [Kind::Hello; 3]);
}

#[test]
fn wait_gives_up_with_124_and_says_what_it_saw() {
    let dir = Dir::new();
    let (code, _, err) = run(&dir.join("socket"), &["wait", "--timeout", "0.05"]);
    assert_eq!(code, 124);
    assert!(err.starts_with("evctl: evd was not ready within 50ms: evd is not running"), "{err}");
    let silent = Fake::with_hello(|_, _| Next::Answered);
    let (code, _, err) = run(&silent.path, &["wait", "--timeout", "0.05"]);
    assert_eq!((code, err.as_str()), (124, "evctl: evd was not ready within 50ms: it does not answer\n"));
}

#[test]
fn wait_does_not_repeat_what_will_not_change() {
    let fake = Fake::with_hello(|peer, _| peer.refuse(Code::NotAllowed, "never"));
    assert_eq!(run(&fake.path, &["wait"]).0, 4);
    assert_eq!(fake.came(), [Kind::Hello]);
}

#[test]
fn completions_and_pages_name_the_commands() {
    let dir = Dir::new();
    let nobody = dir.join("socket");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(shown(&nobody, &["completions", shell]).contains("trigger"), "{shell}");
    }
    assert!(shown(&nobody, &["man"]).contains(".TH evctl 1"));
    let pages = dir.join("man1");
    shown(&nobody, &["man", "--dir", pages.to_str().unwrap()]);
    for name in ["evctl.1", "evctl-status.1", "evctl-events.1", "evctl-fd.1", "evctl-fd-put.1"] {
        assert!(std::fs::metadata(pages.join(name)).unwrap().len() > 0, "{name}");
    }
}
