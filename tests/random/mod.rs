//! Random sequences that can be repeated from their seed, and made short when they fail.

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// The number that an environment variable holds, if it is set.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is to be a number, and not {text:?}")))
}

/// Takes away what is not needed for `fails`, and puts what is `easier` in the place of what is left: once through.
pub fn shorten<T: Clone>(ops: &mut Vec<T>, easier: impl Fn(&T) -> Vec<T>, fails: impl Fn(&[T]) -> bool) {
    let mut length = ops.len() / 2;
    while length > 0 {
        let mut at = 0;
        while at + length <= ops.len() {
            let mut shorter = ops.clone();
            shorter.drain(at..at + length);
            if fails(&shorter) { *ops = shorter } else { at += 1 }
        }
        length /= 2;
    }
    for at in 0..ops.len() {
        for easier in easier(&ops[at]) {
            let mut other = ops.clone();
            other[at] = easier;
            if fails(&other) {
                *ops = other;
            }
        }
    }
}
