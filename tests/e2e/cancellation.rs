//! SIGTERM and SIGINT: the task is cancelled, and the API server is told.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::{Answer, Ending, Turn};

use support::scene::{Outcome, Scene};

#[track_caller]
fn cancelled(outcome: &Outcome, exit: i32) {
    assert_eq!(outcome.finished.code, exit, "{}", outcome.finished.stdout);
    assert_eq!(outcome.scene.api.final_violations(), Vec::<String>::new());
    let error = outcome.scene.api.terminal().unwrap();
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("cancelled")));
    assert!(outcome.finished.elapsed < Duration::from_secs(30));
}

#[tokio::test]
async fn a_workflow_is_cancelled_with_everything_it_started() {
    for (signal, exit) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let script = "sleep 300 & echo ready; wait";
        let scene = Scene::new()
            .await
            .workflow(&json!([{ "run": script }, { "run": "touch after" }]));
        let running = scene.start();
        scene.api.wait_for(|event| event["type"] == "log").await;
        running.signal(signal).unwrap();
        let outcome = scene.finish(running).await;
        cancelled(&outcome, exit);
        assert_eq!(outcome.events_of("step_end")[0]["step_state"], "error");
        let workspace = outcome.scene.workspace();
        assert_eq!(outcome.scene.left_running(), [""; 0]);
        assert!(!workspace.join("after").exists());
    }
}

#[tokio::test]
async fn an_agent_is_cancelled_while_the_model_writes() {
    let scene = Scene::new()
        .await
        .agent(json!({}), [Turn::says("Thinking about").ending(Ending::Stall)])
        .await;
    let running = scene.start();
    scene.api.wait_for(|event| event["type"] == "token").await;
    running.signal(Signal::TERM).unwrap();
    cancelled(&scene.finish(running).await, 143);
}

#[tokio::test]
async fn an_agent_is_cancelled_while_a_tool_runs() {
    let turn = Turn::new().call("t", "shell", json!({ "command": "touch started; sleep 300" }));
    let scene = Scene::new().await.agent(json!({ "tools": ["shell"] }), [turn]).await;
    let running = scene.start();
    scene
        .api
        .wait_for(|event| event["type"] == "tool_start" && event.get("args").is_some())
        .await;
    while !scene.workspace().join("started").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.signal(Signal::TERM).unwrap();
    let outcome = scene.finish(running).await;
    cancelled(&outcome, 143);
    let end = &outcome.events_of("tool_end")[0];
    assert_eq!(
        (&end["tool_state"], &end["code"]),
        (&json!("error"), &json!("cancelled"))
    );
}

#[tokio::test]
async fn a_runner_that_waits_for_its_task_can_be_ended() {
    let scene = Scene::new().await;
    let fifo = scene.outside().join("task.json");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let scene = scene.env("TASK_FILE", &fifo.to_string_lossy());
    let running = scene.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.signal(Signal::TERM).unwrap();
    let outcome = scene.finish(running).await;
    assert!(
        outcome.finished.elapsed < Duration::from_secs(30),
        "{:?}",
        outcome.finished.elapsed
    );
    assert_ne!(outcome.finished.code, 0);
}

#[tokio::test]
async fn a_second_signal_ends_every_command_at_once_and_the_ending_is_still_told() {
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let scene = Scene::new().await.workflow(&json!([{ "run": script }]));
    let running = scene.start();
    scene.api.wait_for(|event| event["type"] == "log").await;
    running.signal(Signal::TERM).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.signal(Signal::TERM).unwrap();
    let outcome = scene.finish(running).await;
    cancelled(&outcome, 143);
    assert_eq!(outcome.scene.left_running(), [""; 0]);
}

/// A callback that takes the connection and does not answer for as long as any test runs.
fn silent() -> support::api_server::Settings {
    support::ApiServer::with().answering(|_| Answer::Late(Duration::from_secs(120), Box::new(Answer::Ok)))
}

#[tokio::test]
async fn a_signal_bounds_the_delivery_also_when_the_task_is_over() {
    for task in [
        json!({ "type": "workflow", "steps": [{ "run": "true" }] }),
        json!({ "type": "workflow", "steps": [{ "run": "sleep 60" }], "timeout_seconds": 1 }),
    ] {
        let scene = Scene::with(silent()).await.env("SHUTDOWN_GRACE", "1").task(&task);
        let running = scene.start();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        running.signal(Signal::TERM).unwrap();
        let (finished, _) = scene.finish_unchecked(running).await;
        assert_eq!(finished.code, 3, "{}", finished.stdout);
        assert!(finished.elapsed < Duration::from_secs(25), "{task}");
    }
}

#[tokio::test]
async fn the_api_server_can_cancel_a_task_in_an_answer() {
    let cancel = |attempt: &support::Attempt| match attempt.event["type"].as_str() {
        Some("log") => Answer::Say(json!({ "ok": true, "cancel": true })),
        _ => Answer::Ok,
    };
    let scene = Scene::with(support::ApiServer::with().answering(cancel)).await;
    let outcome = scene.workflow(&json!([{ "run": "echo ready; sleep 300" }])).run().await;
    cancelled(&outcome, 1);
    assert_eq!(outcome.events_of("step_end")[0]["step_state"], "error");
}
