//! A callback that fails: requests that are refused in passing, cut, stalled, half answered, or taken without a word.

use std::time::Duration;

use serde_json::json;
use support::claude::KEY;
use support::{Answer, ApiServer, Attempt, Turn};

use crate::seed::{Seed, each_seed};
use support::scene::{Outcome, Scene};

/// As often as an event that is not critical is retried: nothing is lost that is tried once more.
const MAX_FAULTS: u32 = 5;

/// How long the runner waits for an answer. A busy machine has to have given it by then: what was taken and is sent
/// again all the same breaks a rule.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Fails so many attempts in a hundred, each as the seed says, and no event more often than it is retried.
fn faulty(seed: Seed, percent: u64, kinds: &'static [&'static str]) -> impl FnMut(&Attempt) -> Answer + Send {
    move |attempt| {
        let mut chance = seed.of(&format!("{} {}", attempt.key, attempt.number));
        if attempt.number > MAX_FAULTS || !chance.percent(percent) {
            return Answer::Ok;
        }
        match *chance.pick(kinds) {
            "500" => Answer::Status(500),
            "503" => Answer::Status(503),
            "429" => Answer::RetryAfterMs(429, chance.below(30)),
            "reset" => Answer::Cut,
            "stall" => Answer::Stall(TIMEOUT + Duration::from_millis(500)),
            "half taken" => Answer::Half(200),
            "half failed" => Answer::Half(502),
            _ => Answer::LostAck,
        }
    }
}

/// Words with what is hard to pass on: other scripts, quotes, control characters, and a secret that comes in two
/// pieces.
fn pieces(seed: &mut Seed, count: u64) -> Vec<String> {
    const WORDS: [&str; 9] = [
        "word ",
        "\n",
        "é€🦀",
        "\"quoted\" ",
        "\\",
        "\u{1b}[0m",
        "null",
        " ",
        "{}",
    ];
    let mut pieces: Vec<String> = (0..count).map(|_| (*seed.pick(&WORDS)).to_owned()).collect();
    let (first, second) = KEY.split_at(9);
    let at = seed.below(count) as usize;
    pieces.splice(at..at, [first.to_owned(), second.to_owned()]);
    pieces
}

/// An agent's task with calls, or a workflow's with lines: whole at the server, in order, with one ending.
async fn hold(seed: Seed, settings: support::api_server::Settings) -> Outcome {
    let mut chance = seed.of("task");
    let scene = Scene::with(settings)
        .await
        .env("CALLBACK_TIMEOUT", &TIMEOUT.as_secs().to_string());
    if chance.percent(50) {
        let count = 20 + chance.below(200);
        let (first, second) = (pieces(&mut chance, count), pieces(&mut chance, 10));
        let expected = (first.concat() + &second.concat()).replace(KEY, "***");
        let text = |pieces: &[String]| Turn::text(pieces);
        let turns = [
            text(&first).call("t1", "shell", json!({ "command": "seq 1 100" })),
            text(&second).call("t2", "read_file", json!({ "path": "missing" })),
            Turn::says("Done."),
        ];
        let outcome = scene
            .agent(json!({ "tools": ["shell", "read_file"] }), turns)
            .await
            .run()
            .await;
        outcome.done();
        assert_eq!(outcome.text(), expected + "Done.");
        let ends = outcome.events_of("tool_end");
        let states: Vec<_> = ends.iter().map(|end| end["tool_state"].as_str().unwrap()).collect();
        assert_eq!(states, ["success", "error"]);
        return outcome;
    }
    let lines = 100 + chance.below(5000);
    let fails = chance.percent(30);
    let last = if fails { "exit 7" } else { "true" };
    let steps = json!([{ "run": format!("seq 1 {lines}") }, { "run": "echo to stderr >&2; sleep 0.05; echo \
        again" }, { "run": last }]);
    let outcome = scene.workflow(&steps).run().await;
    if fails {
        outcome.failed("step_failed");
    } else {
        outcome.done();
    }
    let expected: Vec<String> = (1..=lines).map(|line| line.to_string()).collect();
    assert_eq!(outcome.lines("stdout", 0), expected);
    assert_eq!(
        (outcome.lines("stderr", 1), outcome.lines("stdout", 1)),
        (vec!["to stderr".into()], vec!["again".into()])
    );
    assert_eq!(outcome.events_of("step_end").len(), 3);
    outcome
}

#[tokio::test]
async fn when_three_requests_in_ten_fail_nothing_is_lost() {
    const KINDS: &[&str] = &[
        "500",
        "503",
        "429",
        "reset",
        "stall",
        "half taken",
        "half failed",
        "lost",
    ];
    each_seed(|seed| async move {
        let outcome = hold(seed, ApiServer::with().answering(faulty(seed, 30, KINDS))).await;
        assert!(outcome.scene.api.terminal().unwrap().get("lost_events").is_none());
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_that_is_lost_repeats_the_event_and_changes_nothing() {
    each_seed(|seed| async move {
        let outcome = hold(seed, ApiServer::with().answering(faulty(seed, 50, &["lost"]))).await;
        // What the runner sent again came again, under its key and with its bytes: the double sees to that.
        let repeated = outcome
            .scene
            .api
            .attempts()
            .iter()
            .filter(|attempt| attempt.number > 1)
            .count();
        assert!(repeated > 0);
    })
    .await;
}

#[tokio::test]
async fn batches_arrive_whole_and_in_order_too() {
    each_seed(|seed| async move {
        const KINDS: &[&str] = &["500", "429", "reset", "half failed", "lost"];
        let settings = ApiServer::with().batches().answering(faulty(seed, 30, KINDS));
        let scene = Scene::with(settings).await.env("CALLBACK_BATCH", "ndjson");
        let outcome = scene
            .workflow(&json!([{ "run": "seq 1 3000" }, { "run": "true" }, { "run": "echo end" }]))
            .run()
            .await;
        outcome.done();
        let expected: Vec<String> = (1..=3000).map(|line| line.to_string()).collect();
        assert_eq!(outcome.lines("stdout", 0), expected);
    })
    .await;
}
