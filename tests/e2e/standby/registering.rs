//! Registering, polling and beating: what the API server hears of a runner.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::{Answer, ApiServer, Assignment};

use support::standby::{Standby, workflow};

#[tokio::test]
async fn the_runner_says_who_it_is_and_beats_while_idle_and_while_it_works() {
    let scene = Standby::new()
        .await
        .env("POD_IP", "10.0.0.7")
        .env("NODE_NAME", "node-3")
        .env("RUNNER_LABELS", "linux, large");
    let running = scene.start();
    scene.registered(2).await;
    let first = &scene.api.registrations()[0];
    assert_eq!(
        first.body,
        json!({ "pod_name": "pod-1", "pod_ip": "10.0.0.7", "node_name": "node-3", "labels": ["linux", "large"] })
    );
    scene.api.wait_until("a beat", |api| !api.heartbeats().is_empty()).await;
    let idle = scene.api.heartbeats().len();
    scene
        .api
        .assign(Assignment::new(5, workflow(&json!([{ "run": "sleep 3" }]))));
    scene.ending(5).await;
    assert!(
        scene.api.heartbeats().len() >= idle + 2,
        "a beat each second: {:?}",
        scene.api.heartbeats()
    );
    running.signal(Signal::TERM).unwrap();
    scene.finish(running).await.done(5);
}

#[tokio::test]
async fn by_default_a_runner_names_nothing_that_it_does_not_know() {
    let scene = Standby::new().await.env("POD_NAME", "");
    let running = scene.start();
    scene.registered(1).await;
    let mut body = scene.api.registrations()[0].body.clone();
    let name = body.as_object_mut().unwrap().remove("pod_name").unwrap();
    assert_eq!(body, json!({ "pod_ip": "unknown" }));
    // In a pod the host's name is the pod's. A host without one of its own gets a name that nobody shares.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name = name.as_str().unwrap();
    assert!(name == host.trim() || name.starts_with("plue-runner-"), "{name}");
    running.signal(Signal::TERM).unwrap();
    scene.finish(running).await;
}

#[tokio::test]
async fn whatever_the_server_answers_but_a_401_the_runner_registers_again() {
    let faults = [
        Answer::Status(500),
        Answer::Status(404),
        Answer::RetryAfter(429, 1),
        Answer::Cut,
        Answer::Say(json!({ "detail": "no runner id" })),
        Answer::Say(json!({ "runner_id": 1, "task": { "id": "seven", "config": {} } })),
        Answer::Say(json!({ "runner_id": 1, "task": { "id": 7, "config": {} }, "callback_url": "nowhere" })),
        Answer::Say(json!([1, 2, 3])),
    ];
    let count = faults.len();
    let mut next = faults.into_iter();
    let scene =
        Standby::with(ApiServer::with().answering_registrations(move |_| next.next().unwrap_or(Answer::Ok))).await;
    let ended = scene.workflow(7, &json!([{ "run": "true" }])).tasks(1).run().await;
    ended.done(7);
    assert!(ended.scene.api.registrations().len() > count);
}

#[tokio::test]
async fn a_401_is_a_configuration_error() {
    let scene = Standby::with(ApiServer::with().token("internal-token-0123456789")).await;
    let ended = scene.env("CALLBACK_TOKEN", "another-token").run().await;
    assert_eq!(ended.finished.code, 2, "{}", ended.finished.stdout);
    assert!(
        ended.finished.stdout.contains("CALLBACK_TOKEN"),
        "{}",
        ended.finished.stdout
    );
    assert!(!ended.finished.stdout.contains("another-token"));
}

#[tokio::test]
async fn the_token_goes_with_the_registration_the_heartbeat_and_the_events() {
    let token = "internal-token-0123456789";
    let scene = Standby::with(ApiServer::with().token(token))
        .await
        .env("CALLBACK_TOKEN", token);
    let ended = scene.workflow(3, &json!([{ "run": "sleep 2" }])).tasks(1).run().await;
    ended.done(3);
    assert!(!ended.scene.api.heartbeats().is_empty());
}

/// Whoever answers a registration names the callback. The server there takes no token, and says so of one that comes.
#[tokio::test]
async fn the_token_goes_to_no_origin_that_only_a_reply_names() {
    let token = "internal-token-0123456789";
    let elsewhere = ApiServer::start().await.unwrap();
    let reply = json!({
        "runner_id": 1,
        "task": { "id": 7, "type": "workflow", "config": workflow(&json!([{ "run": "true" }])) },
        "callback_url": elsewhere.task_url(7),
    });
    let server = ApiServer::with()
        .token(token)
        .answering_registrations(move |_| Answer::Say(reply.clone()));
    let scene = Standby::with(server).await.env("CALLBACK_TOKEN", token).tasks(1);
    let ended = scene.run().await;
    assert_eq!(elsewhere.task(7).terminal().unwrap()["type"], "done");
    assert_eq!(elsewhere.violations(), Vec::<String>::new());
    let said = &ended.finished.stdout;
    assert!(said.contains("CALLBACK_ORIGINS") && !said.contains(token), "{said}");
}

#[tokio::test]
async fn health_knows_a_runner_that_starts_waits_works_and_is_gone() {
    let scene = Standby::new().await;
    assert_eq!(scene.health(false).await.code, 1);
    let running = scene.start();
    scene.registered(2).await;
    let idle = scene.health(true).await;
    assert_eq!(
        (idle.code, idle.stdout.contains("waits for a task")),
        (0, true),
        "{}",
        idle.stdout
    );
    scene
        .api
        .assign(Assignment::new(5, workflow(&json!([{ "run": "sleep 2" }]))));
    scene.api.task(5).wait_for(|event| event["type"] == "step_start").await;
    let working = scene.health(true).await;
    assert_eq!(
        (working.code, working.stdout.contains("on task 5")),
        (0, true),
        "{}",
        working.stdout
    );
    running.signal(Signal::TERM).unwrap();
    scene.ending(5).await;
    let ended = scene.finish(running).await;
    assert_eq!(ended.scene.health(false).await.code, 1);
}

#[tokio::test]
async fn a_runner_that_cannot_register_lives_and_is_not_ready() {
    let scene = Standby::with(ApiServer::with().answering_registrations(|_| Answer::Status(500))).await;
    let running = scene.start();
    scene.registered(2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(scene.health(false).await.code, 0);
    assert_eq!(scene.health(true).await.code, 1);
    running.signal(Signal::TERM).unwrap();
    assert_eq!(scene.finish(running).await.finished.code, 143);
}
