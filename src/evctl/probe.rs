//! What evctl makes of an answer, without an evd to ask: the fuzzer and the tests look at what reaches a terminal.

use super::error::Error;
use super::sockets::Sockets;
use super::text::Color;
use super::{events, fd, follow, status};
use evd_proto::frame::{FrameError, Kind, body};
use evd_proto::notice::Trace;
use evd_proto::reply::{Holds, StatusPage};

/// What is printed of an answer, as text or as JSON. The texts of a table of sockets stand for what else others chose: `sockets` is one as `/proc/net/unix` is.
///
/// # Errors
/// The answer is none of those that evctl prints, or is malformed.
pub fn printed(kind: Kind, bytes: &[u8], json: bool, sockets: &str) -> Result<Vec<u8>, FrameError> {
    let paint = Color::Never.paint();
    let sockets = Sockets::of_unix(sockets);
    let mut out = Vec::new();
    let written = match kind {
        Kind::StatusPage => {
            let page: StatusPage = body(kind, bytes)?;
            status::write_status(&page, json, paint, &mut out)
                .and_then(|()| status::write_bases(&page, json, paint, &mut out))
        }
        Kind::EventsPage => events::write_events(&[body(kind, bytes)?], &sockets, json, paint, &mut out),
        Kind::Holds => {
            let page: Holds = body(kind, bytes)?;
            fd::write_holds(&page.holds, &sockets, json, paint, &mut out)
        }
        Kind::Trace => {
            let trace: Trace = body(kind, bytes)?;
            follow::write_trace(&trace, trace.at, json, &mut out, |e| follow::named(e).unwrap_or_default())
        }
        _ => {
            out = Error::Refused(body(kind, bytes)?).to_string().into_bytes();
            out.push(b'\n');
            Ok(())
        }
    };
    written.expect("a Vec takes all");
    Ok(out)
}
