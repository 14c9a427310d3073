//! The part of the API server's double that standby runners talk to: they register, get tasks, and beat. As the real
//! server, it knows a runner by its name alone, claims a task for whoever registers, without an acknowledgement, and
//! gives the tasks away of a name that has been silent for too long.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::schema;
use crate::task_record::text_of;

/// After how much silence the real server gives a runner up, and how often it looks for one.
const REAP_AFTER: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The id of the first runner.
const FIRST: i64 = 41;

/// A task that waits for a runner.
#[derive(Clone, Debug)]
pub struct Assignment {
    id: i64,
    config: Value,
    kind: String,
    session: Option<String>,
    wrapped: bool,
    with_path: bool,
    raw: Option<String>,
}

impl Assignment {
    /// The task with this id and configuration. Its type is that of the configuration when the server knows that, or
    /// `agent`.
    pub fn new(id: i64, config: Value) -> Self {
        let kind = match config["type"].as_str() {
            Some("workflow") => "workflow",
            _ => "agent",
        };
        let kind = kind.to_owned();
        Self {
            id,
            config,
            kind,
            session: None,
            wrapped: false,
            with_path: false,
            raw: None,
        }
    }

    /// The configuration stands in one more layer: `{"type": …, "config": {…}}`.
    pub fn wrapped(mut self) -> Self {
        self.wrapped = true;
        self
    }

    /// The server does not know its own address: `callback_path` in place of `callback_url`.
    pub fn with_path(mut self) -> Self {
        self.with_path = true;
        self
    }

    /// Only `task.type` says what it is.
    pub fn without_type(mut self) -> Self {
        if let Some(config) = self.config.as_object_mut() {
            config.remove("type");
        }
        self
    }

    pub fn session(mut self, id: &str) -> Self {
        self.session = Some(id.to_owned());
        self
    }

    /// The whole body of the reply, as broken as it may be.
    pub fn raw(mut self, body: &str) -> Self {
        self.raw = Some(body.to_owned());
        self
    }

    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    /// The reply that hands it out.
    fn reply(&self, runner: i64, base: &str) -> String {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let config = match self.wrapped {
            true => json!({ "type": self.kind, "config": self.config }),
            false => self.config.clone(),
        };
        let mut task = json!({ "id": self.id, "type": self.kind, "config": config });
        if let Some(session) = &self.session {
            task["session_id"] = json!(session);
        }
        let path = format!("/internal/tasks/{}/stream", self.id);
        let mut reply = json!({ "runner_id": runner, "task": task });
        match self.with_path {
            true => reply["callback_path"] = json!(path),
            false => reply["callback_url"] = json!(format!("{base}{path}")),
        }
        checked(reply).to_string()
    }
}

/// One request to register.
#[derive(Clone, Debug)]
pub struct Registration {
    pub body: Value,
    /// Of the runner; 0 when the request was refused.
    pub runner_id: i64,
    pub at: Instant,
    /// Which registration of all it is, from 1.
    pub number: u32,
    /// What was answered; 0 when the connection was cut.
    pub status: u16,
    /// The task that was handed out.
    pub task: Option<i64>,
}

/// One heartbeat.
#[derive(Clone, Debug)]
pub struct Beat {
    pub runner_id: i64,
    pub at: Instant,
    /// Which beat of all it is, from 1.
    pub number: u32,
    /// What was answered; 0 when the connection was cut.
    pub status: u16,
}

pub(crate) type RegisterScript = Box<dyn FnMut(&Registration) -> Answer + Send>;
pub(crate) type BeatScript = Box<dyn FnMut(&Beat) -> Answer + Send>;

struct Runner {
    pod: String,
    heard: Instant,
    reaped: bool,
}

/// A task that was handed out and has not ended.
struct Held {
    runner: i64,
    assignment: Assignment,
}

/// One time that a task was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOut {
    pub task: i64,
    /// The name that it was given to.
    pub pod: String,
    /// The answer that said so was whole when it left the server.
    pub told: bool,
    pub at: Instant,
}

/// All runners, and the tasks that wait for one.
#[derive(Default)]
pub(crate) struct Runners {
    runners: HashMap<i64, Runner>,
    queue: VecDeque<Assignment>,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) beats: Vec<Beat>,
    pub(crate) violations: Vec<String>,
    reaped: Vec<i64>,
    held: BTreeMap<i64, Held>,
    ended: HashMap<i64, Instant>,
    pub(crate) hand_outs: Vec<HandOut>,
    looked: Option<Instant>,
    pub(crate) reap_after: Option<Duration>,
    pub(crate) look_every: Option<Duration>,
    pub(crate) register_script: Option<RegisterScript>,
    pub(crate) beat_script: Option<BeatScript>,
}

impl Runners {
    pub(crate) fn assign(&mut self, assignment: Assignment) {
        self.queue.push_back(assignment);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The tasks that somebody has, as far as the server knows.
    pub(crate) fn held(&self) -> Vec<i64> {
        self.held.keys().copied().collect()
    }

    /// A task has its ending: nobody has it any more, and nobody gets it.
    pub(crate) fn has_ended(&mut self, task: i64) {
        self.ended.entry(task).or_insert_with(Instant::now);
        self.held.remove(&task);
        self.queue.retain(|assignment| assignment.id() != task);
    }

    pub(crate) fn ended_at(&self, task: i64) -> Option<Instant> {
        self.ended.get(&task).copied()
    }

    /// Looks for silent runners when it is time to, or in any case.
    pub(crate) fn look(&mut self, in_any_case: bool) {
        let every = self.look_every.unwrap_or(LOOK_EVERY);
        let looked = *self.looked.get_or_insert_with(Instant::now);
        if looked.elapsed() < every && !in_any_case {
            return;
        }
        self.looked = Some(Instant::now());
        self.reaped();
        let silent = |held: &Held| self.runners.get(&held.runner).is_none_or(|runner| runner.reaped);
        let given_up: Vec<i64> = self
            .held
            .iter()
            .filter(|(_, held)| silent(held))
            .map(|(id, _)| *id)
            .collect();
        for held in given_up.iter().rev().filter_map(|id| self.held.remove(id)) {
            self.queue.push_front(held.assignment);
        }
    }

    /// Who was given up so far, in that order.
    pub(crate) fn reaped(&mut self) -> Vec<i64> {
        let limit = self.reap_after.unwrap_or(REAP_AFTER);
        let mut silent: Vec<(Instant, i64)> = Vec::new();
        for (id, runner) in &mut self.runners {
            if !runner.reaped && runner.heard.elapsed() > limit {
                runner.reaped = true;
                silent.push((runner.heard, *id));
            }
        }
        silent.sort();
        self.reaped.extend(silent.into_iter().map(|(_, id)| id));
        self.reaped.clone()
    }

    /// Takes a registration; the answer, and the body that the real server's would have.
    pub(crate) fn register(&mut self, headers: &HeaderMap, body: &[u8], base: &str) -> (Answer, String) {
        self.look(false);
        let number = self.registrations.len() as u32 + 1;
        let mut registration = Registration {
            body: serde_json::from_slice(body).unwrap_or_default(),
            runner_id: 0,
            at: Instant::now(),
            number,
            status: 422,
            task: None,
        };
        self.expect_json(headers, "registration");
        let wrong = schema::register_request_errors(&registration.body);
        if !wrong.is_empty() {
            self.malformed("registration", wrong, body);
            self.registrations.push(registration);
            return (Answer::Status(422), String::new());
        }
        let answer = match &mut self.register_script {
            Some(script) => script(&registration),
            None => Answer::Ok,
        };
        registration.status = answer.status();
        let mut usual = String::new();
        if answer.takes() {
            let pod = registration.body["pod_name"].as_str().unwrap_or_default().to_owned();
            registration.runner_id = self.heard_from(pod.clone());
            // Who says something else hands nothing out.
            let assignment = match answer {
                Answer::Say(_) | Answer::Status(_) => None,
                _ => self.queue.pop_front(),
            };
            registration.task = assignment.as_ref().map(Assignment::id);
            if let Some(assignment) = &assignment {
                let task = assignment.id();
                self.hand_outs.push(HandOut {
                    task,
                    pod,
                    told: answer.is_whole(),
                    at: Instant::now(),
                });
                let runner = registration.runner_id;
                let assignment = assignment.clone();
                self.held.insert(task, Held { runner, assignment });
            }
            usual = match assignment {
                Some(assignment) => assignment.reply(registration.runner_id, base),
                None => idle(registration.runner_id).to_string(),
            };
        }
        self.registrations.push(registration);
        (answer, usual)
    }

    fn expect_json(&mut self, headers: &HeaderMap, what: &str) {
        if text_of(headers, "content-type").as_deref() != Some("application/json") {
            self.violations.push(format!("a {what} that is not application/json"));
        }
    }

    /// Writes down what is wrong with a body.
    fn malformed(&mut self, what: &str, wrong: Vec<String>, body: &[u8]) {
        let shown = String::from_utf8_lossy(body);
        let wrong = wrong
            .into_iter()
            .map(|wrong| format!("a malformed {what}: {wrong} [{shown}]"));
        self.violations.extend(wrong);
    }

    /// A pod has one id for as long as the server lives.
    fn heard_from(&mut self, pod: String) -> i64 {
        let known = self.runners.iter().find(|(_, runner)| runner.pod == pod);
        let id = known.map_or(FIRST + self.runners.len() as i64, |(id, _)| *id);
        let heard = Instant::now();
        let runner = Runner {
            pod,
            heard,
            reaped: false,
        };
        self.runners.insert(id, runner);
        id
    }

    /// Takes a heartbeat. Its body is checked and then ignored, as in the real server: the URL says all.
    pub(crate) fn beat(&mut self, id: i64, headers: &HeaderMap, body: &[u8]) -> (Answer, String) {
        self.look(false);
        self.expect_json(headers, "heartbeat");
        let wrong = schema::heartbeat_request_errors(&serde_json::from_slice(body).unwrap_or_default());
        self.malformed("heartbeat", wrong, body);
        let mut beat = Beat {
            runner_id: id,
            at: Instant::now(),
            number: self.beats.len() as u32 + 1,
            status: 404,
        };
        let runner = self.runners.get_mut(&id).filter(|runner| !runner.reaped);
        let answer = match (runner, &mut self.beat_script) {
            (None, _) => Answer::Status(404),
            (Some(runner), script) => {
                let answer = script.as_mut().map_or(Answer::Ok, |script| script(&beat));
                if answer.takes() {
                    runner.heard = Instant::now();
                }
                answer
            }
        };
        beat.status = answer.status();
        self.beats.push(beat);
        (answer, answer::ok())
    }
}

/// The reply that hands nothing out.
fn idle(runner: i64) -> Value {
    checked(json!({ "runner_id": runner, "task": null }))
}

/// A reply of this double, which must be one that a runner has to expect.
fn checked(reply: Value) -> Value {
    let wrong = schema::register_reply_errors(&reply);
    assert!(
        wrong.is_empty(),
        "the double breaks the protocol itself: {wrong:?} [{reply}]"
    );
    reply
}
