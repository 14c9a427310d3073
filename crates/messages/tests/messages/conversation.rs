use std::sync::Arc;

use plue_contract::ToolDefinition;
use plue_messages::{Conversation, ConversationConfig, InitialMessage, Role, ToolResult};
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn message(role: Role, content: &str) -> InitialMessage {
    InitialMessage {
        role,
        content: raw(content),
    }
}

fn tool(name: &str) -> ToolDefinition {
    ToolDefinition {
        name: name.to_owned(),
        description: "Says \"hi\"".to_owned(),
        input_schema: Arc::from(raw(r#"{"type":"object", "properties":{}}"#)),
    }
}

const PLAIN: ConversationConfig<'_> = ConversationConfig {
    model: "claude-haiku-5-5",
    system: None,
    tools: &[],
    thinking: None,
    show_thinking: false,
    effort: None,
    output_schema: None,
    messages: &[],
};

fn body(conversation: &Conversation) -> Value {
    serde_json::from_slice(&conversation.body(1000)).unwrap()
}

#[test]
fn the_plainest_request_has_only_what_the_api_needs() {
    let messages = [message(Role::User, r#""hi""#)];
    let conversation = Conversation::new(ConversationConfig {
        messages: &messages,
        ..PLAIN
    });
    assert_eq!(
        body(&conversation),
        json!({
            "model": "claude-haiku-5-5", "max_tokens": 1000, "stream": true,
            "cache_control": {"type": "ephemeral"},
            "messages": [{"role": "user", "content": "hi"}],
        })
    );
}

#[test]
fn a_full_request_carries_each_setting_as_it_was_given() {
    let messages = [
        message(
            Role::User,
            r#"[{"type":"text","text":"a","cache_control": {"type":"ephemeral"}}]"#,
        ),
        message(Role::Assistant, r#""b""#),
        message(Role::User, r#""c \u00e9 \n""#),
    ];
    let thinking = raw(r#"{"type":"adaptive", "display":"omitted"}"#);
    let conversation = Conversation::new(ConversationConfig {
        system: Some("Be \"brief\"."),
        tools: &[tool("one"), tool("two")],
        thinking: Some(&thinking),
        show_thinking: true,
        effort: Some("low"),
        output_schema: Some(&raw(r#"{"type": "array"}"#)),
        messages: &messages,
        ..PLAIN
    });
    let schema = json!({"type": "object", "properties": {}});
    assert_eq!(
        body(&conversation),
        json!({
            "model": "claude-haiku-5-5", "max_tokens": 1000, "stream": true,
            "cache_control": {"type": "ephemeral"},
            "system": [{"type": "text", "text": "Be \"brief\".", "cache_control": {"type": "ephemeral"}}],
            "tools": [
                {"name": "one", "description": "Says \"hi\"", "input_schema": schema},
                {"name": "two", "description": "Says \"hi\"", "input_schema": schema,
                    "cache_control": {"type": "ephemeral"}},
            ],
            "thinking": {"type": "adaptive", "display": "omitted"},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "array"}}},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c é \n"},
            ],
        })
    );
}

#[test]
fn marks_of_the_task_take_the_place_of_ours() {
    for (own, ours) in [(0, 3), (1, 3), (2, 2), (3, 1), (4, 0)] {
        let mark = r#","cache_control":{"type":"ephemeral"}"#;
        let block = |n: usize| format!(r#"{{"type":"text","text":"a"{}}}"#, if n < own { mark } else { "" });
        let blocks: Vec<String> = (0..4).map(block).collect();
        let messages = [message(Role::User, &format!("[{}]", blocks.join(",")))];
        let conversation = Conversation::new(ConversationConfig {
            system: Some("s"),
            tools: &[tool("one")],
            messages: &messages,
            ..PLAIN
        });
        let body = String::from_utf8(conversation.body(1).to_vec()).unwrap();
        assert_eq!(body.matches("cache_control").count() - own, ours, "{own}");
    }
}

#[test]
fn a_blank_system_prompt_is_left_out() {
    for system in ["", " \n"] {
        assert_eq!(
            body(&Conversation::new(ConversationConfig {
                system: Some(system),
                ..PLAIN
            }))
            .get("system"),
            None
        );
    }
}

#[test]
fn thinking_is_asked_for_in_readable_form_only_where_someone_reads_it_and_the_model_thinks() {
    let cases = [
        (
            "claude-opus-5-5",
            true,
            json!({"type": "adaptive", "display": "summarized"}),
        ),
        ("claude-opus-5-5", false, Value::Null),
        ("claude-opus-4-8", true, Value::Null),
        ("claude-haiku-4-5", true, Value::Null),
        ("a-gateways-own", true, Value::Null),
    ];
    for (model, show_thinking, expected) in cases {
        let conversation = Conversation::new(ConversationConfig {
            model,
            show_thinking,
            ..PLAIN
        });
        assert_eq!(body(&conversation)["thinking"], expected, "{model} {show_thinking}");
    }
}

#[test]
fn history_is_append_only_and_blocks_go_back_byte_for_byte() {
    let messages = [message(Role::User, r#""go""#)];
    let mut conversation = Conversation::new(ConversationConfig {
        system: Some("s"),
        tools: &[tool("t")],
        messages: &messages,
        ..PLAIN
    });
    let mut bodies = vec![conversation.body(10)];
    let odd_blocks = [
        r#"{"type":"thinking", "thinking":"","signature":"a\/b=="}"#,
        r#"{"z":1.50,"type":"hologram","a":1e3}"#,
        r#"{"type":"tool_use","id":"t1","name":"t","input":{"n": 1.00, "u":"\u00e9"}}"#,
    ];
    for turn in 0..4 {
        let content: Vec<Box<RawValue>> = odd_blocks.iter().map(|block| raw(block)).collect();
        assert!(conversation.push_assistant(&content));
        bodies.push(conversation.body(10));
        conversation.push_tool_results(&[ToolResult {
            tool_use_id: "t1",
            content: "out",
            is_error: false,
        }]);
        bodies.push(conversation.body(10 + turn));
        conversation.push_user_text("and now?");
        bodies.push(conversation.body(10));
    }
    for pair in bodies.windows(2) {
        // What closes a request is all that may differ.
        let history = pair[0].len() - pair[0].iter().rev().position(|byte| *byte == b']').unwrap() - 1;
        assert_eq!(pair[1][..history], pair[0][..history]);
        assert!(pair[1].len() > pair[0].len());
    }
    let last = String::from_utf8(bodies.pop().unwrap().to_vec()).unwrap();
    assert_eq!(last.matches(&format!("[{}]", odd_blocks.join(","))).count(), 4);
}

/// Where a request is marked for the cache, and how many blocks it has: `(message, block)`.
fn marks(conversation: &Conversation) -> (Vec<(usize, usize)>, usize) {
    let body = body(conversation);
    let (mut marks, mut blocks) = (Vec::new(), 0);
    for (index, message) in body["messages"].as_array().unwrap().iter().enumerate() {
        let content = message["content"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![Value::Null]);
        blocks += content.len();
        let marked = content
            .iter()
            .enumerate()
            .filter(|(_, block)| block.get("cache_control").is_some());
        marks.extend(marked.map(|(block, _)| (index, block)));
    }
    (marks, blocks)
}

#[test]
fn a_turn_of_many_blocks_is_marked_where_the_api_still_finds_the_one_before() {
    let messages = [message(Role::User, r#""go""#)];
    let mut conversation = Conversation::new(ConversationConfig {
        system: Some("s"),
        tools: &[tool("t")],
        messages: &messages,
        ..PLAIN
    });
    let mut turn = |calls: usize| {
        let before = conversation.request(10).body;
        let content: Vec<Box<RawValue>> = (0..calls)
            .map(|n| raw(&format!(r#"{{"type":"tool_use","id":"t{n}","name":"t","input":{{}}}}"#)))
            .collect();
        conversation.push_assistant(&content);
        let ids: Vec<String> = (0..calls).map(|n| format!("t{n}")).collect();
        let results: Vec<ToolResult<'_>> = ids
            .iter()
            .map(|id| ToolResult {
                tool_use_id: id,
                content: "out",
                is_error: false,
            })
            .collect();
        conversation.push_tool_results(&results);
        (before, conversation.request(10).body, marks(&conversation).0)
    };
    // Two blocks a call: up to nineteen new ones, the API finds what the last request has cached from the end.
    for calls in [1, 9] {
        assert_eq!(turn(calls).2, [], "{calls}");
    }
    // The last request ended at the block before the assistant's: 15 calls and the fourth result are nineteen blocks.
    let (before, after, marked) = turn(15);
    assert_eq!(marked, [(6, 3)]);
    assert!(after.starts_with(&before[..before.len() - br#"],"max_tokens":10}"#.len()]));
    // There are four slots, and three are taken: the mark moves, and leaves white space in its place.
    let (before, after, marked) = turn(10);
    assert_eq!(marked, [(8, 8)]);
    let same = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before == after)
        .count();
    assert!(before.len() - same <= 80, "{same} of {}", before.len());
    // So many calls that no result is near enough: one of the calls has it.
    assert_eq!(turn(30).2, [(9, 18)]);
}

#[test]
fn a_summary_takes_the_place_of_what_was_said() {
    let messages = [message(Role::User, r#""go""#)];
    let mut conversation = Conversation::new(ConversationConfig {
        system: Some("s"),
        messages: &messages,
        ..PLAIN
    });
    for turn in 0..4 {
        conversation.push_assistant(&[
            raw(r#"{"type":"thinking","thinking":"","signature":"x"}"#),
            raw(&format!(
                r#"{{"type":"tool_use","id":"t{turn}","name":"t","input":{{}}}}"#
            )),
        ]);
        conversation.push_tool_results(&[ToolResult {
            tool_use_id: &format!("t{turn}"),
            content: "out",
            is_error: false,
        }]);
    }
    let request = conversation.compaction_request(7);
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(asked["compaction"], json!({"type": "summarize"}));
    assert_eq!(request.beta, Some("compact-2026-09-04"));
    assert_eq!(conversation.request(7).beta, None);

    let block = r#"{"type":"compaction","content":"sum","signature":"S"}"#;
    let mut compacted = conversation.compacted(&[raw(block)], "Go on.");
    assert_eq!(
        body(&compacted)["messages"],
        json!([
            {"role": "assistant", "content": [{"type": "compaction", "content": "sum", "signature": "S"}]},
            {"role": "user", "content": "Go on."},
        ])
    );
    assert_eq!(body(&compacted)["system"], body(&conversation)["system"]);
    assert_eq!(compacted.request(7).beta, Some("compact-2026-09-04"));

    // The task itself stays, and thinking that is kept goes: it is bound to what was before it.
    let beginning = conversation.beginning(0.6).unwrap();
    assert_eq!((beginning.len(), conversation.len()), (5, 9));
    let whole = body(&conversation);
    assert_eq!(
        body(&beginning)["messages"].as_array().unwrap()[..],
        whole["messages"].as_array().unwrap()[..5]
    );
    let summarized = conversation.summarized("sum", beginning.len());
    let now = body(&summarized);
    let now = now["messages"].as_array().unwrap();
    assert_eq!(
        now[..2],
        [
            json!({"role": "user", "content": "go"}),
            json!({"role": "user", "content": "sum"})
        ]
    );
    assert_eq!(now.len(), 6);
    let kinds: Vec<&Value> = now[2..].iter().map(|message| &message["content"][0]["type"]).collect();
    assert_eq!(kinds, ["tool_use", "tool_result", "tool_use", "tool_result"]);
    assert_eq!(conversation.beginning(0.01).map(|beginning| beginning.len()), None);
}

#[test]
fn all_results_of_a_turn_are_one_user_message_in_order() {
    let mut conversation = Conversation::new(PLAIN);
    conversation.push_tool_results(&[
        ToolResult {
            tool_use_id: "a",
            content: "1\n\"2\"",
            is_error: false,
        },
        ToolResult {
            tool_use_id: "b",
            content: "no such file",
            is_error: true,
        },
        ToolResult {
            tool_use_id: "c",
            content: "",
            is_error: false,
        },
        ToolResult {
            tool_use_id: "d",
            content: " ",
            is_error: true,
        },
    ]);
    assert_eq!(
        body(&conversation)["messages"],
        json!([{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "1\n\"2\""},
            {"type": "tool_result", "tool_use_id": "b", "content": "no such file", "is_error": true},
            {"type": "tool_result", "tool_use_id": "c", "content": ""},
            {"type": "tool_result", "tool_use_id": "d", "content": "The tool failed without a message.", "is_error": true},
        ]}])
    );
    conversation.push_tool_results(&[]);
    assert_eq!(body(&conversation)["messages"].as_array().unwrap().len(), 1);
}

#[test]
fn only_blank_text_blocks_of_a_turn_are_left_out() {
    let cases: &[(&[&str], Option<&str>)] = &[
        (&[], None),
        (&[r#"{"type":"text","text":""}"#], None),
        (
            &[
                r#"{"type":"text","text":" \n\t"}"#,
                r#"{"type":"text","text":"\u0020"}"#,
            ],
            None,
        ),
        (
            &[r#"{"type":"text","text":" a "}"#],
            Some(r#"[{"type":"text","text":" a "}]"#),
        ),
        (
            &[
                r#"{"type":"text","text":""}"#,
                r#"{"type":"thinking","thinking":"","signature":"s"}"#,
                r#"{"type":"text","text":" "}"#,
            ],
            Some(r#"[{"type":"thinking","thinking":"","signature":"s"}]"#),
        ),
        (
            &[r#"{"type":"text_like","text":""}"#],
            Some(r#"[{"type":"text_like","text":""}]"#),
        ),
        (&[r#"{"text":""}"#], Some(r#"[{"text":""}]"#)),
    ];
    for (blocks, expected) in cases {
        let mut conversation = Conversation::new(PLAIN);
        let content: Vec<Box<RawValue>> = blocks.iter().map(|block| raw(block)).collect();
        assert_eq!(conversation.push_assistant(&content), expected.is_some(), "{blocks:?}");
        let body = String::from_utf8(conversation.body(1).to_vec()).unwrap();
        let messages = expected.map_or(String::new(), |content| {
            format!(r#"{{"role":"assistant","content":{content}}}"#)
        });
        assert!(
            body.ends_with(&format!(r#""messages":[{messages}],"max_tokens":1}}"#)),
            "{body}"
        );
    }
}
