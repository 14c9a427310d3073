//! What the init and its attendants have in common.

use std::time::Duration;

use super::mounts::Mounted;
use super::plan::Plan;
use super::pod::Meter;

/// Between two looks at processes that were killed and are not gone yet.
pub(super) const PAUSE: Duration = Duration::from_millis(1);
/// After so many rounds of killing one by one, everything is killed at once: something multiplies faster than we count.
pub(super) const ROUNDS: u32 = 50;

/// What the init has made, and every attendant is forked with.
pub(super) struct Shared<'a> {
    /// What the runner asked for.
    pub(super) plan: &'a Plan,
    /// What the pod as a whole has of memory.
    pub(super) meter: Meter,
    /// Whether the kernel is gVisor's.
    pub(super) is_gvisor: bool,
    /// What was mounted for us alone.
    pub(super) mounted: Mounted,
}

impl Shared<'_> {
    /// Whether no file can grow any more in the temporary folders that are in memory.
    pub(super) fn scratch_is_full(&self) -> bool {
        let found = self
            .mounted
            .scratch
            .as_ref()
            .and_then(|scratch| rustix::fs::fstatvfs(scratch).ok());
        found.is_some_and(|found| found.f_blocks > 0 && found.f_bfree == 0 || found.f_files > 0 && found.f_ffree == 0)
    }

    /// What the files in the scratch file system take of the memory, in bytes.
    pub(super) fn scratch_used(&self) -> u64 {
        let found = self
            .mounted
            .scratch
            .as_ref()
            .and_then(|scratch| rustix::fs::fstatvfs(scratch).ok());
        found.map_or(0, |found| {
            found
                .f_blocks
                .saturating_sub(found.f_bfree)
                .saturating_mul(found.f_frsize)
        })
    }
}
