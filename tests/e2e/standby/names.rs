//! The answer to a registration is lost: the server may count a task as the runner's that the runner does not have. It
//! goes on under a fresh name, so that the server gives that task away by itself.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::api_server::{Registration, Settings};
use support::loopback::closed_port;
use support::{Answer, ApiServer, Assignment};

use support::standby::{Standby, workflow};

/// Much less patient than the real server, and looking all the time.
fn impatient() -> Settings {
    ApiServer::with()
        .reap_after(Duration::from_secs(3))
        .look_every(Duration::from_millis(100))
}

/// The first answers are these, and then all is well.
fn first(answers: impl IntoIterator<Item = Answer>) -> impl FnMut(&Registration) -> Answer + Send + 'static {
    let mut answers = answers.into_iter().collect::<Vec<_>>().into_iter();
    move |_| answers.next().unwrap_or(Answer::Ok)
}

#[tokio::test]
async fn a_task_whose_assignment_was_lost_is_given_away_and_runs() {
    let settings = impatient().answering_registrations(first([Answer::LostAck]));
    let scene = Standby::with(settings).await.env("HEARTBEAT_TIMEOUT", "3");
    let scene = scene.workflow(1, &json!([{ "run": "echo ran" }])).tasks(1);
    let running = scene.start();
    let ended = scene.finish_under_names(running).await;
    ended.done(1);
    let api = &ended.scene.api;
    let given: Vec<(i64, bool)> = api.hand_outs().iter().map(|given| (given.task, given.told)).collect();
    assert_eq!(given, [(1, false), (1, true)]);
    let names = ended.scene.names();
    assert_eq!((names.len(), &*names[0]), (2, "pod-1"), "{names:?}");
    // The old name was not beaten for, and the log says both.
    let old = api.registrations()[0].runner_id;
    assert!(api.heartbeats().iter().all(|beat| beat.runner_id != old));
    assert_eq!(api.reaped(), [old]);
    assert!(names.iter().all(|name| ended.finished.stdout.contains(name.as_str())));
}

#[tokio::test]
async fn after_an_answer_that_leaves_open_what_was_done_the_runner_has_another_name() {
    let unusable = json!({ "runner_id": 41, "task": { "id": 9, "config": {} }, "callback_url": "nowhere" });
    for (answer, env) in [
        (Answer::Cut, None),
        (Answer::LostAck, None),
        (Answer::Half(200), None),
        (Answer::Stall(Duration::from_secs(3)), Some(("CALLBACK_TIMEOUT", "1"))),
        (Answer::Say(json!({ "detail": "no id" })), None),
        (Answer::Say(json!("text")), None),
        (Answer::Say(unusable), None),
        // Nobody knows what the server behind a proxy has done, nor one that broke off.
        (Answer::StatusSaying(504, json!("<html>")), None),
        (Answer::StatusSaying(502, json!("<html>")), None),
        (Answer::Status(500), None),
    ] {
        let shown = format!("{answer:?}");
        let mut scene = Standby::with(ApiServer::with().answering_registrations(first([answer]))).await;
        if let Some((name, value)) = env {
            scene = scene.env(name, value);
        }
        let running = scene.start();
        scene.registered(3).await;
        running.signal(Signal::TERM).unwrap();
        let ended = scene.finish_under_names(running).await;
        let names = ended.scene.names();
        assert_eq!(names.len(), 2, "{shown}: {names:?}");
        assert!(
            names[1].starts_with("pod-1-") && names[1].len() <= 255,
            "{shown}: {names:?}"
        );
    }
}

#[tokio::test]
async fn after_a_refusal_the_runner_keeps_its_name() {
    let said = || json!({ "error": "the database is away" });
    for answer in [
        Answer::StatusSaying(500, said()),
        Answer::StatusSaying(503, said()),
        Answer::Status(400),
        Answer::Status(404),
        Answer::Status(422),
        Answer::RetryAfterMs(429, 50),
        Answer::Redirect(307, "http://127.0.0.1:1/elsewhere".into()),
    ] {
        let shown = format!("{answer:?}");
        let scene = Standby::with(ApiServer::with().answering_registrations(first([answer]))).await;
        let running = scene.start();
        scene.registered(3).await;
        running.signal(Signal::TERM).unwrap();
        let ended = scene.finish(running).await;
        assert_eq!(ended.scene.names(), ["pod-1"], "{shown}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_costs_no_name() {
    let at: SocketAddr = closed_port().await.unwrap();
    let scene = Standby::new()
        .await
        .env("REGISTER_URL", &format!("http://{at}/internal/runners/register"));
    let running = scene.start();
    // Several attempts that nobody hears.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let api = ApiServer::with().start_at(at).await.unwrap();
    api.wait_until("a registration", |api| !api.registrations().is_empty())
        .await;
    assert_eq!(api.registrations()[0].body["pod_name"], "pod-1");
    running.signal(Signal::TERM).unwrap();
    scene.finish(running).await;
}

#[tokio::test]
async fn a_long_name_stays_one_that_the_server_takes() {
    let pod = "p".repeat(255);
    let scene = Standby::with(ApiServer::with().answering_registrations(first([Answer::Cut, Answer::Cut]))).await;
    let scene = scene.env("POD_NAME", &pod);
    let running = scene.start();
    scene.registered(4).await;
    running.signal(Signal::TERM).unwrap();
    let names = scene.finish_under_names(running).await.scene.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.len() == 255), "{names:?}");
}

/// For the server it runs until somebody says that it has ended, or the name that has it is silent.
#[tokio::test]
async fn a_task_whose_ending_the_server_does_not_take_is_not_kept_alive() {
    let mut refused = 0;
    let settings = impatient().several_runs().answering(move |attempt| {
        let ends = attempt.event["type"] == "done";
        refused += u32::from(ends);
        match ends && refused == 1 {
            true => Answer::Status(400),
            false => Answer::Ok,
        }
    });
    let scene = Standby::with(settings)
        .await
        .env("HEARTBEAT_TIMEOUT", "3")
        .env("REQUEST_ID", "a");
    scene
        .api
        .assign(Assignment::new(1, workflow(&json!([{ "run": "echo ran" }]))));
    let running = scene.start();
    scene
        .api
        .wait_until("the task to end", |api| api.has_ended(1) && api.held().is_empty())
        .await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish_under_names(running).await;
    assert_eq!(ended.scene.api.hand_outs().len(), 2);
    assert_eq!(ended.scene.names().len(), 2, "{:?}", ended.scene.names());
    // The log says that an ending was lost, and so does the exit code.
    assert_eq!(ended.finished.code, 3, "{}", ended.finished.stdout);
}

#[tokio::test]
async fn a_server_that_does_not_count_the_runner_is_not_asked_more_often_for_that() {
    for status in [404, 500] {
        let settings = ApiServer::with().answering_heartbeats(move |_| Answer::StatusSaying(status, json!("gone")));
        let scene = Standby::with(settings).await.env("HEARTBEAT_SECONDS", "4");
        scene
            .api
            .assign(Assignment::new(1, workflow(&json!([{ "run": "sleep 9" }]))));
        let running = scene.start();
        scene.ending(1).await;
        let beats = scene.api.heartbeats();
        let waits: Vec<Duration> = beats.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        assert!(
            !waits.is_empty() && waits.iter().all(|wait| *wait > Duration::from_secs(3)),
            "{waits:?}"
        );
        running.signal(Signal::TERM).unwrap();
        scene.finish(running).await.done(1);
    }
}

#[tokio::test]
async fn where_nothing_can_be_written_down_the_plain_name_is_not_used() {
    let scene = Standby::new().await.env("SPOOL_DIR", "/nonexistent/spool");
    let running = scene.start();
    scene.registered(3).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    let names = ended.scene.names();
    assert!(names.len() == 1 && names[0].starts_with("pod-1-"), "{names:?}");
    assert!(ended.finished.stdout.contains("SPOOL_DIR"), "{}", ended.finished.stdout);
}

/// Whatever stands before a server that is away may ask for a minute; tasks wait when it is back.
#[tokio::test]
async fn a_server_that_is_away_may_not_ask_for_more_time_than_the_runner_takes_by_itself() {
    for answer in [Answer::RetryAfter(503, 600), Answer::RetryAfterMs(503, 0)] {
        let mut asked = 0;
        let settings = ApiServer::with().answering_registrations(move |_| {
            asked += 1;
            if asked <= 1 { answer.clone() } else { Answer::Ok }
        });
        let scene = Standby::with(settings).await;
        let running = scene.start();
        scene.registered(2).await;
        running.signal(Signal::TERM).unwrap();
        scene.finish_under_names(running).await;
    }
}
