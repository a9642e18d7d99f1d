//! Making an evd: in a process of its own, or on threads of a host.

use super::accept::Acceptor;
use super::access::{Access, Rules};
use super::error::Error;
use super::holds::Holds;
use super::mail::lock;
use super::parcel::Left;
use super::quotas::Wanted;
use super::registry::Shared;
use super::service::{self, Passed, Service};
use super::starts::{Starts, Trust};
use super::store::Store;
use crate::base::{Base, Config};
use crate::session::books::Books;
use evd_proto::path::listen_path;
use evd_proto::reply::Resource;
use evd_proto::sys::AsFd;
use evd_proto::sys::{self, Listener};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Why an evd on a host's threads holds in memory only: the service manager is the host's.
const MORTAL: &str = "it runs on threads of a program";

/// What an evd is to be like. Made by [`Daemon::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    socket: Option<PathBuf>,
    /// The path is one that clients look at by themselves: its directory may be made.
    is_default: bool,
    rules: Rules,
    allow_nested: bool,
    workers_per_uid: usize,
    hardens: bool,
    quotas: Wanted,
}

impl Builder {
    /// Where to listen. Its directory must exist. Without this it is [`evd_proto::path::listen_path`].
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Builder {
        (self.socket, self.is_default) = (Some(path.into()), false);
        self
    }

    /// As [`Builder::socket`], for a path that is not chosen by anybody: its directory is made if it is not there.
    pub(super) fn default_socket(mut self, path: PathBuf) -> Builder {
        (self.socket, self.is_default) = (Some(path), true);
        self
    }

    /// Lets a user connect. evd's own and root always may.
    pub fn allow_uid(mut self, uid: u32) -> Builder {
        self.rules.uids.push(uid);
        self
    }

    /// Lets the members of a group connect.
    pub fn allow_gid(mut self, gid: u32) -> Builder {
        self.rules.gids.push(gid);
        self
    }

    /// Lets users and groups connect, by number or name, with commas between them. Names are looked up when it starts, and again when it reloads.
    pub(super) fn allow_names(mut self, users: String, groups: String) -> Builder {
        (self.rules.users, self.rules.groups) = (users, groups);
        self
    }

    /// Groups of [`Builder::admin_gid`], by number or name, with commas between them.
    pub(super) fn admin_names(mut self, groups: String) -> Builder {
        self.rules.admin_groups = groups;
        self
    }

    /// Lets the members of a group connect, and look at the bases of all users: `evctl status`, `bases` and `events`. What they do there is logged.
    pub fn admin_gid(mut self, gid: u32) -> Builder {
        self.rules.admins.push(gid);
        self
    }

    /// Whether those whom evd's user namespace does not know may connect, as far as the lists allow it. They all are one user to evd.
    pub fn allow_overflow_uid(mut self, allow: bool) -> Builder {
        self.rules.allow_overflow = allow;
        self
    }

    /// Whether users other than root and evd's own may pass epolls to be watched. What is in them can block the threads that serve them.
    pub fn allow_nested(mut self, allow: bool) -> Builder {
        self.allow_nested = allow;
        self
    }

    /// At most so many threads serve one user; 1 if it is not said.
    pub fn workers_per_uid(mut self, n: usize) -> Builder {
        self.workers_per_uid = n;
        self
    }

    /// Whether [`Builder::run`] gives up what evd does not need once it runs: new privileges, and system calls as exec and mount. That goes for all threads of
    /// the process and for good. Without this it gives up nothing, and [`Builder::spawn`] never does.
    pub fn harden(mut self, on: bool) -> Builder {
        self.hardens = on;
        self
    }

    /// What one user may have of something at most. Without this it is what README's Limits say.
    pub fn quota(mut self, what: Resource, each: u64) -> Builder {
        self.quotas.set(what, each);
        self
    }

    /// Runs evd on threads of this process. The process's signals and limits, and its service manager, are left alone.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Examples
    /// ```
    /// let path = std::env::temp_dir().join(format!("evd-doc-{}", std::process::id()));
    /// let evd = evd::Daemon::builder().socket(&path).spawn()?;
    /// assert!(evd.socket().exists());
    /// drop(evd);
    /// assert!(!path.exists());
    /// # Ok::<(), evd::server::Error>(())
    /// ```
    pub fn spawn(self) -> Result<Daemon, Error> {
        let access = self.access()?;
        let (base, listener) = (new_base()?, self.listen(&access)?);
        let socket = self.path();
        let books = Books::new(self.quotas.quotas());
        let holds = Holds::new(Err(MORTAL), Arc::clone(&books));
        let (acceptor, shared) = self.acceptor(base, listener, access, Service::default(), holds, books)?;
        let failed = Arc::new(Mutex::new(None));
        let of = Arc::clone(&failed);
        let thread = std::thread::Builder::new().name("evd".to_owned()).spawn(move || acceptor.run(&of));
        let thread = Some(thread.map_err(Error::os("start a thread"))?);
        Ok(Daemon { socket, shared, thread, failed })
    }

    /// Runs evd in this thread until SIGTERM or SIGINT: what the binary does. Takes the socket that a service manager passed, if there is one. At SIGHUP it
    /// looks up again who may connect.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self) -> Result<(), Error> {
        sys::share_memory();
        if let Err(e) = sys::raise_open_files() {
            log::warn!("can't raise the limit on open files: {e}");
        }
        sys::ignore_signals().map_err(Error::os("ignore signals"))?;
        let access = self.access()?;
        let mut base = new_base()?;
        for signo in sys::STOP_SIGNALS.iter().copied().chain(sys::RELOAD_SIGNAL) {
            base.add_signal(signo).map_err(Error::os("catch signals"))?;
        }
        let Passed { listener, parcels, starts, stale } = service::passed().map_err(Error::Passed)?;
        // A service manager's, or the keeper's.
        let passed = listener.as_ref().map(|l| sys::bound_path(l.as_fd()).unwrap_or_default());
        let at = match passed {
            Some(path) => format!("{}, which was passed to it", path.display()),
            None => self.path().display().to_string(),
        };
        let listener = listener.map_or_else(|| self.listen(&access), Ok)?;
        let books = Books::new(self.quotas.quotas());
        let mut service = Service::from_environment();
        let store = Store::find(starts.is_some() || !parcels.is_empty());
        let (starts, trust) = match &store {
            Ok(store) => {
                stale.iter().for_each(|name| store.remove_later(name));
                Starts::count(starts, store)
            }
            Err(_) => (Starts::default(), Trust::All),
        };
        let holds = Holds::new(store, Arc::clone(&books));
        if let Some(why) = holds.why_mortal() {
            log::info!("holds do not survive evd: {why}");
            service.are_mortal(why);
        }
        let inherited = inherit(&holds, parcels, trust);
        let (mut acceptor, shared) = self.acceptor(base, listener, access, service, holds, books)?;
        acceptor.owns_process();
        inherited.into_iter().for_each(|uid| shared.inherit(uid));
        if shared.holds.why_mortal().is_none() {
            acceptor.settles(starts);
        }
        let (limit, _) = sys::open_files();
        log::info!(
            "evd {} serves {at}; {}, at most {limit} open files",
            env!("CARGO_PKG_VERSION"),
            crate::backend::supported(false).join(" "),
        );
        // After all that opens or looks up; workers, which clients talk to, are made later and inherit it.
        if self.hardens {
            super::harden::apply();
        }
        let failed = Mutex::new(None);
        acceptor.run(&failed);
        match lock(&failed).take() {
            Some(e) => Err(Error::Os { what: "wait for connections", source: e }),
            None => Ok(()),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(listen_path)
    }

    /// Makes the listening socket of an evd that another process will be.
    pub(super) fn listen_for_child(&self) -> Result<Listener, Error> {
        self.listen(&self.access()?)
    }

    /// Who may do what, with all names looked up.
    fn access(&self) -> Result<Access, Error> {
        let access = Access::new(self.rules.look_up()?, self.rules.allow_overflow);
        Ok(access.allow_nested(self.allow_nested))
    }

    /// Makes the listening socket.
    fn listen(&self, access: &Access) -> Result<Listener, Error> {
        let path = self.path();
        let (mode, gid) = access.socket_mode();
        if self.is_default || self.socket.is_none() {
            make_directory(&path).map_err(|source| Error::Socket { path: path.clone(), source })?;
        }
        sys::listen(&path, mode, gid).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse if !path.exists() && sys::is_listened_at(&path) => {
                Error::SocketGone { path }
            }
            io::ErrorKind::AddrInUse => Error::AlreadyRunning { path },
            _ => Error::Socket { path, source },
        })
    }

    fn acceptor(
        &self,
        mut base: Base,
        listener: Listener,
        access: Access,
        service: Service,
        holds: Holds,
        books: Arc<Books>,
    ) -> Result<(Acceptor, Arc<Shared>), Error> {
        let waker = base.waker().map_err(Error::os("make a mailbox"))?;
        let shared = Arc::new(Shared::new(access, books, self.workers_per_uid, waker, holds));
        shared.reports_sessions.store(service.is_there(), std::sync::atomic::Ordering::Relaxed);
        let acceptor = Acceptor::new(base, listener, Arc::clone(&shared), self.rules.clone(), service);
        Ok((acceptor.map_err(Error::os("watch the listening socket"))?, shared))
    }
}

/// Gives the parcels of an earlier evd to `holds`, but for those that may be why it was started so often. Returns whose they are.
fn inherit(holds: &Holds, parcels: Vec<Left>, trust: Trust) -> Vec<u32> {
    let newest = parcels.iter().map(|p| p.generation).max();
    match trust {
        Trust::All => {}
        Trust::AllButNewest => {
            log::error!("evd was started too often: it goes on WITHOUT the newest held fds")
        }
        Trust::Nothing => log::error!("evd was started too often: it goes on WITHOUT any held fds"),
    }
    holds.inherit(parcels, |left| match trust {
        Trust::All => false,
        Trust::AllButNewest => Some(left.generation) == newest,
        Trust::Nothing => true,
    })
}

/// A base for a thread of evd's own. What the environment says of methods (`EVENT_NO...`) is for the bases of clients.
///
/// # Errors
/// There is no method, or no fd for one.
pub(super) fn new_base() -> Result<Base, Error> {
    Base::new(&Config { ignore_env: true, ..Config::default() })
        .map_err(|e| Error::Os { what: "make an event base", source: io::Error::other(e) })
}

/// Makes `.../evd` for the default paths, if its parent is there: open to all under /run, the user's own elsewhere.
fn make_directory(socket: &Path) -> io::Result<()> {
    let Some(dir) = socket.parent().filter(|d| d.file_name().is_some_and(|n| n == "evd")) else {
        return Ok(());
    };
    let mode = if dir == Path::new("/run/evd") { 0o755 } else { 0o700 };
    sys::make_directory(dir, mode)
}

/// An evd on threads of this process. Dropping it stops it: its clients are told, and its socket goes.
#[derive(Debug)]
pub struct Daemon {
    socket: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Daemon {
    /// What a new evd is to be like.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops it, and waits for it.
    ///
    /// # Errors
    /// It had ended before, because the system refused its wait.
    pub fn stop(mut self) -> Result<(), Error> {
        self.join();
        match lock(&self.failed).take() {
            Some(source) => Err(Error::Os { what: "wait for connections", source }),
            None => Ok(()),
        }
    }

    fn join(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.join();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
