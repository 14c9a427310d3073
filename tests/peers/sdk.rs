//! Anthropic's client for Python. It takes our double for the Messages API, and makes of each stream what our decoder
//! makes of it.

use std::path::Path;

use futures::StreamExt;
use plue_messages::{
    ClientConfig, Conversation, ConversationConfig, InitialMessage, MessagesClient, Model, Role, TurnEvent,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use support::claude::{Block, KEY};
use support::scene::MODEL;
use support::{Claude, Turn};

/// What the client for Python makes of the next turn: the text as it came, and the message.
async fn by_sdk(claude: &Claude) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/sdk.py");
    let output = tokio::process::Command::new(super::python())
        .arg(script)
        .args([&claude.url(), KEY, MODEL])
        .env_remove("ANTHROPIC_BASE_URL")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).unwrap()
}

/// What ours makes of it, in the same form.
async fn by_us(claude: &Claude) -> Value {
    let config = ClientConfig::new(claude.url().parse().unwrap(), KEY.to_owned());
    let client = MessagesClient::new(config).unwrap();
    let mut conversation = Conversation::new(ConversationConfig {
        model: MODEL,
        system: None,
        tools: &[],
        thinking: None,
        show_thinking: false,
        effort: None,
        output_schema: None,
        messages: &[InitialMessage {
            role: Role::User,
            content: RawValue::from_string("\"Go.\"".into()).unwrap(),
        }],
    });
    let mut stream = client.turn(conversation.request(1000));
    let mut text = String::new();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            TurnEvent::Text(piece) => text.push_str(&piece),
            TurnEvent::Finished(turn) => {
                let content: Vec<Value> = turn
                    .content
                    .iter()
                    .map(|block| serde_json::from_str(block.get()).unwrap())
                    .collect();
                return json!({ "text": text, "message": {
                    "content": content, "stop_reason": turn.stop.as_str(), "usage": {
                        "input_tokens": turn.usage.input_tokens, "output_tokens": turn.usage.output_tokens,
                        "cache_read_input_tokens": turn.usage.cache_read_tokens,
                        "cache_creation_input_tokens": turn.usage.cache_write_tokens,
                    },
                } });
            }
            _ => {}
        }
    }
    panic!("the turn has no end")
}

/// A turn of every kind of block that the API's documents name, in pieces.
fn every_block() -> Turn {
    let search = json!({ "type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [
        { "type": "web_search_result", "url": "https://example.com", "title": "t", "encrypted_content": "c", "page_age": null },
    ] });
    let citation = json!({ "type": "char_location", "cited_text": "x", "document_index": 0, "document_title": "d",
        "start_char_index": 0, "end_char_index": 1, "file_id": null });
    let cited = Block {
        start: json!({ "type": "text", "text": "", "citations": [] }),
        deltas: vec![
            json!({ "type": "text_delta", "text": "It is " }),
            json!({ "type": "citations_delta", "citation": citation }),
            json!({ "type": "text_delta", "text": "so." }),
        ],
        whole: json!({ "type": "text", "text": "It is so.", "citations": [citation] }),
    };
    let server_call = Block {
        start: json!({ "type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {} }),
        deltas: vec![json!({ "type": "input_json_delta", "partial_json": "{\"query\": \"q\"}" })],
        whole: json!({ "type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": { "query": "q" } }),
    };
    Turn::new()
        .block(Block::thinking(&["Hm. ", "é€🦀"], "c2lnbmF0dXJl"))
        .block(Block::thinking(&[], "b25seQ=="))
        .block(Block::whole(json!({ "type": "redacted_thinking", "data": "b3BhcXVl" })))
        .block(server_call)
        .block(Block::whole(search))
        .block(cited)
        .block(Block::text(&["Say ", "\"so\"\n", "ä€\u{1F980}"]))
        .block(Block::call(
            "toolu_1",
            "grep",
            &json!({ "a": 1.5, "b": ["é", null, true], "c": {} }),
        ))
        .block(Block::call_in_pieces("toolu_2", "list_files", &["", ""]).with("caller", json!({ "type": "direct" })))
        .usage(10, 20, 30, 40)
}

#[tokio::test]
async fn it_makes_of_each_stream_what_we_make_of_it() {
    let mut turns = vec![
        ("every block", every_block()),
        ("with noise", every_block().noise()),
        ("in pieces of five bytes", every_block().in_pieces_of(5)),
        ("nothing", Turn::new()),
    ];
    for stop in ["end_turn", "max_tokens", "pause_turn", "model_context_window_exceeded"] {
        turns.push((stop, Turn::says("So far.").stop(stop)));
    }
    turns.push(("stop_sequence", Turn::says("Until").stop_sequence("END")));
    let details = json!({ "type": "refusal", "category": "cyber", "explanation": "no" });
    turns.push(("refusal", Turn::says("I").stop("refusal").stop_details(details)));
    for (what, turn) in turns {
        let answer = turn.clone();
        let claude = Claude::answering(move |_| answer.clone().into()).await.unwrap();
        let mut theirs = by_sdk(&claude).await;
        claude.begin_anew();
        let ours = by_us(&claude).await;
        let members = theirs["message"].as_object_mut().unwrap();
        members.retain(|name, _| ["content", "stop_reason", "usage"].contains(&name.as_str()));
        let usage = members["usage"].as_object_mut().unwrap();
        usage.retain(|name, _| name.ends_with("_tokens"));
        assert_eq!(theirs, ours, "{what}");
        assert!(claude.refusals().is_empty(), "{what}");
        let wholes: Vec<&Value> = turn.blocks.iter().map(|block| &block.whole).collect();
        assert_eq!(
            ours["message"]["content"],
            json!(wholes),
            "{what}: what the double says"
        );
    }
}
