//! A stream of the model that breaks every rule, and a model that sends the runner elsewhere.

use serde_json::{Value, json};
use support::{Ending, Reply, Turn};

use super::model::answers;
use super::{MakeModel, model};
use crate::attack::{Attack, Baseline, Expect, ModelInput};

/// An event as the API writes it.
fn event(event: &Value) -> String {
    format!(
        "event: {}\ndata: {event}\n\n",
        event["type"].as_str().unwrap_or_default()
    )
}

/// The beginning of a turn up to its first words. What follows is not tried again, since something was shown.
fn start() -> String {
    let message = json!({ "type": "message_start", "message": {
        "id": "msg_hostile", "type": "message", "role": "assistant", "model": crate::drive::MODEL, "content": [],
        "stop_reason": null, "usage": { "input_tokens": 1, "output_tokens": 1 },
    } });
    let block = json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } });
    event(&message) + &event(&block) + &event(&text("Hello."))
}

/// The end of that turn.
fn end() -> String {
    let stop =
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 2 } });
    event(&json!({ "type": "content_block_stop", "index": 0 }))
        + &event(&stop)
        + &event(&json!({ "type": "message_stop" }))
}

fn text(text: &str) -> Value {
    json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } })
}

/// A turn with these bytes in its middle.
fn with(bytes: impl AsRef<[u8]>) -> ModelInput {
    flood(bytes, Some(1), end())
}

/// A turn with these bytes so many times in its middle, and this end.
fn flood(piece: impl AsRef<[u8]>, times: Option<u64>, tail: String) -> ModelInput {
    around(start(), piece, times, tail)
}

fn around(head: String, piece: impl AsRef<[u8]>, times: Option<u64>, tail: String) -> ModelInput {
    answers(vec![Reply::Stream {
        head: head.into(),
        piece: piece.as_ref().to_vec().into(),
        times,
        tail: tail.into(),
    }])
}

fn good() -> ModelInput {
    with("")
}

/// A stream that the runner gives up, and the task with it.
const fn broken(id: &'static str, what: &'static str, hostile: MakeModel, harmless: MakeModel) -> Attack {
    model(id, what, hostile, harmless).expect(Expect::Denied(&["model_error"]))
}

/// An answer that sends the runner to another host, whose listener notices.
fn redirect(status: u16, to: &str) -> ModelInput {
    answers(vec![Reply::error(status).header("location", to)])
}

const fn elsewhere(id: &'static str, what: &'static str, hostile: MakeModel) -> Attack {
    Attack::model(id, what, hostile)
        .expect(Expect::Denied(&["model_error"]))
        .baseline(Baseline::Bounded(super::widening::listener_answers))
}

pub const ATTACKS: &[Attack] = &[
    broken(
        "input/stream-of-pings-without-an-end",
        "a stream of pings that never ends",
        |_| flood(event(&json!({ "type": "ping" })).repeat(1000), None, String::new()),
        |_| flood(event(&json!({ "type": "ping" })).repeat(1000), Some(10), end()),
    ),
    broken(
        "input/stream-of-text-without-an-end",
        "a stream of text that never ends",
        |_| flood(event(&text(&"x".repeat(100_000))), None, String::new()),
        |_| flood(event(&text(&"x".repeat(100_000))), Some(10), end()),
    ),
    broken(
        "input/stream-of-comments-without-an-end",
        "a stream of comments that never ends",
        |_| flood(": nothing\n".repeat(5000), None, String::new()),
        |_| flood(": nothing\n".repeat(5000), Some(10), end()),
    ),
    broken(
        "input/line-without-an-end",
        "a line that never ends",
        |_| flood("x".repeat(65536), None, String::new()),
        |_| flood("x".repeat(65536) + "\n\n", Some(10), end()),
    ),
    model(
        "input/stream-that-stalls",
        "a stream that stays open and says nothing more",
        |_| {
            let mut input = answers(vec![Turn::says("Hello.").ending(Ending::Stall).into()]);
            input.fields.insert("timeout_seconds".to_owned(), json!(2));
            input
        },
        |_| answers(vec![Turn::says("Hello.").into()]),
    )
    .expect(Expect::Killed("timeout")),
    broken(
        "input/event-of-100-megabytes",
        "an event of 100 MB",
        |_| {
            let (head, tail) = ("event: content_block_delta\ndata: {\"x\":\"", "\"}\n\n");
            around(start() + head, "x".repeat(1 << 20), Some(100), tail.to_owned() + &end())
        },
        |_| with(event(&text(&"x".repeat(1 << 20)))),
    ),
    broken(
        "input/event-of-many-lines",
        "an event of 100 MB in lines of 100 bytes",
        |_| {
            let lines = format!("data: {}\n", "x".repeat(100)).repeat(10_000);
            around(start() + "event: content_block_delta\n", lines, Some(100), "\n".to_owned() + &end())
        },
        |_| with(event(&text("x"))),
    ),
    broken(
        "input/delta-of-a-block-that-is-not-open",
        "a piece of a block that was not opened",
        |_| {
            let delta = json!({ "type": "content_block_delta", "index": 7,
                "delta": { "type": "text_delta", "text": "x" } });
            with(event(&delta))
        },
        |_| with(event(&text("x"))),
    ),
    broken(
        "input/block-out-of-order",
        "a block with an index that is not its turn",
        |_| {
            let block = json!({ "type": "content_block_start", "index": u64::MAX,
                "content_block": { "type": "text", "text": "" } });
            with(event(&block))
        },
        |_| good(),
    ),
    broken(
        "input/turn-that-starts-twice",
        "a turn that starts a second time in its middle",
        |_| with(start()),
        |_| good(),
    ),
    broken(
        "input/block-that-ends-twice",
        "a block that ends a second time",
        |_| with(event(&json!({ "type": "content_block_stop", "index": 0 }))),
        |_| good(),
    ),
    broken(
        "input/turn-that-ends-in-a-block",
        "a turn that ends before its block",
        |_| with(event(&json!({ "type": "message_stop" }))),
        |_| good(),
    ),
    broken(
        "input/delta-of-another-kind",
        "the arguments of a call in a block of text",
        |_| {
            let delta = json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "input_json_delta", "partial_json": "{}" } });
            with(event(&delta))
        },
        |_| with(event(&text("x"))),
    ),
    broken(
        "input/blocks-without-an-end",
        "a turn of 20,000 blocks",
        |_| {
            let blocks = (1..20_000).map(|index| {
                let start = json!({ "type": "content_block_start", "index": index,
                    "content_block": { "type": "text", "text": "" } });
                event(&start) + &event(&json!({ "type": "content_block_stop", "index": index }))
            });
            with(blocks.collect::<String>())
        },
        |_| good(),
    ),
    broken(
        "input/event-that-is-no-json",
        "an event whose data is no JSON",
        |_| with("event: content_block_delta\ndata: {\n\n"),
        |_| with(event(&text("x"))),
    ),
    broken(
        "input/event-without-a-bottom",
        "an event of 10,000 levels",
        |_| {
            let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
            with(format!("event: content_block_delta\ndata: {{\"index\":0,\"delta\":{deep}}}\n\n"))
        },
        |_| with(event(&text("x"))),
    ),
    broken(
        "input/text-that-is-no-utf-8",
        "text that is no UTF-8",
        |_| {
            let mut bytes = event(&text("MARK")).into_bytes();
            if let Some(at) = bytes.windows(4).position(|window| window == b"MARK") {
                bytes[at] = 0xff;
            }
            with(bytes)
        },
        |_| with(event(&text("MARK"))),
    )
    // What is none becomes U+FFFD.
    .expect(Expect::Answers("")),
    model(
        "input/event-of-an-unknown-kind",
        "an event of a kind that nobody knows, with the fields of one that somebody does",
        |_| with(event(&json!({ "type": "tool_result", "index": 0, "delta": { "type": "text_delta", "text": "x" } }))),
        |_| good(),
    )
    .expect(Expect::Answers("")),
    model(
        "input/text-after-the-end",
        "a second turn behind the end of the first, with a call in it",
        |_| {
            let call = json!({ "type": "content_block_start", "index": 0, "content_block":
                { "type": "tool_use", "id": "toolu_hostile", "name": "shell", "input": { "command": "touch hostile" } } });
            flood("", Some(1), end() + &start() + &event(&call) + &end())
        },
        |_| good(),
    )
    .expect(Expect::Answers("")),
    broken(
        "input/stop-for-a-call-that-is-not-there",
        "a turn that stops to use a tool and names none",
        |_| answers(vec![Turn::says("Hello.").stop("tool_use").into()]),
        |_| answers(vec![Turn::says("Hello.").into()]),
    ),
    broken(
        "input/stop-for-a-reason-of-its-own",
        "a turn that stops for a reason that nobody knows",
        |_| answers(vec![Turn::says("Hello.").stop("obey").into()]),
        |_| answers(vec![Turn::says("Hello.").stop("end_turn").into()]),
    ),
    elsewhere("input/model-redirect-307", "a model that sends the request to another host, body and key \
        included", |scene| {
        redirect(307, &format!("http://{}/v1/messages", scene.listeners.tcp))
    }),
    elsewhere("input/model-redirect-302", "a model that sends the runner to another host", |scene| {
        redirect(302, &format!("http://{}/v1/messages", scene.listeners.tcp))
    }),
    elsewhere("input/model-redirect-to-a-file", "a model that sends the runner to a file outside", |scene| {
        redirect(308, &format!("file://{}/secret.txt", scene.hidden.display()))
    }),
    model(
        "input/error-that-repeats-the-key",
        "an error of the model's that repeats the key it was sent",
        |scene| {
            let message = format!("the key {} is not valid here", scene.secrets.api_key);
            answers(vec![Reply::Error { status: 400, kind: "invalid_request_error", message, headers: Vec::new() }])
        },
        |_| good(),
    )
    .expect(Expect::Denied(&["model_error"])),
    model(
        "input/error-of-10-megabytes",
        "an error of the model's of 10 MB",
        |_| {
            let (status, content_type, body) = (400, "text/html", "<p>".repeat(3 << 20));
            answers(vec![Reply::Raw { status, content_type, body }])
        },
        |_| good(),
    )
    .expect(Expect::Denied(&["model_error"])),
];
