//! How a standby runner ends, and how it ends a task that is to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::{Answer, ApiServer, Assignment, Ending, Turn};

use support::standby::{Standby, workflow};

#[tokio::test]
async fn an_idle_runner_ends_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let scene = Standby::new().await;
        let running = scene.start();
        scene.registered(2).await;
        let told = std::time::Instant::now();
        running.signal(signal).unwrap();
        let ended = scene.finish(running).await;
        assert_eq!(ended.finished.code, code);
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    }
}

#[tokio::test]
async fn a_runner_at_work_ends_its_task_first() {
    let scene = Standby::new()
        .await
        .workflow(4, &json!([{ "run": "echo ready; sleep 300" }]));
    let running = scene.start();
    scene.api.task(4).wait_for(|event| event["type"] == "log").await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    assert_eq!(ended.finished.code, 143);
    let error = ended.failed(4, "cancelled");
    assert!(error["message"].as_str().unwrap().contains("SIGTERM"), "{error}");
    assert_eq!(ended.scene.api.task(4).events_of("step_end")[0]["step_state"], "error");
    assert_eq!(
        ended.scene.left(),
        [".plue-workspace"],
        "the workspace is emptied also when it was the last task"
    );
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let scene = Standby::new().await.workflow(4, &json!([{ "run": script }]));
    let running = scene.start();
    scene.api.task(4).wait_for(|event| event["type"] == "log").await;
    running.signal(Signal::TERM).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let told = std::time::Instant::now();
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    assert_eq!(ended.finished.code, 143);
    ended.failed(4, "cancelled");
    assert!(told.elapsed() < Duration::from_secs(6), "{:?}", told.elapsed());
}

#[tokio::test]
async fn the_server_cancels_a_task_in_an_answer_to_an_event_or_a_heartbeat_and_the_next_one_runs() {
    let cancel = || Answer::Say(json!({ "ok": true, "cancel": true }));
    // The second one runs, and has said so.
    let second = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&second);
    let settings = ApiServer::with()
        .answering(
            move |attempt| match (attempt.event["task_id"].as_i64(), attempt.event["type"].as_str()) {
                (Some(1), Some("log")) => cancel(),
                (Some(2), Some(kind)) => {
                    seen.store(kind == "log", Ordering::Relaxed);
                    Answer::Ok
                }
                _ => Answer::Ok,
            },
        )
        .answering_heartbeats(move |_| {
            if second.load(Ordering::Relaxed) {
                cancel()
            } else {
                Answer::Ok
            }
        });
    let scene = Standby::with(settings).await.tasks(3);
    for id in [1, 2] {
        scene.api.assign(Assignment::new(
            id,
            workflow(&json!([{ "run": "echo ready; sleep 300" }])),
        ));
    }
    let ended = scene.workflow(3, &json!([{ "run": "true" }])).run().await;
    for id in [1, 2] {
        let error = ended.failed(id, "cancelled");
        assert!(error["message"].as_str().unwrap().contains("API server"), "{error}");
    }
    ended.done(3);
    assert_eq!(ended.finished.code, 0);
}

#[tokio::test]
async fn a_model_that_is_silent_is_left_when_the_task_is_cancelled() {
    let scene = Standby::new()
        .await
        .model([Turn::says("Thinking about").ending(Ending::Stall)])
        .await;
    let task =
        json!({ "type": "agent", "model": support::scene::MODEL, "messages": [{ "role": "user", "content": "Go." }] });
    scene.api.assign(Assignment::new(4, task));
    let running = scene.start();
    scene.api.task(4).wait_for(|event| event["type"] == "token").await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    ended.failed(4, "cancelled");
    assert_eq!(ended.finished.code, 143);
}

#[tokio::test]
async fn an_ending_that_cannot_be_delivered_ends_no_standby_runner() {
    let settings = ApiServer::with().answering(|attempt| {
        match (attempt.event["task_id"].as_i64(), attempt.event["type"].as_str()) {
            (Some(1), Some("done")) => Answer::Status(400),
            _ => Answer::Ok,
        }
    });
    let scene = Standby::with(settings).await.tasks(2);
    let scene = scene
        .workflow(1, &json!([{ "run": "true" }]))
        .workflow(2, &json!([{ "run": "true" }]));
    let ended = scene.run().await;
    assert!(ended.scene.api.task(1).terminal().is_none());
    assert!(ended.finished.log.iter().any(|line| line["level"] == "CRITICAL"));
    ended.done(2);
    assert_eq!(ended.finished.code, 3, "the exit code says that an ending was lost");
}

#[tokio::test]
async fn a_task_that_is_given_while_the_runner_is_told_to_stop_has_its_ending() {
    let late = Answer::Late(Duration::from_millis(800), Box::new(Answer::Ok));
    let settings = ApiServer::with().answering_registrations(move |_| late.clone());
    let scene = Standby::with(settings).await;
    let scene = scene.workflow(1, &json!([{ "run": "sleep 300" }]));
    let running = scene.start();
    // The server has decided, and its answer is on its way.
    scene
        .api
        .wait_until("the task to be given", |api| api.waiting() == 0)
        .await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    assert_eq!(ended.finished.code, 143);
    ended.failed(1, "cancelled");
}

#[tokio::test]
async fn an_ending_that_was_lost_is_told_by_the_exit_code_also_when_the_runner_is_idle_again() {
    let settings = ApiServer::with().answering(|attempt| match attempt.event["type"].as_str() {
        Some("done") => Answer::Status(400),
        _ => Answer::Ok,
    });
    let scene = Standby::with(settings).await;
    let scene = scene.workflow(1, &json!([{ "run": "true" }]));
    let running = scene.start();
    // The task, and at least one more: it is idle.
    scene.registered(3).await;
    running.signal(Signal::TERM).unwrap();
    assert_eq!(scene.finish(running).await.finished.code, 3);
}
