//! A regular file that was opened for reading.

use wasip2::filesystem::types::{Descriptor, ErrorCode};

use crate::ToolError;
use crate::error::refused;

/// How much one read asks for, in bytes. wasmtime's host gives no more than this at once.
pub const READ_SIZE: u64 = 64 * 1024;

/// What a read at the end of a file asks for. The answer is nearly always nothing, and the host clears a buffer of this
/// size to find out.
const END_PROBE: u64 = 512;

/// A regular file of the workspace.
pub struct File {
    descriptor: Descriptor,
    /// For messages.
    path: String,
    /// In bytes, when it was opened. A file may grow or shrink while it is read.
    pub size: u64,
}

impl File {
    pub(crate) fn new(descriptor: Descriptor, path: String, size: u64) -> Self {
        Self { descriptor, path, size }
    }

    /// One read: up to [`READ_SIZE`] bytes from `offset`, empty at the end. May give fewer than there are.
    ///
    /// # Errors
    /// When the host cannot read it.
    pub fn read(&self, offset: u64) -> Result<Vec<u8>, ToolError> {
        read(&self.descriptor, READ_SIZE, offset).map_err(|code| refused(code, "read", &self.path))
    }

    /// The first `limit` bytes, or all when there are fewer.
    ///
    /// # Errors
    /// When the host cannot read it.
    pub fn read_up_to(&self, limit: u64) -> Result<Vec<u8>, ToolError> {
        read_up_to(&self.descriptor, limit, &mut Vec::new()).map_err(|code| refused(code, "read", &self.path))
    }
}

fn read(descriptor: &Descriptor, length: u64, offset: u64) -> Result<Vec<u8>, ErrorCode> {
    loop {
        match descriptor.read(length, offset) {
            Err(ErrorCode::Interrupted) => {}
            done => return done.map(|(bytes, _end)| bytes),
        }
    }
}

/// Reads until the end or the limit: a read that gives less than was asked is not the end.
pub(crate) fn read_up_to(descriptor: &Descriptor, limit: u64, scratch: &mut Vec<u8>) -> Result<Vec<u8>, ErrorCode> {
    let first = read(descriptor, limit.min(READ_SIZE), 0)?;
    let mut have = first.len() as u64;
    if have == 0 || have >= limit {
        return Ok(first);
    }
    // Small files end here: one more read says so, and what the first one gave is the whole file.
    let mut ask = if have < READ_SIZE { END_PROBE } else { READ_SIZE };
    let mut next = read(descriptor, ask.min(limit - have), have)?;
    if next.is_empty() {
        return Ok(first);
    }
    scratch.clear();
    scratch.extend_from_slice(&first);
    while !next.is_empty() {
        scratch.extend_from_slice(&next);
        have += next.len() as u64;
        if have >= limit {
            break;
        }
        ask = if (next.len() as u64) < ask {
            END_PROBE
        } else {
            READ_SIZE
        };
        next = read(descriptor, ask.min(limit - have), have)?;
    }
    Ok(std::mem::take(scratch))
}
