//! What a supervisor and its worker say to each other, over one socket, as frames.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::events::record::Record;
use crate::events::sink::Forward;
use crate::framing;
use crate::run::StopReason;
use crate::task::MAX_DOCUMENT_BYTES;

/// No frame is longer: the longest has a task, or the events of one push.
const MAX_FRAME: usize = 2 * MAX_DOCUMENT_BYTES;

/// From the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SupervisorMessage {
    Task(TaskOrder),
    /// The supervisor was told to stop, or the server cancels the task.
    Stop(StopReason),
}

/// The one task of a worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskOrder {
    pub(super) id: i64,
    /// What the task is taken for when it does not say itself.
    pub(super) kind: Option<String>,
    /// The document as it came.
    pub(super) document: String,
    /// What the supervisor must not tell: of secrets that were replaced, a new worker knows only the last.
    pub(super) secrets: Vec<String>,
}

/// From the worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WorkerMessage {
    /// Everything that a task needs is there.
    Ready,
    /// It is not, and this is what is missing.
    Unusable(String),
    /// Nothing new.
    Alive,
    Events(Vec<Record>),
    /// The trace that the task belongs to, for the requests that the supervisor makes for it.
    Trace(String),
}

impl SupervisorMessage {
    pub(super) fn encode(&self) -> Vec<u8> {
        framing::frame(self)
    }

    /// Reads the next order; `None` when there is none any more.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        framing::read(from, MAX_FRAME)
    }
}

impl WorkerMessage {
    pub(super) fn encode(&self) -> Vec<u8> {
        framing::frame(self)
    }

    /// Takes the next word out of what was read, when all of it is there.
    pub(super) fn take(buffer: &mut BytesMut) -> io::Result<Option<Self>> {
        framing::take(buffer, MAX_FRAME)
    }
}

/// The worker's end, for what it says.
pub(super) struct ToSupervisor(Mutex<UnixStream>);

impl ToSupervisor {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(Mutex::new(socket))
    }

    /// Says a word. When nobody listens any more, the process is about to end: see the worker.
    pub(super) fn send(&self, word: &WorkerMessage) {
        let frame = word.encode();
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame);
    }
}

impl Forward for ToSupervisor {
    fn forward(&self, records: Vec<Record>) {
        if !records.is_empty() {
            self.send(&WorkerMessage::Events(records));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::{Event, LogLevel};

    #[test]
    fn orders_come_as_they_were_given_and_end_with_their_giver() {
        let orders = [
            SupervisorMessage::Task(TaskOrder {
                id: -3,
                kind: Some("workflow".into()),
                document: "{\"é\":1}".into(),
                secrets: vec!["former-secret".into()],
            }),
            SupervisorMessage::Task(TaskOrder {
                id: 7,
                kind: None,
                document: String::new(),
                secrets: Vec::new(),
            }),
            SupervisorMessage::Stop(StopReason::Interrupt),
            SupervisorMessage::Stop(StopReason::Server),
            // A time limit is the worker's own; none becomes another reason on the way.
            SupervisorMessage::Stop(StopReason::Timeout(std::time::Duration::from_millis(1500))),
        ];
        let bytes: Vec<u8> = orders.iter().flat_map(SupervisorMessage::encode).collect();
        let mut source = &bytes[..];
        for order in orders {
            assert_eq!(SupervisorMessage::read(&mut source).unwrap(), Some(order));
        }
        assert_eq!(SupervisorMessage::read(&mut source).unwrap(), None);
    }

    #[test]
    fn words_are_taken_as_soon_as_they_are_complete_however_they_are_cut() {
        let record = |text: &str| {
            Record::from(Event::Log {
                level: LogLevel::Stdout,
                message: text.into(),
                step_index: Some(1),
                partial: false,
            })
        };
        let words = [
            WorkerMessage::Ready,
            WorkerMessage::Unusable("no".into()),
            WorkerMessage::Alive,
            WorkerMessage::Trace("00-1-2-01".into()),
            WorkerMessage::Events(vec![record("a"), record("b")]),
        ];
        let bytes: Vec<u8> = words.iter().flat_map(WorkerMessage::encode).collect();
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in &bytes {
            buffer.extend_from_slice(&[*byte]);
            taken.extend(WorkerMessage::take(&mut buffer).unwrap());
        }
        let again: Vec<u8> = taken.iter().flat_map(WorkerMessage::encode).collect();
        assert_eq!((taken.len(), again), (5, bytes));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(WorkerMessage::take(&mut BytesMut::from(&[0xff; 64][..])).is_err());
        assert!(WorkerMessage::take(&mut BytesMut::from(&[1, 0, 0, 0, 99][..])).is_err());
        assert!(SupervisorMessage::read(&mut &[1, 0, 0, 0, 99][..]).is_err());
    }
}
