use plue_messages::decoder::{DecodeError, MAX_BLOCKS};
use plue_messages::framing::{FramingError, MAX_EVENT_BYTES};
use plue_messages::{StopReason, TurnEvent, Usage};

use crate::streams::{block, decode, end_turn, event, saying, start, stop, text_block, turn};

#[test]
fn each_stop_reason_is_told_apart() {
    let refusal = |category: Option<&str>, explanation: Option<&str>| StopReason::Refusal {
        category: category.map(str::to_owned),
        explanation: explanation.map(str::to_owned),
    };
    let cases = [
        (
            r#"{"stop_reason":"end_turn","stop_sequence":null}"#,
            StopReason::EndTurn,
        ),
        (r#"{"stop_reason":"tool_use"}"#, StopReason::ToolUse),
        (r#"{"stop_reason":"pause_turn"}"#, StopReason::PauseTurn),
        (r#"{"stop_reason":"max_tokens"}"#, StopReason::MaxTokens),
        (
            r#"{"stop_reason":"stop_sequence","stop_sequence":"END"}"#,
            StopReason::StopSequence(Some("END".to_owned())),
        ),
        (r#"{"stop_reason":"stop_sequence"}"#, StopReason::StopSequence(None)),
        (
            r#"{"stop_reason":"refusal","stop_details":{"type":"refusal","category":"cyber","explanation":"no"}}"#,
            refusal(Some("cyber"), Some("no")),
        ),
        (
            r#"{"stop_reason":"refusal","stop_details":{"category":null}}"#,
            refusal(None, None),
        ),
        (r#"{"stop_reason":"refusal","stop_details":null}"#, refusal(None, None)),
        (r#"{"stop_reason":"refusal"}"#, refusal(None, None)),
        (
            r#"{"stop_reason":"model_context_window_exceeded"}"#,
            StopReason::ContextWindowExceeded,
        ),
        (
            r#"{"stop_reason":"compaction"}"#,
            StopReason::Other("compaction".to_owned()),
        ),
        (
            r#"{"stop_reason":"brand_new"}"#,
            StopReason::Other("brand_new".to_owned()),
        ),
    ];
    for (delta, expected) in cases {
        assert_eq!(turn(&(start() + &stop(delta))).stop, expected, "{delta}");
    }
}

#[test]
fn what_is_shown_comes_in_order_and_only_text_thinking_and_opened_tools_are_shown() {
    let stream = start()
        + &event(r#"{"type":"ping"}"#)
        + &block(
            0,
            r#"{"type":"thinking","thinking":""}"#,
            &[
                r#"{"type":"thinking_delta","thinking":"t"}"#,
                r#"{"type":"signature_delta","signature":"s"}"#,
            ],
        )
        + &text_block(1, &["a", "", "b"])
        + &block(
            2,
            r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{}}"#,
            &[],
        )
        + &block(3, r#"{"type":"tool_use","id":"t1","name":"grep","input":{}}"#, &[])
        + &block(4, r#"{"type":"tool_use","id":"t2","name":"shell","input":{}}"#, &[])
        + &stop(r#"{"stop_reason":"tool_use"}"#);
    let (events, ending) = decode([stream.as_bytes()]);
    ending.unwrap();
    let shown: Vec<String> = events
        .iter()
        .map(|event| match event {
            TurnEvent::Text(text) => format!("text {text}"),
            TurnEvent::Thinking(text) => format!("thinking {text}"),
            TurnEvent::ToolStarted { id, name } => format!("tool {id} {name}"),
            TurnEvent::Restarted => "restarted".to_owned(),
            TurnEvent::Finished(turn) => {
                format!("finished {} {}", turn.content.len(), turn.tool_calls.len())
            }
        })
        .collect();
    assert_eq!(
        shown,
        [
            "thinking t",
            "text a",
            "text b",
            "tool t1 grep",
            "tool t2 shell",
            "finished 5 2"
        ]
    );
}

#[test]
fn usage_is_merged_and_later_values_win() {
    let stream = start()
        + &event(
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5,"input_tokens":null}}"#,
        )
        + &event(r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":7,"cache_read_input_tokens":30}}"#)
        + &event(r#"{"type":"message_delta","delta":{}}"#)
        + &event(r#"{"type":"message_delta","usage":"unreadable"}"#)
        + &event(r#"{"type":"message_stop"}"#);
    let turn = turn(&stream);
    assert_eq!(
        turn.usage,
        Usage {
            input_tokens: 10,
            output_tokens: 7,
            cache_read_tokens: 30,
            cache_write_tokens: 2
        }
    );
    assert_eq!(turn.model, "claude-haiku-5-5");
}

#[test]
fn a_turn_has_text_only_when_a_text_block_is_not_blank() {
    let cases: &[(&[&str], bool)] = &[
        (&[], false),
        (&[""], false),
        (&[" \n", "\t"], false),
        (&[" ", "x"], true),
        (&["hello"], true),
    ];
    for (pieces, expected) in cases {
        assert_eq!(
            turn(&(start() + &text_block(0, pieces) + &end_turn())).has_text,
            *expected,
            "{pieces:?}"
        );
    }
}

#[test]
fn unknown_events_and_events_without_a_name_are_understood() {
    let unnamed = saying("hi")
        .lines()
        .filter(|line| !line.starts_with("event:"))
        .fold(String::new(), |all, line| all + line + "\n");
    assert!(turn(&unnamed).has_text);
    let noisy = format!(
        "\u{feff}: hello\nretry: 5\nid: 7\n\nevent: brand_new\ndata: not json\n\ndata: [DONE]\n\ndata: \
            {{\"type\":\"later\"}}\n\n{}",
        saying("hi")
    );
    assert!(turn(&noisy).has_text);
}

#[test]
fn a_broken_stream_is_an_error_that_says_what_is_wrong() {
    let opened =
        start() + &event(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#);
    let tool = r#"{"type":"tool_use","id":"t","name":"x","input":{}}"#;
    let delta = |delta: &str| {
        event(&format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#
        ))
    };
    let cases = [
        ("no data", String::new(), "ended before the turn was over"),
        (
            "cut off",
            start() + &text_block(0, &["a"]),
            "ended before the turn was over",
        ),
        ("no start", text_block(0, &["a"]), "the turn has not started"),
        ("two starts", start() + &start(), "has started already"),
        (
            "no stop reason",
            start() + &event(r#"{"type":"message_stop"}"#),
            "no stop reason",
        ),
        (
            "not JSON",
            start() + "event: content_block_start\ndata: {\n\n",
            "content_block_start",
        ),
        (
            "no object",
            start() + "event: message_delta\ndata: 5\n\n",
            "message_delta",
        ),
        (
            "a gap",
            start() + &text_block(1, &["a"]),
            "content block 1 is out of order, 0 was expected",
        ),
        (
            "one index twice",
            start() + &text_block(0, &["a"]) + &text_block(0, &["a"]),
            "out of order",
        ),
        (
            "a huge index",
            start() + &event(r#"{"type":"content_block_stop","index":18446744073709551615}"#),
            "was not opened",
        ),
        (
            "a negative index",
            start() + &event(r#"{"type":"content_block_stop","index":-1}"#),
            "content_block_stop",
        ),
        (
            "a delta too early",
            start() + &delta(r#"{"type":"text_delta","text":"a"}"#),
            "was not opened",
        ),
        (
            "a delta too late",
            start() + &text_block(0, &[]) + &delta(r#"{"type":"text_delta","text":"a"}"#),
            "content block 0 has ended already",
        ),
        (
            "a stop too many",
            start() + &text_block(0, &[]) + &event(r#"{"type":"content_block_stop","index":0}"#),
            "has ended already",
        ),
        (
            "a block that stays open",
            opened.clone() + &end_turn(),
            "content block 0 was not ended",
        ),
        (
            "a block without a type",
            start() + &block(0, r#"{"text":""}"#, &[]),
            "has no type",
        ),
        (
            "a block that is a number",
            start() + &block(0, "5", &[]),
            "is no object",
        ),
        (
            "a tool without an id",
            start() + &block(0, r#"{"type":"tool_use","name":"x"}"#, &[]),
            "no id or no name",
        ),
        (
            "a tool without a name",
            start() + &block(0, r#"{"type":"tool_use","id":"x"}"#, &[]),
            "no id or no name",
        ),
        (
            "one tool id twice",
            start() + &block(0, tool, &[]) + &block(1, tool, &[]),
            "the same id",
        ),
        (
            "the result of a call",
            start() + &block(0, r#"{"type":"tool_result","tool_use_id":"x","content":"done"}"#, &[]),
            "not the model's to give",
        ),
        (
            "a text that is a number",
            opened.clone() + &delta(r#"{"type":"text_delta","text":5}"#),
            "content_block_delta",
        ),
        (
            "half of a surrogate pair",
            opened.clone() + &delta(r#"{"type":"text_delta","text":"\ud800"}"#),
            "content_block_delta",
        ),
        (
            "half of a pair in an unknown delta",
            opened.clone() + &delta(r#"{"type":"new","beam":"\ud800"}"#),
            "cannot be read",
        ),
        (
            "arguments in a text",
            opened.clone() + &delta(r#"{"type":"input_json_delta","partial_json":"{}"}"#),
            "does not belong",
        ),
        (
            "text in a tool call",
            start() + &block(0, tool, &[r#"{"type":"text_delta","text":"a"}"#]),
            "does not belong",
        ),
        (
            "a delta without a type",
            opened.clone() + &delta("{}"),
            "content_block_delta",
        ),
    ];
    for (what, stream, expected) in cases {
        let (events, ending) = decode([stream.as_bytes()]);
        let error = ending.expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(
            !events.iter().any(|event| matches!(event, TurnEvent::Finished(_))),
            "{what}: {events:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_utf8_are_an_error_and_no_panic() {
    for bad in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80"] {
        let mut stream = start().into_bytes();
        stream.extend(b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"");
        stream.extend(bad);
        stream.extend(b"\"}}\n\n");
        let (_, ending) = decode([stream.as_slice()]);
        assert!(matches!(ending, Err(DecodeError::Malformed { .. })), "{ending:?}");
    }
}

#[test]
fn an_error_event_says_what_the_api_said() {
    let stream = start()
        + "event: error\ndata: \
            {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let (_, ending) = decode([stream.as_bytes()]);
    let error = ending.unwrap_err();
    assert!(
        matches!(&error, DecodeError::Api(api) if api.kind == "overloaded_error"),
        "{error:?}"
    );
    assert!(error.to_string().contains("overloaded_error: Overloaded"), "{error}");
}

#[test]
fn a_stream_without_end_is_stopped() {
    let line = vec![b'a'; 1024 * 1024];
    let endless_line = (0..).map(|_| line.as_slice()).take(MAX_EVENT_BYTES / line.len() + 2);
    let (_, ending) = decode(endless_line);
    assert_eq!(ending, Err(DecodeError::Framing(FramingError::EventTooLarge)));

    let many_lines = "data:\n".repeat(1024 * 1024).into_bytes();
    let (_, ending) = decode((0..).map(|_| many_lines.as_slice()).take(20));
    assert!(matches!(ending, Err(DecodeError::Framing(_))), "{ending:?}");

    let pings = event(r#"{"type":"ping"}"#).repeat(32 * 1024).into_bytes();
    let (_, ending) = decode((0..).map(|_| pings.as_slice()).take(100));
    assert_eq!(ending, Err(DecodeError::Framing(FramingError::TurnTooLarge)));
}

#[test]
fn a_turn_of_countless_blocks_or_fields_is_stopped() {
    let blocks: String = (0..=MAX_BLOCKS)
        .map(|index| block(index, r#"{"type":"x"}"#, &[]))
        .collect();
    let (_, ending) = decode([(start() + &blocks).as_bytes()]);
    assert!(
        ending
            .unwrap_err()
            .to_string()
            .contains("more than 10000 content blocks")
    );

    let fields: Vec<String> = (0..100_000).map(|n| format!("\"f{n}\":{n}")).collect();
    let delta = format!(r#"{{"type":"new",{}}}"#, fields.join(","));
    let (_, ending) = decode([(start() + &block(0, r#"{"type":"x"}"#, &[&delta])).as_bytes()]);
    assert!(ending.unwrap_err().to_string().contains("change more than 64 fields"));
}
