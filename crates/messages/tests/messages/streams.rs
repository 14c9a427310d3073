//! Streams as the API sends them, for tests to send and take apart.

use bytes::Bytes;
use plue_messages::decoder::{DecodeError, TurnDecoder};
use plue_messages::{Turn, TurnEvent};

/// One event, in the API's form.
pub fn event(data: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        r#type: &'a str,
    }
    let named: Named<'_> = serde_json::from_str(data).unwrap();
    format!("event: {}\ndata: {data}\n\n", named.r#type)
}

pub fn start() -> String {
    event(
        r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-haiku-5-5","content":[],"stop_reason":null,"usage":{"input_tokens":10,"cache_read_input_tokens":3,"cache_creation_input_tokens":2,"output_tokens":1}}}"#,
    )
}

/// One block: its start, its deltas, its stop.
pub fn block(index: usize, start: &str, deltas: &[&str]) -> String {
    let mut out = event(&format!(
        r#"{{"type":"content_block_start","index":{index},"content_block":{start}}}"#
    ));
    for delta in deltas {
        out += &event(&format!(
            r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#
        ));
    }
    out + &event(&format!(r#"{{"type":"content_block_stop","index":{index}}}"#))
}

pub fn text_block(index: usize, pieces: &[&str]) -> String {
    let deltas: Vec<String> = pieces
        .iter()
        .map(|piece| {
            format!(
                r#"{{"type":"text_delta","text":{}}}"#,
                serde_json::to_string(piece).unwrap()
            )
        })
        .collect();
    block(
        index,
        r#"{"type":"text","text":""}"#,
        &deltas.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

/// The end of a turn, with this `delta`.
pub fn stop(delta: &str) -> String {
    event(&format!(
        r#"{{"type":"message_delta","delta":{delta},"usage":{{"output_tokens":42}}}}"#
    )) + &event(r#"{"type":"message_stop"}"#)
}

pub fn end_turn() -> String {
    stop(r#"{"stop_reason":"end_turn","stop_sequence":null}"#)
}

/// A whole turn that says this.
pub fn saying(text: &str) -> String {
    start() + &text_block(0, &[text]) + &end_turn()
}

/// Decodes a stream that comes in these chunks. Gives the events, and how it ended.
pub fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<TurnEvent>, Result<(), DecodeError>) {
    let mut decoder = TurnDecoder::new();
    let mut events = Vec::new();
    for chunk in chunks {
        if let Err(error) = decoder.push(Bytes::copy_from_slice(chunk)) {
            return (events, Err(error));
        }
        loop {
            match decoder.next_event() {
                // What it costs is looked at where it matters.
                Ok(Some(TurnEvent::Began { .. })) => {}
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Err(error)),
            }
        }
    }
    let ending = decoder.end().map(|event| events.extend(event));
    (events, ending)
}

/// The turn of a stream that must be good.
pub fn turn(stream: &str) -> Turn {
    let (mut events, ending) = decode([stream.as_bytes()]);
    ending.unwrap();
    match events.pop() {
        Some(TurnEvent::Finished(turn)) => turn,
        other => panic!("the last event is {other:?}"),
    }
}
