//! A Messages API that fails: refused in passing, cut, stalled or broken at any event of any turn. Each task has one
//! ending, the text is what the model said, no call is made twice, and none is lost.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use support::claude::Block;
use support::{Claude, Ending, Reply, Turn};

use crate::seed::{Seed, each_of};
use support::scene::{Outcome, Scene};

const SEEDS: u64 = 300;

/// How many runs go on side by side: they wait nearly all of the time.
const SIDE_BY_SIDE: usize = 10;

/// How often in a row one turn fails at most.
const MAX_FAULTS: u64 = 2;

/// How long the runner waits for an answer that does not go on, in seconds.
const STALL: &str = "1";

/// What happens to an attempt before the one that succeeds.
fn fault(chance: &mut Seed, turn: &Turn) -> Reply {
    const ENDINGS: [Ending; 6] = [
        Ending::Cut,
        Ending::NoStop,
        Ending::Malformed,
        Ending::Error("overloaded_error"),
        Ending::Error("api_error"),
        Ending::Pings,
    ];
    const STATUS: [u16; 6] = [408, 409, 429, 500, 503, 529];
    match chance.below(10) {
        0 => Reply::Cut,
        1 | 2 => Reply::error(*chance.pick(&STATUS)).header("retry-after-ms", &chance.below(50).to_string()),
        3 => Reply::Raw {
            status: 502,
            content_type: "text/html",
            body: "<h1>Bad gateway</h1>".into(),
        },
        _ => {
            let events = chance.below(turn.length() as u64) as usize;
            turn.clone().cut_after(events, chance.pick(&ENDINGS).clone()).into()
        }
    }
}

/// What the model says in a turn: a few words, and calls that leave a trace each time they are made.
fn say(chance: &mut Seed, number: usize, is_last: bool) -> (Turn, Vec<String>) {
    const WORDS: [&str; 5] = ["word ", "\n", "é€🦀", "\"quoted\" ", "\\"];
    let mut turn = Turn::new().usage(100, 20, 0, 0);
    if chance.percent(50) {
        turn = turn.block(Block::thinking(&["Hm. ", "Well."], "c2lnbmF0dXJl"));
    }
    let words: Vec<&str> = (0..1 + chance.below(5)).map(|_| *chance.pick(&WORDS)).collect();
    turn = turn.block(Block::text(&[&["Say: "], &words[..]].concat()));
    let calls = if is_last { 0 } else { 1 + chance.below(3) };
    let mut lines = Vec::new();
    for call in 0..calls {
        let line = format!("{number}.{call}");
        let input = json!({ "path": "trace", "content": format!("{line}\n"), "append": true });
        turn = turn.call(&format!("toolu_{number}_{call}"), "write_file", input);
        lines.push(line);
    }
    (turn, lines)
}

/// The text of each message, in their order.
fn messages(outcome: &Outcome) -> Vec<String> {
    let mut messages: Vec<(Value, String)> = Vec::new();
    for token in outcome.events_of("token") {
        let text = token["text"].as_str().unwrap();
        match messages.last_mut() {
            Some((id, said)) if *id == token["message_id"] => said.push_str(text),
            _ => messages.push((token["message_id"].clone(), text.to_owned())),
        }
    }
    messages.into_iter().map(|(_, text)| text).collect()
}

#[tokio::test]
async fn whatever_the_model_breaks_off_each_call_is_made_once_and_the_text_is_what_it_said() {
    each_of(SEEDS, SIDE_BY_SIDE, |seed| async move {
        let mut chance = seed.of("model");
        let count = 2 + chance.below(4) as usize;
        let mut replies: VecDeque<Reply> = VecDeque::new();
        let (mut said, mut trace) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (turn, lines) = say(&mut chance, number, number + 1 == count);
            let text: String = turn
                .blocks
                .iter()
                .filter_map(|block| block.whole["text"].as_str())
                .collect();
            let mut is_taken = false;
            for _ in 0..chance.below(MAX_FAULTS + 1) {
                let broken = fault(&mut chance, &turn);
                is_taken = matches!(&broken, Reply::Turn(turn) if turn.is_complete());
                replies.push_back(broken);
                if is_taken {
                    break;
                }
            }
            if !is_taken {
                replies.push_back(turn.into());
            }
            said.push(text);
            trace.extend(lines);
        }
        let asked = replies.len();
        let model = Claude::answering(move |_| {
            let reply = replies.pop_front();
            reply.unwrap_or_else(|| Reply::Wrong("one request too many".into()))
        });
        let task = json!({ "tools": ["write_file"], "max_turns": 10 });
        let scene = Scene::new().await.agent_with(task, model.await.unwrap());
        let scene = scene
            .env("MODEL_STALL_TIMEOUT", STALL)
            .env("CALLBACK_EXTRA_EVENTS", "1")
            .limit(Duration::from_secs(120));
        let outcome = scene.run().await;
        let done = outcome.done();
        assert_eq!(done["turns"], count);
        assert_eq!(outcome.model().requests().len(), asked);
        assert_eq!(done["result"], *said.last().unwrap());
        let written = std::fs::read_to_string(outcome.scene.workspace().join("trace")).unwrap();
        assert_eq!(
            written.lines().collect::<Vec<_>>(),
            trace,
            "each call is made once, in order"
        );
        // Of what broke off a beginning was shown; what was not taken back is what the model said.
        let resets: Vec<Value> = outcome
            .events_of("message_reset")
            .iter()
            .map(|reset| reset["message_id"].clone())
            .collect();
        let tokens = outcome.events_of("token");
        let mut kept = String::new();
        for token in tokens.iter().filter(|token| !resets.contains(&token["message_id"])) {
            kept.push_str(token["text"].as_str().unwrap());
        }
        assert_eq!(kept, said.concat());
        for message in messages(&outcome) {
            assert!(
                said.iter().any(|said| said.starts_with(&message)),
                "{message:?} was never said"
            );
        }
        let ends = outcome.events_of("tool_end");
        let made = ends.iter().filter(|end| end["tool_state"] == "success").count();
        assert_eq!(made, trace.len());
    })
    .await;
}
