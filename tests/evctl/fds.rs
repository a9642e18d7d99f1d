//! `evctl fd`: giving fds to evd, running commands with them, and losing none.

use crate::fake::{Fake, Next, evctl, run, shown, taken_apart};
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Done, HoldInfo, Holds, Took};
use evd_proto::request::{Drop, Hold, ListHolds, Take, Taken};
use evd_proto::sys::FileKind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex};

pub fn held(name: &str, giver: &str) -> HoldInfo {
    HoldInfo {
        name: name.to_owned(),
        kind: FileKind::Pipe,
        ino: 77,
        ready: What::READ,
        count: 0,
        attachment: 12,
        age: 5_000_000_000,
        left: 0,
        pid: 123,
        giver: giver.to_owned(),
    }
}

/// An evd that holds: what is put, and what was taken and not let go.
#[derive(Default)]
struct Store {
    held: BTreeMap<String, (Hold, OwnedFd)>,
    /// Names that were taken without being kept, by their number.
    leaving: Vec<String>,
}

fn store(texts: &[(&str, &str)]) -> (Fake, Arc<Mutex<Store>>) {
    let mut first = Store::default();
    for (name, text) in texts {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        let attachment = format!("of {name}").into_bytes();
        let hold = Hold { name: (*name).to_owned(), attachment, ttl: 60_000_000_000, replace: false };
        first.held.insert((*name).to_owned(), (hold, reader.into()));
    }
    let store = Arc::new(Mutex::new(first));
    let shared = Arc::clone(&store);
    let fake = Fake::start(move |peer, mut frame| {
        let mut store = shared.lock().unwrap();
        match frame.header.kind {
            Kind::Hold => {
                let hold: Hold = frame.read().unwrap();
                let fd = frame.fds.pop().unwrap();
                store.held.insert(hold.name.clone(), (hold, fd));
                peer.reply(&Done {})
            }
            Kind::Take => {
                let take: Take = frame.read().unwrap();
                if !store.held.contains_key(&take.name) {
                    return peer.refuse(Code::Unknown, "nothing is held by this name");
                }
                let mut number = 0;
                if !take.keep {
                    store.leaving.push(take.name.clone());
                    number = store.leaving.len() as u64;
                }
                let (hold, fd) = &store.held[&take.name];
                let took = Took { hold: number, attachment: hold.attachment.clone(), ttl: hold.ttl };
                peer.reply_with_fd(&took, fd)
            }
            Kind::Taken => {
                let number = frame.read::<Taken>().unwrap().hold;
                let name = store.leaving[number as usize - 1].clone();
                store.held.remove(&name).unwrap();
                Next::Answered
            }
            _ => peer.reply(&Done {}),
        }
    });
    (fake, store)
}

/// Runs `evctl` by a shell that opens `fd` for it.
fn put(fake: &Fake, redirect: &str, args: &[&str]) -> (i32, String, String) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec \"$@\" {redirect}")).arg("sh").arg(env!("CARGO_BIN_EXE_evctl"));
    shell.arg("--socket").arg(&fake.path).args(["fd", "put"]).args(args);
    taken_apart(shell.output().unwrap())
}

#[test]
fn put_gives_the_fd_with_all_that_was_said_of_it() {
    let (fake, store) = store(&[]);
    let file = fake.dir.join("file");
    std::fs::write(&file, "content").unwrap();
    let file = file.to_str().unwrap();
    let args = ["a", "--ttl", "5m", "--attachment", "note", "--replace"];
    assert_eq!(put(&fake, &format!("3<{file}"), &args), (0, String::new(), String::new()));
    assert_eq!(put(&fake, &format!("7<{file}"), &["b", "--fd", "7", "--attachment-file", file]).0, 0);
    assert_eq!(put(&fake, &format!("<{file}"), &["c", "--fd", "0"]).0, 0);
    let mut store = store.lock().unwrap();
    let mut one = |name: &str| {
        let (hold, fd) = store.held.remove(name).unwrap();
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        (hold, text)
    };
    let hold = |name: &str, attachment: &str, ttl, replace| Hold {
        name: name.to_owned(),
        attachment: attachment.into(),
        ttl,
        replace,
    };
    assert_eq!(one("a"), (hold("a", "note", 300_000_000_000, true), "content".to_owned()));
    assert_eq!(one("b"), (hold("b", "content", 0, false), "content".to_owned()));
    assert_eq!(one("c"), (hold("c", "", 0, false), "content".to_owned()));
}

#[test]
fn put_of_a_number_that_is_not_open_says_so_and_asks_nothing() {
    let (fake, _) = store(&[]);
    for (redirect, args, number) in [("3<&-", &["a"][..], 3), ("9<&-", &["a", "--fd", "9"], 9)] {
        let (code, _, err) = put(&fake, redirect, args);
        assert_eq!(code, 1);
        assert!(err.starts_with(&format!("evctl: fd {number} is not open: ")), "{err}");
    }
    assert_eq!(fake.came(), []);
}

#[test]
fn put_of_an_attachment_that_is_too_long_names_the_limit() {
    let (fake, _) = store(&[]);
    let (code, _, err) = put(&fake, "3</dev/null", &["a", "--attachment", &"x".repeat(65)]);
    assert_eq!((code, err.as_str()), (1, "evctl: the attachment has 65 bytes, at most 64 are allowed\n"));
    assert_eq!(fake.came(), [Kind::Hello]);
}

const SHOW: &str = "echo $LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID $$; cat <&3; cat <&4";

#[test]
fn exec_passes_the_fds_as_a_service_manager_does() {
    let (fake, store) = store(&[("web:443", "first\n"), ("b", "second\n"), ("c", "third\n")]);
    let (code, out, err) = run(&fake.path, &["fd", "exec", "b", "web:443=web", "--", "sh", "-c", SHOW]);
    assert_eq!((code, err.as_str()), (0, ""));
    let (head, rest) = out.split_once('\n').unwrap();
    let head: Vec<&str> = head.split(' ').collect();
    assert_eq!((head[0], head[1], head[2]), ("2", "b:web", head[3]));
    assert_eq!(rest, "second\nfirst\n");
    assert_eq!(fake.came(), [Kind::Hello, Kind::Take, Kind::Take, Kind::Taken, Kind::Taken, Kind::Sync]);
    assert_eq!(store.lock().unwrap().held.keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn exec_with_keep_leaves_them_held() {
    let (fake, store) = store(&[("a", "first\n"), ("b", "second\n")]);
    let (code, out, _) = run(&fake.path, &["fd", "exec", "--keep", "a", "b", "--", "sh", "-c", SHOW]);
    assert_eq!(code, 0);
    assert!(out.ends_with("\nfirst\nsecond\n"), "{out}");
    assert_eq!(fake.came(), [Kind::Hello, Kind::Take, Kind::Take]);
    assert_eq!(store.lock().unwrap().held.len(), 2);
}

#[test]
fn exec_of_a_command_that_is_not_there_takes_nothing() {
    let (fake, _) = store(&[("a", "")]);
    let (code, _, err) = run(&fake.path, &["fd", "exec", "a", "--", "no-such-command"]);
    assert_eq!((code, err.as_str()), (127, "evctl: can't run no-such-command: there is no such command\n"));
    let plain = fake.dir.join("plain");
    std::fs::write(&plain, "").unwrap();
    let (code, _, err) = run(&fake.path, &["fd", "exec", "a", "--", plain.to_str().unwrap()]);
    assert_eq!(code, 126);
    assert!(err.ends_with("it is not an executable file\n"), "{err}");
    assert_eq!(fake.came(), []);
}

#[test]
fn exec_that_fails_in_the_end_holds_all_again() {
    let (fake, store) = store(&[("a", "first\n"), ("b", "second\n")]);
    let script = fake.dir.join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, _, err) = run(&fake.path, &["fd", "exec", "b", "a", "--", script.to_str().unwrap()]);
    assert_eq!(code, 127);
    assert!(err.contains("can't run") && !err.contains("held again"), "{err}");
    let mut store = store.lock().unwrap();
    for (name, expected) in [("a", "first\n"), ("b", "second\n")] {
        let (hold, fd) = store.held.remove(name).unwrap();
        assert_eq!((hold.attachment, hold.ttl), (format!("of {name}").into_bytes(), 60_000_000_000));
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, expected);
    }
}

#[test]
fn exec_takes_none_if_one_is_missing() {
    let (fake, store) = store(&[("a", "")]);
    let (code, _, err) = run(&fake.path, &["fd", "exec", "a", "b", "--", "true"]);
    assert_eq!((code, err.as_str()), (1, "evctl: unknown: nothing is held by this name\n"));
    assert!(!fake.came().contains(&Kind::Taken));
    assert_eq!(store.lock().unwrap().held.len(), 1);
}

#[test]
fn exec_ends_as_its_command_ends() {
    let (fake, _) = store(&[("a", "")]);
    let mut command = evctl(&fake.path, &["fd", "exec", "a", "--", "sh", "-c", "exit 42"]);
    assert_eq!(command.status().unwrap().code(), Some(42));
}

#[test]
fn ls_has_stable_columns_and_asks_for_all_pages() {
    let fake = Fake::start(|peer, frame| match frame.read::<ListHolds>().unwrap().after.as_str() {
        "" => {
            let name = HoldInfo { kind: FileKind::EventFd, count: 3, ..held("job", "cron") };
            peer.reply(&Holds { holds: vec![held("a", "web"), name], more: true })
        }
        "job" => {
            let second = HoldInfo {
                left: 312_000_000_000,
                attachment: 0,
                ready: What::empty(),
                kind: FileKind::Socket,
                ino: 1 << 40,
                ..held("listener", "evctl")
            };
            peer.reply(&Holds { holds: vec![second], more: false })
        }
        other => panic!("nothing is after {other}"),
    });
    let expected = "\
NAME      WHAT                    READY  AGE   LEFT   GIVER       ATTACHMENT
a         pipe:[77]               READ   5.0s  -      web[123]    12 bytes
job       eventfd:3               READ   5.0s  -      cron[123]   12 bytes
listener  socket:[1099511627776]  -      5.0s  5m12s  evctl[123]  -
";
    assert_eq!(shown(&fake.path, &["fd", "ls"]), expected);
    let json: Value = serde_json::from_str(&shown(&fake.path, &["fd", "ls", "--json"])).unwrap();
    assert_eq!((&json["schema_version"], &json["holds"][0]["attachment_bytes"]), (&1.into(), &12.into()));
    assert_eq!((&json["holds"][0]["count"], &json["holds"][1]["count"]), (&Value::Null, &3.into()));
    assert_eq!(json["holds"][2]["left_ns"], 312_000_000_000u64);
}

#[test]
fn rm_lets_go_by_name() {
    let fake = Fake::start(|peer, frame| match frame.read::<Drop>().unwrap().name.as_str() {
        "a" => peer.reply(&Done {}),
        _ => peer.refuse(Code::Busy, "somebody is taking it"),
    });
    assert_eq!(shown(&fake.path, &["fd", "rm", "a"]), "");
    let (code, _, err) = run(&fake.path, &["fd", "rm", "b"]);
    assert_eq!((code, err.as_str()), (1, "evctl: busy: somebody is taking it\n"));
}
