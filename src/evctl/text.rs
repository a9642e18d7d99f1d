//! Values as words: durations, signals, features, colours.
//!
//! Durations go out in two forms, `5m 12s` in sentences and `5m12s` in columns, where a blank would end the field; one parser reads them from
//! the command line. Everything here is pure but for [`Color::paint`], which looks at the terminal.

use clap::ValueEnum;
use evd_proto::sys;
use std::io::IsTerminal;
use std::time::Duration;

pub(super) use evd_proto::name::printable;

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Decides, from what stdout and the environment are. Source: <https://no-color.org> (a NO_COLOR that is set and not empty).
    pub(super) fn paint(self) -> Paint {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let terminal = std::io::stdout().is_terminal();
        Paint(self.decide(terminal, set("NO_COLOR").is_some(), set("TERM").is_some_and(|t| t == "dumb")))
    }

    fn decide(self, terminal: bool, no_color: bool, dumb: bool) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color && !dumb,
        }
    }
}

/// Puts colours around text, or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// For headings.
    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what needs somebody's attention.
    pub(super) fn alarm(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Nanoseconds for people: `12ms`, `3.2s`, `5m 12s`, `2d 3h`.
pub(super) fn duration(ns: u64) -> String {
    let tenths = ns / 100_000_000;
    let s = tenths / 10;
    match s {
        0 if ns < 1_000_000 => format!("{}us", ns / 1000),
        0 => format!("{}ms", ns / 1_000_000),
        1..60 => format!("{s}.{}s", tenths % 10),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

/// As [`duration`], without the blank: for columns.
pub(super) fn short_duration(ns: u64) -> String {
    duration(ns).replace(' ', "")
}

/// Reads `30s`, `5m`, `2h`, `1d`, `250ms` or plain seconds; fractions are allowed.
///
/// # Errors
/// What is wrong with `text`, for clap.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("not a duration: 30s, 5m, 2h, 1d or plain seconds are".to_owned()),
    };
    let number: f64 =
        number.parse().map_err(|_| "not a duration: 30s, 5m, 2h, 1d or plain seconds are".to_owned())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(d) if d.is_zero() => Err("must be longer than nothing".to_owned()),
        // Far from the end of the u64 nanoseconds of the wire, and of what an Instant can be moved by.
        Ok(d) if d.as_secs() <= 100 * 366 * 86_400 => Ok(d),
        _ => Err("must be at most 100 years".to_owned()),
    }
}

/// The names of the signals in a mask of the wire: bit n is signal n, bit 0 is signal 64.
pub(super) fn signals(mask: u64) -> Vec<String> {
    (1..=64).filter(|n| mask & (1 << (n % 64)) != 0).map(sys::signal_name).collect()
}

/// The names of libevent's EV_FEATURE bits; unknown ones as one number.
pub(super) fn features(bits: u32) -> Vec<String> {
    const NAMES: [(u32, &str); 4] = [(1, "ET"), (2, "O1"), (4, "FDS"), (8, "EARLY_CLOSE")];
    let mut names: Vec<String> =
        NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect();
    let unknown = bits & !15;
    if unknown != 0 {
        names.push(format!("{unknown:#x}"));
    }
    names
}

/// `words` with blanks between, `-` if there are none.
pub(super) fn listed(words: &[String]) -> String {
    if words.is_empty() { "-".to_owned() } else { printable(&words.join(" ")) }
}

/// As [`listed`], with commas: for columns.
pub(super) fn comma_listed(words: &[String]) -> String {
    listed(words).replace(' ', ",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let s = 1_000_000_000;
        let shown = [850_000, 12_000_000, 3_250_000_000, 312 * s, 7500 * s, (2 * 86_400 + 3 * 3600) * s];
        let expected = ["850us", "12ms", "3.2s", "5m 12s", "2h 5m", "2d 3h"];
        assert_eq!(shown.map(duration), expected);
        assert_eq!(short_duration(312 * s), "5m12s");
        assert_eq!(duration(0), "0us");
        assert!(!duration(u64::MAX).is_empty());
    }

    #[test]
    fn durations_are_read_with_and_without_unit() {
        let read = |t| parse_duration(t).map(|d| d.as_millis());
        assert_eq!(read("30s"), Ok(30_000));
        assert_eq!(read("5m"), Ok(300_000));
        assert_eq!(read("2h"), Ok(7_200_000));
        assert_eq!(read("1d"), Ok(86_400_000));
        assert_eq!(read("7"), Ok(7000));
        assert_eq!(read("0.5"), Ok(500));
        assert_eq!(read("250ms"), Ok(250));
        for bad in ["", "s", "-1", "1w", "1 s", "0", "1e3", "nan", "inf", "1.2.3", "99999999999d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn colour_needs_a_terminal_that_can_and_may() {
        assert!(Color::Auto.decide(true, false, false));
        for (terminal, no_color, dumb) in [(false, false, false), (true, true, false), (true, false, true)] {
            assert!(!Color::Auto.decide(terminal, no_color, dumb));
            assert!(Color::Always.decide(terminal, no_color, dumb));
        }
        assert!(!Color::Never.decide(true, false, false));
    }

    #[test]
    fn masks_become_names() {
        assert_eq!(signals(1 << 2 | 1 << 15), ["INT", "TERM"]);
        assert_eq!(signals(1), [sys::signal_name(64)]);
        assert_eq!(features(0x0b), ["ET", "O1", "EARLY_CLOSE"]);
        assert_eq!(features(0x14), ["FDS", "0x10"]);
        assert_eq!((listed(&[]), comma_listed(&features(3))), ("-".to_owned(), "ET,O1".to_owned()));
    }
}
