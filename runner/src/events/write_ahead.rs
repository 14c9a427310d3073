//! The events of a task that the server may not have, in a file: for a runner that is started again when this one was
//! killed. It sends them under the numbers and keys that they had or would have had.
//!
//! What is pushed into the queue is written down first, in pieces as it comes; what is sent, as it goes over the wire,
//! with the place up to which it takes from what was pushed. What is neither sent nor waits is not in the file any
//! more after a while: see [`WriteAhead::arrived`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::callback::{EventRequest, Progress, SentRequest};
use super::queue::{PLACES, Past};
use super::record::Record;
use super::unfinished::Unfinished;
use crate::state::{Files, Log, Unreadable};

/// How long the file may be when nothing of it is needed any more, before it is begun anew.
const WORTH_A_NEW_FILE: u64 = 256 << 10;
/// How long it may be at least while events wait, before what is not needed any more is left out of it.
const WORTH_A_COPY: u64 = 64 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Entry {
    /// What was before this file.
    Begun {
        last_seq: u64,
        lost: u64,
        open: Unfinished,
        place: u64,
    },
    Pushed(Record),
    /// What waited first, up to a place, is to be sent as these.
    Divided(u64, Vec<Record>),
    Sending(Sending),
    /// The last request arrived; so many events before it did not.
    Arrived(u64),
    /// Nothing of the last request was taken.
    PutBack,
    /// The task's ending has arrived.
    Ended,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sending {
    /// The place of the last event in it.
    place: u64,
    first: u64,
    last: u64,
    /// How many events are lost when this request is.
    lost: u64,
    ends: bool,
    key: String,
    body: Vec<u8>,
}

impl Sending {
    fn events(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

/// What an earlier process has left of a task's events.
#[derive(Debug, Default)]
pub struct Unsent {
    pub past: Past,
    /// Pushed, and not sent.
    pub records: Vec<Record>,
    /// Sent, and not answered; and whether the task's ending is in it.
    pub unanswered: Option<(SentRequest, bool)>,
    /// Whether the ending was pushed.
    pub is_closed: bool,
    /// Whether it arrived.
    pub has_ended: bool,
}

/// What the file says, entry by entry.
#[derive(Debug, Default)]
struct Folded {
    past: Past,
    place: u64,
    waiting: BTreeMap<u64, Record>,
    sent: Option<(Sending, Vec<Record>)>,
    is_closed: bool,
    has_ended: bool,
}

impl Folded {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Begun {
                last_seq,
                lost,
                open,
                place,
            } => {
                self.past = Past { last_seq, lost, open };
                self.place = place;
            }
            Entry::Pushed(record) => {
                self.past.open.note(&record);
                self.is_closed |= record.kind.is_terminal();
                self.place = self.place.max(record.place);
                self.waiting.insert(record.place, record);
            }
            Entry::Divided(place, parts) => {
                self.take(place);
                self.waiting.extend(parts.into_iter().map(|part| (part.place, part)));
            }
            Entry::Sending(sending) => {
                let records = self.take(sending.place);
                self.past.last_seq = sending.last;
                // Until it is known to have arrived.
                self.past.lost = sending.lost;
                self.sent = Some((sending, records));
            }
            Entry::Arrived(lost) => {
                self.past.lost = lost;
                self.has_ended |= self.sent.take().is_some_and(|(sending, _)| sending.ends);
            }
            Entry::Ended => (self.is_closed, self.has_ended) = (true, true),
            Entry::PutBack => {
                if let Some((sending, records)) = self.sent.take() {
                    self.past.last_seq = sending.first.saturating_sub(1);
                    self.past.lost = sending.lost.saturating_sub(sending.events());
                    self.waiting
                        .extend(records.into_iter().map(|record| (record.place, record)));
                }
            }
        }
    }

    /// What waits up to a place.
    fn take(&mut self, place: u64) -> Vec<Record> {
        let later = self.waiting.split_off(&(place + 1));
        std::mem::replace(&mut self.waiting, later).into_values().collect()
    }

    /// A file that says the same.
    fn entries(&self) -> Vec<Entry> {
        let sent = self.sent.as_ref();
        // What waits says again what it opens and closes; that is the same as to say it once.
        let mut entries = vec![Entry::Begun {
            last_seq: self.past.last_seq,
            lost: self.past.lost,
            open: self.past.open.clone(),
            place: self.place,
        }];
        if let Some((sending, records)) = sent {
            entries.extend(records.iter().cloned().map(Entry::Pushed));
            entries.push(Entry::Sending(sending.clone()));
        }
        entries.extend(self.waiting.values().cloned().map(Entry::Pushed));
        entries.extend(self.has_ended.then_some(Entry::Ended));
        entries
    }
}

/// See the module.
#[derive(Debug)]
pub struct WriteAhead {
    files: Arc<Files>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log<Entry>,
    past: Past,
    /// Of what was pushed last.
    place: u64,
    /// Of what was sent last.
    sent_place: u64,
    sent_ends: bool,
    /// How long the file may be before it is copied, and how long it always may.
    most: u64,
    worth_a_copy: u64,
}

impl WriteAhead {
    const KIND: &str = "events";

    /// Begins a file, in the place of any other.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(files: &Arc<Files>) -> io::Result<Self> {
        Self::write(files, &Folded::default())
    }

    /// Goes on with what an earlier process has left; `None` when there is nothing.
    ///
    /// # Errors
    /// When what is there says nothing.
    pub fn open(files: &Arc<Files>) -> Result<Option<(Self, Unsent)>, Unreadable> {
        let mut folded = Folded::default();
        if Log::open(&files.path(Self::KIND), |entry| folded.add(entry))?.is_none() {
            return Ok(None);
        }
        // What is not needed any more is left out.
        let kept = Self::write(files, &folded)?;
        let unanswered = folded.sent.map(|(sending, _)| {
            folded.past.lost = sending.lost.saturating_sub(sending.events());
            let ends = sending.ends;
            let request = SentRequest {
                seq: sending.first,
                batch: sending.first != sending.last,
                key: sending.key,
                body: Bytes::from(sending.body),
            };
            (request, ends)
        });
        let unsent = Unsent {
            past: folded.past,
            records: folded.waiting.into_values().collect(),
            unanswered,
            is_closed: folded.is_closed,
            has_ended: folded.has_ended,
        };
        Ok(Some((kept, unsent)))
    }

    fn write(files: &Arc<Files>, folded: &Folded) -> io::Result<Self> {
        let log = Log::create(&files.path(Self::KIND), folded.entries())?;
        let sent = folded.sent.as_ref().map(|(sending, _)| sending);
        let state = State {
            most: WORTH_A_COPY.max(2 * log.length()),
            worth_a_copy: WORTH_A_COPY,
            log,
            past: folded.past.clone(),
            place: folded.place,
            sent_place: sent.map_or(0, |sending| sending.place),
            sent_ends: sent.is_some_and(|sending| sending.ends),
        };
        Ok(Self {
            files: Arc::clone(files),
            state: Mutex::new(state),
        })
    }

    /// The place of what was pushed last, of an earlier process or of this one. Of what comes next it is another whole
    /// number of places on.
    pub(super) fn last_place(&self) -> u64 {
        self.lock().place.next_multiple_of(PLACES)
    }

    /// A record is about to wait in the queue.
    pub(super) fn pushed(&self, record: &Record) {
        let mut state = self.lock();
        state.past.open.note(record);
        state.place = record.place;
        self.append(&mut state, &Entry::Pushed(record.clone()));
        if state.log.length() > state.most {
            self.copy(&mut state);
        }
    }

    /// What waits first is sent as these.
    pub(super) fn divided(&self, place: u64, parts: &[Record]) {
        self.append(&mut self.lock(), &Entry::Divided(place, parts.to_vec()));
    }

    fn append(&self, state: &mut State, entry: &Entry) {
        if !self.files.are_usable() {
            return;
        }
        if let Err(error) = state.log.append(entry, false) {
            self.files.give_up(&error);
        }
    }

    /// Leaves out what is not needed any more.
    fn copy(&self, state: &mut State) {
        if !self.files.are_usable() {
            return;
        }
        let path = self.files.path(Self::KIND);
        let mut folded = Folded::default();
        let read = Log::open(&path, |entry| folded.add(entry));
        let copied = read
            .map_err(io::Error::other)
            .and_then(|_| Log::create(&path, folded.entries()));
        match copied {
            Ok(log) => {
                state.most = state.worth_a_copy.max(2 * log.length());
                state.log = log;
            }
            Err(error) => self.files.give_up(&error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for WriteAhead {
    fn sending(&self, request: &EventRequest<'_>) {
        let (Some(first), Some(last)) = (request.events.first(), request.events.last()) else {
            return;
        };
        let mut state = self.lock();
        let sending = Sending {
            place: last.record.place,
            first: first.seq,
            last: last.seq,
            lost: request.lost,
            ends: last.record.kind.is_terminal(),
            key: request.key.to_owned(),
            body: request.body.to_vec(),
        };
        (state.past.last_seq, state.past.lost) = (sending.last, sending.lost);
        (state.sent_place, state.sent_ends) = (sending.place, sending.ends);
        self.append(&mut state, &Entry::Sending(sending));
    }

    fn arrived(&self, lost: u64, ended: bool) {
        let mut state = self.lock();
        state.past.lost = lost;
        self.append(&mut state, &Entry::Arrived(lost));
        let is_all = state.sent_place == state.place && !ended && !state.sent_ends;
        if is_all && state.log.length() > WORTH_A_NEW_FILE && self.files.are_usable() {
            let folded = Folded {
                past: state.past.clone(),
                place: state.place,
                ..Folded::default()
            };
            match Log::create(&self.files.path(Self::KIND), folded.entries()) {
                Ok(log) => state.log = log,
                Err(error) => self.files.give_up(&error),
            }
        }
    }

    fn put_back(&self) {
        let mut state = self.lock();
        // What waits again is behind what was sent.
        state.sent_place = 0;
        self.append(&mut state, &Entry::PutBack);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::event::{Event, Summary, TaskErrorCode, TaskId};
    use crate::events::queue::{EventQueue, Numbered};
    use crate::events::spool::SpoolConfig;

    fn token(text: &str, token_index: u64) -> Record {
        Record::from(Event::Token {
            message_id: "msg_a".into(),
            text: text.into(),
            token_index,
        })
    }

    fn call(id: &str) -> Record {
        Record::from(Event::ToolStart {
            message_id: "msg_a".into(),
            tool_id: id.into(),
            tool_name: "grep".into(),
            args: None,
        })
    }

    fn ending() -> Record {
        Record::from(Event::Error {
            message: "over".into(),
            code: TaskErrorCode::Internal,
            summary: Summary {
                usage: None,
                cost_usd: None,
                turns: None,
                duration_ms: 1,
                sandbox: "weak",
            },
        })
    }

    struct Process {
        kept: Arc<WriteAhead>,
        queue: EventQueue,
        unanswered: Option<(SentRequest, bool)>,
    }

    fn files(folder: &tempfile::TempDir) -> Arc<Files> {
        Arc::new(Files::open(folder.path(), "task-7").unwrap())
    }

    fn begin(folder: &tempfile::TempDir) -> Process {
        let kept = Arc::new(WriteAhead::begin(&files(folder)).unwrap());
        let queue = EventQueue::keeping(SpoolConfig::default(), Past::default(), &kept, Vec::new(), false);
        Process {
            kept,
            queue,
            unanswered: None,
        }
    }

    /// As it is after the other one was killed.
    fn go_on(folder: &tempfile::TempDir) -> (Process, Unsent) {
        let (kept, mut unsent) = WriteAhead::open(&files(folder)).unwrap().unwrap();
        let kept = Arc::new(kept);
        let records = std::mem::take(&mut unsent.records);
        let past = unsent.past.clone();
        let queue = EventQueue::keeping(SpoolConfig::default(), past, &kept, records, unsent.is_closed);
        let unanswered = unsent.unanswered.clone();
        let process = Process {
            kept,
            queue,
            unanswered,
        };
        (process, unsent)
    }

    impl Process {
        /// Sends what is next, and does not hear of it.
        async fn send(&self) -> (u64, serde_json::Value) {
            let next = self.queue.take().await.unwrap();
            let body = self.sending(&[next]);
            (body["seq"].as_u64().unwrap(), body)
        }

        fn sending(&self, events: &[Numbered]) -> serde_json::Value {
            let last = events.last().unwrap();
            let body = last.record.body(&TaskId::Number(7), last.seq, 0);
            let value = serde_json::from_slice(&body).unwrap();
            self.kept.sending(&EventRequest {
                events,
                lost: events.len() as u64,
                body: &Bytes::from(body),
                key: &format!("7-{}", last.seq),
            });
            value
        }
    }

    #[tokio::test]
    async fn what_was_pushed_and_not_sent_comes_under_the_next_numbers_and_what_was_sent_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(&folder);
        first.queue.push([token("a", 0), call("t1"), token("b", 1)]);
        first.send().await;
        first.kept.arrived(0, false);
        let (_, sent) = first.send().await;
        first.queue.push([token("c", 2)]);
        drop(first);
        for _ in 0..2 {
            // Killed again before it could do anything.
            drop(go_on(&folder));
        }
        let (second, unsent) = go_on(&folder);
        assert_eq!(
            (unsent.past.last_seq, unsent.past.lost, unsent.is_closed),
            (2, 0, false)
        );
        assert_eq!(unsent.past.open.calls().collect::<Vec<_>>(), ["t1"]);
        let (request, ends) = second.unanswered.clone().unwrap();
        assert_eq!((request.key.as_str(), request.seq, ends), ("7-2", 2, false));
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&request.body).unwrap(),
            sent
        );
        second.kept.arrived(0, false);
        second.queue.push([ending()]);
        let mut kinds = Vec::new();
        while !second.queue.is_over() {
            let (seq, body) = second.send().await;
            second.kept.arrived(0, body["type"] == "error");
            kinds.push((seq, body["type"].as_str().unwrap().to_owned(), body["text"].clone()));
        }
        let kinds: Vec<(u64, &str, &serde_json::Value)> = kinds
            .iter()
            .map(|(seq, kind, text)| (*seq, kind.as_str(), text))
            .collect();
        let null = serde_json::Value::Null;
        assert_eq!(
            kinds,
            [
                (3, "token", &"b".into()),
                (4, "token", &"c".into()),
                (5, "tool_end", &null),
                (6, "error", &null)
            ]
        );
        drop(second);
        for _ in 0..2 {
            let (_, unsent) = go_on(&folder);
            assert!(unsent.is_closed && unsent.has_ended && unsent.unanswered.is_none());
        }
    }

    #[tokio::test]
    async fn an_ending_that_was_pushed_closes_the_queue_of_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(&folder);
        first.queue.push([ending()]);
        drop(first);
        let (second, unsent) = go_on(&folder);
        assert!(unsent.is_closed && !unsent.has_ended);
        second.queue.push([token("late", 0)]);
        assert_eq!(second.send().await.1["type"], "error");
        assert!(second.queue.take().await.is_none());
        drop(second);
        let (_, unsent) = go_on(&folder);
        assert!(unsent.unanswered.is_some_and(|(_, ends)| ends) && unsent.is_closed);
    }

    #[tokio::test]
    async fn what_was_refused_as_too_large_and_divided_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(&folder);
        first.queue.limit(1_000);
        let text: String = (0..500).map(|number| format!("{number} ")).collect();
        first.queue.push([token(&text, 0), token("last", 1)]);
        let next = first.queue.take().await.unwrap();
        first.sending(std::slice::from_ref(&next));
        first.kept.put_back();
        first.queue.limit(600);
        first.queue.put_back(vec![next]);
        let mut joined = String::new();
        let mut seqs = Vec::new();
        for _ in 0..2 {
            let (seq, body) = first.send().await;
            first.kept.arrived(0, false);
            joined.push_str(body["text"].as_str().unwrap());
            seqs.push(seq);
        }
        drop(first);
        let (second, _) = go_on(&folder);
        second.queue.limit(600);
        second.queue.push([ending()]);
        while !second.queue.is_over() {
            let (seq, body) = second.send().await;
            joined.push_str(body["text"].as_str().unwrap_or_default());
            seqs.push(seq);
        }
        assert_eq!(joined, format!("{text}last"));
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        assert!(seqs.len() > 4);
    }

    #[tokio::test]
    async fn the_file_does_not_grow_with_what_is_not_needed_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(&folder);
        let length = || files_length(&folder);
        // All of it has arrived: the file is begun anew.
        let large = "x".repeat(100_000);
        for number in 0..20 {
            first.queue.push([token(&large, number)]);
            first.send().await;
            first.kept.arrived(0, false);
        }
        assert!(length() < 2 * WORTH_A_NEW_FILE, "{}", length());
        // Something always waits: what is not needed is left out now and then.
        {
            let mut state = first.kept.lock();
            (state.most, state.worth_a_copy) = (500_000, 500_000);
        }
        for number in 20..60 {
            first.queue.push([token(&large, number), call(&format!("t{number}"))]);
            first.send().await;
            first.kept.arrived(0, false);
            if number > 20 {
                first.send().await;
                first.kept.arrived(0, false);
            }
        }
        assert!(length() < 2_000_000, "{}", length());
        drop(first);
        let (second, unsent) = go_on(&folder);
        assert_eq!(unsent.past.last_seq, 20 + 79);
        assert_eq!(unsent.past.open.calls().count(), 40);
        assert_eq!(second.send().await.0, 100);
    }

    fn files_length(folder: &tempfile::TempDir) -> u64 {
        let entries = folder.path().read_dir().unwrap().flatten();
        let events = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "events"));
        events.map(|entry| entry.metadata().unwrap().len()).sum()
    }
}
