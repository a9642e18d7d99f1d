//! What an open file is, in words: `tcp 127.0.0.1:80 <- 127.0.0.1:5123`, `unix /run/x listen`, `eventfd`.
//!
//! evd tells of a socket only its inode: under a hardened unit it has a network namespace of its own and can't see others' addresses. So evctl looks the
//! inodes up itself, in the tables of its own namespace. What is not in them is `socket [INODE]`.
//!
//! Source: proc_pid_net(5); Linux net/ipv4/tcp_ipv4.c `get_tcp4_sock`, net/unix/af_unix.c `unix_seq_show`.

use evd_proto::name::printable;
use evd_proto::sys::FileKind;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// States of the tables. Source: Linux include/net/tcp_states.h.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
/// Flag of a listening Unix socket. Source: Linux include/linux/net.h, __SO_ACCEPTCON.
const ACCEPTS: u32 = 1 << 16;

/// The sockets of this network namespace, by inode.
#[derive(Debug, Default)]
pub(super) struct Sockets(HashMap<u64, String>);

impl Sockets {
    /// Reads the kernel's tables, those that there are.
    pub(super) fn load() -> Sockets {
        // Paths are bytes; a table must not be lost for one that is not UTF-8.
        let read = |table: &str| {
            let bytes = fs::read(format!("/proc/net/{table}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let mut all = Sockets::default();
        for (proto, tables) in [("tcp", ["tcp", "tcp6"]), ("udp", ["udp", "udp6"])] {
            all.add_inet(proto, &tables.map(read));
        }
        all.add_unix(&read("unix"));
        all
    }

    /// Those of a table as `/proc/net/unix` is.
    pub(super) fn of_unix(table: &str) -> Sockets {
        let mut all = Sockets::default();
        all.add_unix(table);
        all
    }

    /// What a file of this kind and inode is.
    pub(super) fn describe(&self, kind: FileKind, ino: u64) -> String {
        match (kind, self.0.get(&ino)) {
            (FileKind::Socket, Some(text)) => text.clone(),
            (FileKind::Socket | FileKind::Pipe, None) if ino != 0 => format!("{} [{ino}]", kind_name(kind)),
            (FileKind::Pipe, Some(_)) => format!("pipe [{ino}]"),
            _ => kind_name(kind).to_owned(),
        }
    }

    /// Takes the IPv4 and IPv6 tables of one protocol together: a listener of one may have connections in the other.
    fn add_inet(&mut self, proto: &str, tables: &[String]) {
        let rows: Vec<Row> = tables.iter().flat_map(|t| t.lines().skip(1)).filter_map(Row::parse).collect();
        let listening = |r: &&Row| proto == "tcp" && r.state == LISTEN;
        let listeners: HashSet<SocketAddr> = rows.iter().filter(listening).map(|r| r.local).collect();
        // A connection to a port that somebody listens at came from the other side.
        let came_in = |local: SocketAddr| {
            let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            listeners.contains(&local)
                || any.iter().any(|ip| listeners.contains(&SocketAddr::new(*ip, local.port())))
        };
        for row in rows.iter().filter(|r| r.inode != 0) {
            let local = row.local;
            let text = match row.state {
                LISTEN if proto == "tcp" => format!("{proto} {local} listen"),
                _ if row.remote.port() == 0 && row.remote.ip().is_unspecified() => format!("{proto} {local}"),
                state => {
                    let arrow = if came_in(local) { "<-" } else { "->" };
                    let rest = if state == ESTABLISHED { "" } else { state_name(state) };
                    format!("{proto} {local} {arrow} {}{rest}", row.remote)
                }
            };
            self.0.insert(row.inode, text);
        }
    }

    fn add_unix(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let Some((inode, flags, path)) = unix_row(line) else { continue };
            let listen = if flags & ACCEPTS != 0 { " listen" } else { "" };
            let text = match path {
                "" => format!("unix [{inode}]{listen}"),
                path => format!("unix {}{listen}", printable(path)),
            };
            self.0.insert(inode, text);
        }
    }
}

/// As [`Sockets::describe`] gives it, in one word: `tcp:127.0.0.1:80<-127.0.0.1:5123`.
pub(super) fn one_word(text: &str) -> String {
    let joined = text.replace(" <- ", "<-").replace(" -> ", "->").replacen(' ', ":", 1);
    joined.replace(' ', ",")
}

/// The name of a kind of file, in text and JSON.
pub(super) fn kind_name(kind: FileKind) -> &'static str {
    if let Some(name) = kind.handle_name() {
        return name;
    }
    match kind {
        FileKind::Socket => "socket",
        FileKind::Pipe => "pipe",
        FileKind::Char => "char",
        FileKind::Regular => "file",
        FileKind::EventFd => "eventfd",
        FileKind::TimerFd => "timerfd",
        FileKind::PidFd => "pidfd",
        FileKind::Inotify => "inotify",
        FileKind::Epoll => "epoll",
        FileKind::SignalFd => "signalfd",
        FileKind::IoUring => "io_uring",
        FileKind::Other => "other",
    }
}

fn state_name(state: u8) -> &'static str {
    match state {
        2 => " syn-sent",
        3 => " syn-received",
        4 => " fin-wait-1",
        5 => " fin-wait-2",
        6 => " time-wait",
        7 => " closed",
        8 => " close-wait",
        9 => " last-ack",
        11 => " closing",
        _ => "",
    }
}

/// One line of a tcp or udp table.
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

impl Row {
    fn parse(line: &str) -> Option<Row> {
        let mut fields = line.split_ascii_whitespace();
        let local = address(fields.nth(1)?)?;
        let remote = address(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Row { local, remote, state, inode })
    }
}

/// `0100007F:0050`: each 32 bits of the address as a number of this machine's byte order, the port in plain hex.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    let len = ip.len() / 2;
    if !ip.is_ascii() || !matches!(len, 4 | 16) || ip.len() % 8 != 0 {
        return None;
    }
    for (word, to) in bytes[..len].chunks_exact_mut(4).enumerate() {
        let digits = ip.get(word * 8..word * 8 + 8)?;
        to.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    let ip = match bytes.first_chunk::<4>() {
        Some(four) if len == 4 => IpAddr::V4(Ipv4Addr::from(*four)),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

/// Inode, flags and path of one line of the Unix table. The path is all behind the inode, blanks included.
fn unix_row(line: &str) -> Option<(u64, u32, &str)> {
    let mut rest = line;
    let mut field = || {
        let (word, behind) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        rest = behind;
        word
    };
    let flags = u32::from_str_radix((field(), field(), field(), field()).3, 16).ok()?;
    let inode = (field(), field(), field()).2.parse().ok()?;
    Some((inode, flags, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    /// An address as the kernel of this machine writes it: in words of its own byte order. Given as those with the lowest byte first do.
    fn native(address: &str) -> String {
        let (words, port) = address.split_once(':').unwrap();
        let word = |at: usize| u32::from_le(u32::from_str_radix(&words[at..at + 8], 16).unwrap());
        let words: String = (0..words.len()).step_by(8).map(|at| format!("{:08X}", word(at))).collect();
        format!("{words}:{port}")
    }

    fn table(rows: &[&str]) -> String {
        let tail = "00000000:00000000 00:00000000 00000000     0        0";
        let lines = rows.iter().enumerate().map(|(i, r)| {
            let [local, remote, state, inode] = r.split(' ').collect::<Vec<_>>()[..] else { panic!("{r}") };
            let (local, remote) = (native(local), native(remote));
            format!("   {i}: {local} {remote} {state} {tail} {inode} 1 00000000f220b6e8 100 0 0 10 0\n")
        });
        HEAD.to_owned() + &lines.collect::<String>()
    }

    #[test]
    fn tcp_of_both_families_knows_listeners_and_directions() {
        let mut all = Sockets::default();
        let four = table(&[
            "0100007F:0050 00000000:0000 0A 11",
            "0100007F:0050 0100007F:1403 01 12",
            "0100007F:1403 0100007F:0050 01 13",
            "0100007F:1404 0100007F:0050 06 0",
        ]);
        let six = table(&[
            "00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 21",
            "B80D0120000000000000000001000000:01BB B80D0120000000000000000002000000:1403 01 22",
            "0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000200007F:9C40 08 23",
        ]);
        all.add_inet("tcp", &[four, six]);
        let is = |ino| all.describe(FileKind::Socket, ino);
        assert_eq!(is(11), "tcp 127.0.0.1:80 listen");
        assert_eq!(is(12), "tcp 127.0.0.1:80 <- 127.0.0.1:5123");
        assert_eq!(is(13), "tcp 127.0.0.1:5123 -> 127.0.0.1:80");
        assert_eq!(is(21), "tcp [::]:443 listen");
        assert_eq!(is(22), "tcp [2001:db8::1]:443 <- [2001:db8::2]:5123");
        assert_eq!(is(23), "tcp 127.0.0.1:80 <- 127.0.0.2:40000 close-wait");
        assert_eq!((is(99).as_str(), is(0).as_str()), ("socket [99]", "socket"));
        assert_eq!(one_word(&is(12)), "tcp:127.0.0.1:80<-127.0.0.1:5123");
        assert_eq!(one_word(&is(11)), "tcp:127.0.0.1:80,listen");
    }

    #[test]
    fn udp_is_bound_or_connected() {
        let mut all = Sockets::default();
        let rows = ["00000000:0035 00000000:0000 07 5", "0100007F:0035 0100007F:1403 01 6"];
        all.add_inet("udp", &[table(&rows)]);
        assert_eq!(all.describe(FileKind::Socket, 5), "udp 0.0.0.0:53");
        assert_eq!(all.describe(FileKind::Socket, 6), "udp 127.0.0.1:53 -> 127.0.0.1:5123");
    }

    #[test]
    fn unix_sockets_have_paths_with_anything_in_them() {
        let mut all = Sockets::default();
        all.add_unix(
            "Num       RefCount Protocol Flags    Type St Inode Path\n\
             00000000b56227c: 00000002 00000000 00010000 0001 01  1221 /run/a b\x1b\n\
             00000000b56227d: 00000003 00000000 00000000 0001 03 11222\n\
             00000000b56227e: 00000003 00000000 00000000 0001 03     3 @abstract\n\
             garbage\n",
        );
        let is = |ino| all.describe(FileKind::Socket, ino);
        assert_eq!(is(1221), "unix /run/a b? listen");
        assert_eq!(is(11222), "unix [11222]");
        assert_eq!(is(3), "unix @abstract");
    }

    #[test]
    fn what_is_no_socket_goes_by_its_kind() {
        let all = Sockets::default();
        assert_eq!(all.describe(FileKind::Pipe, 8), "pipe [8]");
        assert_eq!(all.describe(FileKind::EventFd, 8), "eventfd");
    }

    #[test]
    fn lines_that_are_no_rows_are_passed_over() {
        for bad in ["", "x", "0: zz:1 00000000:0000 0A", "0: 0100007F 0100007F 0A a b c d e 7"] {
            assert!(Row::parse(bad).is_none(), "{bad}");
        }
        assert!(address("é100007:0050").is_none());
    }

    #[test]
    fn the_tables_of_this_machine_show_a_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let id = evd_proto::sys::identify(evd_proto::sys::AsFd::as_fd(&listener)).unwrap();
        // A system without tables leaves a socket its number.
        let expected = match std::env::consts::OS == "linux" {
            true => format!("tcp {} listen", listener.local_addr().unwrap()),
            false => format!("socket [{}]", id.ino),
        };
        assert_eq!(Sockets::load().describe(id.kind, id.ino), expected);
    }
}
