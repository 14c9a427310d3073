//! A record as bytes: on disk, and between a worker and its supervisor. Only ever read by the binary that wrote it.

use jiff::Timestamp;

use super::bounds::encoded;
use super::record::{Kind, Record};

/// The bytes of a frame's length.
pub const PREFIX: usize = 4;
/// Kind, timestamp, step, index, and the length of the head.
const FIXED: usize = 1 + 8 + 8 + 8 + 4;

impl Record {
    /// Appends the record as a frame: its length, and what [`Record::decode`] reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = FIXED + self.head.len() + self.text.len();
        out.reserve(PREFIX + length);
        // A text is at most some megabytes.
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&self.timestamp.as_microsecond().to_le_bytes());
        out.extend_from_slice(&self.step.map_or(0, |step| u64::from(step) + 1).to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&(self.head.len() as u32).to_le_bytes());
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(self.text.as_bytes());
    }

    /// Reads what stands behind a frame's length. `None` when it is none of ours.
    pub fn decode(frame: &[u8]) -> Option<Record> {
        let (fixed, rest) = frame.split_at_checked(FIXED)?;
        let number = |at: usize| Some(u64::from_le_bytes(fixed.get(at..at + 8)?.try_into().ok()?));
        let kind = *Kind::ALL.iter().find(|kind| **kind as u8 == fixed[0])?;
        let timestamp = Timestamp::from_microsecond(number(1)?.cast_signed()).ok()?;
        let step = number(9)?.checked_sub(1).and_then(|step| u32::try_from(step).ok());
        let index = number(17)?;
        let head_length = u32::from_le_bytes(fixed.get(25..FIXED)?.try_into().ok()?);
        let (head, text) = rest.split_at_checked(head_length as usize)?;
        let owned = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let text = owned(text)?;
        Some(Record {
            encoded: encoded(&text),
            kind,
            timestamp,
            step,
            index,
            head: owned(head)?,
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::event::{Event, LogLevel};

    fn log(text: &str, partial: bool) -> Record {
        Record::from(Event::Log {
            level: LogLevel::Stdout,
            message: text.into(),
            step_index: Some(3),
            partial,
        })
    }

    fn token(text: &str, token_index: u64) -> Record {
        Record::from(Event::Token {
            message_id: "msg_a".into(),
            text: text.into(),
            token_index,
        })
    }

    #[test]
    fn a_record_comes_back_from_its_frame_as_it_was_and_garbage_is_none() {
        for record in [token("é\n", u64::MAX), log("", true), log("12345", false).cut()] {
            let mut frame = Vec::new();
            record.encode(&mut frame);
            assert_eq!(frame[..PREFIX], ((frame.len() - PREFIX) as u32).to_le_bytes());
            // Frames have microseconds.
            let read = Record::decode(&frame[PREFIX..]).unwrap();
            assert_eq!(read.timestamp.as_microsecond(), record.timestamp.as_microsecond());
            assert_eq!(
                read,
                Record {
                    timestamp: read.timestamp,
                    ..record
                }
            );
            for length in 0..FIXED {
                assert_eq!(Record::decode(&frame[PREFIX..PREFIX + length]), None);
            }
        }
        assert_eq!(Record::decode(&[0xff; 64]), None);
    }
}
