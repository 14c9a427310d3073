//! Opening the files of a plugin's folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file for reading, and never waits: a FIFO in a file's place would otherwise hold the runner up until
/// somebody writes to it.
///
/// # Errors
/// What the system says; `InvalidInput` for what is no regular file.
pub(super) fn open(file: &Path) -> io::Result<File> {
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(file)?;
    if open.metadata()?.is_file() {
        Ok(open)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file; put a regular file in its place",
        ))
    }
}
