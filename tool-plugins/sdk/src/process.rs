//! Running a command in the runner's sandbox. Only for a plugin whose manifest says `process = true`; a tool that does
//! not use this module does not import the interface.

use std::time::Duration;

use crate::bindings::plue::tool::process::{self, StartError};
pub use crate::bindings::plue::tool::process::{Chunk, Dropped, Ending, Event, ExitStatus, RunningCommand, Stream};
use crate::{ToolError, WorkspacePath};

/// One command: its arguments as they are, no shell in between.
pub struct Command {
    command: process::Command,
}

impl Command {
    /// A command in the workspace's own folder, for at most a minute. The first argument is the program: an absolute
    /// path, or a name on the sandbox's PATH.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: process::Command {
                argv: argv.into_iter().map(Into::into).collect(),
                working_directory: ".".into(),
                timeout_ms: 60_000,
            },
        }
    }

    /// Where it runs.
    pub fn working_directory(mut self, path: &WorkspacePath) -> Self {
        self.command.working_directory = path.for_open().to_owned();
        self
    }

    /// How long it may run. Then everything it started is ended.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.command.timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Starts it. Whoever wants the output as it comes asks the [`RunningCommand`] for its events; people see it live
    /// in any case.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn start(&self) -> Result<RunningCommand, ToolError> {
        process::start(&self.command).map_err(|error| match error {
            StartError::Invalid(message) => ToolError::InvalidInput(message),
            StartError::NotFound(message) => ToolError::NotFound(message),
            StartError::Denied(message) => ToolError::Denied(message),
            StartError::Failed(message) => ToolError::Failed(message),
        })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// Why it could not be started. How it ended is in the [`CommandOutput`].
    pub fn run(&self) -> Result<CommandOutput, ToolError> {
        let running = self.start()?;
        let mut output = CommandOutput::default();
        loop {
            match running.next() {
                Event::Output(chunk) => output.stream(chunk.stream).bytes.extend_from_slice(&chunk.bytes),
                Event::Dropped(dropped) => output.stream(dropped.stream).dropped(dropped.bytes),
                Event::Exited(status) => {
                    output.status = Some(status);
                    return Ok(output);
                }
            }
        }
    }
}

/// What a command wrote, and how it ended.
#[derive(Default)]
pub struct CommandOutput {
    pub stdout: Captured,
    pub stderr: Captured,
    /// `None` only while it runs.
    pub status: Option<ExitStatus>,
}

impl CommandOutput {
    fn stream(&mut self, stream: Stream) -> &mut Captured {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// One stream of output: of much output the runner keeps the head and the tail.
#[derive(Default)]
pub struct Captured {
    bytes: Vec<u8>,
    /// After how many bytes something is missing, and how much.
    gaps: Vec<(usize, u64)>,
}

impl Captured {
    fn dropped(&mut self, bytes: u64) {
        self.gaps.push((self.bytes.len(), bytes));
    }

    /// How many bytes there are.
    pub fn kept(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// How many bytes are missing.
    pub fn missing(&self) -> u64 {
        self.gaps.iter().map(|(_, missing)| missing).sum()
    }

    /// The text, with a note where something is missing. Bytes that are no UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes.len());
        let mut start = 0;
        for &(end, missing) in &self.gaps {
            text.push_str(&String::from_utf8_lossy(&self.bytes[start..end]));
            text.push_str(&format!("\n[{missing} bytes of output were left out here]\n"));
            start = end;
        }
        text.push_str(&String::from_utf8_lossy(&self.bytes[start..]));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Captured;

    #[test]
    fn output_says_where_something_is_missing() {
        let mut captured = Captured::default();
        captured.bytes.extend_from_slice(b"head");
        captured.dropped(1000);
        captured.bytes.extend_from_slice(b"tail\xff");
        assert_eq!(
            captured.text(),
            "head\n[1000 bytes of output were left out here]\ntail\u{fffd}"
        );
        assert_eq!((captured.kept(), captured.missing()), (9, 1000));
    }
}
