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
        messages: &messages,
        ..PLAIN
    });
    let schema = json!({"type": "object", "properties": {}});
    assert_eq!(
        body(&conversation),
        json!({
            "model": "claude-haiku-5-5", "max_tokens": 1000, "stream": true,
            "cache_control": {"type": "ephemeral"},
            "system": "Be \"brief\".",
            "tools": [
                {"name": "one", "description": "Says \"hi\"", "input_schema": schema},
                {"name": "two", "description": "Says \"hi\"", "input_schema": schema},
            ],
            "thinking": {"type": "adaptive", "display": "omitted"},
            "output_config": {"effort": "low"},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c é \n"},
            ],
        })
    );
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
