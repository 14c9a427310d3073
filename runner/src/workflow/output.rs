//! What a step's command writes, on its way from bytes to log events.

use std::time::Duration;

use tokio::time::Instant;

use super::lines::{Line, LineSplitter};
use crate::events::{Event, EventSink, LogLevel};
use plue_redaction::Stream;

/// One of a command's two outputs.
pub(super) struct Output<'a> {
    step: usize,
    level: LogLevel,
    events: &'a EventSink,
    /// Before the bytes are lines: a secret may go over several.
    plain: Stream,
    lines: LineSplitter,
    /// Since when a part of a line waits for its end.
    waits_since: Option<Instant>,
}

impl<'a> Output<'a> {
    pub(super) fn new(step: usize, level: LogLevel, events: &'a EventSink) -> Self {
        Self {
            step,
            level,
            events,
            plain: events.redactor().stream(),
            lines: LineSplitter::new(),
            waits_since: None,
        }
    }

    /// Since when a part of a line waits for its end: since its first byte came.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.waits_since
    }

    /// Takes what the command wrote.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let lines = self.lines.push(&self.plain.push(bytes));
        if !lines.is_empty() {
            self.waits_since = None;
        }
        if !self.lines.is_empty() {
            self.waits_since.get_or_insert_with(Instant::now);
        }
        self.send(lines);
    }

    /// Tells what there is of a line that has waited for its end for so long.
    pub(super) fn flush_after(&mut self, time: Duration) {
        if self.waits_since.is_some_and(|since| since + time <= Instant::now()) {
            self.flush();
        }
    }

    /// Tells what there is of a line that has no end yet. Half a character goes on waiting, for the rest of it.
    pub(super) fn flush(&mut self) {
        let line = self.lines.flush();
        self.waits_since = None;
        self.send(line);
    }

    /// Tells all that was kept back.
    pub(super) fn finish(&mut self) {
        let lines = self.lines.push(&self.plain.finish());
        self.send(lines);
        let line = self.lines.finish();
        self.send(line);
    }

    fn send(&self, lines: impl IntoIterator<Item = Line>) {
        self.events
            .push_all(lines.into_iter().map(|Line { text, partial }| Event::Log {
                level: self.level,
                message: text,
                step_index: Some(self.step),
                partial,
            }));
    }
}
