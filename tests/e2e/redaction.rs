//! No secret leaves: not in an event, not in a log line, not to the model, in whatever form and pieces it comes.

use serde_json::json;
use support::claude::KEY;
use support::{Block, Turn};

use support::scene::Scene;

/// What an operator gives the runner and no task is to tell.
const SECRET: &str = "operators-secret/5f1c9a";
/// The same in base64 behind one byte, and in a URL.
const IN_BASE64: &str = "eG9wZXJhdG9ycy1zZWNyZXQvNWYxYzlh";
const IN_A_URL: &str = "operators-secret%2F5f1c9a";

async fn scene() -> Scene {
    Scene::new().await.env("DEPLOY_TOKEN", SECRET)
}

#[tokio::test]
async fn what_a_tool_reads_is_masked_for_the_model_too_and_it_is_told_how_often() {
    let content = format!("plain {SECRET}\nbase64 {IN_BASE64}\nurl {IN_A_URL}\nkey {KEY}\n");
    let turns = [
        Turn::new().call("t1", "read_file", json!({ "path": "notes.txt" })),
        Turn::new().call("t2", "shell", json!({ "command": "cat notes.txt; echo end" })),
        Turn::says("Done."),
    ];
    let scene = scene().await.file("notes.txt", &content);
    let outcome = scene
        .agent(json!({ "tools": ["read_file", "shell"] }), turns)
        .await
        .run()
        .await;
    outcome.done();
    for end in outcome.events_of("tool_end") {
        let output = end["output"].as_str().unwrap();
        assert!(
            output.contains("plain ***\n") && output.contains("url ***\n") && output.contains("key ***\n"),
            "{output}"
        );
        assert!(output.ends_with("[4 secret values were masked]"), "{output}");
    }
    let asked = outcome.request(2).to_string();
    assert!(asked.contains("[4 secret values were masked]"), "{asked}");
    for told in [
        asked,
        outcome.events().iter().map(ToString::to_string).collect(),
        outcome.finished.stdout.clone(),
    ] {
        for form in [SECRET, IN_BASE64, IN_A_URL, KEY] {
            assert!(!told.contains(form), "{form} in {told}");
        }
    }
}

#[tokio::test]
async fn what_the_model_says_in_pieces_is_masked_and_otherwise_complete() {
    let halves = SECRET.split_at(9);
    let pieces = [
        "It is ",
        halves.0,
        halves.1,
        ", an opera",
        "tion, or operators-secret/5f",
    ];
    let turn = Turn::new().block(Block::text(&pieces));
    let outcome = scene().await.agent(json!({}), [turn]).await.run().await;
    outcome.done();
    assert_eq!(outcome.text(), "It is ***, an operation, or operators-secret/5f");
}

#[tokio::test]
async fn what_the_model_writes_into_arguments_is_masked_where_others_see_it() {
    let call = json!({ "command": format!("echo {SECRET} > found; wc -c < found") });
    let turns = [Turn::new().call("t1", "shell", call), Turn::says("Done.")];
    let outcome = scene()
        .await
        .agent(json!({ "tools": ["shell"] }), turns)
        .await
        .run()
        .await;
    outcome.done();
    let starts = outcome.events_of("tool_start");
    assert_eq!(
        starts[1]["args"],
        json!({ "command": "echo *** > found; wc -c < found" })
    );
    // The call itself was made as the model wrote it.
    let output = outcome.events_of("tool_end")[0]["output"].to_string();
    assert!(output.contains(&(SECRET.len() + 1).to_string()), "{output}");
}

#[tokio::test]
async fn a_steps_lines_are_masked_also_when_the_secret_comes_slowly_or_goes_over_lines() {
    let (first, second) = SECRET.split_at(7);
    let script =
        format!("printf 'a {first}'; sleep 0.2; printf '{second} b\\n'; echo {SECRET} >&2; cat lines; printf {first}");
    let scene = scene()
        .await
        .env("TLS_KEY", "first-line\nsecond-line")
        .file("lines", "x\nfirst-line\nsecond-line\ny\n");
    let outcome = scene.workflow(&json!([{ "run": script }])).run().await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["a *** b", "x", "***", "y", first]);
    assert_eq!(outcome.lines("stderr", 0), ["***"]);
}

#[tokio::test]
async fn what_the_runner_says_itself_is_masked() {
    // The name of a step, and a working directory that is not there, come back in events and in the log.
    let step = json!({ "name": format!("deploy {SECRET}"), "run": "true", "working_directory": SECRET });
    let outcome = scene().await.workflow(&json!([step])).run().await;
    let error = outcome.failed("step_failed");
    assert!(error["message"].as_str().unwrap().contains("***"), "{error}");
    let told: String = outcome.events().iter().map(ToString::to_string).collect();
    assert!(
        !told.contains(SECRET) && !outcome.finished.stdout.contains(SECRET),
        "{told}"
    );
}
