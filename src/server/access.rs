//! Who may connect, and who may see what.

use super::error::Error;
use evd_proto::sys::{self, Peer};
use std::os::fd::BorrowedFd;

/// Who may connect: evd's own user and root always, others as configured.
#[derive(Clone, Debug)]
pub(super) struct Access {
    own: u32,
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Access {
    pub fn new(uids: Vec<u32>, gids: Vec<u32>) -> Access {
        Access { own: sys::effective_ids().0, uids, gids }
    }

    /// Whether `peer`, who connected `socket`, may. Groups are asked for only if they decide.
    pub fn allows(&self, peer: &Peer, socket: BorrowedFd<'_>) -> bool {
        self.sees_all(peer.uid)
            || self.uids.contains(&peer.uid)
            || self.gids.contains(&peer.gid)
            || (!self.gids.is_empty()
                && sys::peer_groups(socket).is_ok_and(|g| g.iter().any(|g| self.gids.contains(g))))
    }

    /// Whether `uid` may see the bases of all users: evd's own and root.
    pub fn sees_all(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own
    }

    /// The mode and the group of the socket file: as strict as the lists allow. Where they can't be expressed as a mode, the peer's credentials decide alone.
    pub fn socket_mode(&self) -> (u32, Option<u32>) {
        match (self.uids.as_slice(), self.gids.as_slice()) {
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
pub(super) fn ids(list: &str, kind: &str, by_name: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, Error> {
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
        let access = Access { own: 5, uids: vec![7], gids: vec![100] };
        let (socket, _other) = sys::socketpair().unwrap();
        let ask = |uid, gid| access.allows(&Peer { pid: 1, uid, gid }, socket.as_fd());
        assert!(ask(0, 0) && ask(5, 5) && ask(7, 7) && ask(9, 100));
        let mine = sys::peer_groups(socket.as_fd()).unwrap();
        assert_eq!(ask(9, 9), mine.contains(&100));
        assert!(access.sees_all(0) && access.sees_all(5) && !access.sees_all(7));
    }

    #[test]
    fn the_mode_is_as_strict_as_it_can_be() {
        let mode = |u: &[u32], g: &[u32]| Access::new(u.to_vec(), g.to_vec()).socket_mode();
        assert_eq!(mode(&[], &[]), (0o600, None));
        assert_eq!(mode(&[], &[3]), (0o660, Some(3)));
        assert_eq!(mode(&[1], &[3]), (0o666, None));
        assert_eq!(mode(&[], &[3, 4]), (0o666, None));
        assert_eq!(ids("1, root,", "user", sys::user_id).unwrap(), [1, 0]);
        let text = ids("5,no such", "group", sys::group_id).unwrap_err().to_string();
        assert!(text.contains("\"no such\" is neither a number nor a group"), "{text}");
    }
}
