//! What a sequence consists of, and how one is made up.

use crate::random::Random;

/// Places for clients.
pub const CLIENTS: usize = 4;
/// Files that are watched; watch n of every client is on wire n, as a client has one watch for each open file.
pub const WIRES: usize = 2;
/// Ids of timers and of subscriptions.
pub const IDS: u8 = 2;
pub const NAMES: [&str; 3] = ["a", "b", "no name"];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hello {
    Client,
    Control,
    BadVersion,
    BadName,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Plain,
    /// evd keeps a copy.
    Keep,
    Edge,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Hello(Hello),
    Arm(u8, How),
    Disarm(u8),
    /// The watch is no more.
    Gone(u8),
    /// The client has served the watch itself.
    Served(u8),
    /// A timer, due at once or never.
    Timer(u8, bool),
    Cancel(u8),
    Subscribe(u8, u8),
    Unsubscribe(u8),
    Trigger(u8),
    /// Name, whether to replace, bytes of the attachment, whether its time is over at once.
    Put(u8, bool, u8, bool),
    Take(u8, bool),
    /// What was taken last has arrived.
    Taken,
    Drop(u8),
    List,
    /// Follow all (`None`), or the base of another client.
    Follow(Option<u8>),
    Status,
    Sync,
    /// So many syncs with one send.
    Flood(u16),
    /// Bytes that are no frame.
    Garbage,
}

/// One thing to do. What each client is told is looked at after each.
#[derive(Clone, Debug)]
pub enum Op {
    /// Client, user, whether it may look at all users, whether evd's end of its socket holds little.
    Connect(u8, u32, bool, bool),
    /// Requests that a client sends at once.
    Ask(u8, Vec<Ask>),
    /// The same, and it leaves before evd has looked.
    Dash(u8, Vec<Ask>),
    /// A client does not read from now on.
    Stall(u8),
    /// It reads again.
    Read(u8),
    Leave(u8),
    /// The other end of a wire writes a byte.
    Write(u8),
    /// The wire is read empty.
    Drain(u8),
    /// Both ends of a wire are closed, and there is another under its number.
    Reopen(u8),
}

/// The sequence of a seed.
pub fn sequence(seed: u64) -> Vec<Op> {
    let mut random = Random(seed);
    let r = &mut random;
    let users = 1 + r.below(2) as u32;
    let mut ops = Vec::new();
    for client in 0..1 + r.below(CLIENTS as u64) as u8 {
        connect(r, client, users, &mut ops);
    }
    for _ in 0..6 + r.below(16) {
        let client = r.below(CLIENTS as u64) as u8;
        let wire = r.below(WIRES as u64) as u8;
        match r.below(40) {
            0..=1 => connect(r, client, users, &mut ops),
            2 if r.one_in(2) => ops.push(Op::Leave(client)),
            2 => {
                let several = (0..1 + r.below(4)).map(|_| ask(r)).filter(is_plain).collect();
                ops.push(Op::Dash(client, several));
            }
            3 => ops.push(Op::Stall(client)),
            4 => ops.push(Op::Read(client)),
            5..=8 => ops.push(Op::Write(wire)),
            9..=10 => ops.push(Op::Drain(wire)),
            11 => ops.push(Op::Reopen(wire)),
            12..=14 => {
                let mut several: Vec<Ask> = Vec::new();
                for _ in 0..2 + r.below(3) {
                    let next = quiet(r);
                    if several.iter().all(|before| !is_about_the_same(before, &next)) {
                        several.push(next);
                    }
                }
                ops.push(Op::Ask(client, several));
            }
            _ => {
                let ask = ask(r);
                ops.push(Op::Ask(client, vec![ask]));
            }
        }
    }
    ops
}

fn connect(r: &mut Random, client: u8, users: u32, ops: &mut Vec<Op>) {
    let uid = 1000 + r.below(u64::from(users)) as u32;
    ops.push(Op::Connect(client, uid, r.one_in(6), r.one_in(2)));
    let hello = match r.below(24) {
        0 => Hello::BadVersion,
        1 => Hello::BadName,
        2..=6 => Hello::Control,
        _ => Hello::Client,
    };
    // Now and then it says nothing, or what it wants at once.
    if !r.one_in(12) {
        let mut all = vec![Ask::Hello(hello)];
        if r.one_in(4) {
            all.push(quiet(r));
        }
        ops.push(Op::Ask(client, all));
    }
}

/// What a client that leaves may ask for.
fn is_plain(ask: &Ask) -> bool {
    // When the time of a hold is over depends on when evd looks.
    !matches!(
        ask,
        Ask::Taken | Ask::Put(_, _, _, true) | Ask::Garbage | Ask::Hello(_) | Ask::Arm(..) | Ask::Timer(..)
    )
}

/// Whether it depends on when evd looks what comes of the two.
fn is_about_the_same(a: &Ask, b: &Ask) -> bool {
    let watch = |ask: &Ask| matches!(ask, Ask::Arm(..) | Ask::Disarm(_));
    let timer = |ask: &Ask| matches!(ask, Ask::Timer(..) | Ask::Cancel(_));
    (watch(a) && watch(b)) || (timer(a) && timer(b))
}

/// What says nothing to other clients, so that several may go with one send.
fn quiet(r: &mut Random) -> Ask {
    let (wire, id, name) = (r.below(WIRES as u64) as u8, r.below(u64::from(IDS)) as u8, name(r));
    match r.below(9) {
        0..=1 => Ask::Arm(wire, how(r)),
        2 => Ask::Disarm(wire),
        3 => Ask::Timer(id, r.one_in(2)),
        4 => Ask::Cancel(id),
        5..=6 => Ask::Put(name, r.one_in(2), r.below(40) as u8, false),
        7 => Ask::Drop(name),
        _ => Ask::Sync,
    }
}

fn ask(r: &mut Random) -> Ask {
    let (wire, id, name) = (r.below(WIRES as u64) as u8, r.below(u64::from(IDS)) as u8, name(r));
    match r.below(40) {
        0..=6 => Ask::Arm(wire, how(r)),
        7 => Ask::Disarm(wire),
        8 => Ask::Gone(wire),
        9 => Ask::Served(wire),
        10..=12 => Ask::Timer(id, r.one_in(2)),
        13 => Ask::Cancel(id),
        14..=17 => Ask::Subscribe(id, name),
        18 => Ask::Unsubscribe(id),
        19..=22 => Ask::Trigger(name),
        23..=26 => Ask::Put(name, r.one_in(2), r.below(40) as u8, r.one_in(6)),
        27..=29 => Ask::Take(name, r.one_in(3)),
        30 => Ask::Taken,
        31 => Ask::Drop(name),
        32 => Ask::List,
        33..=35 => Ask::Follow(r.one_in(2).then(|| r.below(CLIENTS as u64) as u8)),
        36 => Ask::Status,
        37 => Ask::Flood(20 + r.below(400) as u16),
        38 if r.one_in(3) => Ask::Garbage,
        39 if r.one_in(3) => Ask::Hello(Hello::Client),
        _ => Ask::Sync,
    }
}

fn how(r: &mut Random) -> How {
    r.of(&[How::Plain, How::Plain, How::Keep, How::Edge])
}

fn name(r: &mut Random) -> u8 {
    if r.one_in(20) { 2 } else { r.below(2) as u8 }
}

/// What may be put in the place of an operation to make a sequence that fails shorter.
pub fn easier(op: &Op) -> Vec<Op> {
    match op {
        Op::Ask(client, asks) if asks.len() > 1 => (0..asks.len())
            .map(|at| {
                let mut fewer = asks.clone();
                fewer.remove(at);
                Op::Ask(*client, fewer)
            })
            .collect(),
        Op::Ask(client, asks) => match asks[..] {
            [Ask::Arm(wire, how)] if how != How::Plain => {
                vec![Op::Ask(*client, vec![Ask::Arm(wire, How::Plain)])]
            }
            [Ask::Flood(n)] if n > 1 => {
                vec![Op::Ask(*client, vec![Ask::Flood(n / 2)]), Op::Ask(*client, vec![Ask::Sync])]
            }
            _ => Vec::new(),
        },
        Op::Connect(client, uid, true, small) => vec![Op::Connect(*client, *uid, false, *small)],
        Op::Connect(client, uid, false, true) => vec![Op::Connect(*client, *uid, false, false)],
        _ => Vec::new(),
    }
}
