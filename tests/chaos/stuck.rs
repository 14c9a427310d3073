//! No task is ever stuck: two runners and ten tasks, by the real server's rules. Runners are killed and started again
//! under their names, answers are lost after a task was claimed, connections and the server go away for a while. Every
//! task ends.
//!
//! The server gives tasks away once more when it hears nothing of whoever has them, so that a task may run twice; how
//! often, and why, is printed.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::api_server::{HandOut, Registration};
use support::runner_process::Running;
use support::{Answer, ApiServer, Assignment, Attempt, RunnerProcess};
use tempfile::TempDir;

use crate::proxy::Proxy;
use crate::seed::{Seed, each_of};
use support::standby::workflow;

const SEEDS: u64 = 200;
const SIDE_BY_SIDE: usize = 10;
const TASKS: i64 = 10;
const NAMES: [&str; 2] = ["pod-a", "pod-b"];

/// The real server's minute, and how often it looks, by a clock that runs twenty times as fast.
const SILENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(1500);

/// How long all tasks may take after the last trouble: that a task is given away takes at most twice the time above, a
/// few times in a row when the answer is lost again, and this machine may have other things to do.
const PATIENCE: Duration = Duration::from_secs(90);

/// A runner, and what is around it.
struct Pod {
    name: &'static str,
    runner: RunnerProcess,
    running: Option<Running>,
    way: Proxy,
    _folder: TempDir,
}

impl Pod {
    async fn new(api: &ApiServer, name: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("plue-stuck-").tempdir().unwrap();
        let workspace = folder.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        fs::write(workspace.join(".plue-workspace"), "").unwrap();
        let (way, url) = Proxy::to(&api.register_url()).await;
        let runner = RunnerProcess::built()
            .env("MODE", "standby")
            .env("REGISTER_URL", url)
            .env("POD_NAME", name)
            .env("REQUEST_ID", name)
            .env("HEARTBEAT_SECONDS", "1")
            .env("HEARTBEAT_TIMEOUT", SILENCE.as_secs().to_string())
            .env("CALLBACK_RETRY_BASE_MS", "20")
            .env("FLUSH_TIMEOUT", "20")
            .env("SPOOL_DIR", folder.path().to_string_lossy())
            .env("WORKSPACE", workspace.to_string_lossy())
            .limit(Duration::from_secs(240));
        let mut pod = Self {
            name,
            runner,
            running: None,
            way,
            _folder: folder,
        };
        pod.start();
        pod
    }

    fn start(&mut self) {
        self.running = Some(self.runner.clone().start().unwrap());
    }

    /// Ends it, and checks what it said. It is gone when this returns, as a container is before it is started again.
    async fn end(&mut self, signal: Signal) {
        let Some(running) = self.running.take() else { return };
        // It may have ended by itself, which the code shows.
        let _ = running.signal(signal);
        let finished = running.finish().await.unwrap();
        let expected: &[i32] = match signal {
            Signal::KILL => &[-9],
            // An ending that did not arrive is said by the exit code; one that began a moment ago does not listen yet.
            _ => &[143, 3, -15],
        };
        assert!(
            expected.contains(&finished.code),
            "{} ended with {}:\n{}{}",
            self.name,
            finished.code,
            finished.stdout,
            finished.stderr
        );
        assert!(!finished.stdout.contains("panicked") && !finished.stderr.contains("panicked"));
    }
}

/// Loses answers after a task was claimed, and before; refuses now and then.
fn answers(seed: Seed) -> impl FnMut(&Registration) -> Answer + Send {
    move |registration| {
        let mut chance = seed.of(&format!("registration {}", registration.number));
        match chance.below(100) {
            0..8 => Answer::LostAck,
            8..11 => Answer::Cut,
            11..14 => Answer::Half(200),
            14..17 => Answer::Status(500),
            17..20 => Answer::StatusSaying(500, json!({ "error": "busy" })),
            20..22 => Answer::StatusSaying(502, json!("<html>")),
            _ => Answer::Ok,
        }
    }
}

/// Events fail in passing, or arrive and are not acknowledged. No event more often than it is tried again.
fn faults(seed: Seed) -> impl FnMut(&Attempt) -> Answer + Send {
    move |attempt| {
        let mut chance = seed.of(&format!("{} {}", attempt.key, attempt.number));
        match chance.below(100) {
            _ if attempt.number > 4 => Answer::Ok,
            0..6 => Answer::LostAck,
            6..10 => Answer::Cut,
            10..14 => Answer::Status(503),
            _ => Answer::Ok,
        }
    }
}

/// Why a task was handed out once more.
#[derive(Clone, Copy, Debug, Default)]
struct Again {
    /// The runner never heard of it.
    unheard: u32,
    /// The runner was killed, and came back too late to say so, or could not know.
    killed: u32,
    /// The runner, or the server, was away for longer than the server waits.
    away: u32,
    /// Its ending could not be told, or the machine was too busy for a heartbeat in time.
    other: u32,
    /// Tasks that have begun more than once.
    ran_twice: u32,
    handed_out: u32,
    tasks: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Kill,
    Away,
}

/// What was done to a runner, and when.
struct Made {
    trouble: Trouble,
    pod: &'static str,
    begun: Instant,
    over: Instant,
}

#[tokio::test]
async fn every_task_ends_whoever_is_killed_or_away() {
    let sum = Arc::<Mutex<Again>>::default();
    let total = Arc::clone(&sum);
    each_of(SEEDS, SIDE_BY_SIDE, move |seed| {
        let total = Arc::clone(&total);
        async move {
            let again = every_task_ends(seed).await;
            let mut total = total.lock().unwrap();
            total.unheard += again.unheard;
            total.killed += again.killed;
            total.away += again.away;
            total.other += again.other;
            total.ran_twice += again.ran_twice;
            total.handed_out += again.handed_out;
            total.tasks += again.tasks;
        }
    })
    .await;
    let again = *sum.lock().unwrap();
    println!(
        "{} tasks, handed out {} times, every one has ended; {} have begun more than once. Handed out again: {} whose \
         assignment no runner heard of, {} whose runner was killed, {} whose runner or server was away, {} for \
         another reason",
        again.tasks, again.handed_out, again.ran_twice, again.unheard, again.killed, again.away, again.other
    );
}

async fn every_task_ends(seed: Seed) -> Again {
    let settings = ApiServer::with()
        .several_runs()
        .reap_after(SILENCE)
        .look_every(LOOK)
        .answering_registrations(answers(seed))
        .answering(faults(seed));
    let api = settings.start().await.unwrap();
    for id in 1..=TASKS {
        let mut chance = seed.of(&format!("task {id}"));
        let pause = chance.below(40) as f64 / 100.0;
        let last = if chance.percent(20) { "exit 3" } else { "echo last" };
        let steps = json!([{ "run": format!("echo first; sleep {pause}; echo second") }, { "run": last }]);
        // Events go the way of the registration, which breaks, or another.
        let task = Assignment::new(id, workflow(&steps));
        api.assign(if chance.percent(50) { task.with_path() } else { task });
    }
    let mut pods = Vec::new();
    for name in NAMES {
        pods.push(Pod::new(&api, name).await);
    }
    let trouble = make_trouble(seed, &api, &mut pods).await;
    let ended =
        |api: &ApiServer| (1..=TASKS).all(|id| api.has_ended(id)) && api.held().is_empty() && api.waiting() == 0;
    let begun = Instant::now();
    while !ended(&api) {
        assert!(
            begun.elapsed() < PATIENCE,
            "stuck: {:?} of tasks that somebody has, {} that wait; handed out: {:?}",
            api.held(),
            api.waiting(),
            api.hand_outs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for pod in &mut pods {
        pod.end(Signal::TERM).await;
    }
    assert_eq!(api.violations(), Vec::<String>::new());
    for id in 1..=TASKS {
        ended_as_it_can(&api, id);
    }
    count(&api, &trouble)
}

/// Kills, pauses and outages, for some seconds. What was done to whom.
async fn make_trouble(seed: Seed, api: &ApiServer, pods: &mut [Pod]) -> Vec<Made> {
    let mut chance = seed.of("trouble");
    let mut made = Vec::new();
    for _ in 0..1 + chance.below(3) {
        tokio::time::sleep(chance.up_to(Duration::from_millis(1500))).await;
        // Up to half as long again as the server waits.
        let long = chance.percent(40);
        let pause = chance.up_to(if long {
            SILENCE * 3 / 2
        } else {
            Duration::from_millis(600)
        });
        let who = chance.below(pods.len() as u64) as usize;
        let begun = Instant::now();
        let did = |trouble, pod| Made {
            trouble,
            pod,
            begun,
            over: Instant::now(),
        };
        match chance.below(3) {
            0 | 1 => {
                let pod = &mut pods[who];
                pod.end(Signal::KILL).await;
                tokio::time::sleep(pause).await;
                pod.start();
                made.push(did(Trouble::Kill, pod.name));
            }
            _ if chance.percent(50) => {
                pods[who].way.down().await;
                tokio::time::sleep(pause).await;
                pods[who].way.up().await;
                made.push(did(Trouble::Away, pods[who].name));
            }
            // The server is started again.
            _ => {
                for pod in pods.iter_mut() {
                    pod.way.down().await;
                }
                tokio::time::sleep(pause).await;
                api.has_started_anew();
                for pod in pods.iter_mut() {
                    pod.way.up().await;
                    made.push(did(Trouble::Away, pod.name));
                }
            }
        }
    }
    made
}

/// A task has endings of the kinds that it can have, and no more of them than it was handed out; that each run tells
/// them in order, and nothing after its ending, is for the double to see.
fn ended_as_it_can(api: &ApiServer, id: i64) {
    let events = api.task(id).events();
    let endings: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "done" || event["type"] == "error")
        .collect();
    let code = |event: &Value| event["code"].as_str().unwrap_or("done").to_owned();
    let mut expected = vec!["done", "step_failed", "worker_lost"];
    let runs = api.hand_outs().iter().filter(|given| given.task == id).count();
    if runs > 1 && endings.len() > 1 {
        // Of a task that another runner has ended already, one may still be at work when all are told to stop.
        expected.push("cancelled");
    }
    assert!(
        endings.iter().all(|ending| expected.contains(&&*code(ending))),
        "task {id}: {endings:?}"
    );
    // What was not acknowledged is told again, with the same bytes.
    let mut different: Vec<String> = endings.iter().map(|ending| ending.to_string()).collect();
    different.sort();
    different.dedup();
    assert!(
        (1..=runs).contains(&different.len()),
        "task {id}, {runs} runs: {endings:?}"
    );
}

/// How often tasks were handed out again, and why.
fn count(api: &ApiServer, trouble: &[Made]) -> Again {
    // To whoever had it, between this time and the next that it was handed out.
    let had = |what: Trouble, given: &HandOut, next: &HandOut| {
        trouble.iter().any(|made| {
            let then = made.begun < next.at && made.over > given.at;
            made.trouble == what && given.pod.starts_with(made.pod) && then
        })
    };
    let mut again = Again::default();
    let hand_outs = api.hand_outs();
    again.tasks = u32::try_from(TASKS).unwrap();
    again.handed_out = u32::try_from(hand_outs.len()).unwrap();
    for id in 1..=TASKS {
        again.ran_twice += u32::from(api.task(id).begun() > 1);
        let given: Vec<&HandOut> = hand_outs.iter().filter(|given| given.task == id).collect();
        for pair in given.windows(2) {
            let (before, next) = (pair[0], pair[1]);
            match before.told {
                false => again.unheard += 1,
                true if had(Trouble::Kill, before, next) => again.killed += 1,
                true if had(Trouble::Away, before, next) => again.away += 1,
                true => again.other += 1,
            }
        }
    }
    again
}
