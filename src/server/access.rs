//! Who may connect, and who may see what.

use super::error::Error;
use super::mail::lock;
use evd_proto::sys::BorrowedFd;
use evd_proto::sys::{self, Peer};
use std::sync::Mutex;

/// Who was named as allowed, as it was written down: names are looked up when evd starts, and again when it reloads.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    /// Numbers or names, with commas between them.
    pub users: String,
    pub groups: String,
    /// Groups whose members may look at the bases of all users, likewise.
    pub admins: Vec<u32>,
    pub admin_groups: String,
    /// Whether the user that all have whom evd's user namespace does not know is one like others.
    pub allow_overflow: bool,
}

impl Rules {
    /// Looks the names up.
    ///
    /// # Errors
    /// `Usage`: a name that nobody has.
    pub fn look_up(&self) -> Result<Allowed, Error> {
        let mut allowed =
            Allowed { uids: self.uids.clone(), gids: self.gids.clone(), admins: self.admins.clone() };
        allowed.uids.extend(ids(&self.users, "user", sys::user_id)?);
        allowed.gids.extend(ids(&self.groups, "group", sys::group_id)?);
        allowed.admins.extend(ids(&self.admin_groups, "group", sys::group_id)?);
        Ok(allowed)
    }
}

/// Users and groups by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    uids: Vec<u32>,
    gids: Vec<u32>,
    /// Groups whose members may also look at the bases of all users.
    admins: Vec<u32>,
}

/// What somebody who connects may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing; the text says why.
    Refused(String),
    /// Use evd, and see what is his user's.
    User,
    /// That, and see what is anybody's.
    Inspector,
}

/// Who may connect: evd's own user and root always, others as configured.
#[derive(Debug)]
pub(super) struct Access {
    own: u32,
    /// The user that all have whom evd's user namespace does not know; `None`: it is one like others.
    overflow: Option<u32>,
    /// All may pass epolls, not only root and evd's own user.
    nested: bool,
    /// Locked once a connection.
    allowed: Mutex<Allowed>,
}

impl Access {
    pub fn new(allowed: Allowed, allow_overflow: bool) -> Access {
        let overflow = if allow_overflow { None } else { Some(sys::overflow_uid()) };
        Access { own: sys::effective_ids().0, overflow, nested: false, allowed: Mutex::new(allowed) }
    }

    /// Lets all users pass epolls, if `on`.
    pub fn allow_nested(mut self, on: bool) -> Access {
        self.nested = on;
        self
    }

    /// Whether `uid` may pass epolls.
    pub fn nests(&self, uid: u32) -> bool {
        self.nested || uid == 0 || uid == self.own
    }

    /// From now on others are allowed. `false`: they are the same.
    pub fn replace(&self, allowed: Allowed) -> bool {
        let mut now = lock(&self.allowed);
        let is_new = *now != allowed;
        *now = allowed;
        is_new
    }

    /// What `peer`, who connected `socket`, may do. Groups are asked for only if they decide.
    pub fn standing(&self, peer: &Peer, socket: BorrowedFd<'_>) -> Standing {
        let uid = peer.uid;
        if self.overflow == Some(uid) {
            // Whoever they are, to evd they would be one user, who takes the other's held fds.
            return Standing::Refused(format!(
                "user {uid} stands for all whom evd's user namespace does not know; --allow-overflow-uid lets them in as one"
            ));
        }
        if uid == 0 || uid == self.own {
            return Standing::Inspector;
        }
        let Allowed { uids, gids, admins } = &*lock(&self.allowed);
        let mut all = None;
        let mut is_in = |gids: &[u32]| {
            let groups = |socket| sys::peer_groups(socket).unwrap_or_default();
            !gids.is_empty()
                && (gids.contains(&peer.gid)
                    || all.get_or_insert_with(|| groups(socket)).iter().any(|g| gids.contains(g)))
        };
        if is_in(admins) {
            Standing::Inspector
        } else if uids.contains(&uid) || is_in(gids) {
            Standing::User
        } else {
            let text = format!("user {uid} may not use this evd; --allow-uid and --allow-gid say who may");
            Standing::Refused(text)
        }
    }

    /// The mode and the group of the socket file: as strict as the lists allow. Where they can't be expressed as a mode, the peer's credentials decide alone.
    pub fn socket_mode(&self) -> (u32, Option<u32>) {
        let Allowed { uids, gids, admins } = &*lock(&self.allowed);
        let mut groups: Vec<u32> = gids.iter().chain(admins).copied().collect();
        groups.sort_unstable();
        groups.dedup();
        match (uids.as_slice(), groups.as_slice()) {
            ([], []) => (0o600, None),
            ([], [gid]) => (0o660, Some(*gid)),
            _ => (0o666, None),
        }
    }
}

/// Reads a list of numbers or names, as an environment variable has them.
fn ids(list: &str, kind: &str, by_name: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, Error> {
    let parts = list.split(',').map(str::trim).filter(|p| !p.is_empty());
    parts
        .map(|p| {
            let known = p.parse().ok().or_else(|| by_name(p));
            known.ok_or_else(|| {
                Error::Usage(format!("{p:?} is neither a number nor a {kind} of this machine"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evd_proto::sys::AsFd;

    #[test]
    fn own_user_and_root_always_others_by_list() {
        let allowed = |uids: &[u32]| Allowed { uids: uids.to_vec(), gids: vec![100], admins: vec![200] };
        let access =
            Access { own: 5, overflow: Some(99), nested: false, allowed: Mutex::new(allowed(&[7, 99])) };
        let (socket, _other) = sys::socketpair().unwrap();
        let ask = |uid, gid| access.standing(&Peer { pid: 1, uid, gid }, socket.as_fd());
        assert_eq!([ask(0, 0), ask(5, 5), ask(9, 200)], [const { Standing::Inspector }; 3]);
        assert_eq!([ask(7, 7), ask(9, 100)], [const { Standing::User }; 2]);
        assert!(matches!(ask(99, 200), Standing::Refused(text) if text.contains("--allow-overflow-uid")));
        let known = Access { own: 5, overflow: None, nested: false, allowed: Mutex::new(allowed(&[7, 99])) };
        assert_eq!(known.standing(&Peer { pid: 1, uid: 99, gid: 9 }, socket.as_fd()), Standing::User);
        let mine = sys::peer_groups(socket.as_fd()).unwrap();
        assert_eq!(ask(9, 9) == Standing::User, mine.contains(&100) && !mine.contains(&200));
        assert!(access.replace(allowed(&[8])) && !access.replace(allowed(&[8])));
        let ask = |uid| access.standing(&Peer { pid: 1, uid, gid: 9 }, socket.as_fd());
        assert_eq!(ask(8), Standing::User);
        assert!(mine.contains(&100) || matches!(ask(7), Standing::Refused(_)));
    }

    #[test]
    fn the_mode_is_as_strict_as_it_can_be() {
        let mode = |u: &[u32], g: &[u32], a: &[u32]| {
            let allowed = Allowed { uids: u.to_vec(), gids: g.to_vec(), admins: a.to_vec() };
            Access::new(allowed, false).socket_mode()
        };
        assert_eq!(mode(&[], &[], &[]), (0o600, None));
        assert_eq!(mode(&[], &[3], &[]), (0o660, Some(3)));
        assert_eq!(mode(&[], &[], &[3]), (0o660, Some(3)));
        assert_eq!(mode(&[], &[3], &[3]), (0o660, Some(3)));
        assert_eq!(mode(&[1], &[3], &[]), (0o666, None));
        assert_eq!(mode(&[], &[3], &[4]), (0o666, None));
        // Windows knows nobody by such a name.
        let root = if sys::user_id("root").is_some() { "root" } else { "0" };
        let rules = Rules { uids: vec![3], users: root.into(), groups: "9".into(), ..Rules::default() };
        assert_eq!(rules.look_up().unwrap(), Allowed { uids: vec![3, 0], gids: vec![9], admins: vec![] });
        assert_eq!(ids(&format!("1, {root},"), "user", sys::user_id).unwrap(), [1, 0]);
        let text = ids("5,no such", "group", sys::group_id).unwrap_err().to_string();
        assert!(text.contains("\"no such\" is neither a number nor a group"), "{text}");
    }
}
