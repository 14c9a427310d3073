//! What a supervisor and its worker say to each other, over one socket: frames of a length, a tag and what belongs to it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, BytesMut};

use crate::events::frame::PREFIX;
use crate::events::record::Record;
use crate::events::sink::Forward;
use crate::run::StopReason;
use crate::task::MAX_DOCUMENT_BYTES;

/// No frame is longer: the longest has a task, or the events of one push.
const MAX_FRAME: usize = 2 * MAX_DOCUMENT_BYTES;

/// From the supervisor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Task(TaskOrder),
    /// The supervisor was told to stop, or the server cancels the task.
    Stop(StopReason),
}

/// The one task of a worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TaskOrder {
    pub(super) id: i64,
    /// What the task is taken for when it does not say itself.
    pub(super) kind: Option<String>,
    /// The document as it came.
    pub(super) document: String,
}

/// From the worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
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

const TASK: u8 = 1;
const STOP: u8 = 2;
const READY: u8 = 3;
const UNUSABLE: u8 = 4;
const ALIVE: u8 = 5;
const EVENTS: u8 = 6;
const TRACE: u8 = 7;

const REASONS: [StopReason; 3] = [StopReason::Terminate, StopReason::Interrupt, StopReason::Server];

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Order::Task(TaskOrder { id, kind, document }) => {
                let kind = kind.as_deref().unwrap_or_default();
                let mut payload = id.to_le_bytes().to_vec();
                payload.extend_from_slice(&(kind.len() as u32).to_le_bytes());
                payload.extend_from_slice(kind.as_bytes());
                payload.extend_from_slice(document.as_bytes());
                frame(TASK, &payload)
            }
            Order::Stop(reason) => {
                let index = REASONS.iter().position(|known| known == reason).unwrap_or_default();
                frame(STOP, &[index as u8])
            }
        }
    }

    fn decode(tag: u8, payload: &[u8]) -> Option<Self> {
        match tag {
            TASK => {
                let (id, rest) = payload.split_first_chunk()?;
                let (length, rest) = rest.split_first_chunk()?;
                let (kind, document) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
                Some(Order::Task(TaskOrder {
                    id: i64::from_le_bytes(*id),
                    kind: text(kind).filter(|kind| !kind.is_empty()),
                    document: text(document)?,
                }))
            }
            STOP => Some(Order::Stop(*REASONS.get(usize::from(*payload.first()?))?)),
            _ => None,
        }
    }

    /// Reads the next order; `None` when there is none any more.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; PREFIX + 1];
        match from.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let [length @ .., tag] = head;
        let mut payload = vec![0; checked(length)?];
        from.read_exact(&mut payload)?;
        Self::decode(tag, &payload).map(Some).ok_or_else(malformed)
    }
}

impl Word {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Word::Ready => frame(READY, &[]),
            Word::Unusable(why) => frame(UNUSABLE, why.as_bytes()),
            Word::Alive => frame(ALIVE, &[]),
            Word::Events(records) => {
                let mut payload = Vec::new();
                records.iter().for_each(|record| record.encode(&mut payload));
                frame(EVENTS, &payload)
            }
            Word::Trace(traceparent) => frame(TRACE, traceparent.as_bytes()),
        }
    }

    /// Takes the next word out of what was read, when all of it is there.
    pub(super) fn take(buffer: &mut BytesMut) -> io::Result<Option<Self>> {
        let Some(head) = buffer.first_chunk::<{ PREFIX + 1 }>() else {
            return Ok(None);
        };
        let [length @ .., tag] = *head;
        let length = checked(length)?;
        if buffer.len() < PREFIX + 1 + length {
            buffer.reserve(PREFIX + 1 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(PREFIX + 1);
        let payload = buffer.split_to(length);
        let word = match tag {
            READY => Word::Ready,
            UNUSABLE => Word::Unusable(String::from_utf8_lossy(&payload).into_owned()),
            ALIVE => Word::Alive,
            TRACE => Word::Trace(String::from_utf8_lossy(&payload).into_owned()),
            EVENTS => Word::Events(records(&payload).ok_or_else(malformed)?),
            _ => return Err(malformed()),
        };
        Ok(Some(word))
    }
}

fn records(mut payload: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while let Some((length, rest)) = payload.split_first_chunk() {
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        records.push(Record::decode(record)?);
        payload = rest;
    }
    payload.is_empty().then_some(records)
}

fn frame(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(PREFIX + 1 + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.push(tag);
    frame.extend_from_slice(payload);
    frame
}

fn checked(length: [u8; PREFIX]) -> io::Result<usize> {
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        Err(malformed())
    } else {
        Ok(length)
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame that is none of ours")
}

/// The worker's end, for what it says.
pub(super) struct ToSupervisor(Mutex<UnixStream>);

impl ToSupervisor {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(Mutex::new(socket))
    }

    /// Says a word. When nobody listens any more, the process is about to end: see the worker.
    pub(super) fn say(&self, word: &Word) {
        let frame = word.encode();
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame);
    }
}

impl Forward for ToSupervisor {
    fn forward(&self, records: Vec<Record>) {
        if !records.is_empty() {
            self.say(&Word::Events(records));
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
            Order::Task(TaskOrder {
                id: -3,
                kind: Some("workflow".into()),
                document: "{\"é\":1}".into(),
            }),
            Order::Task(TaskOrder {
                id: 7,
                kind: None,
                document: String::new(),
            }),
            Order::Stop(StopReason::Interrupt),
            Order::Stop(StopReason::Server),
        ];
        let bytes: Vec<u8> = orders.iter().flat_map(Order::encode).collect();
        let mut source = &bytes[..];
        for order in orders {
            assert_eq!(Order::read(&mut source).unwrap(), Some(order));
        }
        assert_eq!(Order::read(&mut source).unwrap(), None);
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
            Word::Ready,
            Word::Unusable("no".into()),
            Word::Alive,
            Word::Trace("00-1-2-01".into()),
            Word::Events(vec![record("a"), record("b")]),
        ];
        let bytes: Vec<u8> = words.iter().flat_map(Word::encode).collect();
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in &bytes {
            buffer.extend_from_slice(&[*byte]);
            taken.extend(Word::take(&mut buffer).unwrap());
        }
        let again: Vec<u8> = taken.iter().flat_map(Word::encode).collect();
        assert_eq!((taken.len(), again), (5, bytes));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Word::take(&mut BytesMut::from(&[0xff; 64][..])).is_err());
        assert!(Word::take(&mut BytesMut::from(&[0, 0, 0, 0, 99][..])).is_err());
        assert!(Order::read(&mut &[1, 0, 0, 0, STOP, 9][..]).is_err());
    }
}
