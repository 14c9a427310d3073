use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, ApiServer};

use crate::client::{Answered, post};

/// An event with what every event carries.
fn event(seq: u64, fields: Value) -> Value {
    let mut event = json!({ "task_id": "7", "seq": seq, "timestamp": "2026-11-23T12:00:00.123Z" });
    for (key, value) in fields.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

async fn send(api: &ApiServer, event: &Value) -> Option<Answered> {
    let key = format!("7-{}", event["seq"]);
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    post(&api.url(), &headers, &event.to_string()).await
}

fn done(seq: u64) -> Value {
    event(seq, json!({ "type": "done", "duration_ms": 5, "sandbox": "weak" }))
}

const MESSAGE: &str = "msg_0123456789ab";

#[tokio::test]
async fn a_well_formed_task_breaks_no_rule() {
    let api = ApiServer::start().await.unwrap();
    let events = [
        json!({ "type": "token", "message_id": MESSAGE, "text": "Hi ", "token_index": 0 }),
        json!({ "type": "token", "message_id": MESSAGE, "text": "there", "token_index": 3 }),
        json!({ "type": "tool_start", "message_id": MESSAGE, "tool_id": "t1", "tool_name": "grep" }),
        json!({ "type": "tool_start", "message_id": MESSAGE, "tool_id": "t1", "tool_name": "grep", "args": { "pattern": "x" } }),
        json!({ "type": "tool_end", "tool_id": "t1", "tool_state": "error", "output": "no", "duration_ms": 1,
            "truncated": false, "code": "denied" }),
        json!({ "type": "thinking", "message_id": MESSAGE, "text": "hm" }),
        json!({ "type": "tool_output", "tool_id": "t1", "text": "x" }),
        json!({ "type": "usage", "message_id": MESSAGE, "input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 0,
            "cache_write_tokens": 0 }),
        json!({ "type": "step_start", "step_name": "Test", "step_index": 0 }),
        json!({ "type": "log", "level": "stdout", "message": "ok", "step_index": 0, "partial": true }),
        json!({ "type": "step_end", "step_name": "Test", "step_index": 0, "step_state": "success", "exit_code": 0,
            "duration_ms": 3 }),
    ];
    for (index, fields) in events.into_iter().enumerate() {
        let answer = send(&api, &event(index as u64 + 1, fields)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"ok":true}"#));
    }
    send(&api, &done(12)).await;
    assert_eq!(api.final_violations(), Vec::<String>::new());
    assert_eq!(api.events().len(), 12);
    assert_eq!(api.terminal().unwrap()["type"], "done");
}

#[tokio::test]
async fn an_event_that_would_crash_the_real_server_is_refused() {
    let token = json!({ "type": "token", "message_id": MESSAGE, "text": "x", "token_index": 0 });
    let thinking = json!({ "type": "thinking", "message_id": MESSAGE, "text": "x" });
    let tool_end = json!({ "type": "tool_end", "tool_id": "t", "tool_state": "success", "output": "", "duration_ms": 1,
        "truncated": false });
    let cases: &[(&Value, &str, Value, &str)] = &[
        (&token, "message_id", Value::Null, "/message_id"),
        (&token, "message_id", json!("msg_1"), "/message_id"),
        (&token, "token_index", json!("0"), "/token_index"),
        (&token, "token_index", json!(0.5), "/token_index"),
        (&token, "text", json!("nul \u{0}"), "/text"),
        (&token, "timestamp", json!("2026-11-23 12:00"), "/timestamp"),
        (&token, "seq", json!(0), "/seq"),
        (&token, "colour", json!("red"), "colour"),
        (&token, "type", json!("tokens"), "/type"),
        (&token, "type", json!("denied"), "/type"),
        (&thinking, "token_index", json!(0), "token_index"),
        (&thinking, "text", Value::Null, "/text"),
        (&tool_end, "tool_state", json!("failure"), "/tool_state"),
        (&tool_end, "tool_state", json!("error"), "code"),
        (&tool_end, "code", json!("denied"), "/code"),
        (&tool_end, "output", Value::Null, "/output"),
    ];
    for (fields, name, value, named) in cases {
        let api = ApiServer::start().await.unwrap();
        let mut event = event(1, (*fields).clone());
        event[*name] = value.clone();
        assert_eq!(send(&api, &event).await.unwrap().status, 400, "{event}");
        assert!(
            api.violations().iter().any(|found| found.contains(named)),
            "{event}: {:?}",
            api.violations()
        );
        assert_eq!(api.events(), Vec::<Value>::new());
    }
}

#[tokio::test]
async fn what_breaks_the_order_is_written_down() {
    let start = |index| json!({ "type": "step_start", "step_name": "s", "step_index": index });
    let end = |index| json!({ "type": "step_end", "step_name": "s", "step_index": index, "step_state": "success", "duration_ms": 1 });
    let token = |id: &str, index| json!({ "type": "token", "message_id": id, "text": "x", "token_index": index });
    let open = json!({ "type": "tool_start", "message_id": MESSAGE, "tool_id": "t1", "tool_name": "grep" });
    let mut with_args = open.clone();
    with_args["args"] = json!({});
    let result = json!({ "type": "tool_end", "tool_id": "t1", "tool_state": "success", "output": "", "duration_ms": 1,
        "truncated": false });
    let finished = json!({ "type": "done", "duration_ms": 5, "sandbox": "weak" });
    let mut lost = finished.clone();
    lost["lost_events"] = json!(2);
    let line = json!({ "type": "log", "level": "stdout", "message": "x", "step_index": 3 });
    let other = "msg_ffffffffffff";
    let part = |token: Value, index: u64, count: u64| {
        let mut part = token;
        part["part"] = json!({ "index": index, "count": count });
        part
    };
    let cases: Vec<(Vec<Value>, &str)> = vec![
        (vec![token(MESSAGE, 1)], "first token"),
        (
            vec![token(MESSAGE, 0), token(MESSAGE, 0)],
            "token_index 0 comes after 0",
        ),
        (
            vec![token(MESSAGE, 0), token(other, 0), token(MESSAGE, 0)],
            "comes back",
        ),
        (vec![with_args.clone()], "tool_start with args"),
        (vec![open.clone(), open.clone()], "tool_start without args"),
        (vec![open.clone(), result.clone()], "tool_end for call t1"),
        (
            vec![open.clone(), with_args.clone(), result.clone(), result],
            "tool_end for call t1",
        ),
        (vec![open, with_args, finished.clone()], "while call t1"),
        (vec![start(0), start(1)], "within step 0"),
        (vec![start(1), end(1), start(0)], "step_index 0 comes after"),
        (vec![start(0), end(1)], "not the open one"),
        (vec![start(0), finished.clone()], "while step 0 is open"),
        (vec![line], "the open step is None"),
        (
            vec![finished.clone(), token(MESSAGE, 0)],
            "after the terminal event done",
        ),
        (vec![finished.clone(), finished], "after the terminal event done"),
        (vec![lost], "lost_events 2, and 0 were lost"),
        (
            vec![part(token(MESSAGE, 0), 1, 2)],
            "part 1 of 2, and none is before it",
        ),
        (
            vec![part(token(MESSAGE, 0), 0, 3), part(token(MESSAGE, 0), 2, 3)],
            "part 2 of 3 comes after part 0 of 3",
        ),
        (
            vec![part(token(MESSAGE, 0), 0, 2), token(MESSAGE, 1)],
            "part 0 of 1 comes after part 0 of 2",
        ),
        (
            vec![part(token(MESSAGE, 0), 0, 3), part(token(MESSAGE, 0), 1, 2)],
            "part 1 of 2 comes after part 0 of 3",
        ),
    ];
    for (events, expected) in cases {
        let api = ApiServer::start().await.unwrap();
        for (index, fields) in events.iter().enumerate() {
            send(&api, &event(index as u64 + 1, fields.clone())).await;
        }
        let found = api.violations();
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "expected {expected:?}, found {found:?}"
        );
    }
}

#[tokio::test]
async fn a_gap_and_a_missing_terminal_event_are_written_down() {
    let api = ApiServer::start().await.unwrap();
    send(
        &api,
        &event(2, json!({ "type": "log", "level": "info", "message": "x" })),
    )
    .await;
    let found = api.final_violations();
    assert!(found[0].contains("seq 2 comes after 0"), "{found:?}");
    assert!(found[1].contains("no terminal event"), "{found:?}");
}

#[tokio::test]
async fn headers_are_checked() {
    let body = done(1).to_string();
    let good = [
        ("content-type", "application/json"),
        ("idempotency-key", "7-1"),
        ("x-request-id", "r1"),
        ("authorization", "Bearer secret"),
    ];
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("content-type", "text/plain", Some("Content-Type")),
        ("idempotency-key", "7-2", Some("Idempotency-Key")),
        ("x-request-id", "r2", Some("X-Request-ID")),
        ("authorization", "Bearer wrong", None),
    ];
    for (name, value, expected) in cases {
        let api = ApiServer::with()
            .token("secret")
            .request_id("r1")
            .start()
            .await
            .unwrap();
        let mut headers = good;
        headers.iter_mut().find(|header| header.0 == *name).unwrap().1 = value;
        let answer = post(&api.url(), &headers, &body).await.unwrap();
        let found = api.violations();
        match expected {
            Some(expected) => assert!(found.len() == 1 && found[0].contains(expected), "{found:?}"),
            None => assert_eq!((answer.status, found), (401, Vec::new())),
        }
    }
    let api = ApiServer::start().await.unwrap();
    assert_eq!(post(&api.url(), &good, &body).await.unwrap().status, 401);
    assert!(api.violations()[0].contains("no token was given"));
}

#[tokio::test]
async fn faults_are_answered_as_scripted_and_a_retry_must_repeat_the_bytes() {
    let api = ApiServer::with()
        .answering(|attempt| match attempt.number {
            1 => Answer::RetryAfter(503, 7),
            2 => Answer::Cut,
            _ => Answer::Late(Duration::from_millis(30), Box::new(Answer::Ok)),
        })
        .start()
        .await
        .unwrap();
    let first = send(&api, &done(1)).await.unwrap();
    assert_eq!(first.status, 503);
    assert!(first.head.contains("retry-after: 7"), "{}", first.head);
    assert!(
        send(&api, &done(1)).await.is_none(),
        "the connection is cut without an answer"
    );
    assert_eq!(api.events(), Vec::<Value>::new());
    assert_eq!(send(&api, &done(1)).await.unwrap().status, 200);
    assert_eq!(api.events().len(), 1);
    assert_eq!(api.final_violations(), Vec::<String>::new());
    let statuses: Vec<u16> = api.attempts().iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [503, 0, 200]);

    let mut changed = done(1);
    changed["duration_ms"] = json!(6);
    send(&api, &changed).await;
    assert!(
        api.violations()[0].contains("differs from the first"),
        "{:?}",
        api.violations()
    );
}

#[tokio::test]
async fn two_requests_at_once_are_written_down() {
    let slow = |_: &support::Attempt| Answer::Late(Duration::from_millis(200), Box::new(Answer::Ok));
    let api = ApiServer::with().answering(slow).start().await.unwrap();
    let log = |seq| event(seq, json!({ "type": "log", "level": "info", "message": "x" }));
    let (first, second) = (log(1), log(2));
    tokio::join!(send(&api, &first), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        send(&api, &second).await
    });
    assert!(
        api.violations()
            .iter()
            .any(|found| found.contains("2 requests in flight")),
        "{:?}",
        api.violations()
    );
}

#[tokio::test]
async fn a_subscriber_sees_events_as_they_are_delivered() {
    let api = ApiServer::start().await.unwrap();
    let mut live = api.subscribe();
    send(&api, &done(1)).await;
    assert_eq!(live.recv().await.unwrap()["type"], "done");
    assert_eq!(api.wait_for(|event| event["type"] == "done").await["seq"], 1);
}
