//! gVisor itself: the program `runsc`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::apt;
use crate::layout::Layout;
use crate::process;

/// The release of Debian whose runsc is taken. Older releases have one that is too old to be worth a test; this one
/// (0.0~20240729) has no openat2, so that it is the harder place for the runner.
const SUITE: &str = "trixie";

/// The installed runsc, or else Debian's in the cache, which is fetched when it is not there.
pub fn find(layout: &Layout) -> Result<PathBuf> {
    if let Some(installed) = process::find_program("runsc") {
        return Ok(installed);
    }
    let unpacked = apt::unpacked(layout, "runsc", SUITE).context(
        "gVisor cannot be had here. Put its program runsc on PATH (the package runsc of Debian, or gVisor's own: \
         https://gvisor.dev/docs/user_guide/install/), or leave out what runs in it: cargo xtask test --without-gvisor",
    )?;
    Ok(unpacked.join("usr/bin/runsc"))
}
