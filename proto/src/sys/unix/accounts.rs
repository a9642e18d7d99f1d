//! Users and groups by name.

use std::ffi::CString;
use std::mem::MaybeUninit;

/// The most that one entry of the account database may need: a group may have thousands of members.
const MOST: usize = 1 << 20;

/// The number of the user with this name, by whatever database the system uses.
///
/// Source: getpwnam_r(3), nsswitch.conf(5).
pub fn user_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    with_room(|room| {
        let (mut entry, mut found) = (MaybeUninit::<libc::passwd>::uninit(), std::ptr::null_mut());
        // SAFETY: `name` is a C string, `entry` has room for one entry, and `room` is as long as is said; all live for the call.
        let code = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                room.as_mut_ptr().cast(),
                room.len(),
                &mut found,
            )
        };
        // SAFETY: if `found` is not null it points to `entry`, which is then filled.
        (code, unsafe { found.as_ref() }.map(|e| e.pw_uid))
    })
}

/// The number of the group with this name, by whatever database the system uses.
///
/// Source: getgrnam_r(3), nsswitch.conf(5).
pub fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    with_room(|room| {
        let (mut entry, mut found) = (MaybeUninit::<libc::group>::uninit(), std::ptr::null_mut());
        // SAFETY: `name` is a C string, `entry` has room for one entry, and `room` is as long as is said; all live for the call.
        let code = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                room.as_mut_ptr().cast(),
                room.len(),
                &mut found,
            )
        };
        // SAFETY: if `found` is not null it points to `entry`, which is then filled.
        (code, unsafe { found.as_ref() }.map(|e| e.gr_gid))
    })
}

/// The user that the kernel shows for all whom our user namespace does not know; 65,534 where it does not say.
///
/// Source: user_namespaces(7), `/proc/sys/kernel/overflowuid`.
pub fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(65_534)
}

/// Asks again with more room while the database says that it needs more.
fn with_room(ask: impl Fn(&mut [u8]) -> (libc::c_int, Option<u32>)) -> Option<u32> {
    let mut room = vec![0; 4096];
    loop {
        let (code, id) = ask(&mut room);
        if code != libc::ERANGE || room.len() >= MOST {
            return id;
        }
        room.resize(room.len() * 4, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_nobody_of_a_made_up_name() {
        assert_eq!((user_id("root"), group_id("root")), (Some(0), Some(0)));
        assert_eq!((user_id("no such user"), group_id("no\0group")), (None, None));
    }
}
