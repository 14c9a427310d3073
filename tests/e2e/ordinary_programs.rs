//! What programs that nobody wrote for a sandbox find in it, and what people are told of them.

use std::time::Duration;

use serde_json::{Value, json};
use support::Turn;
use support::scene::{Outcome, Scene};

/// Longer than the system takes an argument.
const LONG: usize = 300_000;

/// A task that is too long for a variable.
fn task(steps: &Value) -> Vec<u8> {
    json!({ "type": "workflow", "steps": steps }).to_string().into_bytes()
}

/// An agent that runs this command line and ends.
async fn agent_runs(command: &str) -> Outcome {
    let turns = [
        Turn::new().call("t", "shell", json!({ "command": command })),
        Turn::says("Done."),
    ];
    let scene = Scene::new().await.agent(json!({ "tools": ["shell"] }), turns).await;
    scene.run().await
}

#[tokio::test]
async fn an_agent_whose_tools_run_no_command_needs_no_sandbox() {
    let agent = |tool: &'static str, input| async move {
        let turns = [Turn::new().call("t", tool, input), Turn::says("Done.")];
        let scene = Scene::new().await.file("x.txt", "here");
        let scene = scene.agent(json!({ "tools": [tool] }), turns).await;
        // No namespace can be had.
        scene.refusing(&[libc::SYS_unshare], 0, libc::EPERM).run().await
    };
    let outcome = agent("read_file", json!({ "path": "x.txt" })).await;
    outcome.done();
    assert!(
        outcome.events_of("tool_end")[0]["output"]
            .as_str()
            .unwrap()
            .contains("here")
    );
    agent("shell", json!({ "command": "true" })).await.refused("sandbox");
}

#[tokio::test]
async fn a_step_that_fails_for_want_of_a_network_says_so_once() {
    let asks = "python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80), 5)\"";
    let scene = Scene::new()
        .await
        .workflow(&json!([{ "run": format!("{asks} || true") }, { "run": asks }]));
    let outcome = scene.run().await;
    let error = outcome.failed("step_failed");
    let message = error["message"].as_str().unwrap();
    assert_eq!(message.matches("the sandbox has no network").count(), 1, "{message}");
    assert!(message.contains("COMMAND_NETWORK"), "{message}");
    let ends = outcome.events_of("step_end");
    assert_eq!(
        ends[0].get("output"),
        None,
        "one that goes on without is told nothing: {}",
        ends[0]
    );
}

#[tokio::test]
async fn what_a_step_or_a_call_left_is_told_in_the_log() {
    let leaves = "sleep 300 & sleep 0.3";
    let told = "1 process that the command left running was ended: sleep";
    let outcome = Scene::new()
        .await
        .workflow(&json!([{ "run": leaves }, { "run": "true" }]))
        .run()
        .await;
    outcome.done();
    assert_eq!(outcome.lines("info", 0), [told]);
    assert_eq!(outcome.lines("info", 1), [""; 0]);
    let outcome = agent_runs(leaves).await;
    outcome.done();
    let logs = outcome.events_of("log");
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert_eq!((&logs[0]["level"], &logs[0]["message"]), (&json!("info"), &json!(told)));
}

#[tokio::test]
async fn a_signal_is_named_and_a_code_that_a_program_chose_is_not_taken_for_one() {
    for (script, expected) in [
        ("kill -9 $$", "the command was killed by SIGKILL (exit code 137)"),
        (
            "sh -c 'kill -SEGV $$'",
            "the command ended with exit code 139, as of a program killed by SIGSEGV",
        ),
        ("exit 129", "the command ended with exit code 129"),
    ] {
        let outcome = Scene::new()
            .await
            .workflow(&json!([{ "name": "A", "run": script }]))
            .run()
            .await;
        let error = outcome.failed("step_failed");
        assert_eq!(error["message"], format!("step 0 (A): {expected}"));
    }
}

#[tokio::test]
async fn scripts_and_command_lines_are_as_long_as_they_like_and_a_variable_is_refused_by_name() {
    let long = "x".repeat(LONG);
    let script = format!("echo $0; wc -c <<'end'\n{long}\nend");
    for scene in [Scene::new().await, Scene::new().await.weak()] {
        let outcome = scene.stdin(&task(&json!([{ "run": script }]))).run().await;
        outcome.done();
        assert_eq!(outcome.lines("stdout", 0), ["/bin/sh", &(LONG + 1).to_string()]);
    }
    let outcome = agent_runs(&script).await;
    outcome.done();
    let output = outcome.events_of("tool_end")[0]["output"].to_string();
    assert!(output.contains(&(LONG + 1).to_string()), "{output}");
    let steps = json!([{ "run": "true", "env": { "LARGE": long } }]);
    let outcome = Scene::new().await.stdin(&task(&steps)).run().await;
    let message = outcome.refused("invalid_task")["message"].to_string();
    assert!(
        message.contains("steps[0].env.LARGE") && message.contains("131071"),
        "{message}"
    );
}

#[tokio::test]
async fn the_operator_says_who_commits() {
    let script = "git init -q . && git commit -q --allow-empty -m one && git log --format=%an,%ae,%cn";
    let scene = Scene::new()
        .await
        .env("GIT_AUTHOR_NAME", "Bot")
        .env("GIT_AUTHOR_EMAIL", "bot@example.com");
    let outcome = scene.workflow(&json!([{ "run": script }])).run().await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["Bot,bot@example.com,Plue Runner"]);
}

#[tokio::test]
async fn a_command_has_the_grace_that_the_operator_gives_it() {
    // It takes two seconds to put its things away.
    let script = "trap 'sleep 2; touch away; exit' TERM; sleep 300 & wait";
    for (grace, ended) in [("1", false), ("8", true)] {
        let steps = json!([{ "run": script, "timeout_seconds": 1 }]);
        let scene = Scene::new().await.env("COMMAND_GRACE", grace).workflow(&steps);
        let outcome = scene.run().await;
        outcome.failed("timeout");
        assert_eq!(
            outcome.scene.workspace().join("away").exists(),
            ended,
            "a grace of {grace} s"
        );
        assert!(outcome.finished.elapsed < Duration::from_secs(60));
    }
}
