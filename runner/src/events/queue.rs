//! The queue between what happens and what was delivered.
//!
//! The task pushes, one sender takes, and pushing never waits. Neighbours that may be sent as one merge while an
//! earlier event is before them, so that a slow server costs fewer requests and not a longer queue. What does not fit
//! in memory goes to the spool:
//!
//! ```text
//! take ◄── front (memory) ◄── spool (disk) ◄── back (memory) ◄── push
//! ```
//!
//! The spool and the back are only in use while the front is full. When the disk takes no more, everything but log
//! lines stays in memory; log lines are cut beyond a bound, and a log line in their place says how much is missing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::bounds::MAX_BODY;
use super::record::Record;
use super::spool::{Spool, SpoolConfig};
use super::unfinished::Unfinished;
use super::write_ahead::WriteAhead;
use crate::framing;

/// How many bytes of events wait in memory before the spool begins.
pub const MAX_FRONT: usize = 8 << 20;
/// How many bytes wait in memory behind a spool that takes no more, before log lines are cut.
pub const MAX_BACK: usize = 8 << 20;

/// How large one merged event may become: a larger one would make one lost request cost too much.
const MAX_MERGED: usize = 64 << 10;
/// The same while the spool is in use: the server is far behind, and fewer requests are all that helps.
const MAX_MERGED_BEHIND: usize = 900 << 10;
/// What an event may take when nobody has said what the server takes: the largest body, and a task's id.
const DEFAULT_LIMIT: usize = MAX_BODY - (1 << 10);
/// How many places there are for the parts of one record.
pub(super) const PLACES: u64 = 1 << 20;

/// An event that was taken from the queue; its number is its place in the order of sending.
#[derive(Debug)]
pub struct Numbered {
    pub seq: u64,
    pub record: Record,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub events: u64,
    /// About.
    pub bytes: u64,
}

/// What an earlier process has sent of a task's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The number of the last event that was sent, whether or not it arrived.
    pub last_seq: u64,
    /// How many of them are not known to have arrived.
    pub lost: u64,
    /// What has begun by them and has no end yet.
    pub open: Unfinished,
}

/// Records in memory, in order.
#[derive(Default)]
struct RecordBuffer {
    records: VecDeque<Record>,
    bytes: usize,
}

impl RecordBuffer {
    /// Adds a record at the end, or its text to the last one, when that one is not as large as `most` yet, and the two
    /// may be sent as one event, which is not larger than `limit`.
    fn add(&mut self, record: Record, most: usize, limit: usize) {
        let record = match self.records.back_mut() {
            Some(last) if last.in_memory() < most && last.size() + record.size() <= limit => {
                let before = last.size();
                match last.merge(record) {
                    None => {
                        self.bytes += last.size() - before;
                        return;
                    }
                    Some(record) => record,
                }
            }
            _ => record,
        };
        self.bytes += record.size();
        self.records.push_back(record);
    }

    fn measure(&mut self) {
        self.bytes = self.records.iter().map(Record::size).sum();
    }
}

struct State {
    front: RecordBuffer,
    spool: Spool,
    back: RecordBuffer,
    /// The spool took no more the last time, and nothing was taken from it since.
    spool_is_full: bool,
    /// Whether what was taken last is still on its way.
    in_flight: bool,
    last_seq: u64,
    /// Events that were lost in the spool.
    lost: u64,
    /// Records that were written to the spool.
    spooled: u64,
    /// How large an event may be that is taken, as [`Record::size`] counts.
    limit: usize,
    closed: bool,
    open: Unfinished,
    /// Where all of it is kept for a later process.
    kept: Option<Arc<WriteAhead>>,
    /// The place of what was pushed last.
    place: u64,
}

/// A handle on the queue; clones share it.
#[derive(Clone)]
pub struct EventQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    pushed: Notify,
}

impl EventQueue {
    /// An empty queue.
    pub fn new(spool: SpoolConfig) -> Self {
        Self::resume(spool, Past::default())
    }

    /// An empty queue that goes on where another one was when its process ended.
    pub fn resume(spool: SpoolConfig, past: Past) -> Self {
        Self::with(spool, past, None, Vec::new())
    }

    /// The same, where what is pushed is kept for a later process: with what an earlier one has pushed and not sent.
    pub fn keeping(spool: SpoolConfig, past: Past, kept: &Arc<WriteAhead>, unsent: Vec<Record>, closed: bool) -> Self {
        let queue = Self::with(spool, past, Some(Arc::clone(kept)), unsent);
        queue.lock().closed = closed;
        queue
    }

    fn with(spool: SpoolConfig, past: Past, kept: Option<Arc<WriteAhead>>, unsent: Vec<Record>) -> Self {
        let mut state = State {
            front: RecordBuffer::default(),
            spool: Spool::new(spool),
            back: RecordBuffer::default(),
            spool_is_full: false,
            in_flight: false,
            last_seq: past.last_seq,
            lost: past.lost,
            spooled: 0,
            limit: DEFAULT_LIMIT,
            closed: false,
            open: past.open,
            place: kept.as_ref().map_or(0, |kept| kept.last_place()),
            kept,
        };
        for record in unsent {
            // They are not many, or the disk has room for them as it had for what they come from.
            if let Err(error) = state.append(record) {
                tracing::warn!(error = %error, "events of an earlier process wait in memory (SPOOL_DIR, SPOOL_SIZE)");
            }
        }
        let shared = Shared {
            state: Mutex::new(state),
            pushed: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Adds records at the end. A terminal one ends what is open before it, and closes the queue: what comes after it
    /// is dropped, because a task has one ending.
    pub fn push(&self, records: impl IntoIterator<Item = Record>) {
        let mut refused = None;
        {
            let mut state = self.lock();
            for record in records {
                if state.closed {
                    tracing::debug!(kind = ?record.kind, "an event after the ending was dropped");
                    continue;
                }
                state.open.note(&record);
                if record.kind.is_terminal() {
                    for end in state.open.close() {
                        refused = state.add(end).err().or(refused);
                    }
                    state.closed = true;
                }
                refused = state.add(record).err().or(refused);
            }
        }
        self.shared.pushed.notify_one();
        if let Some(error) = refused {
            tracing::error!(
                error = %error,
                "events wait in memory, since the spool takes no more (SPOOL_DIR, SPOOL_SIZE); log lines may be cut"
            );
        }
    }

    /// Takes the next event and gives it its number; waits for one. What was taken before counts as arrived, or as
    /// given up. `None` when the ending was taken already.
    pub async fn take(&self) -> Option<Numbered> {
        loop {
            let pushed = self.shared.pushed.notified();
            let (next, unreadable, closed) = {
                let mut state = self.lock();
                state.in_flight = false;
                let (next, unreadable) = state.next();
                (next, unreadable, state.closed)
            };
            if let Some(error) = unreadable {
                tracing::error!(error, "events were lost");
            }
            if next.is_some() || closed {
                return next;
            }
            pushed.await;
        }
    }

    /// Takes another event at once, when there is one that is not larger than `most`: for whoever sends several in one
    /// request.
    pub(super) fn take_more(&self, most: usize) -> Option<Numbered> {
        let mut state = self.lock();
        state.fit_first();
        if state.front.records.front()?.size() > most {
            return None;
        }
        state.next().0
    }

    /// From now on no event that is taken is larger than the server takes, without the task's id: what is larger is
    /// taken in parts, or cut.
    pub(super) fn limit(&self, most: usize) {
        self.lock().limit = most;
    }

    /// Takes back what was taken last and not taken by the server, as far as anybody knows for sure: it is numbered
    /// anew when it is taken again, and in other pieces when the limit is another one.
    pub(super) fn put_back(&self, events: Vec<Numbered>) {
        let mut state = self.lock();
        state.last_seq -= events.len() as u64;
        for Numbered { record, .. } in events.into_iter().rev() {
            state.front.bytes += record.size();
            state.front.records.push_front(record);
        }
    }

    /// Whether the ending was taken, so that nothing comes any more.
    pub fn is_over(&self) -> bool {
        let state = self.lock();
        state.closed && state.front.records.is_empty() && state.spool.is_empty() && state.back.records.is_empty()
    }

    /// How much waits, without what was taken.
    pub fn waiting(&self) -> Waiting {
        let state = self.lock();
        Waiting {
            events: (state.front.records.len() + state.back.records.len()) as u64 + state.spool.records(),
            bytes: (state.front.bytes + state.back.bytes) as u64 + state.spool.bytes(),
        }
    }

    /// How many events were lost in the spool.
    pub(super) fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// How many records were written to the spool.
    pub(super) fn spooled(&self) -> u64 {
        self.lock().spooled
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves the queue whole: what is changed together is changed without a call
        // that panics in between.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether new records go behind the spool.
    fn is_behind(&self) -> bool {
        !self.spool.is_empty() || !self.back.records.is_empty()
    }

    /// Adds a record that was pushed: first to what is kept.
    fn add(&mut self, mut record: Record) -> std::io::Result<()> {
        if let Some(kept) = &self.kept {
            self.place += PLACES;
            record.place = self.place;
            kept.pushed(&record);
        }
        self.append(record)
    }

    /// Adds a record at the end. The error is that of a spool that takes no more, once.
    fn append(&mut self, record: Record) -> std::io::Result<()> {
        if !self.is_behind() && self.front.bytes < MAX_FRONT {
            // What an idle sender takes at once is left as it is; what has to wait for another request grows.
            let waits = self.in_flight || self.front.records.len() > 1;
            self.front.add(record, if waits { MAX_MERGED } else { 0 }, self.limit);
            return Ok(());
        }
        let record = if self.spool_is_full && self.back.bytes >= MAX_BACK && record.kind.may_be_cut() {
            record.cut()
        } else {
            record
        };
        self.back
            .add(record, MAX_MERGED_BEHIND, self.limit.min(MAX_MERGED_BEHIND));
        if self.back.bytes >= MAX_MERGED_BEHIND && !self.spool_is_full {
            return self.write_back();
        }
        Ok(())
    }

    /// Writes the back to the spool, but for its last record when that may still grow.
    fn write_back(&mut self) -> std::io::Result<()> {
        let records = &mut self.back.records;
        let grows = records.back().is_some_and(|last| last.in_memory() < MAX_MERGED_BEHIND);
        let count = records.len() - usize::from(grows);
        let mut frames = Vec::with_capacity(self.back.bytes);
        records
            .iter()
            .take(count)
            .for_each(|record| framing::append(record, &mut frames));
        if let Err(error) = self.spool.append(&frames, count as u64) {
            self.spool_is_full = true;
            return Err(error);
        }
        records.drain(..count);
        self.spooled += count as u64;
        self.back.measure();
        Ok(())
    }

    /// The next record; and what was lost on the way to it.
    fn next(&mut self) -> (Option<Numbered>, Option<String>) {
        let mut unreadable = None;
        while self.front.records.is_empty() && !self.spool.is_empty() {
            match self.spool.read() {
                Ok(records) => self.front.records.extend(records),
                Err(error) => {
                    // Their numbers are missing at the server, as those of all lost events are.
                    self.lost = self.lost.saturating_add(error.records);
                    self.last_seq += error.records;
                    unreadable = Some(error.to_string());
                }
            }
            self.spool_is_full = false;
            self.front.measure();
        }
        if self.front.records.is_empty() {
            self.front = std::mem::take(&mut self.back);
            self.spool_is_full = false;
        }
        self.fit_first();
        let next = self.front.records.pop_front().map(|record| {
            self.front.bytes -= record.size();
            self.last_seq += 1;
            self.in_flight = true;
            Numbered {
                seq: self.last_seq,
                record,
            }
        });
        (next, unreadable)
    }

    /// Makes the first record one that the server takes, or several.
    fn fit_first(&mut self) {
        let front = &mut self.front;
        let Some(mut first) = front.records.pop_front_if(|first| first.size() > self.limit) else {
            return;
        };
        front.bytes -= first.size();
        // A text of which the server has parts already goes on in smaller ones: what is left of it is cut anew.
        while first.part.is_some()
            && let Some(next) = front
                .records
                .pop_front_if(|next| next.part.is_some_and(|part| part.index > 0))
        {
            front.bytes -= next.size();
            first.go_on_with(next);
        }
        let place = first.place;
        let mut parts = first.fit(self.limit);
        if let Some(kept) = &self.kept {
            for (before, part) in parts.iter_mut().rev().enumerate() {
                part.place = place - (before as u64).min(PLACES - 1);
            }
            kept.divided(place, &parts);
        }
        for event in parts.into_iter().rev() {
            front.bytes += event.size();
            front.records.push_front(event);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;
    use crate::events::event::{Event, LogLevel, Summary, TaskErrorCode, TaskId};

    fn line(step_index: usize, message: &str) -> Record {
        Record::from(Event::Log {
            level: LogLevel::Stdout,
            message: message.into(),
            step_index: Some(step_index),
            partial: false,
        })
    }

    fn token(text: &str, token_index: u64) -> Record {
        Record::from(Event::Token {
            message_id: "msg_a".into(),
            text: text.into(),
            token_index,
        })
    }

    fn ending() -> Record {
        let summary = Summary {
            usage: None,
            cost_usd: None,
            turns: None,
            duration_ms: 1,
            sandbox: "weak",
        };
        Record::from(Event::Error {
            message: "over".into(),
            code: TaskErrorCode::Internal,
            summary,
        })
    }

    fn queue(limit: u64) -> (tempfile::TempDir, EventQueue) {
        let folder = tempfile::tempdir().unwrap();
        let config = SpoolConfig {
            folder: folder.path().into(),
            limit,
        };
        (folder, EventQueue::new(config))
    }

    fn body(numbered: &Numbered) -> Value {
        serde_json::from_slice(&numbered.record.body(&TaskId::Number(7), numbered.seq, 0)).unwrap()
    }

    /// Everything that waits, up to the ending.
    async fn all(queue: &EventQueue) -> Vec<Value> {
        let mut bodies = Vec::new();
        while let Some(next) = queue.take().await {
            assert_eq!(next.seq, bodies.len() as u64 + 1);
            bodies.push(body(&next));
        }
        bodies
    }

    /// The text of all events of one type.
    fn text(bodies: &[Value], kind: &str, member: &str, joint: &str) -> String {
        let texts = bodies
            .iter()
            .filter(|body| body["type"] == kind && body["level"] != "error");
        texts
            .map(|body| body[member].as_str().unwrap())
            .collect::<Vec<_>>()
            .join(joint)
    }

    #[tokio::test]
    async fn neighbours_merge_while_another_request_is_before_them_and_only_then() {
        let (_folder, queue) = queue(0);
        queue.push([line(0, "a"), line(0, "b")]);
        assert_eq!(queue.waiting().events, 2);
        queue.push([line(0, "c")]);
        assert_eq!(queue.waiting().events, 2);
        assert_eq!(body(&queue.take().await.unwrap())["message"], "a");
        queue.push([line(0, "d"), line(1, "e"), line(1, "f")]);
        let messages: Vec<Value> = (0..2)
            .map(|_| body(&queue.take_more(usize::MAX).unwrap())["message"].clone())
            .collect();
        assert_eq!(messages, ["b\nc\nd", "e\nf"]);
    }

    #[tokio::test]
    async fn short_lines_merge_up_to_the_size_of_an_event_not_of_their_envelopes() {
        let (_folder, queue) = queue(0);
        queue.push([line(1, "first")]);
        queue.take().await.unwrap();
        queue.push((0..10_000).map(|_| line(0, "12345")));
        assert_eq!(queue.waiting().events, 1, "60 KB of lines are one event");
    }

    #[tokio::test]
    async fn nothing_comes_after_the_ending_and_what_is_open_ends_before_it() {
        let (_folder, queue) = queue(0);
        let start = |args: Option<&str>| {
            Record::from(Event::ToolStart {
                message_id: "msg_a".into(),
                tool_id: "t1".into(),
                tool_name: "grep".into(),
                args: args.map(|args| serde_json::value::RawValue::from_string(args.into()).unwrap()),
            })
        };
        let step = Record::from(Event::StepStart {
            step_name: "Build".into(),
            step_index: 4,
        });
        queue.push([
            start(None),
            start(Some("{}")),
            step,
            ending(),
            ending(),
            line(0, "late"),
        ]);
        let bodies = all(&queue).await;
        let kinds: Vec<_> = bodies.iter().map(|body| body["type"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "tool_start",
                "tool_start",
                "step_start",
                "tool_end",
                "step_end",
                "error"
            ]
        );
        assert_eq!(
            (&bodies[3]["tool_id"], &bodies[3]["tool_state"]),
            (&"t1".into(), &"error".into())
        );
        assert_eq!(
            (&bodies[4]["step_name"], &bodies[4]["step_index"]),
            (&"Build".into(), &4.into())
        );
    }

    /// What the server makes of the parts that it gets.
    fn joined(bodies: &[Value], member: &str) -> Vec<String> {
        let mut whole: Vec<String> = Vec::new();
        let mut expected = 0;
        for body in bodies {
            let text = body[member].as_str().unwrap();
            let (index, count) = match body.get("part") {
                Some(part) => (part["index"].as_u64().unwrap(), part["count"].as_u64().unwrap()),
                None => (0, 1),
            };
            assert_eq!(index, expected, "{body}");
            match index {
                0 => whole.push(text.to_owned()),
                _ => whole.last_mut().unwrap().push_str(text),
            }
            expected = if index + 1 == count { 0 } else { index + 1 };
        }
        assert_eq!(expected, 0, "the last part came");
        whole
    }

    #[tokio::test]
    async fn what_the_server_refuses_as_too_large_is_taken_again_in_smaller_parts_without_a_gap() {
        let (_folder, queue) = queue(0);
        let mut limit = 50_000;
        queue.limit(limit);
        let texts = ["a\u{1}€".repeat(20_000), "b".repeat(120_000)];
        let thought = |message: &str, text: &String| {
            Record::from(Event::Thinking {
                message_id: message.into(),
                text: text.clone(),
            })
        };
        queue.push([
            thought("msg_a", &texts[0]),
            line(1, "short"),
            thought("msg_b", &texts[1]),
            ending(),
        ]);
        // In the middle of a text, whose first parts have arrived, and at the beginning of one.
        let mut refusals = [0, 2, 9].into_iter().peekable();
        let mut bodies = Vec::new();
        while let Some(next) = queue.take().await {
            assert_eq!(next.seq, bodies.len() as u64 + 1, "numbers have no gap");
            let size = next.record.size();
            assert!(size <= limit, "{size} > {limit}");
            if size > limit / 2 && refusals.next_if(|after| bodies.len() >= *after).is_some() {
                limit = size / 2;
                queue.limit(limit);
                queue.put_back(vec![next]);
            } else {
                bodies.push(body(&next));
            }
        }
        assert_eq!(refusals.next(), None);
        let thoughts: Vec<Value> = bodies.into_iter().filter(|body| body["type"] == "thinking").collect();
        assert!(thoughts.len() > 30, "{}", thoughts.len());
        assert!(joined(&thoughts, "text") == texts);
    }

    #[tokio::test]
    async fn a_batch_that_is_put_back_is_taken_again_in_its_order() {
        let (_folder, queue) = queue(0);
        queue.push((0..4).map(|step| line(step, &"x".repeat(1000))));
        let mut batch = vec![queue.take().await.unwrap()];
        batch.extend(std::iter::from_fn(|| queue.take_more(usize::MAX)));
        assert_eq!(batch.len(), 4);
        let before = queue.waiting();
        queue.put_back(batch);
        assert_eq!((before.events, queue.waiting().events), (0, 4));
        queue.push([ending()]);
        queue.limit(1_000);
        let bodies = all(&queue).await;
        assert_eq!(bodies.len(), 2 * 4 + 1);
        let steps: Vec<u64> = bodies.iter().filter_map(|body| body["step_index"].as_u64()).collect();
        assert_eq!(steps, [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[tokio::test]
    async fn what_does_not_fit_in_memory_goes_to_disk_and_comes_back_in_order() {
        let (folder, queue) = queue(1 << 30);
        queue.push([line(1, "first")]);
        queue.take().await.unwrap();
        let lines: Vec<String> = (0..400)
            .map(|number| format!("{number} {}", "x".repeat(100_000)))
            .collect();
        for line_text in &lines {
            queue.push([line(0, line_text), token("t", 0)]);
        }
        let waiting = queue.waiting();
        assert!(waiting.bytes > 40_000_000, "{waiting:?}");
        {
            let state = queue.lock();
            assert!(state.front.bytes < MAX_FRONT + (1 << 20) && state.back.bytes < 2 << 20);
            assert!(state.spool.bytes() > 25 << 20);
            assert!(
                state.spooled > 25 && state.spooled == state.spool.records(),
                "{}",
                state.spooled
            );
        }
        queue.push([ending()]);
        let mut bodies = Vec::new();
        while let Some(next) = queue.take().await {
            bodies.push(body(&next));
        }
        assert_eq!(text(&bodies, "log", "message", "\n"), lines.join("\n"));
        assert_eq!(text(&bodies, "token", "text", ""), "t".repeat(400));
        assert_eq!(bodies.last().unwrap()["type"], "error");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn without_room_on_disk_log_lines_are_cut_with_a_note_and_nothing_else_is() {
        let (_folder, queue) = queue(4 << 20);
        let line_text = "x".repeat(99_999);
        for number in 0..600 {
            queue.push([line(0, &line_text), token("t", number)]);
        }
        let waiting = queue.waiting();
        assert!(waiting.bytes < (MAX_FRONT + MAX_BACK + (8 << 20)) as u64, "{waiting:?}");
        queue.push([ending()]);
        let bodies = all(&queue).await;
        assert_eq!(text(&bodies, "token", "text", ""), "t".repeat(600));
        let missing: u64 = bodies
            .iter()
            .filter(|body| body["level"] == "error")
            .map(|body| {
                body["message"]
                    .as_str()
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum();
        let kept = text(&bodies, "log", "message", "\n").len() as u64 + 1;
        assert!(missing > 0);
        assert_eq!(kept + missing, 600 * 100_000);
    }

    #[tokio::test]
    async fn when_there_is_room_again_lines_are_kept_again() {
        let (_folder, queue) = queue(4 << 20);
        let line_text = "x".repeat(99_999);
        queue.push((0..400).map(|_| line(0, &line_text)));
        while queue.waiting().events > 0 {
            queue.take().await.unwrap();
        }
        queue.push([line(0, "again"), ending()]);
        assert_eq!(body(&queue.take().await.unwrap())["message"], "again");
    }

    #[tokio::test]
    async fn a_taker_that_waits_is_woken() {
        let (_folder, queue) = queue(0);
        let taking = tokio::spawn({
            let queue = queue.clone();
            async move { queue.take().await.unwrap().seq }
        });
        tokio::task::yield_now().await;
        queue.push([line(0, "x")]);
        assert_eq!(taking.await.unwrap(), 1);
    }
}
