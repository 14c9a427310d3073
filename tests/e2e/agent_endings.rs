//! Why the model stopped, and what the runner makes of it: never silence.

use serde_json::json;
use support::{Block, Turn};

use support::scene::{Outcome, Scene};

async fn run(turns: Vec<Turn>) -> Outcome {
    Scene::new()
        .await
        .file("a.txt", "one\n")
        .agent(json!({ "tools": ["read_file"] }), turns)
        .await
        .run()
        .await
}

#[tokio::test]
async fn end_turn_is_done_with_usage_cost_and_turns() {
    let outcome = run(vec![Turn::says("All is well.").usage(1000, 200, 500, 100)]).await;
    let done = outcome.done();
    assert_eq!(outcome.text(), "All is well.");
    assert_eq!(
        done["usage"],
        json!({ "input_tokens": 1000, "output_tokens": 200, "cache_read_tokens": 500, "cache_write_tokens": 100 })
    );
    // claude-sonnet-5-5, per million tokens: 2 in, 10 out, 0.10 read, 2.50 written.
    let expected = (1000.0 * 2.0 + 200.0 * 10.0 + 500.0 * 0.10 + 100.0 * 2.50) / 1e6;
    let cost = done["cost_usd"].as_f64().unwrap();
    assert!((cost - expected).abs() < 1e-9, "{cost}, not {expected}");
    assert_eq!(done["turns"], 1);
}

#[tokio::test]
async fn end_turn_without_text_is_asked_once_for_an_answer() {
    let silent = Turn::new().block(Block::thinking(&[], "c2ln"));
    let outcome = run(vec![silent, Turn::says("Here it is.")]).await;
    outcome.done();
    let request = outcome.request(1);
    let messages = request["messages"].as_array().unwrap();
    assert_eq!(
        messages.last().unwrap()["role"],
        "user",
        "the same request again would give the same"
    );
    assert_eq!(outcome.text(), "Here it is.");
}

#[tokio::test]
async fn tool_use_goes_on() {
    let outcome = run(vec![
        Turn::new().call("t", "read_file", json!({ "path": "a.txt" })),
        Turn::says("One."),
    ])
    .await;
    assert_eq!(outcome.done()["turns"], 2);
}

#[tokio::test]
async fn tool_use_without_a_call_is_a_model_error() {
    run(vec![Turn::says("Let me see.").stop("tool_use")])
        .await
        .failed("model_error");
}

#[tokio::test]
async fn pause_turn_sends_the_conversation_again_as_it_is() {
    let outcome = run(vec![Turn::says("Searching").stop("pause_turn"), Turn::says("Found.")]).await;
    outcome.done();
    let messages = outcome.request(1)["messages"].as_array().unwrap().clone();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1]["role"], "assistant");
}

#[tokio::test]
async fn text_that_was_cut_off_is_continued() {
    let outcome = run(vec![
        Turn::says("The first half").stop("max_tokens"),
        Turn::says(" and the second."),
    ])
    .await;
    outcome.done();
    assert_eq!(outcome.text(), "The first half and the second.");
    let messages = outcome.request(1)["messages"].as_array().unwrap().clone();
    assert_eq!(
        (&messages[1]["role"], &messages[2]["role"]),
        (&json!("assistant"), &json!("user"))
    );
}

#[tokio::test]
async fn text_that_is_cut_off_again_and_again_is_an_error() {
    let outcome = run(vec![Turn::says("and then").stop("max_tokens"); 10]).await;
    outcome.failed("max_tokens");
    assert!(outcome.model().requests().len() < 10);
}

#[tokio::test]
async fn a_call_that_was_cut_off_is_told_to_the_model_which_has_more_room_then() {
    let cut = Block::call_in_pieces("toolu_cut", "read_file", &["{\"path\": \"a.t"]);
    let turns = vec![
        Turn::new().block(cut).stop("max_tokens"),
        Turn::new().call("toolu_whole", "read_file", json!({ "path": "a.txt" })),
        Turn::says("One."),
    ];
    let outcome = run(turns).await;
    outcome.done();
    let (first, second) = (outcome.request(0), outcome.request(1));
    let result = &second["messages"][2]["content"][0];
    assert_eq!(
        (&result["tool_use_id"], &result["is_error"]),
        (&json!("toolu_cut"), &json!(true))
    );
    let said = result["content"].as_str().unwrap();
    assert!(said.contains("your arguments were cut after 20 tokens"), "{said}");
    assert!(second["max_tokens"].as_u64() > first["max_tokens"].as_u64());
    let ends = outcome.events_of("tool_end");
    let states: Vec<_> = ends
        .iter()
        .map(|end| (end["tool_id"].as_str().unwrap(), end["tool_state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("toolu_cut", "error"), ("toolu_whole", "success")]);
}

#[tokio::test]
async fn calls_that_are_cut_off_at_the_limit_of_the_task_again_and_again_are_an_error() {
    let turns = (0..4).map(|n| {
        let cut = Block::call_in_pieces(&format!("toolu_{n}"), "read_file", &["{\"path\": \"a.t"]);
        Turn::new().block(cut).stop("max_tokens")
    });
    let task = json!({ "tools": ["read_file"], "max_tokens": 500 });
    let outcome = Scene::new().await.agent(task, turns).await.run().await;
    let error = outcome.failed("max_tokens");
    assert!(error["message"].as_str().unwrap().contains("max_tokens"), "{error}");
    assert_eq!(outcome.request(0)["max_tokens"], 500);
}

#[tokio::test]
async fn refusal_says_its_category_and_explanation() {
    let details = json!({ "type": "refusal", "category": "cyber", "explanation": "This asks for an exploit." });
    let outcome = run(vec![Turn::says("I").stop("refusal").stop_details(details)]).await;
    let message = outcome.failed("refusal")["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("cyber") && message.contains("This asks for an exploit."),
        "{message}"
    );
    assert_eq!(
        outcome.model().requests().len(),
        1,
        "the same request again is pointless"
    );
}

#[tokio::test]
async fn refusal_without_details_is_told_too() {
    run(vec![Turn::new().stop("refusal")]).await.failed("refusal");
}

#[tokio::test]
async fn a_conversation_over_the_context_window_is_an_error() {
    run(vec![Turn::says("So far").stop("model_context_window_exceeded")])
        .await
        .failed("context_exceeded");
}

#[tokio::test]
async fn a_stop_sequence_is_an_end() {
    run(vec![Turn::says("Until here").stop_sequence("END")]).await.done();
}

#[tokio::test]
async fn a_stop_reason_that_nobody_knows_is_an_error_that_names_it() {
    let outcome = run(vec![Turn::says("Hm").stop("moon_phase")]).await;
    let message = outcome.failed("model_error")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("moon_phase"), "{message}");
}

#[tokio::test]
async fn an_agent_that_does_not_finish_within_max_turns_is_an_error() {
    let calls = (0..5).map(|n| Turn::new().call(&format!("t{n}"), "read_file", json!({ "path": "a.txt" })));
    let task = json!({ "tools": ["read_file"], "max_turns": 3 });
    let outcome = Scene::new()
        .await
        .file("a.txt", "one")
        .agent(task, calls)
        .await
        .run()
        .await;
    let error = outcome.failed("max_turns");
    assert_eq!(error["turns"], 3);
    assert_eq!(error["usage"]["input_tokens"], 300);
    assert_eq!(outcome.model().requests().len(), 3);
}

#[tokio::test]
async fn a_call_that_was_announced_and_is_not_made_has_an_end() {
    let refusal = Turn::new()
        .call("toolu_1", "read_file", json!({ "path": "a" }))
        .stop("refusal");
    let outcome = Scene::new()
        .await
        .agent(json!({ "tools": ["read_file"] }), [refusal])
        .await
        .run()
        .await;
    assert_eq!(outcome.scene.api.terminal().unwrap()["code"], "refusal");
    let ends = outcome.events_of("tool_end");
    assert_eq!(ends.len(), 1);
    assert_eq!(
        (&ends[0]["tool_id"], &ends[0]["code"]),
        (&json!("toolu_1"), &json!("cancelled"))
    );
}
