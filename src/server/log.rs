//! Lines to stderr. Under the journal each has its priority in front; a line is one write.
//!
//! Source: sd-daemon(3) on `<N>` prefixes, systemd.exec(5) on JOURNAL_STREAM.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;

struct Stderr {
    under_journal: bool,
}

/// Logs what is at least as grave as `level` to stderr. A second call changes only the level.
pub(super) fn start(level: LevelFilter) {
    static PLAIN: Stderr = Stderr { under_journal: false };
    static JOURNAL: Stderr = Stderr { under_journal: true };
    let logger = if std::env::var_os("JOURNAL_STREAM").is_some() { &JOURNAL } else { &PLAIN };
    // An error says that there is a logger already.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(record.level(), &record.args().to_string(), self.under_journal);
            // There is nowhere to say that stderr is gone.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(level: Level, text: &str, under_journal: bool) -> String {
    let (priority, name) = match level {
        Level::Error => (3, "error: "),
        Level::Warn => (4, "warning: "),
        Level::Info => (6, ""),
        Level::Debug => (7, "debug: "),
        Level::Trace => (7, "trace: "),
    };
    let text = evd_proto::name::printable(text);
    if under_journal { format!("<{priority}>{text}\n") } else { format!("evd: {name}{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(line(Level::Warn, "a\nb\x1b[0m", false), "evd: warning: a?b?[0m\n");
        assert_eq!(line(Level::Error, "x", true), "<3>x\n");
    }
}
