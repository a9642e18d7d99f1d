//! libevent's bits: what an event waits for, and what happened.

use serde::{Deserialize, Serialize};

bitflags::bitflags! {
    /// What an event waits for, and what happened, in libevent's values.
    ///
    /// Source: libevent, event2/event.h.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct What: u8 {
        /// The timeout has passed.
        const TIMEOUT = 0x01;
        /// The fd can be read, or has an error or hang-up that a read would report.
        const READ = 0x02;
        /// The fd can be written, or has an error or hang-up that a write would report.
        const WRITE = 0x04;
        /// A signal came.
        const SIGNAL = 0x08;
        /// The event stays pending when it fires.
        const PERSIST = 0x10;
        /// Edge-triggered, where the method can.
        const ET = 0x20;
        /// The peer has closed its end, or the half that we read from.
        const CLOSED = 0x80;
    }
}

impl What {
    /// The bits that a backend can wait for.
    pub const IO: What = What::READ.union(What::WRITE).union(What::CLOSED);
}

// As the plain number, so that unknown bits are an error here and not lost later.
impl Serialize for What {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.bits())
    }
}

impl<'de> Deserialize<'de> for What {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<What, D::Error> {
        let bits = u8::deserialize(d)?;
        What::from_bits(bits)
            .ok_or_else(|| serde::de::Error::custom(format_args!("unknown bits in {bits:#04x}")))
    }
}

impl std::fmt::Display for What {
    /// As libevent's dump does: `READ|WRITE`, `-` for nothing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() { f.write_str("-") } else { bitflags::parser::to_writer(self, Bars(f)) }
    }
}

/// Drops the blanks that `bitflags` puts around its bars.
struct Bars<'a, 'b>(&'a mut std::fmt::Formatter<'b>);

impl std::fmt::Write for Bars<'_, '_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0.write_str(s.trim())
    }
}
