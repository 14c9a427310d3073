//! How large one event may be. The API server refuses a body over 1 MiB, and what counts is the JSON: a control
//! character of a text takes six bytes there.

use serde_json::Value;
use serde_json::value::RawValue;

use super::event::Event;

/// The largest text or object in one event, as JSON, in bytes. What is left of 1 MiB is for everything else.
pub const MAX_ENCODED: usize = 900 << 10;

/// The same for what names something.
pub(crate) const MAX_NAME: usize = 4 << 10;

/// A text in arguments that is longer is cut when the arguments as a whole are too large.
const MAX_ARGUMENT: usize = 16 << 10;

/// The member that says what was cut of arguments.
const CUT: &str = "_truncated";

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
    /// Cuts what would make the event larger than the server takes, and says so in its place.
    pub(super) fn bound(&mut self) {
        match self {
            Event::ToolStart {
                tool_id,
                tool_name,
                args,
                ..
            } => {
                name(tool_id);
                name(tool_name);
                if let Some(args) = args {
                    arguments(args);
                }
            }
            Event::ToolEnd {
                tool_id,
                output,
                truncated,
                ..
            } => {
                name(tool_id);
                *truncated |= cut(output, MAX_ENCODED);
            }
            Event::ToolOutput { tool_id, .. } => name(tool_id),
            Event::StepStart { step_name, .. } => name(step_name),
            Event::StepEnd { step_name, output, .. } => {
                name(step_name);
                if let Some(output) = output {
                    cut(output, MAX_ENCODED);
                }
            }
            Event::Error { message, .. } => {
                cut(message, MAX_ENCODED);
            }
            Event::MessageReset { reason, .. } => {
                cut(reason, MAX_NAME);
            }
            Event::Done { result, .. } => {
                if let Some(large) = result.take_if(|result| result.get().len() > MAX_ENCODED) {
                    *result = cut_result(&large);
                }
            }
            Event::Token { .. } | Event::Thinking { .. } | Event::Log { .. } | Event::Usage { .. } => {}
        }
    }
}

/// What of a result fits into an event: of a text its beginning and its end. Half an object would be none.
fn cut_result(result: &RawValue) -> Option<Box<RawValue>> {
    let Ok(mut text) = serde_json::from_str::<String>(result.get()) else {
        tracing::error!(
            bytes = result.get().len(),
            most = MAX_ENCODED,
            "the result is too large for an event and left out of it; it is what the last message says"
        );
        return None;
    };
    cut(&mut text, MAX_ENCODED);
    serde_json::value::to_raw_value(&text).ok()
}

impl Event {
    /// Makes several events of one whose text is larger than the server takes, when nothing of it may be cut: this one
    /// keeps the first part, and gives those that follow it. Usually there are none.
    pub(super) fn split(&mut self) -> Vec<Event> {
        let mut next = match self {
            Event::ToolOutput { tool_id, text } if !fits(text, MAX_ENCODED) => Event::ToolOutput {
                tool_id: tool_id.clone(),
                text: text.split_off(prefix(text, MAX_ENCODED)),
            },
            Event::Log {
                level,
                message,
                step_index,
                partial,
            } if !fits(message, MAX_ENCODED) => Event::Log {
                level: *level,
                message: message.split_off(prefix(message, MAX_ENCODED)),
                step_index: *step_index,
                // The line goes on in the next one.
                partial: std::mem::replace(partial, true),
            },
            _ => return Vec::new(),
        };
        let mut following = next.split();
        following.insert(0, next);
        following
    }
}

/// Whether a text takes at most so many bytes in JSON.
fn fits(text: &str, most: usize) -> bool {
    // Six bytes are the most that one takes.
    text.len() <= most / 6 || encoded(text) <= most
}

fn name(text: &mut String) {
    cut(text, MAX_NAME);
}

/// Cuts the middle out of a text that takes more bytes in JSON, and says there how much it was. Whether it did.
fn cut(text: &mut String, most: usize) -> bool {
    if fits(text, most) {
        return false;
    }
    let note = |left_out: usize| format!("\n[… {left_out} bytes are left out here: an event has room for {most} …]\n");
    let room = most.saturating_sub(encoded(&note(text.len())));
    let head = prefix(text, room / 2);
    let tail = suffix(text, room / 2);
    let left_out = tail - head;
    text.replace_range(head..tail, &note(left_out));
    true
}

/// How long the longest prefix is that takes at most so many bytes in JSON.
fn prefix(text: &str, most: usize) -> usize {
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

/// Cuts long texts out of arguments that are too large, so that whoever watches still sees which call it is; and says
/// in a member of its own what was done.
fn arguments(args: &mut Box<RawValue>) {
    let whole = args.get().len();
    if whole <= MAX_ENCODED {
        return;
    }
    let smaller = serde_json::from_str::<Value>(args.get()).ok().and_then(|mut value| {
        let count = cut_texts(&mut value);
        let note =
            format!("{whole} bytes of JSON are more than an event has room for: {count} long texts in it are cut");
        value.as_object_mut()?.insert(CUT.into(), note.into());
        Some(value.to_string())
    });
    let smaller = smaller.filter(|text| text.len() <= MAX_ENCODED).unwrap_or_else(|| {
        // Nothing in it is long: there is much of it.
        let begin = &args.get()[..args.get().floor_char_boundary(MAX_ARGUMENT)];
        let note = format!("{whole} bytes of JSON are more than an event has room for: this is how it begins");
        serde_json::json!({ CUT: note, "begin": begin }).to_string()
    });
    if let Ok(smaller) = RawValue::from_string(smaller) {
        *args = smaller;
    }
}

/// Cuts the texts of a value that are long; how many there were.
fn cut_texts(value: &mut Value) -> usize {
    match value {
        Value::String(text) => usize::from(cut(text, MAX_ARGUMENT)),
        Value::Array(values) => values.iter_mut().map(cut_texts).sum(),
        Value::Object(members) => members.values_mut().map(cut_texts).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::events::event::{Summary, TaskErrorCode, TaskId, ToolState};
    use crate::events::record::Record;

    /// As many bytes as the server takes.
    const SERVER: usize = 1 << 20;

    fn body(mut event: Event) -> Vec<u8> {
        event.bound();
        Record::from(event).body(&TaskId::Number(i64::MAX), u64::MAX, u64::MAX)
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
            assert!(sent.len() < SERVER, "{unit:?}: {}", sent.len());
            assert!(
                sent.len() > SERVER * 8 / 10,
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
        for text in ["x".repeat(MAX_ENCODED), "\u{1}".repeat(MAX_ENCODED / 6), String::new()] {
            let event = value(&body(tool_end(text.clone())));
            assert_eq!((&event["output"], &event["truncated"]), (&json!(text), &json!(false)));
        }
    }

    #[test]
    fn arguments_that_are_too_large_stay_an_object_that_says_what_was_cut() {
        let content = "\u{1}x".repeat(1 << 20);
        let many: Vec<Value> = (0..300_000).map(Value::from).collect();
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
            let sent = body(event);
            assert!(sent.len() < SERVER, "{}", sent.len());
            let event = value(&sent);
            assert!(
                event["args"][CUT].as_str().unwrap().contains("bytes of JSON"),
                "{event}"
            );
            match kept {
                Some(path) => assert_eq!(event["args"]["path"], path),
                None => assert!(event["args"]["begin"].as_str().unwrap().starts_with('{')),
            }
        }
        let small = serde_json::value::to_raw_value(&json!({ "path": "a" })).unwrap();
        let mut same = small.clone();
        arguments(&mut same);
        assert_eq!(same.get(), small.get());
    }

    #[test]
    fn lines_and_live_output_are_sent_in_parts_and_nothing_of_them_is_lost() {
        for unit in ["x", "\u{1}", "🦀\u{1}", "\""] {
            let whole = unit.repeat((5 << 20) / unit.len());
            let log = |message: String| Event::Log {
                level: crate::events::LogLevel::Info,
                message,
                step_index: None,
                partial: false,
            };
            let output = |text: String| Event::ToolOutput {
                tool_id: "t".into(),
                text,
            };
            for (mut event, member) in [(log(whole.clone()), "message"), (output(whole.clone()), "text")] {
                let following = event.split();
                let bodies: Vec<Vec<u8>> = std::iter::once(event).chain(following).map(body).collect();
                assert!(
                    bodies.iter().all(|body| body.len() < SERVER) && bodies.len() > 5,
                    "{unit:?}"
                );
                let parts: Vec<Value> = bodies.iter().map(|body| value(body)).collect();
                let joined: String = parts.iter().map(|part| part[member].as_str().unwrap()).collect();
                assert!(joined == whole, "{unit:?}");
                // A line that goes on says so.
                let partial = parts.iter().filter(|part| part["partial"] == true).count();
                assert_eq!(partial, if member == "message" { parts.len() - 1 } else { 0 });
            }
            let mut small = log(unit.to_owned());
            assert!(small.split().is_empty());
        }
    }

    #[test]
    fn an_ending_and_a_name_are_bounded_too() {
        let long = || "\u{2}".repeat(2 << 20);
        let summary = Summary {
            usage: None,
            cost_usd: None,
            turns: None,
            duration_ms: 1,
            sandbox: "strict",
        };
        let error = Event::Error {
            message: long(),
            code: TaskErrorCode::InvalidTask,
            summary,
        };
        let step = Event::StepStart {
            step_name: long(),
            step_index: 0,
        };
        let call = Event::ToolStart {
            message_id: "m".into(),
            tool_id: long(),
            tool_name: long(),
            args: None,
        };
        for event in [error, step, call] {
            let sent = body(event);
            assert!(sent.len() < SERVER, "{}", sent.len());
        }
    }
}
