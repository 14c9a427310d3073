//! A runner that is killed while it has a task, and started again under its name: the task has its one ending, or the
//! server gives it to another runner. It is never kept alive by a runner that knows nothing of it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::api_server::Settings;
use support::runner_process::Running;
use support::{Answer, ApiServer, Assignment, Turn};

use support::standby::{Standby, workflow};

const TOKEN: &str = "internal-token-0123456789";

/// Much less patient than the real server, and looking all the time; as patient as `HEARTBEAT_TIMEOUT` says.
fn impatient() -> Settings {
    ApiServer::with()
        .several_runs()
        .reap_after(Duration::from_secs(3))
        .look_every(Duration::from_millis(100))
}

/// A task that has begun and does not end.
async fn in_the_midst(scene: &Standby) -> Running {
    scene.api.assign(Assignment::new(
        1,
        workflow(&json!([{ "run": "echo first" }, { "run": "echo ready; sleep 300" }])),
    ));
    let running = scene.start();
    let ready = |event: &Value| event["message"].as_str().is_some_and(|text| text.ends_with("ready"));
    scene.api.task(1).wait_for(ready).await;
    running
}

/// A server of that kind, and a runner that knows it as one.
async fn impatient_scene() -> Standby {
    let scene = Standby::with(impatient()).await;
    scene.env("HEARTBEAT_TIMEOUT", "3").env("REQUEST_ID", "a")
}

/// Kills a runner that has such a task. How many events there were of it.
async fn killed_in_the_midst(scene: &Standby) -> usize {
    let running = in_the_midst(scene).await;
    scene.kill(running).await;
    scene.api.task(1).events().len()
}

/// Starts a runner for which the task is somebody else's. It gets it once more when the server has given it away, and
/// nothing is sent for it before.
async fn begins_it_once_more(scene: &Standby, before: usize) -> Running {
    let running = scene.start();
    scene
        .api
        .wait_until("the task to be given away", |api| api.hand_outs().len() == 2)
        .await;
    more_events(scene, before).await;
    assert_eq!(scene.api.task(1).events()[before]["type"], "step_start");
    running
}

/// Waits until there are more events of the task than there were.
async fn more_events(scene: &Standby, before: usize) {
    let more = |api: &ApiServer| api.task(1).events().len() > before;
    scene.api.wait_until("the task to begin again", more).await;
}

/// What a runner keeps for the one that comes after it.
fn journals(scene: &Standby) -> Vec<PathBuf> {
    let entries = fs::read_dir(scene.outside().join("spool")).unwrap().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("plue-runner-standby-"));
    ours.map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn a_runner_that_is_started_again_ends_the_task_that_it_had_and_takes_the_next() {
    let scene = Standby::with(ApiServer::with().several_runs())
        .await
        .env("REQUEST_ID", "a");
    let running = in_the_midst(&scene).await;
    scene.kill(running).await;
    assert_eq!(scene.api.held(), [1], "nobody has told the server");
    let before = scene.api.task(1).events().len();
    let asked = scene.api.registrations().len();
    let scene = scene.workflow(2, &json!([{ "run": "echo next" }]));
    let running = scene.start();
    scene.ending(2).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    let error = ended.failed(1, "worker_lost");
    assert!(error["message"].as_str().unwrap().contains("started again"), "{error}");
    assert!(error["duration_ms"].as_u64().unwrap() > 0, "{error}");
    // What was open has an end, the numbers go on, and nothing is missing.
    let events = ended.scene.api.task(1).events();
    let kinds: Vec<&str> = events[before..]
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["step_end", "error"]);
    assert_eq!(error["seq"], events.len());
    ended.done(2);
    // Before anything else, and under the same name.
    let told = ended.scene.api.ended_at(1).unwrap();
    assert!(told < ended.scene.api.registrations()[asked].at);
    assert_eq!(ended.scene.names(), ["pod-1"]);
    assert!(
        journals(&ended.scene).is_empty(),
        "a runner that ends in order leaves nothing"
    );
}

#[tokio::test]
async fn a_call_of_an_agent_that_was_open_ends_too() {
    let turn = Turn::says("I look.").call("t", "shell", json!({ "command": "touch started; sleep 300" }));
    let scene = Standby::with(ApiServer::with().several_runs()).await;
    let scene = scene.model([turn]).await.env("REQUEST_ID", "a");
    let task = json!({ "type": "agent", "model": support::scene::MODEL, "tools": ["shell"],
        "messages": [{ "role": "user", "content": "Go." }] });
    scene.api.assign(Assignment::new(1, task));
    let running = scene.start();
    while !scene.workspace().join("started").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = |event: &Value| event["type"] == "tool_start" && event.get("args").is_some();
    scene.api.task(1).wait_for(started).await;
    scene.kill(running).await;
    let running = scene.start();
    scene.ending(1).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    ended.failed(1, "worker_lost");
    let end = &ended.scene.api.task(1).events_of("tool_end")[0];
    assert_eq!((&end["tool_id"], &end["tool_state"]), (&json!("t"), &json!("error")));
    assert_eq!(
        ended.scene.left(),
        [".plue-workspace"],
        "and nothing of it is left in the workspace"
    );
}

#[tokio::test]
async fn when_the_server_may_have_given_it_away_nothing_is_sent_for_it() {
    let scene = impatient_scene().await;
    let before = killed_in_the_midst(&scene).await;
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let scene = scene.env("REQUEST_ID", "b");
    let running = begins_it_once_more(&scene, before).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish_under_names(running).await;
    ended.failed(1, "cancelled");
    let names = ended.scene.names();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].starts_with("pod-1-"), "{names:?}");
    // Under the old name it could still be revived: what comes later goes on under the new one.
    assert_eq!(journals(&ended.scene).len(), 1);
    let again = ended.scene.start();
    let asked = ended.scene.api.registrations().len();
    ended.scene.registered(asked + 1).await;
    again.signal(Signal::TERM).unwrap();
    assert_eq!(ended.scene.finish_under_names(again).await.scene.names(), names);
}

#[tokio::test]
async fn a_runner_that_was_killed_while_it_asked_for_a_task_does_not_keep_it() {
    let mut asked = 0;
    let settings = impatient().answering_registrations(move |_| {
        asked += 1;
        match asked {
            1 => Answer::Late(Duration::from_secs(20), Box::new(Answer::Ok)),
            _ => Answer::Ok,
        }
    });
    let scene = Standby::with(settings)
        .await
        .env("HEARTBEAT_TIMEOUT", "3")
        .env("REQUEST_ID", "a");
    let scene = scene.workflow(1, &json!([{ "run": "echo ran" }]));
    let running = scene.start();
    scene
        .api
        .wait_until("the task to be given", |api| api.waiting() == 0)
        .await;
    scene.kill(running).await;
    let running = scene.start();
    scene.ending(1).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish_under_names(running).await;
    ended.done(1);
    assert_eq!(ended.scene.names().len(), 2, "{:?}", ended.scene.names());
}

#[tokio::test]
async fn an_ending_that_was_on_its_way_is_told_again_as_it_was() {
    let mut endings = 0;
    let settings = ApiServer::with().answering(move |attempt| {
        let ends = attempt.event["type"] == "done";
        endings += u32::from(ends);
        match ends && endings == 1 {
            true => Answer::Stall(Duration::from_secs(20)),
            false => Answer::Ok,
        }
    });
    let scene = Standby::with(settings)
        .await
        .workflow(1, &json!([{ "run": "echo ran" }]));
    let running = scene.start();
    let on_its_way = |api: &ApiServer| api.attempts_of(1).iter().any(|attempt| attempt.event["type"] == "done");
    scene.api.wait_until("the ending to be sent", on_its_way).await;
    scene.kill(running).await;
    let running = scene.start();
    scene.ending(1).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    ended.done(1);
    let attempts = ended.scene.api.task(1).attempts();
    let [.., one, other] = &attempts[..] else {
        panic!("{attempts:?}")
    };
    assert_eq!((&one.body, &one.key), (&other.body, &other.key));
}

/// It has its number, so that to a server that takes less it can only be cut.
#[tokio::test]
async fn an_ending_that_is_too_large_for_the_server_is_told_again_without_its_middle() {
    let mut endings = 0;
    let settings = ApiServer::with().answering(move |attempt| {
        let ends = attempt.event["type"] == "error";
        endings += u32::from(ends);
        match ends && endings == 1 {
            true => Answer::Stall(Duration::from_secs(20)),
            false => Answer::Ok,
        }
    });
    let wrong: Vec<Value> = (0..500).map(|_| json!({ "run": 5 })).collect();
    let scene = Standby::with(settings).await.workflow(1, &json!(wrong));
    let running = scene.start();
    let on_its_way = |api: &ApiServer| {
        api.attempts_of(1)
            .iter()
            .any(|attempt| attempt.event["type"] == "error")
    };
    scene.api.wait_until("the ending to be sent", on_its_way).await;
    scene.kill(running).await;
    scene.api.take_at_most(6_000);
    let running = scene.start();
    scene.ending(1).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    let error = ended.failed(1, "invalid_task");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("steps[0]") && message.contains("steps[499]"),
        "{message}"
    );
    assert!(message.contains("bytes are left out here"), "{message}");
    assert!(!ended.scene.api.too_large().is_empty());
}

#[tokio::test]
async fn a_file_that_says_nothing_is_said_and_ignored() {
    let scene = impatient_scene().await;
    let before = killed_in_the_midst(&scene).await;
    let [file] = &journals(&scene)[..] else {
        panic!("one file")
    };
    let mut page = fs::read(file).unwrap();
    // The beginning of what stood there last, and nothing more.
    page[100..].fill(0);
    fs::write(file, page).unwrap();
    let scene = scene.env("REQUEST_ID", "b");
    let running = begins_it_once_more(&scene, before).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish_under_names(running).await;
    ended.failed(1, "cancelled");
    assert!(ended.finished.stdout.contains("torn"), "{}", ended.finished.stdout);
}

#[tokio::test]
async fn the_file_of_another_runner_is_said_and_ignored() {
    let scene = impatient_scene().await;
    let before = killed_in_the_midst(&scene).await;
    let scene = scene.env("POD_NAME", "pod-2").env("REQUEST_ID", "b");
    let running = begins_it_once_more(&scene, before).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish_under_names(running).await;
    ended.failed(1, "cancelled");
    assert_eq!(ended.scene.names(), ["pod-1", "pod-2"]);
    let said = &ended.finished.stdout;
    assert!(said.contains("ignored") && said.contains("pod-1"), "{said}");
}

#[tokio::test]
async fn two_runners_of_one_name_do_not_keep_each_others_tasks() {
    let scene = Standby::new().await;
    let first = in_the_midst(&scene).await;
    let asked = scene.api.registrations().len();
    let second = scene.start();
    scene.registered(asked + 1).await;
    let names = scene.names();
    assert_eq!(names.len(), 2, "{names:?}");
    second.signal(Signal::TERM).unwrap();
    assert_eq!(second.finish().await.unwrap().code, 143);
    first.signal(Signal::TERM).unwrap();
    scene.finish(first).await.failed(1, "cancelled");
}

#[tokio::test]
async fn nothing_that_is_kept_is_a_secret() {
    let scene = Standby::with(ApiServer::with().token(TOKEN)).await;
    let scene = scene
        .env("CALLBACK_TOKEN", TOKEN)
        .env("ANTHROPIC_API_KEY", support::claude::KEY);
    let running = in_the_midst(&scene).await;
    let [file] = &journals(&scene)[..] else {
        panic!("one file")
    };
    let kept = String::from_utf8(fs::read(file).unwrap()).unwrap();
    assert!(kept.contains("/internal/tasks/1/stream"), "{kept}");
    assert!(!kept.contains(TOKEN) && !kept.contains(support::claude::KEY), "{kept}");
    assert_eq!(
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(file).unwrap()) & 0o777,
        0o600
    );
    running.signal(Signal::TERM).unwrap();
    scene.finish(running).await.failed(1, "cancelled");
}

/// A callback whose URL is the secret: where the events go is not written down, and the server gives the task away.
#[tokio::test]
async fn a_callback_that_may_be_a_secret_is_not_written_down() {
    let scene = impatient_scene().await;
    let task = workflow(&json!([{ "run": "echo ready; sleep 2" }]));
    let url = format!("{}?signature=s3cr3t-s1gnature", scene.api.task_url(1));
    let reply =
        json!({ "runner_id": 41, "task": { "id": 1, "type": "workflow", "config": task }, "callback_url": url });
    scene.api.assign(Assignment::new(1, task).raw(&reply.to_string()));
    let running = scene.start();
    scene.api.task(1).wait_for(|event| event["type"] == "log").await;
    let [file] = &journals(&scene)[..] else {
        panic!("one file")
    };
    let kept = String::from_utf8(fs::read(file).unwrap()).unwrap();
    assert!(!kept.contains("s3cr3t"), "{kept}");
    scene.kill(running).await;
    let running = scene.start();
    scene
        .api
        .wait_until("the task to be given away", |api| api.hand_outs().len() == 2)
        .await;
    scene.ending(1).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish_under_names(running).await;
    ended.done(1);
    assert_eq!(ended.scene.names().len(), 2);
}

/// A server that takes nothing for as long as this says so, and a runner that keeps what waits.
async fn away_scene(away: &Arc<AtomicBool>) -> Standby {
    let is_away = Arc::clone(away);
    let settings = ApiServer::with()
        .restarts()
        .answering(move |_| match is_away.load(Ordering::Relaxed) {
            true => Answer::Stall(Duration::from_secs(60)),
            false => Answer::Ok,
        });
    let scene = Standby::with(settings).await;
    let folder = scene.outside().join("state");
    scene.env("STATE_DIR", &folder.to_string_lossy())
}

/// Kills a runner as soon as this is kept of its events.
async fn killed_when_kept(scene: &Standby, running: Running, text: &str) {
    let folder = scene.outside().join("state");
    let is_kept = || {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut contents = entries.filter_map(|entry| fs::read(entry.path()).ok());
        contents.any(|content| content.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    while !is_kept() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.kill(running).await;
}

#[tokio::test]
async fn what_was_told_before_the_runner_was_killed_arrives_before_its_ending() {
    let away = Arc::new(AtomicBool::new(true));
    let scene = away_scene(&away).await.tasks(2);
    let script = "for i in $(seq 1 2000); do echo line $i; done; sleep 300";
    let scene = scene
        .workflow(1, &json!([{ "run": script }]))
        .workflow(2, &json!([{ "run": "echo next" }]));
    let running = scene.start();
    killed_when_kept(&scene, running, "line 2000").await;
    away.store(false, Ordering::Relaxed);
    let scene = scene.tasks(1);
    let running = scene.start();
    let ended = scene.finish(running).await;
    let error = ended.failed(1, "worker_lost");
    assert!(error.get("lost_events").is_none(), "{error}");
    let expected: Vec<String> = (1..=2000).map(|number| format!("line {number}")).collect();
    assert_eq!(ended.lines(1, 0), expected);
    ended.done(2);
    let left = fs::read_dir(ended.scene.outside().join("state")).unwrap().count();
    assert_eq!(left, 0, "nothing is kept of what has ended");
}

#[tokio::test]
async fn a_task_that_had_ended_before_the_runner_was_killed_has_its_own_ending() {
    let away = Arc::new(AtomicBool::new(true));
    let scene = away_scene(&away).await.tasks(2);
    let scene = scene
        .workflow(1, &json!([{ "run": "echo only" }]))
        .workflow(2, &json!([{ "run": "echo next" }]));
    let running = scene.start();
    killed_when_kept(&scene, running, r#""type":"done""#).await;
    away.store(false, Ordering::Relaxed);
    let scene = scene.tasks(1);
    let running = scene.start();
    let ended = scene.finish(running).await;
    ended.done(1);
    assert_eq!(ended.lines(1, 0), ["only"]);
    ended.done(2);
}
