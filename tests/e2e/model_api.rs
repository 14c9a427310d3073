//! How the runner gets along with the Messages API: headers, retries, broken streams, and what it sends back.

use std::time::Duration;

use serde_json::{Value, json};
use support::claude::KEY;
use support::{ApiServer, Block, Claude, Ending, Reply, Turn};

use support::scene::{MODEL, Outcome, Scene};

async fn run(replies: Vec<Reply>) -> Outcome {
    Scene::new().await.agent(json!({}), replies).await.run().await
}

fn hello() -> Reply {
    Turn::says("Hello.").into()
}

#[tokio::test]
async fn what_can_be_retried_is_retried() {
    let cases: Vec<Reply> = vec![
        Reply::error(429).header("retry-after", "1"),
        Reply::error(529),
        Reply::error(500),
        Reply::Raw {
            status: 502,
            content_type: "text/html",
            body: "<h1>Bad gateway</h1>".into(),
        },
        Reply::Cut,
        Turn::new().ending(Ending::Error("overloaded_error")).into(),
        Turn::new().ending(Ending::Cut).into(),
        Turn::new().ending(Ending::NoStop).into(),
    ];
    for reply in cases {
        let name = format!("{reply:?}");
        let outcome = run(vec![reply, hello()]).await;
        let done = outcome.done();
        assert_eq!(outcome.text(), "Hello.", "{name}");
        assert_eq!(outcome.model().requests().len(), 2, "{name}");
        assert_eq!(done["turns"], 1, "a retry is no turn: {name}");
        assert_eq!(outcome.request(0), outcome.request(1), "{name}");
    }
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let outcome = run(vec![Reply::error(429).header("retry-after", "2"), hello()]).await;
    outcome.done();
    assert!(
        outcome.finished.elapsed >= Duration::from_secs(2),
        "{:?}",
        outcome.finished.elapsed
    );
}

#[tokio::test]
async fn what_cannot_be_retried_is_told_at_once() {
    let cases = [
        (Reply::error(400), "model_error"),
        (Reply::error(401), "model_auth"),
        (Reply::error(402), "model_auth"),
        (Reply::error(403), "model_auth"),
        (Reply::error(404), "model_error"),
        (Reply::error(413), "context_exceeded"),
    ];
    for (reply, code) in cases {
        let name = format!("{reply:?}");
        let outcome = run(vec![reply, hello()]).await;
        outcome.failed(code);
        assert_eq!(outcome.model().requests().len(), 1, "{name}");
    }
}

/// The notes of the runner on what the model's answer did.
fn notes(outcome: &Outcome) -> Vec<String> {
    let notes = outcome
        .events_of("log")
        .into_iter()
        .filter(|log| log["level"] == "info");
    notes.map(|log| log["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_turn_that_broke_off_after_something_was_shown_is_asked_for_again_as_another_message() {
    for extra in [false, true] {
        for ending in [Ending::Error("overloaded_error"), Ending::Cut, Ending::NoStop] {
            let broken = Turn::says("Half an answ").usage(7, 3, 0, 0).ending(ending.clone());
            let mut scene = Scene::new().await.agent(json!({}), [broken.into(), hello()]).await;
            if extra {
                scene = scene.env("CALLBACK_EXTRA_EVENTS", "1");
            }
            let outcome = scene.run().await;
            let done = outcome.done();
            assert_eq!(outcome.model().requests().len(), 2, "{ending:?}");
            assert_eq!(
                outcome.request(0),
                outcome.request(1),
                "nothing of the broken turn is in the history"
            );
            assert_eq!(done["turns"], 1);
            assert_eq!(done["usage"]["input_tokens"], 107, "both attempts are paid");
            assert_eq!(done["usage"]["output_tokens"], 21);
            assert_eq!(done["result"], "Hello.");
            let tokens = outcome.events_of("token");
            let (first, last) = (&tokens[0]["message_id"], &tokens[tokens.len() - 1]["message_id"]);
            assert_ne!(first, last);
            let notes = notes(&outcome);
            assert!(
                notes
                    .iter()
                    .any(|note| note.contains("broke off and is asked for again")),
                "{notes:?}"
            );
            let resets = outcome.events_of("message_reset");
            assert_eq!(resets.len(), usize::from(extra));
            if let [reset] = &resets[..] {
                assert_eq!((&reset["message_id"], &reset["replaced_by"]), (first, last));
                assert!(!reset["reason"].as_str().unwrap().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_call_that_broke_off_ends_and_the_one_that_is_asked_for_again_is_made_once() {
    let call = || Turn::new().call("toolu_1", "list_files", json!({ "path": "." }));
    let turns = [call().ending(Ending::Cut), call(), Turn::says("Done.")];
    let outcome = Scene::new()
        .await
        .agent(json!({ "tools": ["list_files"] }), turns)
        .await
        .run()
        .await;
    outcome.done();
    let ends: Vec<(Value, Value)> = outcome
        .events_of("tool_end")
        .iter()
        .map(|end| (end["tool_id"].clone(), end["tool_state"].clone()))
        .collect();
    // The id was told already: a second call of that name would be taken for the first.
    assert_eq!(
        ends,
        [
            ("toolu_1".into(), "error".into()),
            ("toolu_1_2".into(), "success".into())
        ]
    );
    assert_eq!(outcome.request(2)["messages"][1]["content"][0]["id"], "toolu_1_2");
}

#[tokio::test]
async fn waiting_is_told_once_and_ends_with_the_operators_patience() {
    let replies = (0..50).map(|_| Reply::error(529));
    let outcome = Scene::new()
        .await
        .agent(json!({}), replies)
        .await
        .env("MODEL_PATIENCE", "2")
        .run()
        .await;
    let error = outcome.failed("model_error");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("MODEL_PATIENCE (2 s) is over"),
        "{error}"
    );
    let waiting = notes(&outcome)
        .iter()
        .filter(|note| note.contains("waiting for the model"))
        .count();
    assert_eq!(waiting, 1, "{:?}", notes(&outcome));
    let outcome = run(vec![Reply::error(429).header("retry-after", "3600")]).await;
    let error = outcome.failed("model_error");
    assert!(
        error["message"].as_str().unwrap().contains("asks to wait 3600 s"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_stalls_behind_pings_is_asked_for_again() {
    let head = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\
        \"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n";
    let stalled = Reply::Slow {
        head: head.into(),
        piece: "event: ping\ndata: {\"type\":\"ping\"}\n\n".into(),
        apart: Duration::from_millis(100),
    };
    let outcome = Scene::new()
        .await
        .agent(json!({}), [stalled, hello()])
        .await
        .env("MODEL_STALL_TIMEOUT", "1")
        .run()
        .await;
    outcome.done();
    assert_eq!(outcome.model().requests().len(), 2);
}

#[tokio::test]
async fn a_conversation_that_fills_the_window_goes_on_with_a_summary() {
    let call = || Turn::new().call("t1", "list_files", json!({})).usage(900_000, 10, 0, 0);
    let summary = Turn::new().block(Block::compaction("It began.")).stop("compaction");
    let refused = Reply::error(400);
    for (what, replies) in [
        ("the API's own", vec![call().into(), summary.into(), hello()]),
        (
            "the model's",
            vec![call().into(), refused, Turn::says("It began.").into(), hello()],
        ),
    ] {
        let outcome = Scene::new()
            .await
            .agent(json!({ "tools": ["list_files"] }), replies)
            .await
            .run()
            .await;
        assert_eq!(outcome.done()["turns"], 2, "{what}");
        let requests = outcome.model().requests();
        let last = requests.last().unwrap().body["messages"].to_string();
        assert!(
            last.contains("It began.") && !last.contains("tool_use"),
            "{what}: {last}"
        );
        let notes = notes(&outcome);
        assert!(
            notes.iter().any(|note| note.contains("a summary stands in its place")),
            "{notes:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_has_to_fit_a_schema_is_the_result() {
    let schema = json!({
        "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"], "additionalProperties": false,
    });
    let task = json!({ "output_schema": schema });
    let turns = [Turn::says("Sure."), Turn::says("{\"n\": 4}")];
    let outcome = Scene::new().await.agent(task, turns).await.run().await;
    assert_eq!(outcome.done()["result"], json!({ "n": 4 }));
    assert_eq!(
        outcome.request(0)["output_config"]["format"],
        json!({ "type": "json_schema", "schema": schema })
    );
}

#[tokio::test]
async fn the_key_goes_in_exactly_one_header() {
    for (style, name, value) in [
        (None, "x-api-key", KEY.to_owned()),
        (Some("x-api-key"), "x-api-key", KEY.to_owned()),
        (Some("bearer"), "authorization", format!("Bearer {KEY}")),
    ] {
        let mut scene = Scene::new().await.agent(json!({}), [hello()]).await;
        if let Some(style) = style {
            scene = scene.env("ANTHROPIC_AUTH_STYLE", style);
        }
        let outcome = scene.run().await;
        outcome.done();
        assert_eq!(outcome.model().requests()[0].auth(), Some((name, value)), "{style:?}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_without_the_key() {
    let outcome = Scene::new()
        .await
        .agent(json!({}), [hello()])
        .await
        .env("ANTHROPIC_API_KEY", "sk-ant-a-wrong-key-of-somebody")
        .run()
        .await;
    let error = outcome.failed("model_auth");
    assert_eq!(outcome.model().refusals().len(), 1);
    assert!(
        error["message"].as_str().unwrap().contains("ANTHROPIC_API_KEY"),
        "{error}"
    );
    let said = format!("{}{:?}", outcome.finished.stdout, outcome.events());
    assert!(!said.contains("sk-ant-a-wrong-key-of-somebody"), "{said}");
}

/// The four that a task may ask for without the operator's word are all retired: a task of yesterday runs today.
#[tokio::test]
async fn a_retired_model_is_replaced_by_todays_of_its_family_and_that_is_said_once() {
    for (asked, sent) in [
        ("claude-sonnet-4-20250514", "claude-sonnet-5-5"),
        ("claude-3-5-sonnet-20241022", "claude-sonnet-5-5"),
        ("claude-3-5-haiku-20241022", "claude-haiku-5-5"),
        ("claude-3-opus-20240229", "claude-opus-5-5"),
    ] {
        let outcome = Scene::new()
            .await
            .agent(json!({ "model": asked }), [hello()])
            .await
            .without("ALLOWED_MODELS")
            .run()
            .await;
        outcome.done();
        assert_eq!(outcome.request(0)["model"], sent);
        let logs = outcome.events_of("log");
        let [said] = &logs[..] else { panic!("{logs:?}") };
        let message = said["message"].as_str().unwrap();
        assert!(
            said["level"] == "info" && message.contains(asked) && message.contains(sent),
            "{said}"
        );
        assert_eq!(said.get("step_index"), None);
        let warnings = outcome.finished.log.iter().filter(|line| line["level"] == "WARNING");
        let warnings: Vec<String> = warnings.map(Value::to_string).collect();
        assert!(
            warnings.len() == 1 && warnings[0].contains(asked) && warnings[0].contains(sent),
            "{warnings:?}"
        );
    }
}

#[tokio::test]
async fn where_the_operator_wants_none_a_retired_model_is_an_error_that_names_the_alias_to_set() {
    for model in [
        "claude-sonnet-4-20250514",
        "claude-3-5-sonnet-20241022",
        "claude-3-5-haiku-20241022",
        "claude-3-opus-20240229",
    ] {
        let outcome = Scene::new()
            .await
            .agent(json!({ "model": model }), [hello()])
            .await
            .env("MODEL_ALIASES", "none")
            .run()
            .await;
        let message = outcome.failed("model_retired")["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("MODEL_ALIASES") && message.contains(model),
            "{message}"
        );
        assert_eq!(outcome.model().refusals().len(), 1, "a 404 is not retried");
        let warning = outcome
            .finished
            .log
            .iter()
            .find(|line| line["level"] == "WARNING")
            .unwrap();
        assert!(warning.to_string().contains("MODEL_ALIASES"), "{warning}");
    }
}

#[tokio::test]
async fn an_alias_sends_the_other_model() {
    let outcome = Scene::new()
        .await
        .agent(json!({ "model": "claude-3-opus-20240229" }), [hello()])
        .await
        .env("MODEL_ALIASES", &format!("claude-3-opus-20240229={MODEL}, a=b"))
        .without("ALLOWED_MODELS")
        .run()
        .await;
    outcome.done();
    assert_eq!(outcome.request(0)["model"], MODEL);
}

#[tokio::test]
async fn blocks_come_back_as_they_came_also_those_that_nobody_knows() {
    let turn = Turn::new()
        .block(Block::thinking(
            &["First ", "this. ü \"quoted\" \\ \u{1F980}"],
            "c2lnbmF0dXJl",
        ))
        .block(Block::whole(json!({ "type": "redacted_thinking", "data": "b3BhcXVl" })))
        .block(Block::whole(
            json!({ "type": "weather_report", "sky": { "clear": true, "b": 1, "a": [1.50, 1e3] } }),
        ))
        .block(Block::text(&["", " \n"]))
        .block(Block::text(&["Look: ", "ä€\u{1F980}"]))
        .block(
            Block::call("toolu_1", "list_files", &json!({ "path": ".", "recursive": false }))
                .with("caller", json!({ "type": "direct" })),
        )
        .noise()
        .in_pieces_of(5);
    // The double refuses a second request whose assistant message is not what it said.
    let outcome = Scene::new()
        .await
        .agent(json!({ "tools": ["list_files"] }), [turn, Turn::says("Done.")])
        .await
        .run()
        .await;
    outcome.done();
    let content = outcome.request(1)["messages"][1]["content"].as_array().unwrap().clone();
    let kinds: Vec<&Value> = content.iter().map(|block| &block["type"]).collect();
    assert_eq!(
        kinds,
        ["thinking", "redacted_thinking", "weather_report", "text", "tool_use"]
    );
    assert_eq!(content[5 - 1]["caller"], json!({ "type": "direct" }));
    assert!(outcome.text().contains("Look: ä€\u{1F980}"), "{}", outcome.text());
}

#[tokio::test]
async fn text_is_passed_on_while_the_model_still_writes() {
    let slow = Turn::new()
        .say("one two three four five six seven eight nine ten")
        .pace(Duration::from_millis(150));
    let scene = Scene::new().await.agent(json!({}), [slow]).await;
    let running = scene.start();
    let first = scene.api.wait_for(|event| event["type"] == "token").await;
    assert!(scene.api.terminal().is_none(), "the first token comes before the end");
    assert!(!first["text"].as_str().unwrap().contains("ten"), "{first}");
    let outcome = scene.finish(running).await;
    outcome.done();
    assert!(outcome.events_of("token").len() > 3, "{:?}", outcome.events_of("token"));
}

#[tokio::test]
async fn the_request_carries_the_task() {
    let messages = json!([
        { "role": "user", "content": "Hello" },
        { "role": "assistant", "content": [{ "type": "text", "text": "Yes?" }] },
        { "role": "user", "content": [{ "type": "text", "text": "Go on." }] },
    ]);
    let task = json!({ "system_prompt": "Be brief.", "messages": messages, "max_tokens": 2000, "effort": "low" });
    let scene = Scene::with(ApiServer::with().request_id("req-42")).await;
    let outcome = scene
        .agent(task, [hello()])
        .await
        .env("REQUEST_ID", "req-42")
        .run()
        .await;
    outcome.done();
    let body = outcome.request(0);
    let system = json!([{ "type": "text", "text": "Be brief.", "cache_control": { "type": "ephemeral" } }]);
    assert_eq!(body["system"], system);
    assert_eq!(body["max_tokens"], 2000);
    assert_eq!(body["output_config"]["effort"], "low");
    let sent: Vec<Value> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].clone())
        .collect();
    assert_eq!(sent, ["user", "assistant", "user"]);
    let header = outcome.model().requests()[0].headers.get("x-request-id").cloned();
    assert_eq!(header.unwrap(), "req-42");
    assert!(
        outcome.finished.log.iter().all(|line| line["request_id"] == "req-42"),
        "{}",
        outcome.finished.stdout
    );
}

#[tokio::test]
async fn max_tokens_fits_the_model() {
    for (model, largest) in [("claude-haiku-4-5", 64_000), (MODEL, 128_000)] {
        let outcome = Scene::new()
            .await
            .agent(json!({ "model": model, "max_tokens": 500_000 }), [hello()])
            .await
            .env("ALLOWED_MODELS", &format!("{MODEL},claude-haiku-4-5"))
            .run()
            .await;
        outcome.done();
        assert_eq!(outcome.request(0)["max_tokens"], largest);
    }
}

#[tokio::test]
async fn a_model_nobody_listens_for_is_an_error_after_the_retries() {
    let port = support::loopback::closed_port().await.unwrap();
    let outcome = Scene::new()
        .await
        .agent(json!({}), [hello()])
        .await
        .env("ANTHROPIC_BASE_URL", &format!("http://{port}"))
        .env("MODEL_PATIENCE", "1")
        .run()
        .await;
    outcome.failed("model_error");
    // The script was never asked.
    assert_eq!(outcome.model().requests().len(), 0);
}

#[tokio::test]
async fn a_cost_limit_ends_the_task_before_the_next_turn() {
    let calls = (0..3).map(|n| {
        Turn::new()
            .call(&format!("t{n}"), "list_files", json!({}))
            .usage(700_000, 0, 0, 0)
    });
    let model = Claude::script(calls).await.unwrap();
    let task = json!({ "tools": ["list_files"], "max_cost_usd": 2.5 });
    let outcome = Scene::new().await.agent_with(task, model).run().await;
    let error = outcome.failed("budget");
    assert_eq!(error["turns"], 2);
}
