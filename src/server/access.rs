//! Who may connect, and who may see what.

use super::error::Error;
use super::mail::lock;
use evd_proto::sys::{self, Peer};
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

/// Who was named as allowed, as it was written down: names are looked up when evd starts, and again when it reloads.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    /// Numbers or names, with commas between them.
    pub users: String,
    pub groups: String,
}

impl Rules {
    /// Looks the names up.
    ///
    /// # Errors
    /// `Usage`: a name that nobody has.
    pub fn look_up(&self) -> Result<Allowed, Error> {
        let mut allowed = Allowed { uids: self.uids.clone(), gids: self.gids.clone() };
        allowed.uids.extend(ids(&self.users, "user", sys::user_id)?);
        allowed.gids.extend(ids(&self.groups, "group", sys::group_id)?);
        Ok(allowed)
    }
}

/// Users and groups by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

/// Who may connect: evd's own user and root always, others as configured.
#[derive(Debug)]
pub(super) struct Access {
    own: u32,
    /// Locked once a connection.
    allowed: Mutex<Allowed>,
}

impl Access {
    pub fn new(allowed: Allowed) -> Access {
        Access { own: sys::effective_ids().0, allowed: Mutex::new(allowed) }
    }

    /// From now on others are allowed. `false`: they are the same.
    pub fn replace(&self, allowed: Allowed) -> bool {
        let mut now = lock(&self.allowed);
        let is_new = *now != allowed;
        *now = allowed;
        is_new
    }

    /// Whether `peer`, who connected `socket`, may. Groups are asked for only if they decide.
    pub fn allows(&self, peer: &Peer, socket: BorrowedFd<'_>) -> bool {
        if self.sees_all(peer.uid) {
            return true;
        }
        let Allowed { uids, gids } = &*lock(&self.allowed);
        uids.contains(&peer.uid)
            || gids.contains(&peer.gid)
            || (!gids.is_empty()
                && sys::peer_groups(socket).is_ok_and(|g| g.iter().any(|g| gids.contains(g))))
    }

    /// Whether `uid` may see the bases of all users: evd's own and root.
    pub fn sees_all(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own
    }

    /// The mode and the group of the socket file: as strict as the lists allow. Where they can't be expressed as a mode, the peer's credentials decide alone.
    pub fn socket_mode(&self) -> (u32, Option<u32>) {
        let Allowed { uids, gids } = &*lock(&self.allowed);
        match (uids.as_slice(), gids.as_slice()) {
            ([], []) => (0o600, None),
            ([], [gid]) => (0o660, Some(*gid)),
            _ => (0o666, None),
        }
    }

    /// What to say to somebody who is refused.
    pub fn refusal(&self, uid: u32) -> String {
        format!("user {uid} may not use this evd; --allow-uid and --allow-gid say who may")
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
    use std::os::fd::AsFd;

    #[test]
    fn own_user_and_root_always_others_by_list() {
        let allowed = Mutex::new(Allowed { uids: vec![7], gids: vec![100] });
        let access = Access { own: 5, allowed };
        let (socket, _other) = sys::socketpair().unwrap();
        let ask = |uid, gid| access.allows(&Peer { pid: 1, uid, gid }, socket.as_fd());
        assert!(ask(0, 0) && ask(5, 5) && ask(7, 7) && ask(9, 100));
        let mine = sys::peer_groups(socket.as_fd()).unwrap();
        assert_eq!(ask(9, 9), mine.contains(&100));
        assert!(access.sees_all(0) && access.sees_all(5) && !access.sees_all(7));
        let other = Allowed { uids: vec![8], gids: vec![] };
        assert!(access.replace(other.clone()) && !access.replace(other));
        let ask = |uid| access.allows(&Peer { pid: 1, uid, gid: 100 }, socket.as_fd());
        assert!(ask(5) && ask(8) && !ask(7));
    }

    #[test]
    fn the_mode_is_as_strict_as_it_can_be() {
        let mode =
            |u: &[u32], g: &[u32]| Access::new(Allowed { uids: u.to_vec(), gids: g.to_vec() }).socket_mode();
        assert_eq!(mode(&[], &[]), (0o600, None));
        assert_eq!(mode(&[], &[3]), (0o660, Some(3)));
        assert_eq!(mode(&[1], &[3]), (0o666, None));
        assert_eq!(mode(&[], &[3, 4]), (0o666, None));
        let rules = Rules { uids: vec![3], users: "root".into(), groups: "9".into(), ..Rules::default() };
        assert_eq!(rules.look_up().unwrap(), Allowed { uids: vec![3, 0], gids: vec![9] });
        assert_eq!(ids("1, root,", "user", sys::user_id).unwrap(), [1, 0]);
        let text = ids("5,no such", "group", sys::group_id).unwrap_err().to_string();
        assert!(text.contains("\"no such\" is neither a number nor a group"), "{text}");
    }
}
