//! An event on its way: what it needs to wait, to be merged, to lie on disk and to be sent, and nothing else.
//!
//! An [`Event`] is written as JSON once, when it becomes a record, and its text is escaped once, when it is sent. In
//! between (in the queue, in the spool, between a worker and its supervisor) nobody parses it; there it goes as a frame
//! ([`crate::framing`]).

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bounds::encoded;
use super::event::{Event, TaskId};
use super::unfinished::Boundary;

/// What a record is: as much as the queue and the delivery have to know of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Token,
    Thinking,
    ToolOutput,
    Log,
    PartialLog,
    /// Stands where log lines were cut, and becomes a log line that says how much.
    Cut,
    ToolStart,
    ToolEnd,
    StepStart,
    StepEnd,
    Usage,
    MessageReset,
    Alive,
    Done,
    Error,
}

/// Which part of an event that is larger than the server takes: from 0, of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub index: u32,
    pub count: u32,
}

impl Kind {
    /// Whether losing it would leave the server with a wrong picture; such an event is retried longer.
    pub fn is_critical(self) -> bool {
        self.is_terminal() || self == Kind::ToolEnd
    }

    /// Whether it ends the task.
    pub fn is_terminal(self) -> bool {
        matches!(self, Kind::Done | Kind::Error)
    }

    /// Whether it may be cut when there is no room anywhere.
    pub(super) fn may_be_cut(self) -> bool {
        matches!(self, Kind::Log | Kind::PartialLog)
    }

    /// What stands between the texts of two neighbours that are sent as one; `None`: they are not.
    fn joint(self) -> Option<&'static str> {
        match self {
            Kind::Token | Kind::Thinking | Kind::ToolOutput => Some(""),
            Kind::Log => Some("\n"),
            _ => None,
        }
    }

    /// The member that carries the text.
    fn text_member(self) -> Option<&'static str> {
        match self {
            Kind::Token | Kind::Thinking | Kind::ToolOutput => Some("text"),
            Kind::Log | Kind::PartialLog | Kind::Error => Some("message"),
            Kind::ToolEnd => Some("output"),
            _ => None,
        }
    }
}

/// What every event carries besides its own members and the task's id, in bytes, at most: numbers are of twenty digits.
const ENVELOPE: usize = 192;
/// What the note takes that stands in the place of what was cut.
const CUT_NOTE: usize = 192;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    /// When it, or the first of what was merged into it, happened.
    pub timestamp: Timestamp,
    /// The step of a log line.
    pub(super) step: Option<u32>,
    /// The call or step that it begins or ends.
    pub(super) boundary: Option<Boundary>,
    /// `token_index` of a token; how many bytes were cut, of a cut.
    pub(super) index: u64,
    /// Members as JSON, without braces. Neighbours are merged only when they are the same.
    pub(super) head: String,
    pub(super) text: String,
    /// How many bytes the text takes on the wire.
    pub(super) encoded: usize,
    /// When the text is one part of several.
    pub(super) part: Option<Part>,
    /// Its place among all that was pushed, where that is kept ([`super::write_ahead`]); of what was merged, the last.
    pub(super) place: u64,
}

/// A record as a frame has it: kind, microseconds since 1970, step, boundary, index, head, text, part, place.
type Frame<B, S> = (Kind, i64, Option<u32>, B, u64, S, S, Option<Part>, u64);

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = self.timestamp.as_microsecond();
        let frame: Frame<&Option<Boundary>, &str> = (
            self.kind,
            time,
            self.step,
            &self.boundary,
            self.index,
            &self.head,
            &self.text,
            self.part,
            self.place,
        );
        frame.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, time, step, boundary, index, head, text, part, place) =
            Frame::<Option<Boundary>, String>::deserialize(deserializer)?;
        Ok(Self {
            kind,
            timestamp: Timestamp::from_microsecond(time).map_err(serde::de::Error::custom)?,
            step,
            boundary,
            index,
            head,
            encoded: encoded(&text),
            text,
            part,
            place,
        })
    }
}

impl From<Event> for Record {
    fn from(mut event: Event) -> Self {
        let mut record = Record {
            kind: Kind::Usage,
            timestamp: Timestamp::now(),
            step: None,
            boundary: Boundary::of(&event),
            index: 0,
            head: String::new(),
            text: String::new(),
            encoded: 0,
            part: None,
            place: 0,
        };
        match event {
            Event::Token {
                message_id,
                text,
                token_index,
            } => {
                record.kind = Kind::Token;
                record.index = token_index;
                record.head = format!(r#""type":"token","message_id":{}"#, json(&message_id));
                record.text = text;
            }
            Event::Thinking { message_id, text } => {
                record.kind = Kind::Thinking;
                record.head = format!(r#""type":"thinking","message_id":{}"#, json(&message_id));
                record.text = text;
            }
            Event::ToolOutput { tool_id, text } => {
                record.kind = Kind::ToolOutput;
                record.head = format!(r#""type":"tool_output","tool_id":{}"#, json(&tool_id));
                record.text = text;
            }
            Event::Log {
                level,
                message,
                step_index,
                partial,
            } => {
                record.kind = if partial { Kind::PartialLog } else { Kind::Log };
                record.step = step_index.and_then(|index| u32::try_from(index).ok());
                record.head = format!(r#""type":"log","level":"{}""#, level.as_str());
                record.text = message;
            }
            // The text is taken out of these, so that it is escaped where it is sent; the rest is small.
            Event::ToolEnd { ref mut output, .. } => {
                record.kind = Kind::ToolEnd;
                record.text = std::mem::take(output);
                record.head = members(&event);
            }
            Event::Error { ref mut message, .. } => {
                record.kind = Kind::Error;
                record.text = std::mem::take(message);
                record.head = members(&event);
            }
            Event::ToolStart { .. } => record.whole(Kind::ToolStart, &event),
            Event::StepStart { .. } => record.whole(Kind::StepStart, &event),
            Event::StepEnd { .. } => record.whole(Kind::StepEnd, &event),
            Event::Usage { .. } => record.whole(Kind::Usage, &event),
            Event::MessageReset { .. } => record.whole(Kind::MessageReset, &event),
            Event::Alive => record.whole(Kind::Alive, &event),
            Event::Done { .. } => record.whole(Kind::Done, &event),
        }
        record.encoded = encoded(&record.text);
        record
    }
}

impl Record {
    /// Becomes a small event, all of whose members are written at once.
    fn whole(&mut self, kind: Kind, event: &Event) {
        self.kind = kind;
        self.head = members(event);
    }

    /// How many bytes it takes on the wire at most, without the task's id; in memory it is at most that.
    pub(super) fn size(&self) -> usize {
        let note = if self.kind == Kind::Cut { CUT_NOTE } else { 0 };
        ENVELOPE + note + self.head.len() + self.encoded
    }

    /// About how many bytes it takes in memory.
    pub(super) fn in_memory(&self) -> usize {
        ENVELOPE + self.head.len() + self.text.len()
    }

    /// Takes the text of the record that follows it, when the two may be sent as one: tokens of one message, live
    /// output of one call, whole lines of one level and step. Nothing is dropped. Gives the record back when they may
    /// not.
    pub(super) fn merge(&mut self, next: Record) -> Option<Record> {
        let place = next.place;
        let is_a_part = self.part.is_some() || next.part.is_some();
        if is_a_part || self.kind != next.kind || self.step != next.step || self.head != next.head {
            return Some(next);
        }
        match self.kind.joint() {
            Some(joint) => {
                self.text.push_str(joint);
                self.text.push_str(&next.text);
                self.encoded += encoded(joint) + next.encoded;
            }
            None if self.kind == Kind::Cut => self.index += next.index,
            None => return Some(next),
        }
        self.place = place;
        None
    }

    /// What stands in the place of a log line that there is no room for.
    pub(super) fn cut(&self) -> Record {
        Record {
            kind: Kind::Cut,
            timestamp: self.timestamp,
            step: self.step,
            boundary: None,
            // With its newline.
            index: self.text.len() as u64 + 1,
            head: String::new(),
            text: String::new(),
            encoded: 0,
            part: None,
            place: self.place,
        }
    }

    /// The event as it goes over the wire. `lost` is how many events before it the server did not get; the terminal
    /// event says it.
    pub fn body(&self, task_id: &TaskId, seq: u64, lost: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.size() + 64);
        body.push(b'{');
        body.extend_from_slice(self.head.as_bytes());
        if self.kind == Kind::Cut {
            body.extend_from_slice(br#""type":"log","level":"error""#);
            let bytes = self.index;
            let text =
                format!("{bytes} bytes of output are missing here: there was no room left for them (SPOOL_SIZE)");
            member(&mut body, "message", &text);
        }
        if self.kind == Kind::Token {
            member(&mut body, "token_index", &self.index);
        }
        if let Some(name) = self.kind.text_member() {
            if self.text.contains('\0') {
                // The API server's database cannot store one.
                member(&mut body, name, &self.text.replace('\0', "\u{fffd}"));
            } else {
                member(&mut body, name, &self.text);
            }
        }
        if let Some(step) = self.step {
            member(&mut body, "step_index", &step);
        }
        if self.kind == Kind::PartialLog {
            member(&mut body, "partial", &true);
        }
        if let Some(part) = &self.part {
            member(&mut body, "part", part);
        }
        if self.kind.is_terminal() && lost > 0 {
            member(&mut body, "lost_events", &lost);
        }
        member(&mut body, "task_id", task_id);
        member(&mut body, "seq", &seq);
        member(&mut body, "timestamp", &crate::telemetry::rfc3339(self.timestamp));
        body.push(b'}');
        body
    }
}

/// One member of an object that goes on; a value that cannot be written is none of ours.
fn member(body: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    if body.len() > 1 {
        body.push(b',');
    }
    body.push(b'"');
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(b"\":");
    let before = body.len();
    if serde_json::to_writer(&mut *body, value).is_err() {
        body.truncate(before);
        body.extend_from_slice(b"\"\"");
    }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into())
}

/// The members of an event without the braces, and without the text that was taken out of it.
fn members(event: &Event) -> String {
    let mut object = without_nul(serde_json::to_string(event).unwrap_or_else(|_| "{}".into()));
    object.pop();
    object.remove(0);
    object
}

/// A NUL becomes U+FFFD in what is JSON already. There it can only stand as `\u0000`, whose backslash is no part of an
/// escaped backslash.
fn without_nul(mut json: String) -> String {
    const NUL: &str = "\\u0000";
    let mut from = 0;
    while let Some(found) = json[from..].find(NUL) {
        let at = from + found;
        let backslashes = json[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 0 {
            json.replace_range(at..at + NUL.len(), "\\ufffd");
        }
        from = at + NUL.len();
    }
    json
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::events::event::{LogLevel, StepState, ToolState};

    fn sent(event: Event) -> Value {
        let mut value: Value =
            serde_json::from_slice(&Record::from(event).body(&TaskId::Text("t".into()), 5, 0)).unwrap();
        let object = value.as_object_mut().unwrap();
        assert_eq!(
            (object.remove("seq"), object.remove("task_id")),
            (Some(5.into()), Some("t".into()))
        );
        object.remove("timestamp").unwrap();
        value
    }

    fn log(level: LogLevel, step: usize, message: &str, partial: bool) -> Record {
        Record::from(Event::Log {
            level,
            message: message.into(),
            step_index: Some(step),
            partial,
        })
    }

    fn token(id: &str, text: &str, token_index: u64) -> Record {
        Record::from(Event::Token {
            message_id: id.into(),
            text: text.into(),
            token_index,
        })
    }

    #[test]
    fn an_event_is_sent_with_its_members_and_without_any_that_has_no_value() {
        let event = Event::ToolEnd {
            tool_id: "t1".into(),
            tool_state: ToolState::Success,
            output: "a \"quoted\" line\n".into(),
            duration_ms: 3,
            truncated: false,
            code: None,
        };
        assert_eq!(
            sent(event),
            json!({"type": "tool_end", "tool_id": "t1", "tool_state": "success", "duration_ms": 3, "truncated": false,
                "output": "a \"quoted\" line\n"})
        );
        let event = Event::Log {
            level: LogLevel::Stderr,
            message: "x".into(),
            step_index: Some(2),
            partial: true,
        };
        assert_eq!(
            sent(event),
            json!({"type": "log", "level": "stderr", "message": "x", "step_index": 2, "partial": true})
        );
        let event = Event::StepEnd {
            step_name: "a\0b".into(),
            step_index: 0,
            step_state: StepState::Success,
            output: None,
            exit_code: Some(0),
            duration_ms: 1,
        };
        assert_eq!(
            sent(event),
            json!({"type": "step_end", "step_name": "a\u{fffd}b", "step_index": 0, "step_state": "success",
                "exit_code": 0, "duration_ms": 1})
        );
    }

    #[test]
    fn a_nul_becomes_the_replacement_character_wherever_it_stands() {
        for (text, expected) in [
            ("\0", "\u{fffd}"),
            ("a\0\0b", "a\u{fffd}\u{fffd}b"),
            ("a\\u0000", "a\\u0000"),
            ("\\\0", "\\\u{fffd}"),
            ("\\\\u0000\0", "\\\\u0000\u{fffd}"),
            ("u0000", "u0000"),
            ("", ""),
        ] {
            let written: String = serde_json::from_str(&without_nul(serde_json::to_string(text).unwrap())).unwrap();
            assert_eq!(written, expected, "{text:?}");
            let event = Event::Thinking {
                message_id: "m".into(),
                text: text.into(),
            };
            assert_eq!(sent(event)["text"], expected, "{text:?}");
        }
    }

    #[test]
    fn a_record_comes_back_from_its_frame_as_it_was_and_garbage_is_none() {
        for record in [
            token("m", "é\n\u{1}", u64::MAX),
            log(LogLevel::Stdout, 3, "", true),
            log(LogLevel::Stdout, 3, "12345", false).cut(),
            token("m", &"part".repeat(1000), 3).fit(1000).remove(1),
        ] {
            let frame = crate::framing::frame(&record);
            let (read, rest) = crate::framing::first::<Record>(&frame).unwrap().unwrap();
            // Frames have microseconds.
            assert_eq!(read.timestamp.as_microsecond(), record.timestamp.as_microsecond());
            let timestamp = read.timestamp;
            assert_eq!((read, rest.len()), (Record { timestamp, ..record }, 0));
        }
        assert!(crate::framing::first::<Record>(&[9, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 1, 1, 1, 1]).is_err());
    }

    #[test]
    fn tokens_of_one_message_merge_and_keep_the_first_index() {
        let mut first = token("msg_a", "Hel", 4);
        assert_eq!(first.merge(token("msg_a", "lo", 5)), None);
        let body: Value = serde_json::from_slice(&first.body(&TaskId::Number(7), 1, 0)).unwrap();
        assert_eq!(
            (&body["text"], &body["token_index"], &body["task_id"]),
            (&json!("Hello"), &json!(4), &json!(7))
        );
        assert!(first.merge(token("msg_b", "!", 0)).is_some());
        // Parts of one event are sent as they are.
        let mut parts = token("msg_a", &"x".repeat(1000), 4).fit(700);
        let last = parts.pop().unwrap();
        assert!(parts.pop().unwrap().merge(last).is_some());
    }

    #[test]
    fn no_event_is_larger_than_what_is_counted_for_it() {
        let id = TaskId::Number(i64::MIN);
        for mut record in [
            token("msg_0123456789ab", "é\"\u{1}\0", u64::MAX),
            log(LogLevel::Stderr, u32::MAX as usize, "x", true),
            log(LogLevel::Stderr, u32::MAX as usize, "x", false).cut(),
            Record::from(Event::Alive),
        ] {
            record.part = Some(Part {
                index: u32::MAX,
                count: u32::MAX,
            });
            if record.kind == Kind::Cut {
                (record.index, record.part) = (u64::MAX, None);
            }
            let sent = record.body(&id, u64::MAX, u64::MAX).len();
            assert!(sent <= record.size() + id.to_string().len(), "{sent} {record:?}");
        }
    }

    #[test]
    fn lines_of_another_step_or_level_and_partial_lines_stay_apart() {
        let cases = [
            (
                log(LogLevel::Stdout, 0, "x", false),
                log(LogLevel::Stdout, 0, "x", false),
                true,
            ),
            (
                log(LogLevel::Stdout, 0, "x", false),
                log(LogLevel::Stderr, 0, "x", false),
                false,
            ),
            (
                log(LogLevel::Stdout, 0, "x", false),
                log(LogLevel::Stdout, 1, "x", false),
                false,
            ),
            (
                log(LogLevel::Stdout, 0, "x", true),
                log(LogLevel::Stdout, 0, "x", false),
                false,
            ),
            (
                log(LogLevel::Stdout, 0, "x", false),
                log(LogLevel::Stdout, 0, "x", true),
                false,
            ),
        ];
        for (mut first, second, merges) in cases {
            assert_eq!(first.merge(second).is_none(), merges, "{first:?}");
        }
    }

    #[test]
    fn what_was_cut_is_added_up_and_told_in_a_log_line_of_the_step() {
        let mut cut = log(LogLevel::Stdout, 3, "12345", false).cut();
        assert_eq!(cut.merge(log(LogLevel::Stderr, 3, "1234", false).cut()), None);
        assert!(cut.merge(log(LogLevel::Stdout, 4, "x", false).cut()).is_some());
        let body: Value = serde_json::from_slice(&cut.body(&TaskId::Number(7), 1, 0)).unwrap();
        assert_eq!(
            (&body["type"], &body["level"], &body["step_index"]),
            (&json!("log"), &json!("error"), &json!(3))
        );
        assert!(
            body["message"]
                .as_str()
                .unwrap()
                .starts_with("11 bytes of output are missing"),
            "{body}"
        );
    }
}
