//! Whether evd still runs: asked of the kernel, which costs evd nothing, and of evd itself only where that does not tell.

use crate::events::after;
use crate::link::PATIENCE;
use crate::state::State;
use evd_proto::sys::{self, ProcessState};

impl State {
    /// Whether something is at evd that this process would miss if evd did not wake it.
    pub fn relies_on_evd(&self) -> bool {
        self.park.parked > 0
            || self.park.timers_at_evd > 0
            || !self.names.is_empty()
            || !self.daemon_signals.is_empty()
    }

    /// Asks the kernel whether evd's thread still runs: that costs evd nothing. Where it can't be seen, and where it looks stuck, evd is asked itself.
    pub fn check_alive(&mut self, now: u64) {
        let liveness = self.link.liveness;
        self.link.next_check = now.saturating_add(liveness);
        let Some(up) = self.link.up() else { return };
        let state = if up.visible {
            sys::process_state(up.welcome.pid, up.welcome.tid)
        } else {
            ProcessState::Unknown
        };
        let ask = match state {
            ProcessState::Stopped => return self.lose("evd is stopped".to_owned()),
            ProcessState::Gone => return self.lose("evd is gone".to_owned()),
            ProcessState::Waiting => {
                up.busy_checks = 0;
                false
            }
            ProcessState::Busy => {
                up.busy_checks += 1;
                up.busy_checks >= 2
            }
            ProcessState::Unknown => {
                self.link.next_check = now.saturating_add(liveness.saturating_mul(5));
                true
            }
        };
        if ask {
            self.suspect();
        }
    }

    /// evd must answer a `Sync` soon, or counts as stuck.
    pub fn suspect(&mut self) {
        let now = self.base.now();
        if let Some(up) = self.link.up() {
            if up.sync.is_none() {
                if let Ok(serial) = up.line.post_sync() {
                    up.sync = Some((serial, after(now, PATIENCE)));
                }
            }
        }
    }
}
