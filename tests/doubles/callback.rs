//! Many tasks at one server, batches, and the faults that leave a client in doubt.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::totals::Total;
use support::{Answer, ApiServer, Assignment};

use crate::client::{Answered, post};

fn event(task: &Value, seq: u64, fields: Value) -> Value {
    let mut event = json!({ "task_id": task, "seq": seq, "timestamp": "2026-11-23T12:00:00.123Z" });
    for (key, value) in fields.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

fn log(task: &Value, seq: u64, message: &str) -> Value {
    event(task, seq, json!({ "type": "log", "level": "info", "message": message }))
}

fn done(task: &Value, seq: u64) -> Value {
    event(
        task,
        seq,
        json!({ "type": "done", "duration_ms": 5, "sandbox": "weak" }),
    )
}

async fn send(api: &ApiServer, id: i64, event: &Value) -> Option<Answered> {
    let task = event["task_id"]
        .as_str()
        .map_or_else(|| event["task_id"].to_string(), str::to_owned);
    let key = format!("{task}-{}", event["seq"]);
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    post(&api.task_url(id), &headers, &event.to_string()).await
}

async fn send_batch(api: &ApiServer, key: &str, events: &[Value]) -> Option<Answered> {
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", key)];
    post(&api.url(), &headers, &(lines.join("\n") + "\n")).await
}

#[tokio::test]
async fn each_task_has_rules_keys_and_a_record_of_its_own() {
    let api = ApiServer::start().await.unwrap();
    let named = json!("task-7");
    let (one, two) = (json!(1), json!(2));
    for id in 1..=2 {
        api.assign(Assignment::new(id, json!({})));
        let body = json!({ "pod_name": "a", "pod_ip": "" }).to_string();
        post(&api.register_url(), &[("content-type", "application/json")], &body).await;
    }
    for (id, event) in [
        (1, log(&one, 1, "a")),
        (2, log(&two, 1, "b")),
        (7, log(&named, 1, "c")),
        (1, done(&one, 2)),
    ] {
        assert_eq!(send(&api, id, &event).await.unwrap().status, 200);
    }
    assert_eq!(api.violations(), Vec::<String>::new());
    assert_eq!(api.task(1).final_violations(), Vec::<String>::new());
    assert_eq!(api.task(1).terminal().unwrap()["seq"], 2);
    assert_eq!(api.task(2).events_of("log")[0]["message"], "b");
    assert_eq!(api.events()[0]["message"], "c");
    assert_eq!(api.final_violations().len(), 1, "task 2 has no end");
    assert_eq!(api.task(2).final_violations().len(), 1);

    // The number of a task that was handed out is a number, and its own.
    for wrong in [json!("2"), json!(1)] {
        let before = api.task(2).violations().len();
        send(&api, 2, &log(&wrong, 2, "x")).await;
        let found = api.task(2).violations();
        let named = |one: &String| one.contains("in an event of task 2");
        assert!(found[before..].iter().any(named), "{found:?}");
    }
    assert_eq!(api.task(1).violations(), Vec::<String>::new());
    assert!(!api.violations().is_empty());
}

#[tokio::test]
async fn an_event_whose_acknowledgement_is_lost_is_counted_once_and_may_be_repeated() {
    let api = ApiServer::with()
        .answering(|attempt| match attempt.number {
            1 => Answer::LostAck,
            _ => Answer::Status(500),
        })
        .start()
        .await
        .unwrap();
    let id = json!("t");
    assert!(send(&api, 7, &log(&id, 1, "x")).await.is_none());
    assert_eq!(api.events().len(), 1);
    assert_eq!(send(&api, 7, &log(&id, 1, "x")).await.unwrap().status, 200);
    assert_eq!((api.events().len(), api.violations().len()), (1, 0));
    send(&api, 7, &log(&id, 1, "x")).await;
    assert!(api.violations()[0].contains("again after it was delivered"));

    let api = ApiServer::with().answering(|_| Answer::LostAck).start().await.unwrap();
    send(&api, 7, &log(&id, 1, "x")).await;
    send(&api, 7, &log(&id, 1, "y")).await;
    assert!(api.violations()[0].contains("differs from the first"));
}

#[tokio::test]
async fn a_broken_answer_counts_as_its_head_says_and_a_stalled_one_not_at_all() {
    let id = json!("t");
    for (status, delivered) in [(200, 1), (503, 0)] {
        let api = ApiServer::with()
            .answering(move |_| Answer::Half(status))
            .start()
            .await
            .unwrap();
        let answer = send(&api, 7, &log(&id, 1, "x")).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, r#"{"ok""#));
        assert!(answer.head.contains("content-length: 11"), "{}", answer.head);
        assert_eq!(api.events().len(), delivered);
        assert_eq!(api.attempts()[0].status, status);
    }
    let stall = Duration::from_millis(150);
    let api = ApiServer::with()
        .answering(move |_| Answer::Stall(stall))
        .start()
        .await
        .unwrap();
    let begun = Instant::now();
    assert!(send(&api, 7, &log(&id, 1, "x")).await.is_none());
    assert!(begun.elapsed() >= stall);
    assert_eq!((api.events().len(), api.attempts()[0].status), (0, 0));
    api.answer(|_| Answer::RetryAfterMs(429, 250));
    let answer = send(&api, 7, &log(&id, 1, "x")).await.unwrap();
    assert_eq!(answer.status, 429);
    assert!(answer.head.contains("retry-after-ms: 250"), "{}", answer.head);
}

#[tokio::test]
async fn batches_are_taken_where_they_are_asked_for_and_checked_like_single_events() {
    let id = json!("t");
    let events = [log(&id, 1, "a"), log(&id, 2, "b"), done(&id, 3)];
    let closed = ApiServer::start().await.unwrap();
    assert_eq!(send_batch(&closed, "t-1-3", &events).await.unwrap().status, 415);
    assert_eq!((closed.violations().len(), closed.events().len()), (1, 0));

    let api = ApiServer::with()
        .batches()
        .answering(|attempt| match attempt.number {
            1 => Answer::Status(503),
            _ => Answer::Ok,
        })
        .start()
        .await
        .unwrap();
    assert_eq!(send_batch(&api, "t-1-3", &events).await.unwrap().status, 503);
    assert_eq!(api.events().len(), 0);
    assert_eq!(send_batch(&api, "t-1-3", &events).await.unwrap().status, 200);
    assert_eq!(api.events(), events);
    assert_eq!(api.final_violations(), Vec::<String>::new());

    let mut null = events.clone();
    null[1]["message"] = Value::Null;
    let cases: [(&str, &[Value], &str, u16); 4] = [
        ("t-1", &events, "Idempotency-Key", 200),
        ("t-1-3", &null, "/message", 400),
        ("t-2-3", &events[1..], "seq 2 comes after 0", 200),
        (
            "t-1-2",
            &[done(&id, 1), log(&id, 2, "x")],
            "after the terminal event",
            200,
        ),
    ];
    for (key, events, named, status) in cases {
        let api = ApiServer::with().batches().start().await.unwrap();
        assert_eq!(send_batch(&api, key, events).await.unwrap().status, status);
        let found = api.violations();
        assert!(found.iter().any(|one| one.contains(named)), "{named}: {found:?}");
    }
}

#[tokio::test]
async fn what_was_lost_is_counted_in_events_of_whatever_request() {
    let id = json!("t");
    let api = ApiServer::with()
        .batches()
        .answering(|attempt| match attempt.key.as_str() {
            "t-1-2" => Answer::Status(400),
            _ => Answer::Ok,
        })
        .start()
        .await
        .unwrap();
    send_batch(&api, "t-1-2", &[log(&id, 1, "a"), log(&id, 2, "b")]).await;
    let mut end = done(&id, 3);
    end["lost_events"] = json!(2);
    send(&api, 7, &end).await;
    assert_eq!(api.final_violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_light_server_keeps_totals_that_do_not_depend_on_merging() {
    let id = json!("t");
    let line = |seq, level: &str, message: &str, partial: bool| {
        let mut line = event(
            &id,
            seq,
            json!({ "type": "log", "level": level, "message": message, "step_index": 0 }),
        );
        if partial {
            line["partial"] = json!(true);
        }
        line
    };
    let start = event(
        &id,
        1,
        json!({ "type": "step_start", "step_name": "s", "step_index": 0 }),
    );
    let apart = [
        start.clone(),
        line(2, "stdout", "one", false),
        line(3, "stdout", "tw", true),
        line(4, "stdout", "o", false),
        line(5, "stderr", "three", false),
    ];
    let merged = [
        start,
        line(2, "stdout", "one\ntwo", false),
        line(3, "stderr", "three", false),
    ];
    for events in [&apart[..], &merged[..]] {
        let api = ApiServer::with().light().start().await.unwrap();
        for event in events {
            send(&api, 7, event).await;
        }
        let task = api.task(7);
        assert_eq!(task.log_total("stdout", Some(0)), Total::of("one\ntwo\n"));
        assert_eq!(task.log_total("stderr", Some(0)), Total::of("three\n"));
        assert_eq!(task.log_total("stdout", Some(1)), Total::of(""));
        let seen = task.seen();
        assert_eq!(
            (seen.len(), seen[1].kind.as_str(), seen[1].seq),
            (events.len(), "log", 2)
        );
        assert_eq!(seen[1].size, events[1].to_string().len());
        assert!(api.events().is_empty() && api.attempts().is_empty());
    }
    // The order is still checked, and an end is kept; a shape is not.
    let api = ApiServer::with().light().start().await.unwrap();
    let message = "msg_0123456789ab";
    for (seq, text, index) in [(1, "Hi ", 0), (2, "there", 3)] {
        let token = json!({ "type": "token", "message_id": message, "text": text, "token_index": index, "odd": null });
        assert_eq!(send(&api, 7, &event(&id, seq, token)).await.unwrap().status, 200);
    }
    assert_eq!(api.task(7).tokens_total(), Total::of("Hi there"));
    assert_eq!(api.violations(), Vec::<String>::new());
    send(&api, 7, &done(&id, 4)).await;
    assert!(api.violations()[0].contains("seq 4 comes after 2"));
    assert_eq!(api.terminal().unwrap()["type"], "done");
}

/// As the real server does: over 1 MiB the connection is cut, and the next time there is a 413. A runner must never
/// come to that, so it is a violation.
#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused_by_a_reset_and_then_by_a_413() {
    let api = ApiServer::start().await.unwrap();
    let task = json!("task-7");
    let with = |length: usize| log(&task, 1, &"x".repeat(length));
    let envelope = with(0).to_string().len();
    assert_eq!(send(&api, 7, &with((1 << 20) - envelope)).await.unwrap().status, 200);
    assert_eq!(api.violations(), Vec::<String>::new());
    let large = with((1 << 20) - envelope + 1);
    assert!(send(&api, 7, &large).await.is_none());
    assert_eq!(send(&api, 7, &large).await.unwrap().status, 413);
    assert_eq!(api.violations().len(), 2);
    assert_eq!(api.events().len(), 1);
}

/// What stands before the server answers, and the server does not see it: under the key comes something smaller.
#[tokio::test]
async fn an_ingress_that_takes_less_answers_413_and_takes_nothing() {
    let api = ApiServer::with().max_body(1000).start().await.unwrap();
    let task = json!("task-7");
    for (seq, length, status) in [(1, 800, 200), (2, 2000, 413), (2, 1500, 413), (2, 700, 200)] {
        let event = log(&task, seq, &"x".repeat(length));
        assert_eq!(send(&api, 7, &event).await.unwrap().status, status, "{length}");
    }
    api.take_at_most(100);
    assert_eq!(send(&api, 7, &log(&task, 3, "x")).await.unwrap().status, 413);
    assert_eq!(api.too_large().len(), 3);
    assert_eq!((api.events().len(), api.violations()), (2, Vec::new()));
}

#[tokio::test]
async fn a_key_that_was_taken_is_a_conflict_where_that_is_asked_for() {
    let api = ApiServer::with().conflicts().answering(|_| Answer::LostAck);
    let api = api.start().await.unwrap();
    let task = json!("task-7");
    assert!(send(&api, 7, &log(&task, 1, "x")).await.is_none());
    for _ in 0..2 {
        assert_eq!(send(&api, 7, &log(&task, 1, "x")).await.unwrap().status, 409);
    }
    assert_eq!((api.events().len(), api.violations()), (1, Vec::new()));
}

/// The parts of a text come one after the other, and may become more on the way.
#[tokio::test]
async fn parts_of_a_text_have_one_index_and_their_number_may_grow() {
    let api = ApiServer::start().await.unwrap();
    let task = json!("task-7");
    for (seq, (index, count)) in (1..).zip([(0, 2), (1, 4), (2, 4), (3, 4)]) {
        let token = json!({ "type": "token", "message_id": "msg_0123456789ab", "text": "x", "token_index": 0,
            "part": { "index": index, "count": count } });
        assert_eq!(send(&api, 7, &event(&task, seq, token)).await.unwrap().status, 200);
    }
    assert_eq!(api.violations(), Vec::<String>::new());
}

/// Two runs of a task are judged each by itself; what comes again under its key is taken again.
#[tokio::test]
async fn where_there_may_be_several_runs_keys_are_ignored_and_a_killed_runner_may_go_on() {
    let api = ApiServer::with().several_runs().start().await.unwrap();
    let task = json!("task-7");
    let sent = async |runner: &str, seq: u64, event: Value| {
        let key = format!("task-7-{seq}");
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", &*key),
            ("x-request-id", runner),
        ];
        post(&api.url(), &headers, &event.to_string()).await.unwrap().status
    };
    for (runner, event) in [
        ("a", log(&task, 1, "one")),
        ("b", log(&task, 1, "other")),
        ("a", log(&task, 1, "one")),
    ] {
        assert_eq!(sent(runner, 1, event).await, 200);
    }
    assert_eq!((api.events().len(), api.task(7).begun()), (3, 2));
    // Started again, it cannot know whether its second event arrived.
    let fields = json!({ "type": "error", "message": "x", "code": "worker_lost", "duration_ms": 5, "sandbox": "weak", "lost_events": 1 });
    assert_eq!(sent("a", 3, event(&task, 3, fields)).await, 200);
    assert_eq!(sent("b", 2, done(&task, 2)).await, 200);
    assert_eq!(api.violations(), Vec::<String>::new());
    assert_eq!(api.task(7).final_violations(), Vec::<String>::new());
    // But it must not leave out more.
    assert_eq!(sent("c", 1, log(&task, 1, "x")).await, 200);
    assert_eq!(sent("c", 4, done(&task, 4)).await, 200);
    assert_eq!(api.violations().len(), 1, "{:?}", api.violations());
}
