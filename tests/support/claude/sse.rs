//! A turn as the event stream of the Messages API.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::{Value, json};

use super::turn::{Ending, Turn};

/// What the body does next.
enum Step {
    Bytes(Bytes),
    Cut,
    Stall,
    Ping,
}

/// How many events a turn has that breaks off nowhere.
pub fn length(turn: &Turn) -> usize {
    let whole = Turn {
        ending: Ending::Complete,
        cut_after: None,
        ..turn.clone()
    };
    events(&whole, "", "").len()
}

/// The body of the answer.
pub fn body(turn: &Turn, model: &str, message_id: &str) -> Body {
    let mut text: Vec<Bytes> = events(turn, model, message_id)
        .iter()
        .map(|event| Bytes::from(encode(event)))
        .collect();
    if let Some(size) = turn.piece {
        text = text.concat().chunks(size).map(Bytes::copy_from_slice).collect();
    }
    let mut steps: Vec<Step> = text.into_iter().map(Step::Bytes).collect();
    match turn.ending {
        Ending::Cut => steps.push(Step::Cut),
        Ending::Stall => steps.push(Step::Stall),
        Ending::Pings => steps.extend((0..1000).map(|_| Step::Ping)),
        Ending::Malformed => steps.push(Step::Bytes("event: content_block_delta\ndata: {\"ind\n\n".into())),
        _ => {}
    }
    let pace = turn.pace;
    Body::from_stream(stream::unfold(steps.into_iter(), move |mut steps| async move {
        let step = steps.next()?;
        if pace > Duration::ZERO {
            tokio::time::sleep(pace).await;
        }
        let item = match step {
            Step::Bytes(bytes) => Ok(bytes),
            Step::Cut => {
                // What was written before reaches the client first: an error makes hyper drop its buffer.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            }
            Step::Stall => std::future::pending().await,
            Step::Ping => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(Bytes::from_static(b"event: ping\ndata: {\"type\": \"ping\"}\n\n"))
            }
        };
        Some((item, steps))
    }))
}

/// A body of a head, a piece so many times (`None`: for as long as somebody reads), and a tail.
pub fn bytes(head: Bytes, piece: Bytes, times: Option<u64>, tail: Bytes) -> Body {
    let pieces = (0..times.unwrap_or(u64::MAX)).map(move |_| piece.clone());
    let all = std::iter::once(head).chain(pieces).chain(std::iter::once(tail));
    Body::from_stream(stream::iter(all.map(Ok::<_, io::Error>)))
}

/// A body of a head, and of a piece again and again, so far apart.
pub fn slow(head: Bytes, piece: Bytes, apart: Duration) -> Body {
    Body::from_stream(stream::unfold(Some(head), move |next| {
        let piece = piece.clone();
        async move {
            let bytes = next?;
            tokio::time::sleep(apart).await;
            Some((Ok::<_, io::Error>(bytes), Some(piece)))
        }
    }))
}

fn encode(event: &Value) -> String {
    let name = event["type"].as_str().unwrap_or("message");
    format!("event: {name}\ndata: {event}\n\n")
}

/// The events of the turn, in order.
fn events(turn: &Turn, model: &str, message_id: &str) -> Vec<Value> {
    let [input, output, read, written] = turn.usage;
    let usage = json!({
        "input_tokens": input, "output_tokens": 1, "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": { "ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0 },
        "service_tier": "standard",
    });
    let mut events = vec![json!({ "type": "message_start", "message": {
        "id": message_id, "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "stop_details": null, "usage": usage,
    } })];
    events.push(json!({ "type": "ping" }));
    let last = turn.blocks.len().saturating_sub(1);
    for (index, block) in turn.blocks.iter().enumerate() {
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": block.start }));
        for delta in &block.deltas {
            if turn.noise {
                events.push(json!({ "type": "ping" }));
                events.push(json!({ "type": "weather_report", "index": index, "sky": "clear" }));
            }
            events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        // A stream that breaks off does so inside its last block, unless it says where.
        if turn.ending == Ending::Complete || turn.cut_after.is_some() || index != last {
            events.push(json!({ "type": "content_block_stop", "index": index }));
        }
    }
    let complete = |events: &mut Vec<Value>| {
        events.push(json!({ "type": "message_delta",
            "delta": { "stop_reason": turn.effective_stop(), "stop_sequence": turn.stop_sequence,
                "stop_details": turn.stop_details },
            "usage": { "output_tokens": output } }));
        events.push(json!({ "type": "message_stop" }));
    };
    if let Some(cut_after) = turn.cut_after {
        complete(&mut events);
        events.truncate(cut_after);
    }
    match turn.ending {
        Ending::Error(kind) => {
            events.push(json!({ "type": "error", "error": { "type": kind, "message": "scripted" } }));
        }
        Ending::Complete => complete(&mut events),
        Ending::Cut | Ending::NoStop | Ending::Stall | Ending::Pings | Ending::Malformed => {}
    }
    events
}
