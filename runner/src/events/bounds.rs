//! How large one event may be. A server, or what stands before it, refuses a body over its bound (`CALLBACK_MAX_BODY`),
//! and what counts is the JSON: a control character of a text takes six bytes there.
//!
//! Names are cut when an event is made, since calls are told apart by theirs; everything else when it is sent
//! (`parts`): only then is it known what the server takes.

use serde_json::{Map, Value};

use super::event::Event;

/// The largest body when the operator does not say: what the API server reads, and what a common ingress passes on.
pub const MAX_BODY: usize = 1 << 20;
/// The least that a server may be said to take, or be found to: every event fits, when what may be cut of it is.
pub const MIN_BODY: usize = 4 << 10;
/// The most that a server may be said to take. No event is larger when it is made, so that one push of a worker fits
/// into the frame that goes to its supervisor, whatever a model or a plugin has written.
pub const LARGEST_BODY: usize = 16 << 20;

/// The largest name, as JSON, in bytes. An event has two at most.
pub(crate) const MAX_NAME: usize = 1 << 10;

/// A text in arguments that is longer is cut when the arguments as a whole are too large.
const MAX_ARGUMENT: usize = 16 << 10;

/// The member that says what was cut of arguments.
const CUT: &str = "_truncated";
/// What it says, behind the number of bytes that there were.
const CUT_ARGUMENTS: &str = " bytes of JSON are more than an event has room for: ";

/// What stands in the place of the middle of a text, around the number of bytes.
const NOTE: (&str, &str, &str) = ("\n[… ", " bytes are left out here: an event has room for ", " …]\n");

/// How many bytes each byte of a text takes in JSON, without the quotes. A NUL is sent as U+FFFD.
const ENCODED: [u8; 256] = {
    let mut lengths = [1; 256];
    let mut byte = 0;
    while byte < 0x20 {
        lengths[byte] = match byte as u8 {
            0 => 3,
            8 | b'\t' | b'\n' | 12 | b'\r' => 2,
            _ => 6,
        };
        byte += 1;
    }
    lengths[b'"' as usize] = 2;
    lengths[b'\\' as usize] = 2;
    lengths
};

/// How many bytes a text takes in JSON, without the quotes.
pub fn encoded(text: &str) -> usize {
    text.bytes().map(|byte| usize::from(ENCODED[usize::from(byte)])).sum()
}

impl Event {
    /// Cuts the names that are too long. Whatever is said of one call or step has the same name then.
    pub(super) fn bound_names(&mut self) {
        match self {
            Event::ToolStart { tool_id, tool_name, .. } => {
                name(tool_id);
                name(tool_name);
            }
            Event::MessageReset { reason, .. } => {
                cut(reason, MAX_NAME);
            }
            Event::ToolEnd { tool_id, .. } | Event::ToolOutput { tool_id, .. } => name(tool_id),
            Event::StepStart { step_name, .. } | Event::StepEnd { step_name, .. } => name(step_name),
            Event::Token { .. }
            | Event::Thinking { .. }
            | Event::Log { .. }
            | Event::Usage { .. }
            | Event::Alive
            | Event::Done { .. }
            | Event::Error { .. } => {}
        }
    }
}

fn name(text: &mut String) {
    cut(text, MAX_NAME);
}

/// Whether a text takes at most so many bytes in JSON.
pub(super) fn fits(text: &str, most: usize) -> bool {
    // Six bytes are the most that one takes.
    text.len() <= most / 6 || encoded(text) <= most
}

/// Cuts the middle out of a text that takes more bytes in JSON, and says there how much it was. Whether it did.
pub(super) fn cut(text: &mut String, most: usize) -> bool {
    if fits(text, most) {
        return false;
    }
    let note = |left_out: usize| format!("{}{left_out}{}{most}{}", NOTE.0, NOTE.1, NOTE.2);
    // The number may be larger than the text, when it was cut before.
    let room = most.saturating_sub(encoded(&note(usize::MAX)));
    let head = prefix(text, room / 2);
    let tail = suffix(text, room / 2).max(head);
    let mut left_out = tail - head;
    if let Some((length, before)) = earlier_note(&text[head..tail]) {
        left_out = (left_out - length).saturating_add(before);
    }
    text.replace_range(head..tail, &note(left_out));
    true
}

/// The note of an earlier cut in what is cut now: how long it is, and how many bytes it stands for.
fn earlier_note(text: &str) -> Option<(usize, usize)> {
    let (_, rest) = text.split_once(NOTE.0)?;
    let (number, rest) = rest.split_once(NOTE.1)?;
    let (room, _) = rest.split_once(NOTE.2)?;
    let length = NOTE.0.len() + number.len() + NOTE.1.len() + room.len() + NOTE.2.len();
    room.parse::<usize>().ok()?;
    Some((length, number.parse().ok()?))
}

/// How long the longest prefix is that takes at most so many bytes in JSON.
pub(super) fn prefix(text: &str, most: usize) -> usize {
    let mut taken = 0;
    for (at, byte) in text.bytes().enumerate() {
        taken += usize::from(ENCODED[usize::from(byte)]);
        if taken > most {
            return text.floor_char_boundary(at);
        }
    }
    text.len()
}

/// Where the longest suffix begins that takes at most so many bytes in JSON.
fn suffix(text: &str, most: usize) -> usize {
    let mut taken = 0;
    for (at, byte) in text.bytes().enumerate().rev() {
        taken += usize::from(ENCODED[usize::from(byte)]);
        if taken > most {
            return text.ceil_char_boundary(at + 1);
        }
    }
    0
}

/// Cuts what may be cut of an event that takes more bytes, and says so in its place.
pub(super) fn shorten(event: &mut Map<String, Value>, most: usize) {
    let whole = serde_json::to_vec(event).map_or(0, |event| event.len());
    if whole <= most {
        return;
    }
    let room = |part: usize| most.saturating_sub(whole - part);
    if let Some(args) = event.get_mut("args") {
        let part = args.to_string().len();
        shorten_arguments(args, part, room(part));
        return;
    }
    match event.get_mut("result") {
        Some(Value::String(text)) => {
            cut(text, room(encoded(text)));
            return;
        }
        Some(_) => {
            // Half an object would be none.
            tracing::error!(
                bytes = whole,
                most,
                "the result is too large for an event and left out of it; it is what the last message says"
            );
            event.remove("result");
            return;
        }
        None => {}
    }
    for member in ["output", "message", "text"] {
        if let Some(Value::String(text)) = event.get_mut(member) {
            let is_cut = cut(text, room(encoded(text)));
            if is_cut && let Some(truncated) = event.get_mut("truncated") {
                *truncated = true.into();
            }
            return;
        }
    }
}

/// The same for an event that is written already: it, when it is shorter then.
pub(super) fn shortened(event: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut members: Map<String, Value> = serde_json::from_slice(event).ok()?;
    shorten(&mut members, most);
    let shorter = serde_json::to_vec(&members).ok()?;
    (shorter.len() < event.len()).then_some(shorter)
}

/// Cuts long texts out of arguments that are too large, so that whoever watches still sees which call it is; and says
/// in a member of its own what was done.
fn shorten_arguments(args: &mut Value, size: usize, most: usize) {
    // What was cut before knows how much there was.
    let before = args
        .get(CUT)
        .and_then(Value::as_str)
        .and_then(|note| note.split_once(CUT_ARGUMENTS));
    let whole = before.and_then(|(bytes, _)| bytes.parse().ok()).unwrap_or(size);
    let begin = args.to_string();
    let count = cut_texts(args, MAX_ARGUMENT.min(most / 4));
    if let Some(members) = args.as_object_mut() {
        members.insert(
            CUT.into(),
            format!("{whole}{CUT_ARGUMENTS}{count} long texts in it are cut").into(),
        );
        if args.to_string().len() <= most {
            return;
        }
    }
    // Nothing in it is long: there is much of it.
    let begin = &begin[..prefix(&begin, MAX_ARGUMENT.min(most / 2))];
    let note = format!("{whole}{CUT_ARGUMENTS}this is how it begins");
    *args = serde_json::json!({ CUT: note, "begin": begin });
}

/// Cuts the texts of a value that are long; how many there were.
fn cut_texts(value: &mut Value, most: usize) -> usize {
    match value {
        Value::String(text) => usize::from(cut(text, most)),
        Value::Array(values) => values.iter_mut().map(|value| cut_texts(value, most)).sum(),
        Value::Object(members) => members.values_mut().map(|value| cut_texts(value, most)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::events::event::{LogLevel, Summary, TaskErrorCode, TaskId, ToolState};
    use crate::events::record::Record;

    /// What is left for an event where the task has this id.
    const TASK: TaskId = TaskId::Number(i64::MAX);
    const LONGEST: usize = "9223372036854775807".len();

    /// The events that are sent of one, each as its bytes.
    fn bodies(mut event: Event, most: usize) -> Vec<Vec<u8>> {
        event.bound_names();
        let events = Record::from(event).fit(most - LONGEST);
        events
            .iter()
            .map(|event| event.body(&TASK, u64::MAX, u64::MAX))
            .collect()
    }

    fn body(event: Event) -> Vec<u8> {
        let mut bodies = bodies(event, MAX_BODY);
        assert_eq!(bodies.len(), 1);
        bodies.remove(0)
    }

    fn value(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    fn tool_end(output: String) -> Event {
        Event::ToolEnd {
            tool_id: "t".into(),
            tool_state: ToolState::Success,
            output,
            duration_ms: 1,
            truncated: false,
            code: None,
        }
    }

    fn log(message: String) -> Event {
        Event::Log {
            level: LogLevel::Info,
            message,
            step_index: None,
            partial: false,
        }
    }

    #[test]
    fn a_text_takes_as_many_bytes_as_it_is_sent_with() {
        for text in [
            "",
            "a",
            "é€🦀",
            "\"\\/",
            "\u{8}\t\n\u{c}\r",
            "\u{1}\u{1f}\u{7f}",
            "\u{2028}",
        ] {
            assert_eq!(
                encoded(text),
                serde_json::to_string(text).unwrap().len() - 2,
                "{text:?}"
            );
        }
        assert_eq!(encoded("\0"), "\u{fffd}".len());
    }

    #[test]
    fn whatever_a_tool_answers_the_event_is_one_that_the_server_takes() {
        for unit in ["x", "\u{1}", "\"", "\n", "é", "🦀", "\0", "a\u{1b}[0m€"] {
            let text = unit.repeat((3 << 20) / unit.len());
            let sent = body(tool_end(text.clone()));
            assert!(sent.len() <= MAX_BODY, "{unit:?}: {}", sent.len());
            assert!(
                sent.len() > MAX_BODY - 1024,
                "no more is cut than has to be: {unit:?} {}",
                sent.len()
            );
            let event = value(&sent);
            let output = event["output"].as_str().unwrap();
            assert_eq!(event["truncated"], true);
            assert!(output.contains("bytes are left out here"), "{unit:?}");
            let kept = text.replace('\0', "\u{fffd}");
            let (head, tail) = output.split_once("\n[…").unwrap();
            assert!(kept.starts_with(head) && kept.ends_with(tail.split_once("…]\n").unwrap().1));
        }
    }

    #[test]
    fn what_the_server_takes_is_left_as_it_is() {
        for text in [
            "x".repeat(MAX_BODY - 400),
            "\u{1}".repeat((MAX_BODY - 400) / 6),
            String::new(),
        ] {
            let event = value(&body(tool_end(text.clone())));
            assert_eq!((&event["output"], &event["truncated"]), (&json!(text), &json!(false)));
        }
    }

    #[test]
    fn a_text_that_is_cut_twice_says_how_much_is_missing_of_the_first_one() {
        let whole = "0123456789".repeat(20_000);
        let mut text = whole.clone();
        for most in [150_000, 60_000, 5_000] {
            assert!(cut(&mut text, most));
            assert!(encoded(&text) <= most);
            let (length, missing) = earlier_note(&text).unwrap();
            assert_eq!(text.len() - length + missing, whole.len(), "{most}");
        }
    }

    #[test]
    fn arguments_that_are_too_large_stay_an_object_that_says_what_was_cut() {
        let content = "\u{1}x".repeat(1 << 20);
        let many: Vec<Value> = (0..300_000).map(Value::from).collect();
        for most in [MAX_BODY, MIN_BODY] {
            for (args, kept) in [
                (
                    json!({ "path": "a.txt", "content": content, "append": false }),
                    Some("a.txt"),
                ),
                (
                    json!({ "path": "b", "edits": [{ "new": content }, { "new": "short" }] }),
                    Some("b"),
                ),
                (json!({ "path": "c", "numbers": many }), None),
                (json!({ content.clone(): 1 }), None),
            ] {
                let raw = serde_json::value::to_raw_value(&args).unwrap();
                let event = Event::ToolStart {
                    message_id: "m".into(),
                    tool_id: "t".into(),
                    tool_name: "write_file".into(),
                    args: Some(raw),
                };
                let sent = bodies(event, most);
                assert!(sent.len() == 1 && sent[0].len() <= most, "{}", sent[0].len());
                let event = value(&sent[0]);
                let note = event["args"][CUT].as_str().unwrap();
                let whole = args.to_string().len();
                assert!(note.starts_with(&format!("{whole} bytes of JSON")), "{event}");
                match kept {
                    Some(path) => assert_eq!(event["args"]["path"], path),
                    None => assert!(event["args"]["begin"].as_str().unwrap().starts_with('{')),
                }
                // Once more, for a server that takes less than was thought.
                let again = shortened(&sent[0], most / 8).map(|again| value(&again));
                let note = again.as_ref().and_then(|again| again["args"][CUT].as_str());
                assert!(note.is_none_or(|note| note.starts_with(&format!("{whole} bytes of JSON"))));
            }
        }
    }

    #[test]
    fn texts_are_sent_in_parts_at_every_bound_and_nothing_of_them_is_lost() {
        for unit in ["x", "\u{1}", "🦀\u{1}", "\"", "\0"] {
            let whole = unit.repeat((1 << 20) / unit.len());
            for most in [MIN_BODY, 100_000, 1 << 19] {
                let message_id: String = "msg_0123456789ab".into();
                let (text, tool_id) = (whole.clone(), "t".into());
                let token = Event::Token {
                    message_id: message_id.clone(),
                    text: text.clone(),
                    token_index: 7,
                };
                let thinking = Event::Thinking {
                    message_id,
                    text: text.clone(),
                };
                let output = Event::ToolOutput { tool_id, text };
                for (event, member) in [
                    (log(whole.clone()), "message"),
                    (token, "text"),
                    (thinking, "text"),
                    (output, "text"),
                ] {
                    let bodies = bodies(event, most);
                    assert!(
                        bodies.len() > 1 && bodies.iter().all(|body| body.len() <= most),
                        "{unit:?}"
                    );
                    // As few as can be.
                    let (_, full) = bodies.split_last().unwrap();
                    assert!(full.iter().all(|body| body.len() > most - 400), "{unit:?} {most}");
                    let parts: Vec<Value> = bodies.iter().map(|body| value(body)).collect();
                    let joined: String = parts.iter().map(|part| part[member].as_str().unwrap()).collect();
                    assert!(joined == whole.replace('\0', "\u{fffd}"), "{unit:?}");
                    for (index, part) in parts.iter().enumerate() {
                        assert_eq!(part["part"], json!({ "index": index, "count": parts.len() }));
                        // A line that goes on says so.
                        let goes_on = member == "message" && index + 1 < parts.len();
                        assert_eq!(part.get("partial"), goes_on.then_some(&json!(true)));
                        assert!(part.get("token_index").is_none_or(|index| index == 7));
                    }
                }
            }
        }
        assert_eq!(value(&body(log("x".into()))).get("part"), None);
    }

    #[test]
    fn merged_lines_that_are_too_large_together_are_sent_apart_again_and_whole() {
        let lines: Vec<String> = (0..3_000)
            .map(|number| format!("{number} {}", "\u{1b}".repeat(number % 90)))
            .chain(["".into(), "y".repeat(10_000), "".into(), "end".into(), "".into()])
            .collect();
        let sent = bodies(log(lines.join("\n")), MIN_BODY);
        let mut text = String::new();
        let mut parts = 0;
        for body in &sent {
            assert!(body.len() <= MIN_BODY, "{}", body.len());
            let event = value(body);
            text.push_str(event["message"].as_str().unwrap());
            if event["partial"] != true {
                text.push('\n');
            }
            parts += usize::from(event.get("part").is_some());
        }
        assert!(text == lines.join("\n") + "\n");
        assert_eq!(parts, 3, "only a line that is too long by itself comes in parts");
    }

    #[test]
    fn an_ending_and_a_name_are_bounded_too() {
        let long = || "\u{2}".repeat(2 << 20);
        let summary = Summary {
            usage: None,
            cost_usd: Some(0.123_456),
            turns: None,
            duration_ms: 1,
            sandbox: "strict",
        };
        let error = || Event::Error {
            message: long(),
            code: TaskErrorCode::InvalidTask,
            summary: summary.clone(),
        };
        let start = || Event::StepStart {
            step_name: long(),
            step_index: 0,
        };
        let end = || Event::StepEnd {
            step_name: long(),
            step_index: 0,
            step_state: crate::events::StepState::Failure,
            output: Some(long()),
            exit_code: Some(1),
            duration_ms: 1,
        };
        let call = || Event::ToolStart {
            message_id: "msg_0123456789ab".into(),
            tool_id: long(),
            tool_name: long(),
            args: Some(serde_json::value::to_raw_value(&json!({ "a": long() })).unwrap()),
        };
        for most in [MIN_BODY, MAX_BODY] {
            for event in [error(), start(), end(), call()] {
                let sent = bodies(event, most);
                assert!(sent.len() == 1 && sent[0].len() <= most, "{}", sent[0].len());
            }
        }
    }

    #[test]
    fn an_event_that_is_written_already_is_cut_in_its_middle() {
        let event = body(tool_end("x\"".repeat(50_000)));
        let shorter = shortened(&event, 10_000).unwrap();
        assert!(shorter.len() <= 10_000 && shorter.len() > 9_000, "{}", shorter.len());
        let shorter = value(&shorter);
        assert_eq!(
            (&shorter["truncated"], &shorter["seq"]),
            (&json!(true), &json!(u64::MAX))
        );
        assert_eq!(shortened(b"{\"type\":\"usage\"}", 10), None);
        assert_eq!(shortened(b"no JSON", 3), None);
    }
}
