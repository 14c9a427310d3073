//! What stands between the runner and the API server: an ingress that takes less than the server, gateways that
//! redirect, answers about a key that is known; and what the exit code says of what was lost.

use std::time::Duration;

use serde_json::{Value, json};
use support::totals::Total;
use support::{Answer, ApiServer, Assignment, Attempt, Turn};

use support::scene::{Outcome, Scene};
use support::standby::{Standby, workflow};

const TOKEN: &str = "callback-token-0123456789";

/// A text that grows when it is written as JSON.
fn odd(bytes: usize) -> String {
    "a\u{1b}[0m\"é€\\🦀\t".repeat(bytes / 20)
}

/// What came in parts, put together: the text of each whole, and how many came in parts.
fn joined(events: &[Value], member: &str) -> (Vec<String>, usize) {
    let (mut whole, mut in_parts, mut open) = (Vec::<String>::new(), 0, None);
    for event in events {
        let text = event[member].as_str().unwrap();
        let part = event.get("part").map(|part| {
            let number = |member: &str| part[member].as_u64().unwrap();
            (number("index"), number("count"))
        });
        match (part, open) {
            (Some((index, _)), Some(next)) => {
                assert_eq!(index, next, "{event}");
                whole.last_mut().unwrap().push_str(text);
            }
            (part, None) => {
                in_parts += usize::from(part.is_some());
                whole.push(text.to_owned());
            }
            (None, Some(_)) => panic!("a part is missing before {event}"),
        }
        open = part
            .filter(|(index, count)| index + 1 < *count)
            .map(|(index, _)| index + 1);
    }
    assert_eq!(open, None, "the last part is missing");
    (whole, in_parts)
}

/// An agent with a large text, large arguments and large results.
async fn large_agent(scene: Scene) -> (Outcome, String) {
    let text = odd(30_000);
    let turns = [
        Turn::says(&text)
            .call("w", "write_file", json!({ "path": "large", "content": odd(40_000) }))
            .call(
                "r",
                "shell",
                json!({ "command": "head -c 60000 /dev/zero | tr '\\0' '\"'" }),
            ),
        Turn::says("Done."),
    ];
    let scene = scene.env("CALLBACK_EXTRA_EVENTS", "1");
    let outcome = scene
        .agent(json!({ "tools": ["write_file", "shell"] }), turns)
        .await
        .run()
        .await;
    (outcome, text)
}

/// What the server has of it, whatever it takes.
fn assert_large_agent(outcome: &Outcome, text: &str, bound: usize) {
    assert_eq!(outcome.done().get("lost_events"), None);
    let (tokens, in_parts) = joined(&outcome.events_of("token"), "text");
    assert!(
        tokens.concat() == format!("{text}Done."),
        "{} bytes",
        tokens.concat().len()
    );
    assert!(in_parts > 0);
    let (output, _) = joined(&outcome.events_of("tool_output"), "text");
    assert_eq!(output.concat().matches('"').count(), 60_000);
    let starts = outcome.events_of("tool_start");
    let args = starts.iter().find(|start| start["args"]["path"] == "large").unwrap();
    assert!(args["args"]["_truncated"].as_str().unwrap().contains("bytes of JSON"));
    let ends = outcome.events_of("tool_end");
    let end = ends.iter().find(|end| end["tool_id"] == "r").unwrap();
    assert_eq!(
        (&end["truncated"], &end["tool_state"]),
        (&json!(true), &json!("success"))
    );
    assert!(end["output"].as_str().unwrap().contains("bytes are left out here"));
    for attempt in outcome.scene.api.attempts() {
        assert!(attempt.body.len() <= bound, "{}", attempt.body.len());
    }
}

#[tokio::test]
async fn ten_megabytes_of_output_arrive_whole_behind_an_ingress_that_takes_less_than_the_server() {
    let settings = ApiServer::with()
        .max_body(64 << 10)
        .answering(|_| Answer::Late(Duration::from_millis(20), Box::new(Answer::Ok)));
    let scene = Scene::with(settings).await.limit(Duration::from_secs(120));
    let line = format!("{}\u{1b}[0m", "x".repeat(90));
    let script = format!("yes '{line}' | head -n 110000");
    let outcome = scene.workflow(&json!([{ "run": script }])).run().await;
    let done = outcome.done();
    assert_eq!(done.get("lost_events"), None);
    let expected = Total::of(format!("{line}\n").repeat(110_000));
    assert!(expected.bytes > 10_000_000);
    assert_eq!(outcome.scene.api.task(7).log_total("stdout", Some(0)), expected);
    let refused = outcome.scene.api.too_large();
    assert!((1..10).contains(&refused.len()), "it is found out once: {refused:?}");
    // Lines that were merged are whole wherever they are cut.
    assert!(outcome.events_of("log").iter().all(|log| log.get("part").is_none()));
}

#[tokio::test]
async fn what_a_413_refuses_is_sent_again_in_parts_or_cut_and_nothing_is_lost() {
    let bound = 10_000;
    let scene = Scene::with(ApiServer::with().max_body(bound)).await;
    let (outcome, text) = large_agent(scene).await;
    assert_large_agent(&outcome, &text, bound);
    assert!(!outcome.scene.api.too_large().is_empty());
}

#[tokio::test]
async fn a_server_that_is_said_to_take_little_never_gets_more() {
    let bound = 4096;
    let scene = Scene::with(ApiServer::with().max_body(bound)).await;
    let (outcome, text) = large_agent(scene.env("CALLBACK_MAX_BODY", "4Ki")).await;
    assert_large_agent(&outcome, &text, bound);
    assert_eq!(outcome.scene.api.too_large(), [0; 0]);
    // Lines, in parts of their own.
    let line = odd(30_000);
    let scene = Scene::with(ApiServer::with().max_body(bound)).await;
    let scene = scene.file("long", format!("{line}\nshort\n{line}\n"));
    let scene = scene.env("CALLBACK_MAX_BODY", "4096");
    let outcome = scene.workflow(&json!([{ "run": "cat long" }])).run().await;
    outcome.done();
    let expected = Total::of(format!("{line}\nshort\n{line}\n"));
    assert_eq!(outcome.scene.api.task(7).log_total("stdout", Some(0)), expected);
    let (_, in_parts) = joined(&outcome.events_of("log"), "message");
    assert!(in_parts > 0);
    assert_eq!(outcome.scene.api.too_large(), [0; 0]);
}

#[tokio::test]
async fn a_bound_that_changes_in_the_middle_of_a_text_costs_nothing_of_it() {
    let text = odd(200_000);
    let settings = ApiServer::with()
        .max_body(64 << 10)
        .answering(|_| Answer::Late(Duration::from_millis(200), Box::new(Answer::Ok)));
    let scene = Scene::with(settings).await;
    let scene = scene.agent(json!({}), [Turn::says(&text)]).await;
    let running = scene.start();
    // Its first parts have come.
    scene.api.wait_for(|event| event["part"]["index"] == 1).await;
    scene.api.take_at_most(5_000);
    let outcome = scene.finish(running).await;
    assert_eq!(outcome.done().get("lost_events"), None);
    let (tokens, _) = joined(&outcome.events_of("token"), "text");
    assert!(tokens.concat() == text);
    let refused = outcome.scene.api.too_large();
    assert!(refused.iter().any(|size| *size <= 64 << 10), "{refused:?}");
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_sent_in_smaller_ones() {
    for (bound, said) in [(20_000, "1Mi"), (4_096, "4Ki")] {
        let settings = ApiServer::with()
            .batches()
            .max_body(bound)
            .answering(|_| Answer::Late(Duration::from_millis(50), Box::new(Answer::Ok)));
        let scene = Scene::with(settings).await.env("CALLBACK_BATCH", "ndjson");
        let run = |step: usize| json!({ "run": format!("head -c 1500 /dev/zero | tr '\\0' {}; echo", step % 10) });
        let steps: Vec<Value> = (0..40).map(run).collect();
        let scene = scene.workflow(&json!(steps)).env("CALLBACK_MAX_BODY", said);
        let outcome = scene.run().await;
        assert_eq!(outcome.done().get("lost_events"), None);
        assert_eq!(outcome.events().len(), 3 * 40 + 1);
        let api = &outcome.scene.api;
        assert!(api.attempts().iter().any(|attempt| attempt.event.is_array()));
        assert!(api.attempts().iter().all(|attempt| attempt.body.len() <= bound));
        if said == "4Ki" {
            assert_eq!(api.too_large(), [0; 0]);
        }
    }
}

#[tokio::test]
async fn an_event_that_is_refused_as_too_large_and_is_not_is_lost_and_said() {
    let settings = ApiServer::with().answering(|attempt| match attempt.event["type"].as_str() {
        Some("log") => Answer::Status(413),
        _ => Answer::Ok,
    });
    let scene = Scene::with(settings).await;
    let outcome = scene.workflow(&json!([{ "run": "echo hello" }])).run().await;
    assert_eq!(outcome.done_with_losses()["lost_events"], 1);
    assert!(
        outcome.finished.stdout.contains("as small as can be"),
        "{}",
        outcome.finished.stdout
    );
}

#[tokio::test]
async fn a_conflict_and_too_early_are_tried_again_where_the_key_was_sent_before() {
    for between in [409, 425] {
        let answer = move |attempt: &Attempt| match attempt.number {
            1 => Answer::Status(503),
            2 | 3 => Answer::Status(between),
            _ => Answer::Ok,
        };
        let scene = Scene::with(ApiServer::with().answering(answer)).await;
        let outcome = scene.workflow(&json!([{ "run": "echo hello" }])).run().await;
        assert_eq!(outcome.done().get("lost_events"), None, "{between}");
        assert_eq!(outcome.scene.api.attempts().len(), 4 * outcome.events().len());
    }
}

#[tokio::test]
async fn a_conflict_that_stays_says_that_the_server_has_the_event() {
    let lost = |attempt: &Attempt| match attempt.event["type"].as_str() {
        Some("log" | "done") => Answer::LostAck,
        _ => Answer::Ok,
    };
    let scene = Scene::with(ApiServer::with().conflicts().answering(lost)).await;
    let scene = scene.env("CALLBACK_RETRY_BASE_MS", "1");
    let outcome = scene.workflow(&json!([{ "run": "echo hello" }])).run().await;
    assert_eq!(outcome.done().get("lost_events"), None);
    assert_eq!(outcome.lines("stdout", 0), ["hello"]);
}

#[tokio::test]
async fn a_conflict_about_a_key_that_was_not_sent_before_is_a_refusal() {
    let answer = |attempt: &Attempt| match attempt.event["type"].as_str() {
        Some("log") => Answer::Status(409),
        _ => Answer::Ok,
    };
    let scene = Scene::with(ApiServer::with().answering(answer)).await;
    let outcome = scene.workflow(&json!([{ "run": "echo hello" }])).run().await;
    assert_eq!(outcome.done_with_losses()["lost_events"], 1);
    let attempts = outcome.scene.api.attempts();
    assert_eq!(
        attempts.iter().filter(|attempt| attempt.event["type"] == "log").count(),
        1
    );
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_as_it_is() {
    for status in [301, 302, 307, 308] {
        let settings =
            ApiServer::with()
                .token(TOKEN)
                .answering(move |attempt| match attempt.path.ends_with("?moved") {
                    true => Answer::Ok,
                    false => Answer::Redirect(status, "/internal/tasks/7/stream?moved".into()),
                });
        let scene = Scene::with(settings).await.env("CALLBACK_TOKEN", TOKEN);
        let outcome = scene.workflow(&json!([{ "run": "echo hello" }])).run().await;
        assert_eq!(outcome.done().get("lost_events"), None, "{status}");
        // The double holds bytes, keys and the token of the two against each other.
        assert_eq!(
            outcome.scene.api.attempts().len(),
            2 * outcome.events().len(),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_refused_and_said_and_gets_nothing() {
    for status in [302, 303, 307, 308] {
        let elsewhere = ApiServer::with().start().await.unwrap();
        let location = elsewhere.url();
        let to = location.clone();
        let settings = ApiServer::with()
            .token(TOKEN)
            .answering(move |_| Answer::Redirect(status, to.clone()));
        let scene = Scene::with(settings).await.env("CALLBACK_TOKEN", TOKEN);
        let outcome = scene.workflow(&json!([{ "run": "echo hello" }])).run().await;
        assert_eq!(outcome.finished.code, 3, "{status}");
        assert!(
            outcome.finished.stdout.contains(&location),
            "{}",
            outcome.finished.stdout
        );
        assert!(!outcome.finished.stdout.contains(TOKEN));
        assert!(
            elsewhere.attempts().is_empty() && elsewhere.violations().is_empty(),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_standby_runner_follows_a_redirect_when_it_registers_and_beats_and_none_to_another_origin() {
    let mut asked = 0;
    let settings = ApiServer::with().token(TOKEN).answering_registrations(move |_| {
        asked += 1;
        match asked % 2 {
            1 => Answer::Redirect(308, "/internal/runners/register?moved".into()),
            _ => Answer::Ok,
        }
    });
    let mut beats = 0;
    let settings = settings.answering_heartbeats(move |beat| {
        beats += 1;
        match beats % 2 {
            1 => Answer::Redirect(307, format!("/internal/runners/{}/heartbeat?moved", beat.runner_id)),
            _ => Answer::Ok,
        }
    });
    let scene = Standby::with(settings).await.tasks(1).env("CALLBACK_TOKEN", TOKEN);
    let scene = scene.workflow(1, &json!([{ "run": "sleep 2.5" }]));
    let ended = scene.run().await;
    ended.done(1);
    assert_eq!(ended.finished.code, 0);
    assert!(ended.scene.api.heartbeats().len() >= 2);
    // The same name all along: nothing was left open.
    let names: Vec<String> = ended
        .scene
        .api
        .registrations()
        .iter()
        .map(|one| one.body["pod_name"].to_string())
        .collect();
    assert!(
        names.len() >= 2 && names.iter().all(|name| name == "\"pod-1\""),
        "{names:?}"
    );

    let elsewhere = ApiServer::with().start().await.unwrap();
    let to = elsewhere.register_url();
    let settings = ApiServer::with()
        .token(TOKEN)
        .answering_registrations(move |_| Answer::Redirect(307, to.clone()));
    let scene = Standby::with(settings).await.env("CALLBACK_TOKEN", TOKEN);
    let running = scene.start();
    scene
        .api
        .wait_until("two registrations", |api| api.registrations().len() > 1)
        .await;
    running.signal(rustix::process::Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    let said = &ended.finished.stdout;
    assert!(said.contains(&elsewhere.register_url()), "{said}");
    assert!(elsewhere.registrations().is_empty() && elsewhere.violations().is_empty());
}

#[tokio::test]
async fn a_lost_event_is_told_by_the_exit_code_however_the_task_ended() {
    for (script, kind) in [("true", "done"), ("false", "error")] {
        let settings = ApiServer::with().answering(|attempt| match attempt.event["type"].as_str() {
            Some("step_start") => Answer::Status(400),
            _ => Answer::Ok,
        });
        let outcome = Scene::with(settings)
            .await
            .workflow(&json!([{ "run": script }]))
            .run()
            .await;
        assert_eq!(outcome.finished.code, 3, "{}", outcome.finished.stdout);
        let ending = outcome.scene.api.terminal().unwrap();
        assert_eq!((&ending["type"], &ending["lost_events"]), (&json!(kind), &json!(1)));
    }
}

#[tokio::test]
async fn a_standby_runner_that_lost_an_event_says_so_at_its_end_and_keeps_its_name() {
    let settings = ApiServer::with().answering(|attempt| {
        match (attempt.event["task_id"].as_i64(), attempt.event["type"].as_str()) {
            (Some(1), Some("step_start")) => Answer::Status(400),
            _ => Answer::Ok,
        }
    });
    let scene = Standby::with(settings).await.tasks(2);
    for id in [1, 2] {
        scene
            .api
            .assign(Assignment::new(id, workflow(&json!([{ "run": "true" }]))));
    }
    let ended = scene.run().await;
    assert_eq!(ended.done(1)["lost_events"], 1);
    ended.done(2);
    assert_eq!(ended.finished.code, 3, "{}", ended.finished.stdout);
    let registrations = ended.scene.api.registrations();
    assert!(registrations.iter().all(|one| one.body["pod_name"] == "pod-1"));
}

#[tokio::test]
async fn a_task_that_says_nothing_is_said_to_be_alive_when_that_is_asked_for_and_only_then() {
    let quiet = async |extra: &str| {
        let scene = Scene::new().await.env("CALLBACK_EXTRA_EVENTS", extra);
        let outcome = scene.workflow(&json!([{ "run": "sleep 17" }])).run().await;
        outcome.done();
        outcome.events_of("alive").len()
    };
    let (asked, unasked) = tokio::join!(quiet("1"), quiet("0"));
    assert_eq!((asked, unasked), (1, 0));
}
