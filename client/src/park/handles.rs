//! Handles of Windows that evd waits for: it takes them out of this process by their numbers, so they are told in a message of their own, which carries no fds.

use super::BATCH;
use crate::state::State;
use evd_proto::request::{ArmHandle, ArmHandles, ArmWatch};
use evd_proto::sys::{FileId, FileKind};

impl State {
    /// Whether evd can't watch such a file for us.
    pub(super) fn must_stay(&mut self, file: FileId) -> bool {
        match file.kind {
            // evd can't see what this process's signalfd would report, and the kernel passes no io_uring.
            FileKind::Regular | FileKind::SignalFd | FileKind::IoUring => true,
            _ if !file.is_pulled() => false,
            _ => self.link.up().is_none_or(|up| up.welcome.features & ArmHandles::FEATURE == 0),
        }
    }

    /// The number that evd is to take it by, if no message carries it.
    pub(super) fn as_handle(&self, arm: &ArmWatch) -> Option<ArmHandle> {
        let ArmWatch { id, seq, interest, .. } = *arm;
        self.park.file(id).filter(FileId::is_pulled)?;
        let handle = u32::try_from(self.watch(id).fd).ok()?;
        Some(ArmHandle { id, seq, interest, handle })
    }

    /// Arms handles at evd, which takes as many as there are: none is on its way.
    pub(super) fn send_handles(&mut self, watches: &[ArmHandle]) {
        for some in watches.chunks(BATCH) {
            let Some(up) = self.link.up() else {
                some.iter().for_each(|arm| self.stay_local_after_try(arm.id));
                continue;
            };
            // It fits a frame.
            let _ = up.line.post(&ArmHandles { watches: some.to_vec() });
            some.iter().for_each(|arm| self.parked(arm.id));
        }
    }
}
