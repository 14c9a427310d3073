//! Delivery: what is retried, what is not, and what is said when it fails.

use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, ApiServer, Attempt, Turn};

use support::scene::{Outcome, Scene};

async fn run(answer: impl FnMut(&Attempt) -> Answer + Send + 'static) -> Outcome {
    let scene = Scene::with(ApiServer::with().answering(answer)).await;
    scene.workflow(&json!([{ "run": "echo hello" }])).run().await
}

#[tokio::test]
async fn what_may_pass_is_retried_with_the_same_bytes_under_the_same_key() {
    for fault in [
        Answer::Status(500),
        Answer::Status(503),
        Answer::Status(429),
        Answer::Status(408),
        Answer::Cut,
    ] {
        let name = format!("{fault:?}");
        let outcome = run(move |attempt| if attempt.number <= 3 { fault.clone() } else { Answer::Ok }).await;
        outcome.done();
        // The double checks bytes, keys and order.
        let attempts = outcome.scene.api.attempts();
        assert_eq!(attempts.len(), 4 * outcome.events().len(), "{name}");
        assert_eq!(outcome.lines("stdout", 0), ["hello"], "{name}");
    }
}

#[tokio::test]
async fn what_cannot_pass_is_not_retried_and_the_task_goes_on() {
    for status in [400, 403, 404, 410, 422] {
        let outcome = run(move |attempt| match attempt.event["type"].as_str() {
            Some("log") => Answer::Status(status),
            _ => Answer::Ok,
        })
        .await;
        let done = outcome.done_with_losses();
        assert_eq!(done["lost_events"], 1, "{status}");
        let attempts = outcome.scene.api.attempts();
        assert_eq!(
            attempts.iter().filter(|attempt| attempt.event["type"] == "log").count(),
            1,
            "{status}"
        );
        assert!(
            outcome.finished.stdout.contains(&status.to_string()),
            "{}",
            outcome.finished.stdout
        );
    }
}

#[tokio::test]
async fn an_event_is_lost_after_its_retries_and_counted() {
    let outcome = run(|attempt| match attempt.event["type"].as_str() {
        Some("step_start") => Answer::Status(500),
        _ => Answer::Ok,
    })
    .await;
    assert_eq!(outcome.done_with_losses()["lost_events"], 1);
    let attempts = outcome.scene.api.attempts();
    assert_eq!(
        attempts
            .iter()
            .filter(|attempt| attempt.event["type"] == "step_start")
            .count(),
        1 + 5
    );
}

#[tokio::test]
async fn a_terminal_event_that_cannot_be_delivered_ends_the_process_with_3() {
    for (answer, attempts) in [(Answer::Status(500), 11), (Answer::Status(400), 1), (Answer::Cut, 11)] {
        let scene = Scene::with(
            ApiServer::with().answering(move |attempt| match attempt.event["type"].as_str() {
                Some("done") => answer.clone(),
                _ => Answer::Ok,
            }),
        );
        let scene = scene.await.env("CALLBACK_RETRY_BASE_MS", "1");
        let outcome = scene.workflow(&json!([{ "run": "true" }])).run().await;
        assert_eq!(outcome.finished.code, 3, "{}", outcome.finished.stdout);
        let made = outcome.scene.api.attempts();
        assert_eq!(
            made.iter().filter(|attempt| attempt.event["type"] == "done").count(),
            attempts
        );
        assert!(
            outcome.finished.log.iter().any(|line| line["level"] == "CRITICAL"),
            "{}",
            outcome.finished.stdout
        );
    }
}

#[tokio::test]
async fn a_callback_that_nobody_answers_ends_the_process_with_3() {
    let port = support::loopback::closed_port().await.unwrap();
    let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
    let outcome = scene
        .env("CALLBACK_URL", &format!("http://{port}/internal/tasks/7/stream"))
        .env("CALLBACK_RETRY_BASE_MS", "1")
        .run()
        .await;
    assert_eq!(outcome.finished.code, 3, "{}", outcome.finished.stdout);
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let outcome = run(|attempt| match (attempt.event["type"].as_str(), attempt.number) {
        (Some("done"), 1) => Answer::RetryAfter(503, 1),
        _ => Answer::Ok,
    })
    .await;
    outcome.done();
    let attempts = outcome.scene.api.attempts();
    let at: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.event["type"] == "done")
        .map(|attempt| attempt.at)
        .collect();
    assert!(at[1] - at[0] >= Duration::from_secs(1), "{:?}", at[1] - at[0]);
}

#[tokio::test]
async fn waits_grow_with_each_attempt() {
    let scene = Scene::with(ApiServer::with().answering(|attempt| match attempt.number {
        1..=4 => Answer::Status(500),
        _ => Answer::Ok,
    }));
    let scene = scene
        .await
        .workflow(&json!([{ "type": "checkout" }]))
        .env("CALLBACK_RETRY_BASE_MS", "20");
    let outcome = scene.run().await;
    outcome.done();
    let attempts = outcome.scene.api.attempts();
    for pair in attempts.windows(2).filter(|pair| pair[1].number > 1) {
        let least = Duration::from_millis(20 * 2_u64.pow(pair[0].number - 1));
        assert!(
            pair[1].at - pair[0].at >= least,
            "attempt {}: {:?}",
            pair[1].number,
            pair[1].at - pair[0].at
        );
    }
}

#[tokio::test]
async fn a_slow_callback_holds_nothing_up_and_nothing_is_lost() {
    let scene =
        Scene::with(ApiServer::with().answering(|_| Answer::Late(Duration::from_millis(100), Box::new(Answer::Ok))));
    let script = "i=0; while [ $i -lt 500 ]; do echo $i; i=$((i + 1)); done; date +%s%N > finished";
    let outcome = scene.await.workflow(&json!([{ "run": script }])).run().await;
    outcome.done();
    let expected: Vec<String> = (0..500).map(|number: i32| number.to_string()).collect();
    assert_eq!(outcome.lines("stdout", 0), expected);
    assert!(
        outcome.events().len() < 50,
        "lines that wait are merged: {}",
        outcome.events().len()
    );
}

#[tokio::test]
async fn the_token_is_sent_to_the_callback() {
    let token = "callback-token-0123456789";
    let scene = Scene::with(ApiServer::with().token(token))
        .await
        .env("CALLBACK_TOKEN", token);
    scene.workflow(&json!([{ "run": "true" }])).run().await.done();
}

#[tokio::test]
async fn a_refused_token_ends_the_process_with_3() {
    let scene = Scene::with(ApiServer::with().token("callback-token-0123456789")).await;
    let outcome = scene
        .workflow(&json!([{ "run": "true" }]))
        .env("CALLBACK_TOKEN", "another-token")
        .run()
        .await;
    assert_eq!(outcome.finished.code, 3, "{}", outcome.finished.stdout);
    assert!(!outcome.finished.stdout.contains("another-token"));
    assert_eq!(outcome.events(), Vec::<Value>::new());
}

#[tokio::test]
async fn an_answer_with_another_body_delivers_too() {
    run(|_| Answer::Say(json!({ "ok": true, "new_field": [1, 2, 3] })))
        .await
        .done();
    run(|_| Answer::Status(204)).await.done();
}

#[tokio::test]
async fn a_server_that_takes_batches_gets_what_waits_in_one_request() {
    let settings = ApiServer::with()
        .batches()
        .answering(|_| Answer::Late(Duration::from_millis(100), Box::new(Answer::Ok)));
    let scene = Scene::with(settings).await.env("CALLBACK_BATCH", "ndjson");
    let steps: Vec<Value> = (0..20).map(|step| json!({ "run": format!("echo {step}") })).collect();
    let outcome = scene.workflow(&json!(steps)).run().await;
    outcome.done();
    assert_eq!(
        outcome.events().len(),
        61,
        "a start, a line and an end of each step, and the ending"
    );
    let requests: std::collections::BTreeSet<String> = outcome
        .scene
        .api
        .attempts()
        .into_iter()
        .map(|attempt| attempt.key)
        .collect();
    assert!(requests.len() < 20, "{requests:?}");
}

#[tokio::test]
async fn a_server_that_refuses_batches_gets_every_event_by_itself() {
    // Slow, so that events wait for each other however quick or slow the machine is.
    let settings = ApiServer::with().answering(|_| Answer::Late(Duration::from_millis(100), Box::new(Answer::Ok)));
    let scene = Scene::with(settings).await.env("CALLBACK_BATCH", "ndjson");
    let scene = scene.workflow(&json!([{ "run": "echo a; echo b >&2; echo c" }, { "run": "echo d" }]));
    let running = scene.start();
    let (finished, api) = scene.finish_unchecked(running).await;
    assert_eq!(finished.code, 0, "{}", finished.stdout);
    assert_eq!(
        api.violations(),
        ["a batch, and this server takes none"],
        "it is tried once"
    );
    let done = api.terminal().unwrap();
    assert_eq!((&done["type"], done.get("lost_events")), (&json!("done"), None));
    assert_eq!(api.events_of("step_end").len(), 2);
}

#[tokio::test]
async fn the_ending_arrives_also_when_what_is_before_it_does_not() {
    let settings = ApiServer::with().answering(|attempt| match attempt.event["type"].as_str() {
        Some("done") => Answer::Ok,
        _ => Answer::RetryAfter(503, 60),
    });
    let scene = Scene::with(settings).await.env("FLUSH_TIMEOUT", "4");
    let scene = scene.workflow(&json!([{ "run": "seq 1 10" }]));
    let running = scene.start();
    let (finished, api) = scene.finish_unchecked(running).await;
    assert_eq!(finished.code, 3, "{}", finished.stdout);
    let done = api.terminal().unwrap();
    assert_eq!(
        (&done["type"], &done["lost_events"]),
        (&json!("done"), &json!(3)),
        "{done}"
    );
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_the_task_nor_its_end() {
    let scene = Scene::new().await.env("LOG_LEVEL", "DEBUG").unread();
    // Each step is worth some lines of log.
    let steps: Vec<Value> = (0..60).map(|_| json!({ "run": "true" })).collect();
    let outcome = scene.workflow(&json!(steps)).run().await;
    outcome.done();
    let scene = Scene::new().await.env("LOG_LEVEL", "DEBUG").unread();
    let scene = scene.workflow(&json!([{ "run": "echo ready; sleep 300" }]));
    let running = scene.start();
    scene.api.wait_for(|event| event["type"] == "log").await;
    running.signal(rustix::process::Signal::TERM).unwrap();
    let outcome = scene.finish(running).await;
    assert_eq!(outcome.finished.code, 143);
    assert_eq!(outcome.scene.api.terminal().unwrap()["code"], "cancelled");
}

#[tokio::test]
async fn at_the_end_the_delivery_has_its_time_and_what_did_not_arrive_is_said() {
    let settings = ApiServer::with().answering(|_| Answer::Late(Duration::from_secs(60), Box::new(Answer::Ok)));
    let scene = Scene::with(settings).await.env("FLUSH_TIMEOUT", "1");
    let scene = scene.workflow(&json!([{ "run": "seq 1 1000" }]));
    let running = scene.start();
    let (finished, _) = scene.finish_unchecked(running).await;
    assert_eq!(finished.code, 3, "{}", finished.stdout);
    let last = finished.log.last().unwrap();
    assert_eq!(last["level"], "CRITICAL", "{last}");
    assert!(last["context"]["undelivered_events"].as_u64().unwrap() >= 3, "{last}");
}

/// The API server takes 1 MiB, as JSON: a control character is six bytes there.
#[tokio::test]
async fn a_call_with_large_arguments_and_a_large_result_is_told_in_events_that_the_server_takes() {
    let content = "\u{1}\"".repeat(300_000);
    let large = "\u{2}é".repeat(200_000);
    let turns = [
        Turn::new().call("w", "write_file", json!({ "path": "large", "content": content })),
        Turn::new().call(
            "s",
            "shell",
            json!({ "command": format!("true {}; head -c 900000 /dev/zero", &large[..60_000]) }),
        ),
        Turn::new().call("r", "read_file", json!({ "path": large })),
        Turn::says("Done."),
    ];
    let scene = Scene::new().await;
    let workspace = scene.workspace();
    let outcome = scene
        .agent(json!({ "tools": ["write_file", "read_file", "shell"] }), turns)
        .await
        .run()
        .await;
    // The double refuses what the real server refuses.
    outcome.done();
    assert_eq!(
        std::fs::read_to_string(workspace.join("large")).unwrap().len(),
        content.len()
    );
    let starts = outcome.events_of("tool_start");
    let args = |id: &str| {
        let start = starts
            .iter()
            .find(|start| start["tool_id"] == id && start.get("args").is_some());
        start.unwrap()["args"].clone()
    };
    let written = args("w");
    assert_eq!(written["path"], "large");
    assert!(
        written["content"].as_str().unwrap().contains("left out"),
        "the middle is cut"
    );
    assert!(
        written["_truncated"].as_str().unwrap().contains("1 long texts"),
        "{}",
        written["_truncated"]
    );
    assert!(args("r")["_truncated"].is_string());
    // What the model gets, and what the tool got, is whole.
    let sent = outcome.request(1)["messages"][1]["content"][0]["input"]["content"].clone();
    assert_eq!(sent, content);
}

/// A gateway that collects the stream sends all of it as one delta.
#[tokio::test]
async fn a_delta_that_is_larger_than_an_event_is_told_whole() {
    let text = "\u{1}\"é🦀".repeat(200_000);
    let outcome = Scene::new()
        .await
        .agent(json!({}), [Turn::says(&text)])
        .await
        .run()
        .await;
    let done = outcome.done();
    assert_eq!(done.get("lost_events"), None);
    assert!(
        outcome.text() == text,
        "{} of {} bytes",
        outcome.text().len(),
        text.len()
    );
}
