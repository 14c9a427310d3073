use crate::streams::{block, end_turn, start, stop, turn};

/// (what, the block's start, its deltas, the raw block)
pub type BlockCase = (&'static str, &'static str, &'static [&'static str], &'static str);

pub const BLOCKS: &[BlockCase] = &[
    (
        "text in pieces",
        r#"{"type":"text","text":""}"#,
        &[
            r#"{"type":"text_delta","text":"a \"b\" "}"#,
            r#"{"type":"text_delta","text":"\u00e9\n"}"#,
        ],
        r#"{"type":"text","text":"a \"b\" é\n"}"#,
    ),
    (
        "text that starts with a text, and fields nobody knows",
        r#"{"new":1.50,"type":"text","text":"ab","z":{"y":[1e3]}}"#,
        &[r#"{"type":"text_delta","text":"c","more":true}"#],
        r#"{"new":1.50,"type":"text","text":"abc","z":{"y":[1e3]}}"#,
    ),
    (
        "citations, where there were none and where there was one",
        r#"{"type":"text","text":"","citations":[{"a":1}]}"#,
        &[
            r#"{"type":"citations_delta","citation":{"b":2.0}}"#,
            r#"{"type":"citations_delta","citation":{"c":3}}"#,
        ],
        r#"{"type":"text","text":"","citations":[{"a":1},{"b":2.0},{"c":3}]}"#,
    ),
    (
        "a citation without a field for it",
        r#"{"type":"text","text":"","citations":null}"#,
        &[r#"{"type":"citations_delta","citation":{"b":2}}"#],
        r#"{"type":"text","text":"","citations":[{"b":2}]}"#,
    ),
    (
        "thinking with its signature",
        r#"{"type":"thinking","thinking":"","signature":""}"#,
        &[
            r#"{"type":"thinking_delta","thinking":"hm"}"#,
            r#"{"type":"thinking_delta","thinking":"m"}"#,
            r#"{"type":"signature_delta","signature":"Sig\/+="}"#,
        ],
        r#"{"type":"thinking","thinking":"hmm","signature":"Sig\/+="}"#,
    ),
    (
        "thinking that is not shown",
        r#"{"type":"thinking","thinking":""}"#,
        &[r#"{"type":"signature_delta","signature":"S"}"#],
        r#"{"type":"thinking","thinking":"","signature":"S"}"#,
    ),
    (
        "redacted thinking",
        r#"{"type":"redacted_thinking","data":"Zm9v"}"#,
        &[],
        r#"{"type":"redacted_thinking","data":"Zm9v"}"#,
    ),
    (
        "a tool call, its arguments verbatim",
        r#"{"type":"tool_use","id":"t","name":"grep","input":{},"caller":{"type":"direct"}}"#,
        &[
            r#"{"type":"input_json_delta","partial_json":""}"#,
            r#"{"type":"input_json_delta","partial_json":"{\"n\": 1.0"}"#,
            r#"{"type":"input_json_delta","partial_json":"0, \"s\":\"\\u00e9\"}"}"#,
        ],
        r#"{"type":"tool_use","id":"t","name":"grep","input":{"n": 1.00, "s":"\u00e9"},"caller":{"type":"direct"}}"#,
    ),
    (
        "a tool call without arguments",
        r#"{"type":"tool_use","id":"t","name":"x","input":{}}"#,
        &[r#"{"type":"input_json_delta","partial_json":""}"#],
        r#"{"type":"tool_use","id":"t","name":"x","input":{}}"#,
    ),
    (
        "a tool call whose arguments come at once",
        r#"{"type":"tool_use","id":"t","name":"x","input":{"a": 1}}"#,
        &[],
        r#"{"type":"tool_use","id":"t","name":"x","input":{"a": 1}}"#,
    ),
    (
        "arguments that are no JSON",
        r#"{"type":"tool_use","id":"t","name":"x","input":{}}"#,
        &[r#"{"type":"input_json_delta","partial_json":"{\"a\": \"b"}"#],
        r#"{"type":"tool_use","id":"t","name":"x","input":{"INVALID_JSON":"{\"a\": \"b"}}"#,
    ),
    (
        "arguments that are no object",
        r#"{"type":"tool_use","id":"t","name":"x","input":{}}"#,
        &[r#"{"type":"input_json_delta","partial_json":"[1]"}"#],
        r#"{"type":"tool_use","id":"t","name":"x","input":{"INVALID_JSON":"[1]"}}"#,
    ),
    (
        "a tool of the server",
        r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{}}"#,
        &[r#"{"type":"input_json_delta","partial_json":"{\"q\":1}"}"#],
        r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{"q":1}}"#,
    ),
    (
        "the result of a tool of the server",
        r#"{"type":"web_search_tool_result","tool_use_id":"s","content":[{"url":"u","n":1.10}]}"#,
        &[],
        r#"{"type":"web_search_tool_result","tool_use_id":"s","content":[{"url":"u","n":1.10}]}"#,
    ),
    (
        "a compaction",
        r#"{"type":"compaction","content":null}"#,
        &[r#"{"type":"compaction_delta","content":"sum","signature":"S"}"#],
        r#"{"type":"compaction","content":"sum","signature":"S"}"#,
    ),
    (
        "a compaction that failed",
        r#"{"type":"compaction","content":null}"#,
        &[r#"{"type":"compaction_delta","content":null}"#],
        r#"{"type":"compaction","content":null}"#,
    ),
    (
        "a block nobody knows",
        r#"{"type":"hologram","size":1.0}"#,
        &[],
        r#"{"type":"hologram","size":1.0}"#,
    ),
    (
        "deltas nobody knows",
        r#"{"type":"hologram","beam":"r","n":1}"#,
        &[
            r#"{"type":"beam_delta","beam":"g","n":2.0,"o":null}"#,
            r#"{"type":"beam_delta","beam":"b","p":["q"]}"#,
        ],
        r#"{"type":"hologram","beam":"rgb","n":2.0,"p":["q"]}"#,
    ),
    (
        "a delta nobody knows, with a known field of another type",
        r#"{"type":"hologram"}"#,
        &[r#"{"type":"beam_delta","text":{"a":1}}"#],
        r#"{"type":"hologram","text":{"a":1}}"#,
    ),
];

#[test]
fn every_kind_of_block_is_kept_as_the_json_that_came() {
    for (what, start_block, deltas, expected) in BLOCKS {
        let turn = turn(&(start() + &block(0, start_block, deltas) + &end_turn()));
        let content: Vec<&str> = turn.content.iter().map(|block| block.get()).collect();
        assert_eq!(content, [*expected], "{what}");
    }
}

#[test]
fn a_tool_call_carries_the_text_that_the_model_wrote() {
    let cases: &[(&[&str], &str)] = &[
        (&["{\"path\":", " \"a\"}"], "{\"path\": \"a\"}"),
        (&["", ""], "{}"),
        (&[], "{}"),
        (&["{\"path\":"], "{\"path\":"),
        (&["[1]"], "[1]"),
        (&["nonsense \u{1f980}"], "nonsense \u{1f980}"),
    ];
    for (fragments, expected) in cases {
        let deltas: Vec<String> = fragments
            .iter()
            .map(|text| serde_json::json!({"type": "input_json_delta", "partial_json": text}).to_string())
            .collect();
        let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
        let stream = start()
            + &block(
                0,
                r#"{"type":"tool_use","id":"toolu_1","name":"read_file","input":{}}"#,
                &deltas,
            )
            + &stop(r#"{"stop_reason":"tool_use"}"#);
        let calls = turn(&stream).tool_calls;
        assert_eq!(calls.len(), 1);
        assert_eq!((calls[0].id.as_str(), calls[0].name.as_str()), ("toolu_1", "read_file"));
        assert_eq!(calls[0].input, *expected);
    }
}

#[test]
fn arguments_that_are_too_deep_for_a_parser_go_back_as_text() {
    let arguments = |levels: usize| format!("{{\"a\":{}\"[[{{\\\"\"{}}}", "[".repeat(levels), "]".repeat(levels));
    for (levels, is_wrapped) in [(1, false), (99, false), (100, true), (10_000, true)] {
        let text = arguments(levels);
        let piece = serde_json::json!({ "type": "input_json_delta", "partial_json": text }).to_string();
        let stream = start()
            + &block(0, r#"{"type":"tool_use","id":"t","name":"x","input":{}}"#, &[&piece])
            + &stop(r#"{"stop_reason":"tool_use"}"#);
        let turn = turn(&stream);
        assert_eq!(turn.content[0].get().contains("INVALID_JSON"), is_wrapped, "{levels}");
        assert_eq!(turn.tool_calls[0].input, text);
    }
}
