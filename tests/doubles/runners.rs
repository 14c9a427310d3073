//! Registration, heartbeats and the reaper.

use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, ApiServer, Assignment};

use crate::client::{Answered, post};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn register(api: &ApiServer, body: &Value) -> Option<Answered> {
    post(&api.register_url(), &[JSON], &body.to_string()).await
}

/// The body of the answer to a registration of this pod.
async fn reply(api: &ApiServer, pod: &str) -> Value {
    let answer = register(api, &json!({ "pod_name": pod, "pod_ip": "10.0.0.1" }))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap()
}

async fn beat(api: &ApiServer, runner: i64) -> Option<Answered> {
    post(&api.heartbeat_url(runner), &[JSON], "{}").await
}

#[tokio::test]
async fn a_pod_keeps_its_id_and_gets_the_tasks_in_order() {
    let api = ApiServer::start().await.unwrap();
    let first = reply(&api, "a").await;
    assert_eq!(first["task"], Value::Null);
    let config = json!({ "type": "workflow", "steps": [] });
    api.assign(Assignment::new(12, config.clone()).session("s1"));
    api.assign(Assignment::new(13, config.clone()).wrapped().with_path());
    api.assign(Assignment::new(14, config.clone()).without_type());
    api.assign(Assignment::new(15, config.clone()).raw("{\"runner_id\":"));
    assert_eq!(api.waiting(), 4);
    let id = &first["runner_id"];
    assert_eq!(
        reply(&api, "a").await,
        json!({ "runner_id": id, "task": { "id": 12, "type": "workflow", "config": config, "session_id": "s1" },
            "callback_url": api.task_url(12) })
    );
    assert_eq!(
        reply(&api, "a").await,
        json!({ "runner_id": id,
            "task": { "id": 13, "type": "workflow", "config": { "type": "workflow", "config": config } },
            "callback_path": "/internal/tasks/13/stream" })
    );
    let other = reply(&api, "b").await;
    assert_ne!(other["runner_id"], *id);
    assert_eq!(
        other["task"],
        json!({ "id": 14, "type": "workflow", "config": { "steps": [] } })
    );
    let broken = register(&api, &json!({ "pod_name": "b", "pod_ip": "" })).await.unwrap();
    assert_eq!(broken.body, "{\"runner_id\":");
    let tasks: Vec<_> = api.registrations().iter().map(|one| one.task).collect();
    assert_eq!(tasks, [None, Some(12), Some(13), Some(14), Some(15)]);
}

#[tokio::test]
async fn a_registration_that_would_crash_the_real_server_is_refused() {
    let good = json!({ "pod_name": "p", "pod_ip": "i", "node_name": "n", "labels": ["a", "b"] });
    let cases = [
        ("pod_name", Value::Null),
        ("pod_name", json!(7)),
        ("pod_name", json!("p".repeat(256))),
        ("pod_ip", Value::Null),
        ("node_name", Value::Null),
        ("node_name", json!({})),
        ("labels", Value::Null),
        ("labels", json!("a,b")),
        ("labels", json!(["a", 1])),
        ("colour", json!("red")),
    ];
    for (name, value) in cases {
        let api = ApiServer::start().await.unwrap();
        assert_eq!(register(&api, &good).await.unwrap().status, 200);
        let mut body = good.clone();
        body[name] = value;
        assert_eq!(register(&api, &body).await.unwrap().status, 422, "{body}");
        let found = api.violations();
        assert!(found.len() == 1 && found[0].contains(name), "{found:?}");
    }
    for (body, named) in [
        (json!({ "pod_ip": "i" }), "pod_name"),
        (json!({ "pod_name": "p" }), "pod_ip"),
        (json!([]), "object"),
    ] {
        let api = ApiServer::start().await.unwrap();
        assert_eq!(register(&api, &body).await.unwrap().status, 422);
        assert!(api.violations()[0].contains(named), "{:?}", api.violations());
    }
}

#[tokio::test]
async fn a_heartbeat_that_is_not_an_empty_object_is_written_down() {
    let json = &[JSON][..];
    for (headers, body, named) in [
        (json, "", "object"),
        (json, "[]", "object"),
        (json, r#"{"runner_id":41}"#, "runner_id"),
        (&[], "{}", "application/json"),
    ] {
        let api = ApiServer::start().await.unwrap();
        reply(&api, "a").await;
        let answer = post(&api.heartbeat_url(41), headers, body).await.unwrap();
        assert_eq!(answer.status, 200, "the real server does not look at it");
        let found = api.violations();
        assert!(found.len() == 1 && found[0].contains(named), "{body}: {found:?}");
    }
}

#[tokio::test]
async fn a_silent_runner_is_reaped_and_comes_back_by_registering() {
    let api = ApiServer::with()
        .reap_after(Duration::from_millis(400))
        .start()
        .await
        .unwrap();
    assert_eq!(beat(&api, 99).await.unwrap().status, 404);
    let id = reply(&api, "a").await["runner_id"].as_i64().unwrap();
    let silent = reply(&api, "b").await["runner_id"].as_i64().unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = beat(&api, id).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"ok":true}"#));
    }
    assert_eq!(api.reaped(), [silent]);
    assert_eq!(beat(&api, silent).await.unwrap().status, 404);
    assert_eq!(reply(&api, "b").await["runner_id"], silent);
    assert_eq!(beat(&api, silent).await.unwrap().status, 200);
    assert_eq!(api.reaped(), [silent]);
    let statuses: Vec<u16> = api.heartbeats().iter().map(|beat| beat.status).collect();
    assert_eq!(statuses, [404, 200, 200, 200, 200, 200, 200, 404, 200]);
}

/// Waits until the double looks for silent runners again, since somebody asks, and gives what it answered.
async fn given(api: &ApiServer, pod: &str) -> Value {
    for _ in 0..200 {
        let reply = reply(api, pod).await;
        if reply["task"] != Value::Null {
            return reply["task"]["id"].clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{pod} gets no task");
}

#[tokio::test]
async fn a_task_is_claimed_by_registering_and_given_away_when_its_name_is_silent() {
    let api = ApiServer::with()
        .reap_after(Duration::from_millis(400))
        .look_every(Duration::from_millis(50))
        .answering_registrations(|registration| match registration.number {
            1 => Answer::LostAck,
            _ => Answer::Ok,
        })
        .start()
        .await
        .unwrap();
    api.assign(Assignment::new(1, json!({})));
    api.assign(Assignment::new(2, json!({})));
    // The answer is lost, and the task is claimed.
    let body = json!({ "pod_name": "a", "pod_ip": "" });
    assert!(register(&api, &body).await.is_none());
    assert_eq!((api.held(), api.waiting()), (vec![1], 1));
    // Whoever registers under the name, or beats for it, keeps the task alive, also one that knows nothing of it.
    let other = reply(&api, "b").await;
    assert_eq!(other["task"]["id"], 2);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(reply(&api, "a").await["task"], Value::Null);
        beat(&api, other["runner_id"].as_i64().unwrap()).await;
    }
    assert_eq!(api.held(), [1, 2]);
    // Silence gives both away, the older one first; what has ended is nobody's.
    assert_eq!(given(&api, "c").await, 1);
    send_done(&api, 2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(given(&api, "d").await, 1);
    send_done(&api, 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(reply(&api, "e").await["task"], Value::Null);
    assert_eq!((api.held(), api.waiting()), (vec![], 0));
    let given: Vec<(i64, bool)> = api.hand_outs().iter().map(|given| (given.task, given.told)).collect();
    assert_eq!(given, [(1, false), (2, true), (1, true), (1, true)]);
}

async fn send_done(api: &ApiServer, id: i64) {
    let event = json!({ "task_id": id, "seq": 1, "timestamp": "2026-11-23T12:00:00.123Z", "type": "done",
        "duration_ms": 5, "sandbox": "weak" });
    let key = format!("{id}-1");
    let headers = [JSON, ("idempotency-key", &*key)];
    assert_eq!(
        post(&api.task_url(id), &headers, &event.to_string())
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn a_server_that_starts_gives_away_what_silent_runners_have() {
    let api = ApiServer::with()
        .reap_after(Duration::from_millis(100))
        .look_every(Duration::from_secs(3600))
        .start()
        .await
        .unwrap();
    api.assign(Assignment::new(1, json!({})));
    assert_eq!(reply(&api, "a").await["task"]["id"], 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(reply(&api, "b").await["task"], Value::Null, "it has not looked yet");
    api.has_started_anew();
    assert_eq!(reply(&api, "b").await["task"]["id"], 1);
}

#[tokio::test]
async fn without_its_token_nobody_is_let_in_and_without_a_token_none_may_come() {
    let api = ApiServer::with().token("secret").start().await.unwrap();
    let body = json!({ "pod_name": "p", "pod_ip": "i" }).to_string();
    for url in [api.register_url(), api.heartbeat_url(41), api.task_url(3)] {
        for token in ["Bearer wrong", "secret"] {
            let answer = post(&url, &[JSON, ("authorization", token)], &body).await.unwrap();
            assert_eq!(answer.status, 401, "{url}");
        }
        assert_eq!(post(&url, &[JSON], &body).await.unwrap().status, 401, "{url}");
    }
    let token = ("authorization", "Bearer secret");
    assert_eq!(
        post(&api.register_url(), &[JSON, token], &body).await.unwrap().status,
        200
    );
    let beat = post(&api.heartbeat_url(41), &[JSON, token], "{}").await.unwrap();
    assert_eq!(beat.status, 200);
    let reply = serde_json::from_str(&beat.body).unwrap();
    assert_eq!(support::schema::heartbeat_reply_errors(&reply), Vec::<String>::new());
    assert_eq!(api.violations(), Vec::<String>::new());

    let open = ApiServer::start().await.unwrap();
    for url in [open.register_url(), open.heartbeat_url(41), open.task_url(3)] {
        assert_eq!(post(&url, &[JSON, token], &body).await.unwrap().status, 401);
    }
    assert_eq!(open.violations().len(), 3);
}

#[tokio::test]
async fn faults_of_registration_and_heartbeat_are_as_scripted() {
    let api = ApiServer::with()
        .answering_registrations(|registration| match registration.number {
            1 => Answer::Status(503),
            2 => Answer::Cut,
            3 => Answer::Half(200),
            4 => Answer::Late(Duration::from_millis(30), Box::new(Answer::Ok)),
            5 => Answer::LostAck,
            _ => Answer::Ok,
        })
        .answering_heartbeats(|beat| match beat.number {
            1 => Answer::Say(json!({ "ok": true, "cancel": true })),
            2 => Answer::Status(500),
            3 => Answer::Stall(Duration::from_millis(30)),
            _ => Answer::Ok,
        })
        .start()
        .await
        .unwrap();
    let body = json!({ "pod_name": "a", "pod_ip": "" });
    for id in 1..=3 {
        api.assign(Assignment::new(id, json!({})));
    }
    assert_eq!(register(&api, &body).await.unwrap().status, 503);
    assert!(register(&api, &body).await.is_none());
    assert_eq!(api.waiting(), 3);
    // What the server has handed out is gone, also when the runner does not hear of it.
    let half = register(&api, &body).await.unwrap();
    assert!(half.status == 200 && serde_json::from_str::<Value>(&half.body).is_err());
    assert_eq!(reply(&api, "a").await["task"]["id"], 2);
    assert!(register(&api, &body).await.is_none());
    assert_eq!(
        (api.waiting(), reply(&api, "a").await["task"].clone()),
        (0, Value::Null)
    );

    assert_eq!(beat(&api, 41).await.unwrap().body, r#"{"ok":true,"cancel":true}"#);
    assert_eq!(beat(&api, 41).await.unwrap().status, 500);
    assert!(beat(&api, 41).await.is_none());
    api.answer_heartbeats(|_| Answer::Status(429));
    assert_eq!(beat(&api, 41).await.unwrap().status, 429);
    api.answer_registrations(|_| Answer::Status(502));
    assert_eq!(register(&api, &body).await.unwrap().status, 502);
}
