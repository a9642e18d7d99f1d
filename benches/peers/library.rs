//! The peers: C programs on the libraries that are installed.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Libevent,
    Libev,
    Libuv,
    /// No library at all: plain system calls.
    Plain,
}

/// Each with its name, its program without the `.c`, the header and the library that it needs, and the package that brings them.
const PEERS: [(Peer, &str, &str, &str, &str, &str); 4] = [
    (Peer::Libevent, "libevent", "libevent", "event2/event.h", "-levent_core", "libevent-dev"),
    (Peer::Libev, "libev", "libev", "ev.h", "-lev", "libev-dev"),
    (Peer::Libuv, "libuv", "libuv", "uv.h", "-luv", "libuv1-dev"),
    (Peer::Plain, "no library", "plain", "sys/epoll.h", "-lc", "libc6-dev"),
];

impl Peer {
    /// As the table calls it.
    pub fn name(self) -> &'static str {
        PEERS.iter().find(|p| p.0 == self).map_or("", |p| p.1)
    }
}

/// The programs that could be built.
#[derive(Debug, Default)]
pub struct Libraries(Vec<(Peer, PathBuf)>);

impl Libraries {
    /// Builds what can be built, and says what is left out.
    pub fn build() -> Result<Libraries, Box<dyn Error>> {
        let mut built = Libraries::default();
        if let Err(e) =
            Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status()
        {
            if e.kind() != io::ErrorKind::NotFound {
                return Err(e.into());
            }
            println!("all peers left out: cc is not installed");
            return Ok(built);
        }
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        std::fs::create_dir_all(&into)?;
        for (peer, name, file, header, library, package) in PEERS {
            let program = into.join(file);
            if !is_there(header, library, &into.join("probe"))? {
                println!("{name} left out: {package} is not installed");
                continue;
            }
            let mut command = Command::new("cc");
            command
                .args(["-O2", "-Wall", "-o"])
                .arg(&program)
                .arg(from.join(format!("{file}.c")))
                .arg(library);
            if !command.status()?.success() {
                return Err(format!("{file}.c can't be built").into());
            }
            built.0.push((peer, program));
        }
        Ok(built)
    }

    /// The program of a peer, if it is there.
    pub fn program(&self, peer: Peer) -> Option<&Path> {
        self.0.iter().find(|(p, _)| *p == peer).map(|(_, program)| program.as_path())
    }
}

/// Whether a program with this header and this library can be built.
fn is_there(header: &str, library: &str, probe: &Path) -> io::Result<bool> {
    let mut command = Command::new("cc");
    command.args(["-x", "c", "-", "-o"]).arg(probe).arg(library);
    let mut cc = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    if let Some(mut to) = cc.stdin.take() {
        to.write_all(format!("#include <{header}>\nint main(void) {{ return 0; }}\n").as_bytes())?;
    }
    Ok(cc.wait()?.success())
}
