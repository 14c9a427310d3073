use serde_json::{Value, json};
use support::claude::KEY;
use support::{Block, Claude, Ending, Reply, Turn};

use crate::client::{Answered, post};

const MODEL: &str = "claude-sonnet-5-5";

fn request(messages: Value) -> Value {
    json!({ "model": MODEL, "max_tokens": 1000, "stream": true, "messages": messages })
}

fn hello() -> Value {
    json!([{ "role": "user", "content": "Hello" }])
}

async fn send(claude: &Claude, body: &Value) -> Answered {
    let headers = [
        ("content-type", "application/json"),
        ("anthropic-version", "2026-10-21"),
        ("x-api-key", KEY),
    ];
    post(&format!("{}/v1/messages", claude.url()), &headers, &body.to_string())
        .await
        .expect("an answer")
}

/// The data of every event of a stream.
fn events(answered: &Answered) -> Vec<Value> {
    let lines = answered.body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|data| serde_json::from_str(data).expect("each event is JSON"))
        .collect()
}

async fn refusal(body: &Value) -> (u16, String) {
    let claude = Claude::script([Turn::says("unused")]).await.unwrap();
    let answered = send(&claude, body).await;
    assert_eq!(claude.refusals().len(), usize::from(answered.status != 200));
    let message = match answered.status {
        200 => String::new(),
        _ => serde_json::from_str::<Value>(&answered.body).unwrap()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned(),
    };
    (answered.status, message)
}

#[tokio::test]
async fn a_turn_comes_as_the_api_streams_it() {
    let turn = Turn::new()
        .block(Block::thinking(&["Hm", "m"], "sig"))
        .say("One two")
        .call("toolu_1", "grep", json!({ "pattern": "a long pattern" }));
    let claude = Claude::script([turn]).await.unwrap();
    let mut body = request(hello());
    body["tools"] = json!([{ "name": "grep", "input_schema": { "type": "object" } }]);
    let answered = send(&claude, &body).await;
    assert_eq!(answered.status, 200);
    assert!(answered.head.contains("content-type: text/event-stream"));
    assert!(answered.head.contains("request-id: req_double_1"));
    let events = events(&answered);
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&"message_start"));
    assert_eq!(kinds[kinds.len() - 2..], ["message_delta", "message_stop"]);
    let input: String = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&input).unwrap(),
        json!({ "pattern": "a long pattern" })
    );
    let text: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(text, "One two");
    let stop = events.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(stop["delta"]["stop_reason"], "tool_use");
}

#[tokio::test]
async fn every_ending_is_what_it_says() {
    let cases = [
        (Ending::Complete, true, Some("message_stop")),
        (Ending::Error("overloaded_error"), true, Some("error")),
        (Ending::NoStop, true, Some("content_block_delta")),
        (Ending::Cut, false, Some("content_block_delta")),
    ];
    for (ending, complete, last) in cases {
        let claude = Claude::script([Turn::says("Hi there").ending(ending.clone())])
            .await
            .unwrap();
        let answered = send(&claude, &request(hello())).await;
        assert_eq!(answered.complete, complete, "{ending:?}");
        assert_eq!(
            events(&answered).last().and_then(|event| event["type"].as_str()),
            last,
            "{ending:?}"
        );
    }
}

#[tokio::test]
async fn http_errors_have_the_shape_of_the_api() {
    let claude = Claude::script([Reply::error(429).header("retry-after", "3"), Turn::says("now").into()])
        .await
        .unwrap();
    let answered = send(&claude, &request(hello())).await;
    assert_eq!(answered.status, 429);
    assert!(answered.head.contains("retry-after: 3"));
    let body: Value = serde_json::from_str(&answered.body).unwrap();
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("rate_limit_error"))
    );
    assert_eq!(send(&claude, &request(hello())).await.status, 200);
    let over = send(&claude, &request(hello())).await;
    assert!(over.body.contains("the script has 2 answers only"), "{}", over.body);
    assert_eq!(claude.refusals().len(), 1);
}

#[tokio::test]
async fn headers_that_the_api_refuses_are_refused() {
    let claude = Claude::script([Turn::says("unused")]).await.unwrap();
    let url = format!("{}/v1/messages", claude.url());
    let version = ("anthropic-version", "2026-10-21");
    let json_type = ("content-type", "application/json");
    let bearer = format!("Bearer {KEY}");
    let cases: Vec<(Vec<(&str, &str)>, u16)> = vec![
        (vec![json_type, version], 401),
        (vec![json_type, version, ("x-api-key", "sk-wrong")], 401),
        (
            vec![json_type, version, ("x-api-key", KEY), ("authorization", &bearer)],
            400,
        ),
        (vec![json_type, ("x-api-key", KEY)], 400),
        (
            vec![json_type, ("anthropic-version", "2023-06-01"), ("x-api-key", KEY)],
            400,
        ),
        (vec![("content-type", "text/plain"), version, ("x-api-key", KEY)], 400),
        (vec![json_type, version, ("authorization", &bearer)], 200),
    ];
    for (headers, status) in cases {
        let answered = post(&url, &headers, &request(hello()).to_string()).await.unwrap();
        assert_eq!(answered.status, status, "{headers:?}: {}", answered.body);
    }
    assert_eq!(claude.refusals().len(), 6);
}

#[tokio::test]
async fn bodies_that_the_api_refuses_are_refused() {
    let tool = json!({ "name": "grep", "input_schema": { "type": "object" } });
    let cases: Vec<(&str, Value, u16, &str)> = vec![
        ("temperature", json!(1.0), 400, "temperature"),
        ("top_p", json!(1.0), 400, "top_p"),
        ("top_k", json!(5), 400, "top_k"),
        ("max_turns", json!(5), 400, "Extra inputs"),
        (
            "model",
            json!("claude-sonnet-4-20250514"),
            404,
            "model: claude-sonnet-4-20250514",
        ),
        ("model", json!("gpt"), 404, "model: gpt"),
        ("max_tokens", json!(0), 400, "max_tokens"),
        (
            "max_tokens",
            json!(128_001),
            400,
            "maximum allowed number of output tokens",
        ),
        ("stream", json!(false), 400, "stream"),
        ("tools", json!([]), 400, "non-empty"),
        ("tools", json!([tool, tool]), 400, "unique"),
        (
            "tools",
            json!([{ "name": "a b", "input_schema": { "type": "object" } }]),
            400,
            "tools.0.name",
        ),
        (
            "tools",
            json!([{ "name": "a", "input_schema": {} }]),
            400,
            "input_schema",
        ),
        ("tool_choice", json!({ "type": "auto" }), 400, "tool_choice"),
        ("thinking", json!({ "type": "disabled" }), 400, "thinking.type.disabled"),
        (
            "thinking",
            json!({ "type": "enabled", "budget_tokens": 2000 }),
            400,
            "thinking.type.enabled",
        ),
        ("thinking", json!({ "type": "adaptive" }), 200, ""),
        ("output_config", json!({ "effort": "most" }), 400, "effort"),
        (
            "system",
            json!([{ "type": "text", "text": " " }]),
            400,
            "non-whitespace",
        ),
        ("messages", json!([]), 400, "at least one"),
    ];
    for (field, value, status, expected) in cases {
        let mut body = request(hello());
        body[field] = value.clone();
        let (found, message) = refusal(&body).await;
        assert!(
            found == status && message.contains(expected),
            "{field}={value}: {found} {message}"
        );
    }
}

#[tokio::test]
async fn messages_that_the_api_refuses_are_refused() {
    let user = |content: Value| json!({ "role": "user", "content": content });
    let assistant = |content: Value| json!({ "role": "assistant", "content": content });
    let call = |id: &str| json!({ "type": "tool_use", "id": id, "name": "grep", "input": {} });
    let result = |id: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": "x" });
    let text = |text: &str| json!({ "type": "text", "text": text });
    let hi = user(json!("Hi"));
    let cases: Vec<(Value, u16, &str)> = vec![
        (json!([assistant(json!("Hi"))]), 400, "first message"),
        (json!([hi, assistant(json!("Hi"))]), 400, "prefill"),
        (json!([user(json!(""))]), 400, "non-empty"),
        (json!([user(json!([]))]), 400, "non-empty content"),
        (json!([user(json!([text(" \n")]))]), 400, "non-whitespace"),
        (json!([user(json!([{ "text": "x" }]))]), 400, "type: Field required"),
        (
            json!([hi, assistant(json!([call("a")])), user(json!("and?"))]),
            400,
            "without `tool_result`",
        ),
        (
            json!([hi, assistant(json!([call("a"), call("b")])), user(json!([result("a")]))]),
            400,
            "without `tool_result`",
        ),
        (
            json!([
                hi,
                assistant(json!([call("a")])),
                user(json!([text("first"), result("a")]))
            ]),
            400,
            "before all other",
        ),
        (
            json!([
                hi,
                assistant(json!([call("a")])),
                user(json!([result("a"), result("z")]))
            ]),
            400,
            "unexpected `tool_use_id`",
        ),
        (
            json!([hi, assistant(json!([call("a"), call("a")])), user(json!([result("a")]))]),
            400,
            "ids must be unique",
        ),
        (
            json!([
                hi,
                assistant(json!([{ "type": "tool_use", "id": "a", "name": "g", "input": "{}" }])),
                user(json!([result("a")]))
            ]),
            400,
            "malformed `tool_use`",
        ),
        (json!([user(json!([result("a")]))]), 400, "unexpected `tool_use_id`"),
        (
            json!([hi, assistant(json!([{ "type": "document", "source": {} }])), hi]),
            400,
            "document",
        ),
        (
            json!([user(json!([{ "type": "thinking", "thinking": "", "signature": "s" }]))]),
            400,
            "assistant's",
        ),
        (
            json!([
                hi,
                assistant(json!([call("a")])),
                user(json!([{ "type": "tool_result", "tool_use_id": "a",
            "is_error": true, "content": [{ "type": "image" }] }]))
            ]),
            400,
            "must be type `text`",
        ),
        (
            json!([
                hi,
                assistant(json!([call("a")])),
                user(json!([result("a"), text("go on")]))
            ]),
            200,
            "",
        ),
        (json!([hi, hi]), 200, ""),
    ];
    for (messages, status, expected) in cases {
        let (found, message) = refusal(&request(messages.clone())).await;
        assert!(
            found == status && message.contains(expected),
            "{messages}: {found} {message}"
        );
    }
}

#[tokio::test]
async fn what_the_model_said_comes_back_unchanged_or_is_refused() {
    let thinking = json!({ "type": "thinking", "thinking": "Hm", "signature": "sig" });
    let strange = json!({ "type": "weather_report", "sky": "clear" });
    let call = json!({ "type": "tool_use", "id": "a", "name": "grep", "input": { "pattern": "x" } });
    let result = json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "a", "content": "x" }] });
    let hi = json!({ "role": "user", "content": "Hi" });
    let said = |blocks: &[&Value]| json!([hi, { "role": "assistant", "content": blocks }, result]);
    let mut other_input = call.clone();
    other_input["input"] = json!({ "pattern": "y" });
    let mut other_thinking = thinking.clone();
    other_thinking["thinking"] = json!("");
    let mut changed_before = said(&[&thinking, &strange, &call]);
    changed_before[0]["content"] = json!("Hi!");
    let mut marked = said(&[&thinking, &strange, &call]);
    marked[2]["content"][0]["cache_control"] = json!({ "type": "ephemeral" });
    let cases = [
        (said(&[&thinking, &strange, &call]), 200, ""),
        (marked, 200, ""),
        (said(&[&strange, &call]), 400, "not what the model said"),
        (said(&[&thinking, &call]), 400, "not what the model said"),
        (said(&[&strange, &thinking, &call]), 400, "not what the model said"),
        (
            said(&[&other_thinking, &strange, &call]),
            400,
            "not what the model said",
        ),
        (
            said(&[&thinking, &strange, &other_input]),
            400,
            "not what the model said",
        ),
        (changed_before, 400, "messages.0 changed"),
        (json!([]), 400, "at least one"),
    ];
    for (messages, status, expected) in cases {
        let turn = Turn::new()
            .block(Block::thinking(&["Hm"], "sig"))
            .block(Block::whole(strange.clone()))
            .block(Block::text(&[" "]))
            .call("a", "grep", json!({ "pattern": "x" }));
        let claude = Claude::script([turn, Turn::says("done")]).await.unwrap();
        assert_eq!(send(&claude, &request(json!([hi]))).await.status, 200);
        let answered = send(&claude, &request(messages.clone())).await;
        claude.refusals();
        assert!(
            answered.status == status && answered.body.contains(expected),
            "{messages}: {}",
            answered.body
        );
    }
}

#[tokio::test]
async fn tools_and_system_stay_as_they_were() {
    let claude = Claude::script([Turn::says("one"), Turn::says("two")]).await.unwrap();
    let mut body = request(hello());
    body["system"] = json!("Be brief.");
    assert_eq!(send(&claude, &body).await.status, 200);
    body["system"] = json!("Be brief. It is noon.");
    let answered = send(&claude, &body).await;
    assert!(answered.body.contains("system changed"), "{}", answered.body);
    assert_eq!(claude.refusals().len(), 1);
}

#[tokio::test]
async fn a_paused_turn_is_continued_by_sending_it_back() {
    let claude = Claude::script([Turn::says("Looking").stop("pause_turn"), Turn::says("Found")])
        .await
        .unwrap();
    send(&claude, &request(hello())).await;
    let continued = json!([hello()[0], { "role": "assistant", "content": [{ "type": "text", "text": "Looking" }] }]);
    assert_eq!(send(&claude, &request(continued)).await.status, 200);
}
