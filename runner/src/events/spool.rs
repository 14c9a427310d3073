//! The part of the queue that lies on disk: what does not fit in memory, in order.
//!
//! Segments are only appended to and go as a whole when they were read. They have no name: a file is unlinked as soon
//! as it is open, so that nothing is left of a runner that is killed, and nobody else can open what may hold a task's
//! output.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::record::Record;
use crate::framing;

/// How large a segment becomes. Its space on the disk is free again when all of it was read.
const SEGMENT: u64 = 4 << 20;
/// How much is read at a time.
const CHUNK: u64 = 1 << 20;

/// Where a spool may lie, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    pub folder: PathBuf,
    /// Bytes that wait on disk at a time.
    pub limit: u64,
}

impl SpoolConfig {
    /// How many bytes of events wait on disk at most when the operator does not say.
    pub const DEFAULT_LIMIT: u64 = 512 << 20;
    /// Where, when the operator does not say.
    pub const DEFAULT_FOLDER: &str = "/tmp";
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            folder: Self::DEFAULT_FOLDER.into(),
            limit: Self::DEFAULT_LIMIT,
        }
    }
}

/// See the module.
pub(super) struct Spool {
    config: SpoolConfig,
    segments: VecDeque<Segment>,
}

struct Segment {
    file: File,
    /// Up to where it was read.
    read: u64,
    /// Up to where it was written as a whole; what a failed write left behind it is written over.
    written: u64,
    /// Records that were not read yet.
    records: u64,
}

/// Records that were on disk and cannot be read any more.
#[derive(Debug, thiserror::Error)]
#[error("{records} events cannot be read back from the spool: {error}")]
pub(super) struct Unreadable {
    pub(super) records: u64,
    error: io::Error,
}

impl Spool {
    /// Nothing is made before something is written.
    pub(super) fn new(config: SpoolConfig) -> Self {
        Self {
            config,
            segments: VecDeque::new(),
        }
    }

    /// Whether nothing waits on disk.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many bytes wait on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.written - segment.read).sum()
    }

    /// How many records wait on disk.
    pub(super) fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }

    /// Writes frames at the end: all of them, or none.
    pub(super) fn append(&mut self, frames: &[u8], records: u64) -> io::Result<()> {
        let length = frames.len() as u64;
        // The space of what was read of a segment is not free yet.
        let used: u64 = self.segments.iter().map(|segment| segment.written).sum();
        if used + length > self.config.limit {
            let text = format!(
                "it holds {} of the {} bytes that it may",
                self.bytes(),
                self.config.limit
            );
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        }
        match self.segments.back_mut().filter(|segment| segment.written < SEGMENT) {
            Some(segment) => segment.append(frames, records),
            None => {
                let mut segment = Segment {
                    file: tempfile::tempfile_in(&self.config.folder)?,
                    read: 0,
                    written: 0,
                    records: 0,
                };
                segment.append(frames, records)?;
                self.segments.push_back(segment);
                Ok(())
            }
        }
    }

    /// Reads the next records, some at a time; none when there are none.
    pub(super) fn read(&mut self) -> Result<Vec<Record>, Unreadable> {
        let Some(segment) = self.segments.front_mut() else {
            return Ok(Vec::new());
        };
        let read = segment.next();
        let unread = segment.records;
        if read.is_err() || segment.read == segment.written {
            self.segments.pop_front();
        }
        read.map_err(|error| Unreadable { records: unread, error })
    }
}

impl Segment {
    fn append(&mut self, frames: &[u8], records: u64) -> io::Result<()> {
        self.file.write_all_at(frames, self.written)?;
        self.written += frames.len() as u64;
        self.records += records;
        Ok(())
    }

    fn next(&mut self) -> io::Result<Vec<Record>> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "what lies there is not what was written");
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.read)?;
        let size = framing::length(length).max(CHUNK).min(self.written - self.read);
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| broken())?];
        self.file.read_exact_at(&mut bytes, self.read)?;
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while let Some((record, behind)) = framing::first(rest)? {
            records.push(record);
            rest = behind;
        }
        if records.is_empty() {
            return Err(broken());
        }
        self.read += (bytes.len() - rest.len()) as u64;
        self.records -= records.len() as u64;
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::event::{Event, LogLevel};

    fn line(text: &str) -> Record {
        Record::from(Event::Log {
            level: LogLevel::Stdout,
            message: text.into(),
            step_index: Some(0),
            partial: false,
        })
    }

    fn append(spool: &mut Spool, texts: &[&str]) -> io::Result<()> {
        let mut frames = Vec::new();
        texts.iter().for_each(|text| framing::append(&line(text), &mut frames));
        spool.append(&frames, texts.len() as u64)
    }

    fn spool(limit: u64) -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let config = SpoolConfig {
            folder: folder.path().into(),
            limit,
        };
        (folder, Spool::new(config))
    }

    /// Lines that differ, of about 100 KB each.
    fn long(number: usize) -> String {
        format!("{number} {}", "x".repeat(100_000))
    }

    #[test]
    fn records_come_back_in_order_over_several_segments_and_their_space_is_given_back() {
        let (folder, mut spool) = spool(64 << 20);
        let texts: Vec<String> = (0..150).map(long).collect();
        let (mut written, mut read) = (texts.iter(), Vec::new());
        while read.len() < texts.len() {
            for text in written.by_ref().take(40) {
                append(&mut spool, &[text]).unwrap();
            }
            assert!(spool.bytes() < 20 << 20, "what was read is gone");
            for _ in 0..3 {
                read.extend(spool.read().unwrap());
            }
        }
        assert!(spool.is_empty());
        assert_eq!((spool.bytes(), spool.records()), (0, 0));
        for (read, text) in read.iter().zip(&texts) {
            let mut expected = line(text);
            expected.timestamp = read.timestamp;
            assert_eq!(*read, expected);
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "files have no name");
    }

    #[test]
    fn over_its_limit_or_without_a_folder_nothing_is_written_and_what_is_there_stays() {
        let (_folder, mut full) = spool(1000);
        append(&mut full, &["a", "b"]).unwrap();
        assert!(append(&mut full, &[&"x".repeat(2000)]).is_err());
        assert_eq!(full.records(), 2);
        assert_eq!(full.read().unwrap().len(), 2);
        let (folder, mut nowhere) = spool(1000);
        folder.close().unwrap();
        assert!(append(&mut nowhere, &["a"]).is_err());
        assert!(nowhere.is_empty());
    }

    #[test]
    fn a_record_that_is_larger_than_a_chunk_comes_back() {
        let (_folder, mut spool) = spool(64 << 20);
        let text = "y".repeat(3 << 20);
        append(&mut spool, &[&text]).unwrap();
        append(&mut spool, &["z"]).unwrap();
        assert_eq!(spool.read().unwrap().len(), 1);
        assert_eq!(spool.read().unwrap().len(), 1);
        assert!(spool.is_empty());
    }

    #[test]
    fn a_segment_that_cannot_be_read_says_how_many_records_it_had() {
        let (_folder, mut spool) = spool(64 << 20);
        append(&mut spool, &["a", "b", "c"]).unwrap();
        spool.segments[0].file.write_all_at(&[0xff; 16], 0).unwrap();
        assert_eq!(spool.read().unwrap_err().records, 3);
        assert!(spool.is_empty());
    }
}
