//! What the harness says to a person.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes a text to standard output. A reader that has gone (`… | head`) had what it wanted.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

/// Says on standard error how far it is, to whoever listens.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
