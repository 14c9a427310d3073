//! A runner with `STATE_DIR` that is killed (`kill -9`) while it has a task, and started again with the same
//! environment: it goes on where the other one was. The server gets every event once, numbered without a gap, and one
//! ending; the model gets the history that it knows; and no call is made twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::api_server::Settings;
use support::claude::{Ending, Request};
use support::runner_process::Running;
use support::{Answer, ApiServer, Claude, Reply, Turn};

use support::scene::{Outcome, Scene};

fn server() -> Settings {
    ApiServer::with().restarts()
}

/// A scene in which a task is kept.
async fn kept(settings: Settings) -> Scene {
    keeping(Scene::with(settings).await)
}

fn keeping(scene: Scene) -> Scene {
    let folder = scene.outside().join("state");
    scene.env("STATE_DIR", &folder.to_string_lossy())
}

/// What is kept of the task.
fn files(scene: &Scene) -> Vec<PathBuf> {
    let entries = fs::read_dir(scene.outside().join("state"))
        .into_iter()
        .flatten()
        .flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn file(scene: &Scene, kind: &str) -> PathBuf {
    let has = |path: &PathBuf| path.extension().is_some_and(|extension| extension == kind);
    files(scene).into_iter().find(has).unwrap()
}

async fn kill(running: Running) {
    running.signal(Signal::KILL).unwrap();
    assert_eq!(running.finish().await.unwrap().code, -9);
}

/// How many turns of the model a request has in it.
fn turns(request: &Request) -> usize {
    request
        .messages()
        .iter()
        .filter(|message| message["role"] == "assistant")
        .count()
}

/// A model that answers by how far the conversation has come, however often it is asked.
async fn model(answer: impl Fn(usize, &Request) -> Turn + Send + 'static) -> Claude {
    Claude::answering(move |request| Reply::from(answer(turns(request), request)))
        .await
        .unwrap()
}

fn shell(command: &str) -> Value {
    json!({ "command": command })
}

fn with_shell() -> Value {
    json!({ "tools": ["shell"] })
}

/// Waits for an event that comes, or has come.
async fn told(scene: &Scene, is_it: impl Fn(&Value) -> bool) {
    scene
        .api
        .wait_until("an event", |api| api.events().iter().any(&is_it))
        .await;
}

/// Runs what was killed to its end; what must hold of every such task does.
async fn goes_on(scene: Scene) -> Outcome {
    let running = scene.start();
    let outcome = scene.finish(running).await;
    assert_eq!(
        outcome.scene.api.final_violations(),
        Vec::<String>::new(),
        "{}",
        outcome.finished.stdout
    );
    assert!(says_so(&outcome), "{:#?}", outcome.events_of("log"));
    assert!(
        files(&outcome.scene).is_empty(),
        "nothing is left: {:?}",
        files(&outcome.scene)
    );
    outcome
}

fn says_so(outcome: &Outcome) -> bool {
    let logs = outcome.events_of("log");
    logs.iter()
        .any(|log| log["message"].as_str().unwrap().contains("the runner was restarted"))
}

fn end_of<'e>(ends: &'e [Value], id: &str) -> &'e Value {
    ends.iter().find(|end| end["tool_id"] == id).unwrap()
}

#[tokio::test]
async fn a_call_that_was_being_made_is_closed_with_an_error_and_those_beside_it_are_made_once() {
    let claude = model(|turns, _| match turns {
        0 => Turn::says("I look. ")
            .call("t1", "shell", shell("echo one >> made; echo first result"))
            .call("t2", "shell", shell("echo two >> made; test -e released || sleep 300"))
            .call("t3", "shell", shell("echo three >> made")),
        _ => Turn::says("Done."),
    })
    .await;
    let scene = kept(server()).await.agent_with(with_shell(), claude);
    let running = scene.start();
    told(&scene, |event| {
        event["type"] == "tool_start" && event["tool_id"] == "t2" && event["args"] != json!(null)
    })
    .await;
    let made = scene.workspace().join("made");
    while !fs::read_to_string(&made).is_ok_and(|made| made.contains("two")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(running).await;
    let modes = files(&scene)
        .into_iter()
        .map(|file| file.metadata().unwrap().permissions().mode() & 0o777);
    assert!(modes.into_iter().all(|mode| mode == 0o600));
    let outcome = goes_on(scene).await;
    let done = outcome.done();
    assert_eq!(
        (done["result"].as_str(), done["turns"].as_u64()),
        (Some("Done."), Some(2))
    );
    assert_eq!(outcome.text(), "I look. Done.");
    assert_eq!(fs::read_to_string(made).unwrap(), "one\ntwo\nthree\n");
    let ends = outcome.events_of("tool_end");
    assert_eq!(ends.len(), 3, "{ends:#?}");
    assert_eq!(end_of(&ends, "t1")["tool_state"], "success");
    assert_eq!(end_of(&ends, "t2")["tool_state"], "error");
    assert!(
        end_of(&ends, "t2")["output"]
            .as_str()
            .unwrap()
            .contains("it may have been made in part")
    );
    assert_eq!(end_of(&ends, "t3")["tool_state"], "success");
    // The model reads the same, and was asked for its first turn once.
    let requests = outcome.model().requests();
    assert_eq!(requests.len(), 2);
    let results = requests[1].results();
    assert!(
        results[0].text.contains("first result") && !results[0].is_error,
        "{results:?}"
    );
    assert!(
        results[1].text.contains("it may have been made in part") && results[1].is_error,
        "{results:?}"
    );
    assert!(!results[2].is_error, "{results:?}");
    // All of it is paid, also what the other process has asked for.
    assert_eq!(done["usage"]["output_tokens"], 40);
}

#[tokio::test]
async fn an_answer_that_broke_off_is_asked_for_again_and_what_it_had_opened_is_closed() {
    let first = Arc::new(AtomicBool::new(true));
    let claude = model(move |turns, _| match turns {
        0 if first.swap(false, Ordering::Relaxed) => {
            let turn = Turn::says("I loo").call("t1", "shell", shell("echo never >> made"));
            let whole = turn.length();
            turn.cut_after(whole - 3, Ending::Stall)
        }
        0 => Turn::says("I look. ").call("t1", "shell", shell("echo once >> made")),
        _ => Turn::says("Done."),
    })
    .await;
    let scene = kept(server())
        .await
        .agent_with(with_shell(), claude)
        .env("CALLBACK_EXTRA_EVENTS", "1");
    let running = scene.start();
    told(&scene, |event| event["type"] == "tool_start").await;
    kill(running).await;
    let outcome = goes_on(scene).await;
    assert_eq!(outcome.done()["result"], "Done.");
    assert_eq!(outcome.text(), "I looI look. Done.");
    let tokens = outcome.events_of("token");
    let resets = outcome.events_of("message_reset");
    assert_eq!(resets.len(), 1, "{resets:?}");
    assert_eq!(resets[0]["message_id"], tokens[0]["message_id"]);
    let replaced = tokens
        .iter()
        .find(|token| token["message_id"] != tokens[0]["message_id"])
        .unwrap();
    assert_eq!(resets[0]["replaced_by"], replaced["message_id"]);
    // The id of a call that was opened before stands for that one.
    let ends = outcome.events_of("tool_end");
    assert_eq!(
        (end_of(&ends, "t1")["tool_state"].clone(), ends.len()),
        (json!("error"), 2)
    );
    assert_eq!(end_of(&ends, "t1_2")["tool_state"], "success");
    assert_eq!(
        fs::read_to_string(outcome.scene.workspace().join("made")).unwrap(),
        "once\n"
    );
}

#[tokio::test]
async fn a_task_that_was_between_two_turns_goes_on_with_the_next() {
    let waits = Arc::new(AtomicBool::new(true));
    let claude = model(move |turns, _| match turns {
        0 => Turn::says("One. ").call("t1", "shell", shell("echo 1 >> made")),
        1 => Turn::says("Two. ").call("t2", "shell", shell("echo 2 >> made")),
        _ if waits.swap(false, Ordering::Relaxed) => Turn::says("x").cut_after(1, Ending::Stall),
        _ => Turn::says("Done."),
    })
    .await;
    let scene = kept(server()).await.agent_with(with_shell(), claude);
    let running = scene.start();
    while scene.model.as_ref().unwrap().requests().len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(running).await;
    let outcome = goes_on(scene).await;
    assert_eq!(outcome.done()["turns"], 3);
    assert_eq!(outcome.text(), "One. Two. Done.");
    let requests = outcome.model().requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[2].body, requests[3].body, "the same is asked again");
    assert_eq!(
        fs::read_to_string(outcome.scene.workspace().join("made")).unwrap(),
        "1\n2\n"
    );
}

#[tokio::test]
async fn what_the_server_had_not_taken_is_sent_under_its_number() {
    let away = Arc::new(AtomicBool::new(false));
    let is_away = Arc::clone(&away);
    let settings = server().answering(move |_| match is_away.load(Ordering::Relaxed) {
        true => Answer::Stall(Duration::from_secs(60)),
        false => Answer::Ok,
    });
    let scene = kept(settings).await;
    let script = "for i in $(seq 1 2000); do echo line $i; done; sleep 300";
    let scene = scene.workflow(&json!([{ "run": "echo before" }, { "run": script }]));
    away.store(true, Ordering::Relaxed);
    let running = scene.start();
    let is_kept = |scene: &Scene| {
        let contents = files(scene).into_iter().filter_map(|file| fs::read(file).ok());
        let text = b"line 2000";
        contents
            .into_iter()
            .any(|content| content.windows(text.len()).any(|window| window == text))
    };
    while !is_kept(&scene) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kill(running).await;
    away.store(false, Ordering::Relaxed);
    let outcome = goes_on(scene).await;
    let error = outcome.failed("step_failed");
    assert!(error.get("lost_events").is_none(), "{error}");
    assert_eq!(outcome.lines("stdout", 0), ["before"]);
    let expected: Vec<String> = (1..=2000).map(|number| format!("line {number}")).collect();
    assert_eq!(outcome.lines("stdout", 1), expected);
}

#[tokio::test]
async fn a_workflow_goes_on_after_its_last_finished_step_and_ends_with_one_that_was_killed() {
    let scene = kept(server()).await.workflow(&json!([
        { "type": "env", "env": { "WHO": "me" } },
        { "run": "echo $WHO >> made" },
        { "run": "echo half >> made; sleep 300" },
        { "run": "echo never >> made" },
    ]));
    let running = scene.start();
    let made = scene.workspace().join("made");
    while !fs::read_to_string(&made).is_ok_and(|made| made.contains("half")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(running).await;
    let outcome = goes_on(scene).await;
    let error = outcome.failed("step_failed");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("step 2") && message.contains("killed in the middle of the step"),
        "{error}"
    );
    assert!(message.contains("another TASK_ID"), "{error}");
    let ends = outcome.events_of("step_end");
    let states: Vec<&str> = ends.iter().map(|end| end["step_state"].as_str().unwrap()).collect();
    assert_eq!(states, ["success", "success", "error"]);
    assert_eq!(fs::read_to_string(made).unwrap(), "me\nhalf\n");
}

#[tokio::test]
async fn an_ending_that_was_on_its_way_is_told_again_and_nothing_is_run() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let settings = server().answering(move |attempt| match attempt.event["type"] == "error" {
        true if is_away.load(Ordering::Relaxed) => Answer::Stall(Duration::from_secs(60)),
        _ => Answer::Ok,
    });
    let scene = kept(settings)
        .await
        .workflow(&json!([{ "run": "echo x >> made; exit 3" }]));
    let running = scene.start();
    scene
        .api
        .wait_until("the ending", |api| {
            api.attempts().iter().any(|attempt| attempt.event["type"] == "error")
        })
        .await;
    kill(running).await;
    away.store(false, Ordering::Relaxed);
    let running = scene.start();
    let outcome = scene.finish(running).await;
    outcome.failed("step_failed");
    let attempts = outcome.scene.api.attempts();
    let endings: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.event["type"] == "error")
        .collect();
    assert_eq!(endings.len(), 2);
    assert_eq!((&endings[0].key, &endings[0].body), (&endings[1].key, &endings[1].body));
    assert_eq!(
        fs::read_to_string(outcome.scene.workspace().join("made")).unwrap(),
        "x\n"
    );
    assert!(files(&outcome.scene).is_empty());
}

#[tokio::test]
async fn a_restart_gives_a_task_no_more_time() {
    let claude = model(|turns, _| match turns {
        0 => Turn::says("I wait. ").call("t1", "shell", shell("touch begun; sleep 300")),
        _ => Turn::says("Done."),
    })
    .await;
    let fields = json!({ "tools": ["shell"], "timeout_seconds": 4 });
    let scene = kept(server()).await.agent_with(fields, claude);
    let running = scene.start();
    while !scene.workspace().join("begun").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(running).await;
    tokio::time::sleep(Duration::from_millis(4_200)).await;
    let running = scene.start();
    let outcome = scene.finish(running).await;
    let error = outcome.failed("timeout");
    assert!(error["duration_ms"].as_u64().unwrap() >= 4_000, "{error}");
}

#[tokio::test]
async fn another_document_under_the_same_id_begins_anew_and_says_so() {
    let scene = kept(server())
        .await
        .workflow(&json!([{ "run": "touch begun; sleep 300" }]));
    let running = scene.start();
    while !scene.workspace().join("begun").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(running).await;
    let scene = scene.workflow(&json!([{ "run": "echo other" }]));
    let running = scene.start();
    let (finished, api) = scene.finish_unchecked(running).await;
    assert_eq!(finished.code, 0, "{}", finished.stdout);
    assert!(
        finished.stdout.contains("another document before"),
        "{}",
        finished.stdout
    );
    let bodies: Vec<String> = api.attempts().iter().map(|attempt| attempt.event.to_string()).collect();
    assert!(bodies.iter().any(|body| body.contains("begins anew")), "{bodies:#?}");
}

#[tokio::test]
async fn what_is_torn_is_used_as_far_as_it_is_whole_and_what_is_damaged_is_not() {
    for damaged in [false, true] {
        let claude = model(|turns, _| match turns {
            0 => Turn::says("One. ").call("t1", "shell", shell("echo 1 >> made")),
            1 => Turn::says("Two. ").call("t2", "shell", shell("touch begun; test -e go || sleep 300")),
            _ => Turn::says("Done."),
        })
        .await;
        let scene = kept(server()).await.agent_with(with_shell(), claude);
        let running = scene.start();
        while !scene.workspace().join("begun").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        kill(running).await;
        fs::write(scene.workspace().join("go"), "").unwrap();
        let journal = file(&scene, "journal");
        let mut bytes = fs::read(&journal).unwrap();
        if damaged {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
        } else {
            // As if the machine had died while the call was noted.
            bytes.truncate(bytes.len() - 3);
        }
        fs::write(&journal, bytes).unwrap();
        let made = scene.workspace().join("made");
        if damaged {
            scene.model.as_ref().unwrap().begin_anew();
            let running = scene.start();
            let (finished, _) = scene.finish_unchecked(running).await;
            assert_eq!(finished.code, 0, "{}", finished.stdout);
            assert!(finished.stdout.contains("it is damaged at byte"), "{}", finished.stdout);
        } else {
            // The call is not known to have begun: it is made.
            let running = scene.start();
            let (finished, api) = scene.finish_unchecked(running).await;
            assert_eq!(finished.code, 0, "{}", finished.stdout);
            assert_eq!(api.terminal().unwrap()["turns"], 3);
            assert_eq!(fs::read_to_string(made).unwrap_or_default(), "");
        }
    }
}

#[tokio::test]
async fn a_folder_that_others_may_write_to_is_refused_and_so_is_one_in_the_workspace() {
    let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
    let open = scene.outside().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let outcome = scene.env("STATE_DIR", &open.to_string_lossy()).run().await;
    let error = outcome.refused("internal");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("STATE_DIR: others can write to the folder"),
        "{error}"
    );
    let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
    let inside = scene.workspace().join("state");
    let outcome = scene.env("STATE_DIR", &inside.to_string_lossy()).run().await;
    let error = outcome.refused("internal");
    assert!(
        error["message"].as_str().unwrap().contains("is in WORKSPACE"),
        "{error}"
    );
}

#[tokio::test]
async fn commands_do_not_see_what_is_kept() {
    let scene = kept(server()).await;
    let folder = scene.outside().join("state");
    let outer = scene.outside().to_string_lossy().into_owned();
    // What is beside it is seen.
    let seen = |folder: &str, what: &str| format!("ls {folder} 2>&1 | grep -c {what} || true");
    let script = format!(
        "{}; {}",
        seen(&outer, "workspace"),
        seen(&folder.to_string_lossy(), "plue-runner-task")
    );
    let outcome = scene
        .env("COMMAND_READ_PATHS", &outer)
        .workflow(&json!([{ "run": script }]))
        .run()
        .await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["1", "0"]);
}

#[tokio::test]
async fn a_task_that_another_runner_has_is_not_run_twice() {
    let scene = kept(server())
        .await
        .workflow(&json!([{ "run": "echo x >> made; touch begun; while ! test -e go; do sleep 0.05; done" }]));
    let first = scene.start();
    while !scene.workspace().join("begun").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let second = scene.start().finish().await.unwrap();
    assert_eq!(second.code, 2, "{}", second.stdout);
    assert!(
        second.stdout.contains("another runner has this task now"),
        "{}",
        second.stdout
    );
    fs::write(scene.workspace().join("go"), "").unwrap();
    let outcome = scene.finish(first).await;
    outcome.done();
    assert_eq!(
        fs::read_to_string(outcome.scene.workspace().join("made")).unwrap(),
        "x\n"
    );
}

/// A number that looks like chance and is the same for each seed.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[tokio::test]
async fn an_agent_that_is_killed_at_any_times_makes_each_call_at_most_once_and_has_one_ending() {
    for seed in 0..8 {
        let claude = model(|turns, _| {
            let command = |number: usize| shell(&format!("echo {number} >> made; sleep 0.05"));
            let pace = Duration::from_millis(5);
            match turns {
                turn @ 0..4 => Turn::says(&format!("Turn {turn} has a text of some words. "))
                    .call(&format!("a{turn}"), "shell", command(2 * turn))
                    .call(&format!("b{turn}"), "shell", command(2 * turn + 1))
                    .pace(pace),
                _ => Turn::says("Done.").pace(pace),
            }
        })
        .await;
        let scene = kept(server()).await.agent_with(with_shell(), claude);
        for kills in 0..3 {
            let running = scene.start();
            tokio::time::sleep(Duration::from_millis(mixed(seed * 3 + kills) % 900)).await;
            let _ = running.signal(Signal::KILL);
            let finished = running.finish().await.unwrap();
            assert!([0, -9].contains(&finished.code), "{}", finished.stdout);
            if finished.code == 0 {
                break;
            }
        }
        // One that had ended by then would begin once more.
        if scene.api.terminal().is_some() && files(&scene).is_empty() {
            continue;
        }
        let running = scene.start();
        let outcome = scene.finish(running).await;
        assert_eq!(
            outcome.scene.api.final_violations(),
            Vec::<String>::new(),
            "seed {seed}"
        );
        let done = outcome.done();
        assert_eq!(
            (&done["result"], &done["turns"], done.get("lost_events")),
            (&json!("Done."), &json!(5), None),
            "seed {seed}"
        );
        let made = fs::read_to_string(outcome.scene.workspace().join("made")).unwrap_or_default();
        let mut lines: Vec<&str> = made.lines().collect();
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), count, "seed {seed}: a call was made twice: {made}");
        let ends = outcome.events_of("tool_end");
        let successes = ends.iter().filter(|end| end["tool_state"] == "success").count();
        assert!(successes <= count && count <= 8, "seed {seed}: {successes} of {count}");
    }
}

#[tokio::test]
async fn a_workflow_that_is_killed_at_any_times_repeats_no_step() {
    for seed in 0..8 {
        let step = |number: usize| json!({ "run": format!("echo {number} >> made; sleep 0.04; echo told {number}") });
        let steps: Vec<Value> = (0..12).map(step).collect();
        let scene = kept(server()).await.workflow(&json!(steps));
        let running = scene.start();
        tokio::time::sleep(Duration::from_millis(mixed(100 + seed) % 700)).await;
        let _ = running.signal(Signal::KILL);
        let finished = running.finish().await.unwrap();
        if finished.code == 0 {
            continue;
        }
        let running = scene.start();
        let outcome = scene.finish(running).await;
        assert_eq!(
            outcome.scene.api.final_violations(),
            Vec::<String>::new(),
            "seed {seed}"
        );
        let ending = outcome.scene.api.terminal().unwrap();
        let made = fs::read_to_string(outcome.scene.workspace().join("made")).unwrap_or_default();
        let expected: Vec<String> = (0..made.lines().count()).map(|number| number.to_string()).collect();
        assert_eq!(
            made.lines().collect::<Vec<_>>(),
            expected,
            "seed {seed}: each once, in order"
        );
        match ending["type"].as_str().unwrap() {
            "done" => assert_eq!(expected.len(), 12, "seed {seed}"),
            _ => assert_eq!(ending["code"], "step_failed", "seed {seed}: {ending}"),
        }
    }
}
