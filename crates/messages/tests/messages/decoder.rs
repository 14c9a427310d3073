use plue_messages::decoder::{DecodeError, MAX_BLOCKS, TurnDecoder};
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
        (r#"{"stop_reason":"compaction"}"#, StopReason::Compaction),
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
            TurnEvent::Finished(turn) => {
                format!("finished {} {}", turn.content.len(), turn.tool_calls.len())
            }
            other => format!("{other:?}"),
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
            input_tokens: Some(10),
            output_tokens: Some(7),
            cache_read_tokens: Some(30),
            cache_write_tokens: Some(2)
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
            "a tool without a name",
            start() + &block(0, r#"{"type":"tool_use","id":"x"}"#, &[]),
            "has no name",
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

/// The text of the first block, as it goes back, and what was given out of it.
fn told(stream: &[u8]) -> (String, String) {
    let (events, ending) = decode([stream]);
    ending.unwrap();
    let mut shown = String::new();
    let mut kept = String::new();
    for event in events {
        match event {
            TurnEvent::Text(text) | TurnEvent::Thinking(text) => shown.push_str(&text),
            TurnEvent::Finished(turn) => {
                let block: serde_json::Value = serde_json::from_str(turn.content[0].get()).unwrap();
                let kind = block["type"].as_str().unwrap();
                kept = match kind {
                    "tool_use" => block["input"].to_string(),
                    kind => block[kind].as_str().unwrap().to_owned(),
                };
            }
            _ => {}
        }
    }
    (shown, kept)
}

#[test]
fn bytes_that_are_no_utf8_become_replacement_characters() {
    for (bad, expected) in [(&b"\xff"[..], 1), (b"\xc3", 1), (b"\xed\xa0\x80", 3)] {
        let mut stream = start().into_bytes();
        stream.extend(
            block(0, r#"{"type":"text","text":"a"}"#, &[])
                .replace("\"a\"", "\"a@\"")
                .as_bytes(),
        );
        stream.extend(end_turn().as_bytes());
        let at = stream.iter().position(|byte| *byte == b'@').unwrap();
        stream.splice(at..=at, bad.iter().copied());
        let text = format!("a{}", "\u{fffd}".repeat(expected));
        assert_eq!(told(&stream), (text.clone(), text));
    }
}

#[test]
fn half_a_surrogate_pair_finds_its_other_half_or_becomes_a_replacement_character() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("text", &[r#"a\ud83e"#, r#"\udd80b"#], "a\u{1f980}b"),
        ("text", &[r#"a\ud83e"#, "", r#"\udd80b"#], "a\u{1f980}b"),
        ("text", &[r#"a\ud83e"#, "b"], "a\u{fffd}b"),
        ("text", &[r#"a\udd80"#, r#"\ud83e"#], "a\u{fffd}\u{fffd}"),
        ("text", &[r#"\ud83e"#], "\u{fffd}"),
        ("text", &[r#"\ud83e\udd80"#], "\u{1f980}"),
        ("thinking", &[r#"a\ud83e"#, r#"\udd80"#], "a\u{1f980}"),
        ("thinking", &[r#"a\ud83e"#], "a\u{fffd}"),
        // The half stands in the piece of JSON itself, or is an escape in the JSON that the pieces join to.
        (
            "partial_json",
            &[r#"{\"a\":\"\ud83e"#, r#"\udd80\"}"#],
            "{\"a\":\"\u{1f980}\"}",
        ),
        (
            "partial_json",
            &[r#"{\"a\":\"\\ud83e"#, r#"\\udd80\"}"#],
            "{\"a\":\"\u{1f980}\"}",
        ),
        ("partial_json", &[r#"{\"a\":\"\\ud83e\"}"#], "{\"a\":\"\u{fffd}\"}"),
        (
            "partial_json",
            &[r#"{\"a\":\"\ud83e"#, r#"\"}"#],
            "{\"a\":\"\u{fffd}\"}",
        ),
    ];
    for (kind, pieces, expected) in cases {
        let (open, delta) = match *kind {
            "text" => (r#"{"type":"text","text":""}"#, "text_delta"),
            "thinking" => (r#"{"type":"thinking","thinking":"","signature":"S"}"#, "thinking_delta"),
            _ => (
                r#"{"type":"tool_use","id":"t","name":"x","input":{}}"#,
                "input_json_delta",
            ),
        };
        let deltas: Vec<String> = pieces
            .iter()
            .map(|piece| format!(r#"{{"type":"{delta}","{kind}":"{piece}"}}"#))
            .collect();
        let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
        let stop_reason = if delta == "input_json_delta" {
            "tool_use"
        } else {
            "end_turn"
        };
        let end = stop(&format!(r#"{{"stop_reason":"{stop_reason}"}}"#));
        let stream = start() + &block(0, open, &deltas) + &end;
        let (shown, kept) = told(stream.as_bytes());
        assert_eq!(kept, *expected, "{kind} {pieces:?}");
        if delta != "input_json_delta" {
            assert_eq!(shown, *expected, "{kind} {pieces:?}");
        } else {
            let call = &turn(&stream).tool_calls[0];
            let input: serde_json::Value = serde_json::from_str(&call.input).unwrap();
            assert_eq!(input.to_string(), *expected, "{pieces:?}");
        }
    }
    // In what nobody knows, too, and at the beginning of a block.
    let odd = block(0, r#"{"type":"text","text":"\ud83e"}"#, &[]) + &block(1, r#"{"type":"x","y":"\ud83e"}"#, &[]);
    let odd = turn(&(start() + &odd + &end_turn()));
    assert_eq!(odd.content[0].get(), r#"{"type":"text","text":"\ufffd"}"#);
    assert_eq!(odd.content[1].get(), r#"{"type":"x","y":"\ufffd"}"#);
}

#[test]
fn a_delta_that_nobody_knows_is_kept_out_of_a_block_that_is_known() {
    let cases = [
        r#"{"type":"text","text":"a"}"#,
        r#"{"type":"thinking","thinking":"a","signature":"S"}"#,
        r#"{"type":"tool_use","id":"t","name":"x","input":{"a":1}}"#,
    ];
    for known in cases {
        let odd = [
            r#"{"type":"glow_delta","glow":"red"}"#,
            r#"{"type":"glow_delta","text":{"a":1}}"#,
            r#"{"type":"glow_delta","text":"\ud83e"}"#,
        ];
        let stream = start() + &block(0, known, &odd) + &end_turn();
        assert_eq!(turn(&stream).content[0].get(), known);
    }
}

#[test]
fn a_turn_that_lacks_nothing_but_its_last_words_is_complete() {
    let whole = start() + &text_block(0, &["hi"]) + &end_turn();
    let stop_event = event(r#"{"type":"message_stop"}"#);
    let without_stop = whole.strip_suffix(&stop_event).unwrap();
    for (what, stream) in [
        ("no message_stop", without_stop.to_owned()),
        ("no blank line", whole.trim_end().to_owned()),
        (
            "no blank line after the stop reason",
            without_stop.trim_end().to_owned(),
        ),
        ("half a message_stop", without_stop.to_owned() + "event: message_st"),
        (
            "what nobody can read",
            without_stop.to_owned() + "event: message_delta\ndata: {\n\n",
        ),
    ] {
        let (events, _) = decode([stream.as_bytes()]);
        let mut decoder = TurnDecoder::new();
        decoder.push(stream.clone().into()).unwrap();
        let mut finished = events.iter().any(|event| matches!(event, TurnEvent::Finished(_)));
        while let Ok(Some(event)) = decoder.next_event() {
            finished |= matches!(event, TurnEvent::Finished(_));
        }
        finished |= matches!(decoder.complete(), Some(TurnEvent::Finished(_)));
        assert!(finished, "{what}");
    }
    // Without a stop reason, or with an open block, it is not.
    let cut = start() + &text_block(0, &["hi"]);
    assert_eq!(decode([cut.as_bytes()]).1, Err(DecodeError::Ended));
}

#[test]
fn only_what_brings_the_answer_forward_counts_as_progress() {
    let mut decoder = TurnDecoder::new();
    let mut progress = |stream: &str| {
        let before = decoder.progress();
        decoder.push(stream.to_owned().into()).unwrap();
        while decoder.next_event().unwrap().is_some() {}
        decoder.progress() - before
    };
    let delta = |delta: &str| {
        event(&format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#
        ))
    };
    assert_eq!(progress(&start()), 0);
    assert_eq!(progress(&event(r#"{"type":"ping"}"#).repeat(9)), 0);
    assert_eq!(progress(": a comment\n\nevent: later\ndata: {}\n\n"), 0);
    let open = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    assert_eq!(progress(&event(open)), 0);
    assert_eq!(progress(&delta(r#"{"type":"glow_delta","glow":"red"}"#).repeat(9)), 0);
    assert_eq!(progress(&delta(r#"{"type":"text_delta","text":""}"#).repeat(9)), 0);
    assert_eq!(progress(&delta(r#"{"type":"text_delta","text":"a"}"#)), 1);
    let stop = event(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#);
    assert_eq!(progress(&stop.repeat(9)), 1);
}

#[test]
fn what_max_tokens_cuts_off_is_known() {
    let call = |index: usize, pieces: &[&str]| {
        let deltas: Vec<String> = pieces
            .iter()
            .map(|piece| serde_json::json!({"type": "input_json_delta", "partial_json": piece}).to_string())
            .collect();
        let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
        let open = format!(r#"{{"type":"tool_use","id":"t{index}","name":"x","input":{{}}}}"#);
        block(index, &open, &deltas)
    };
    let max_tokens = stop(r#"{"stop_reason":"max_tokens"}"#);
    for (last, cut) in [
        (call(1, &["{\"a\":1}"]), None),
        (call(1, &["{\"a\":"]), Some("t1")),
        (call(1, &[]), Some("t1")),
        (text_block(1, &["a"]), None),
        // The block itself was not ended.
        (
            call(1, &["{\"a\":"])
                .rsplit_once("event: content_block_stop")
                .unwrap()
                .0
                .to_owned(),
            Some("t1"),
        ),
    ] {
        let turn = turn(&(start() + &call(0, &["{}"]) + &last + &max_tokens));
        assert_eq!(turn.cut_call().map(|call| call.id.as_str()), cut, "{last}");
    }
    let mut turn = turn(
        &(start() + &text_block(0, &["a"]) + &block(1, r#"{"type":"thinking","thinking":"b"}"#, &[]) + &max_tokens),
    );
    turn.drop_unsigned_thinking();
    assert_eq!(turn.content.len(), 1);
}

#[test]
fn a_call_gets_another_id_in_the_content_too() {
    let call = r#"{"type":"tool_use","id":"t","name":"x","input":{"n": 1.00}}"#;
    let stop = stop(r#"{"stop_reason":"tool_use"}"#);
    let mut turn = turn(&(start() + &text_block(0, &["a"]) + &block(1, call, &[]) + &block(2, call, &[]) + &stop));
    turn.rename_call(1, "t_2");
    let ids: Vec<&str> = turn.tool_calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids, ["t", "t_2"]);
    assert_eq!(turn.content[1].get(), call);
    assert_eq!(turn.content[2].get(), call.replace("\"t\"", "\"t_2\""));
}

#[test]
fn a_message_in_one_piece_is_read_as_its_stream_would_be() {
    let message = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[
        {"type":"thinking","thinking":"hm","signature":"S"},{"type":"text","text":"a\ud83e"},
        {"type":"tool_use","id":"t","name":"x","input":{"n": 1.00}}],
        "stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":7,"output_tokens":3}}"#;
    let mut decoder = TurnDecoder::new();
    decoder.take_whole(message.as_bytes()).unwrap();
    let mut events = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        events.push(event);
    }
    let Some(TurnEvent::Finished(turn)) = events.pop() else {
        panic!("{events:?}")
    };
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(
        turn.content[2].get(),
        r#"{"type":"tool_use","id":"t","name":"x","input":{"n": 1.00}}"#
    );
    assert_eq!(turn.text(), "a\u{fffd}");
    assert_eq!((turn.usage.input_tokens, turn.usage.output_tokens), (Some(7), Some(3)));

    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let refused = TurnDecoder::new().take_whole(error.as_bytes()).unwrap_err();
    assert!(matches!(refused, DecodeError::Api(api) if api.kind == "overloaded_error"));
    for broken in [
        "{",
        "{}",
        r#"{"type":"message"}"#,
        r#"{"type":"message","content":[5]}"#,
    ] {
        assert!(TurnDecoder::new().take_whole(broken.as_bytes()).is_err(), "{broken}");
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
