//! The double of the API server: it takes the runner's events as the real one does, hands tasks to standby runners,
//! refuses what would crash the real one, and writes down everything that breaks the protocol.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::post;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::answer;
use crate::loopback::{ANYWHERE, Loopback, Wire};
use crate::runners::{BeatScript, RegisterScript, Runners};
use crate::task_record::{Expected, Script, TaskRecord, text_of};

pub use crate::answer::Answer;
pub use crate::runners::{Assignment, Beat, HandOut, Registration};
pub use crate::task_record::{Attempt, BATCH, Seen};
pub use crate::task_view::TaskView;

/// How long the double waits for something. Far more than any test needs, so that a slow machine does not fail one.
pub(crate) const WAIT: Duration = Duration::from_secs(30);
/// The task of [`ApiServer::url`].
const TASK: i64 = 7;
/// As much as the real server reads of a request.
const MAX_BODY: usize = 1 << 20;

/// What is set before the server starts.
#[derive(Default)]
pub struct Settings {
    token: Option<String>,
    request_id: Option<String>,
    batches: bool,
    conflicts: bool,
    light: bool,
    several_runs: bool,
    restarts: bool,
    max_body: Option<usize>,
    reap_after: Option<Duration>,
    look_every: Option<Duration>,
    script: Option<Script>,
    register_script: Option<RegisterScript>,
    beat_script: Option<BeatScript>,
}

impl Settings {
    /// Requires `Authorization: Bearer <token>`, and answers 401 without. When it is not set, the header must not come.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Requires `X-Request-ID` with this value at the callback.
    pub fn request_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }

    /// Takes several events in one request, a line each.
    pub fn batches(mut self) -> Self {
        self.batches = true;
        self
    }

    /// Answers 409 to a key that it has taken already, and not as it did the first time.
    pub fn conflicts(mut self) -> Self {
        self.conflicts = true;
        self
    }

    /// An ingress stands before the server, which answers 413 to a body of more bytes: the server does not see it, and
    /// it is no violation. What is so large is in [`ApiServer::too_large`].
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// For more events than a test can keep: of each only its type, number and size are kept, and of its text only what
    /// [`TaskView::tokens_total`] and [`TaskView::log_total`] give. Shapes are not checked, the order is.
    pub fn light(mut self) -> Self {
        self.light = true;
        self
    }

    /// After how much silence a runner is given up; 60 s when it is not said, as in the real server.
    pub fn reap_after(mut self, silence: Duration) -> Self {
        self.reap_after = Some(silence);
        self
    }

    /// How often it looks for runners that are silent, and gives their tasks away; 30 s when it is not said.
    pub fn look_every(mut self, time: Duration) -> Self {
        self.look_every = Some(time);
        self
    }

    /// A task may be run more than once, and by a runner that was killed and started again: the events of each runner,
    /// told apart by their `X-Request-ID`, are judged by themselves. As the real server, it ignores the
    /// `Idempotency-Key`.
    pub fn several_runs(mut self) -> Self {
        self.several_runs = true;
        self
    }

    /// The runner may be killed, and one that is started again goes on with the task: it sends again what it has not
    /// seen arrive. All else is judged as if it were one runner.
    pub fn restarts(mut self) -> Self {
        self.restarts = true;
        self
    }

    /// Decides the answer to each attempt at an event. Without it every event is answered with [`Answer::Ok`].
    pub fn answering(mut self, script: impl FnMut(&Attempt) -> Answer + Send + 'static) -> Self {
        self.script = Some(Box::new(script));
        self
    }

    /// Decides the answer to each registration. [`Answer::Say`] and [`Answer::Status`] hand out no task.
    pub fn answering_registrations(mut self, script: impl FnMut(&Registration) -> Answer + Send + 'static) -> Self {
        self.register_script = Some(Box::new(script));
        self
    }

    /// Decides the answer to each heartbeat of a runner that is known.
    pub fn answering_heartbeats(mut self, script: impl FnMut(&Beat) -> Answer + Send + 'static) -> Self {
        self.beat_script = Some(Box::new(script));
        self
    }

    pub async fn start(self) -> io::Result<ApiServer> {
        self.start_at(ANYWHERE).await
    }

    /// For runners whose settings name an address.
    pub async fn start_at(mut self, at: SocketAddr) -> io::Result<ApiServer> {
        let mut record = Record::default();
        record.runners.reap_after = self.reap_after;
        record.runners.look_every = self.look_every;
        record.runners.register_script = self.register_script.take();
        record.runners.beat_script = self.beat_script.take();
        let shared = Arc::new(Shared {
            record: Mutex::new(record),
            settings: Mutex::new(self),
            changed: Notify::new(),
            base: OnceLock::new(),
        });
        let router = Router::new()
            .route("/internal/tasks/{id}/stream", post(receive))
            .route("/internal/runners/register", post(register))
            .route("/internal/runners/{id}/heartbeat", post(heartbeat))
            .layer(DefaultBodyLimit::max(256 << 20))
            .with_state(Arc::clone(&shared));
        let server = Loopback::serve_at(router, at).await?;
        let _ = shared.base.set(server.url(""));
        Ok(ApiServer { shared, server })
    }
}

#[derive(Default)]
pub(crate) struct Record {
    pub(crate) tasks: BTreeMap<i64, TaskRecord>,
    /// What each runner has sent of a task, where there may be several.
    runs: BTreeMap<(i64, String), TaskRecord>,
    /// How often a body was too large for the server itself.
    too_large: u32,
    /// The sizes of those that were too large for what stands before it.
    before_it: Vec<usize>,
    runners: Runners,
    looked_at: bool,
}

impl Record {
    fn violations(&self) -> Vec<String> {
        let of_tasks = self.tasks.values().chain(self.runs.values());
        let of_tasks = of_tasks.flat_map(|task| &task.violations);
        of_tasks.chain(&self.runners.violations).cloned().collect()
    }
}

pub(crate) struct Shared {
    record: Mutex<Record>,
    settings: Mutex<Settings>,
    pub(crate) changed: Notify,
    /// Our own address.
    base: OnceLock<String>,
}

impl Shared {
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no handler panics while it holds the record")
    }

    /// What is wrong with the `Authorization`: what to note, when that is not the server's own rule.
    fn refuses(&self, headers: &HeaderMap) -> Option<Option<String>> {
        let settings = self.settings.lock().expect("no script panics");
        let expected = settings.token.as_ref().map(|token| format!("Bearer {token}"));
        let unasked = || "an Authorization header came, and no token was given".to_owned();
        (text_of(headers, "authorization") != expected).then(|| expected.is_none().then(unasked))
    }
}

/// The running double. When it is dropped with violations that nobody looked at, the test fails.
pub struct ApiServer {
    shared: Arc<Shared>,
    server: Loopback,
}

impl ApiServer {
    /// A server that accepts every event.
    pub async fn start() -> io::Result<Self> {
        Settings::default().start().await
    }

    /// For a server with a token, a request id or faults.
    pub fn with() -> Settings {
        Settings::default()
    }

    /// The `CALLBACK_URL` of the one task of an active runner.
    pub fn url(&self) -> String {
        self.task_url(TASK)
    }

    /// The callback of a task.
    pub fn task_url(&self, id: i64) -> String {
        self.server.url(&format!("/internal/tasks/{id}/stream"))
    }

    /// The `REGISTER_URL`.
    pub fn register_url(&self) -> String {
        self.server.url("/internal/runners/register")
    }

    /// Where the runner with this id beats.
    pub fn heartbeat_url(&self, runner: i64) -> String {
        self.server.url(&format!("/internal/runners/{runner}/heartbeat"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on this token is taken, and the one before no more.
    pub fn change_token(&self, token: &str) {
        self.shared.settings.lock().expect("no script panics").token = Some(token.to_owned());
    }

    /// From now on, decides the answer to each attempt at an event.
    pub fn answer(&self, script: impl FnMut(&Attempt) -> Answer + Send + 'static) {
        self.shared.settings.lock().expect("no script panics").script = Some(Box::new(script));
    }

    /// From now on, what stands before the server takes bodies of at most so many bytes.
    pub fn take_at_most(&self, bytes: usize) {
        self.shared.settings.lock().expect("no script panics").max_body = Some(bytes);
    }

    /// The sizes of the bodies that were answered with 413, in that order.
    pub fn too_large(&self) -> Vec<usize> {
        self.shared.record().before_it.clone()
    }

    /// From now on, decides the answer to each registration.
    pub fn answer_registrations(&self, script: impl FnMut(&Registration) -> Answer + Send + 'static) {
        self.shared.record().runners.register_script = Some(Box::new(script));
    }

    /// From now on, decides the answer to each heartbeat.
    pub fn answer_heartbeats(&self, script: impl FnMut(&Beat) -> Answer + Send + 'static) {
        self.shared.record().runners.beat_script = Some(Box::new(script));
    }

    /// Queues a task for the next runner that registers.
    pub fn assign(&self, assignment: Assignment) {
        let mut record = self.shared.record();
        let id = assignment.id();
        record.tasks.entry(id).or_default().number = Some(id);
        record.runners.assign(assignment);
    }

    /// How many tasks no runner has got yet.
    pub fn waiting(&self) -> usize {
        self.shared.record().runners.waiting()
    }

    /// The tasks that a runner has, as far as the server knows.
    pub fn held(&self) -> Vec<i64> {
        self.shared.record().runners.held()
    }

    /// Each time that a task was handed out, in that order.
    pub fn hand_outs(&self) -> Vec<HandOut> {
        self.shared.record().runners.hand_outs.clone()
    }

    /// Every request that came for a task, delivered or not.
    pub fn attempts_of(&self, task: i64) -> Vec<Attempt> {
        self.task(task).attempts()
    }

    /// Whether a task has an ending, of whichever run.
    pub fn has_ended(&self, task: i64) -> bool {
        self.task(task).terminal().is_some()
    }

    /// When the first ending of a task came.
    pub fn ended_at(&self, task: i64) -> Option<Instant> {
        self.shared.record().runners.ended_at(task)
    }

    /// What the real server does when it starts: it gives the tasks away of those that are silent.
    pub fn has_started_anew(&self) {
        self.shared.record().runners.look(true);
    }

    pub fn registrations(&self) -> Vec<Registration> {
        self.shared.record().runners.registrations.clone()
    }

    pub fn heartbeats(&self) -> Vec<Beat> {
        self.shared.record().runners.beats.clone()
    }

    /// The runners that were silent for too long, in that order.
    pub fn reaped(&self) -> Vec<i64> {
        self.shared.record().runners.reaped()
    }

    /// What is known of one task.
    pub fn task(&self, id: i64) -> TaskView {
        TaskView::new(Arc::clone(&self.shared), id)
    }

    /// The events that were delivered, in order.
    pub fn events(&self) -> Vec<Value> {
        self.task(TASK).events()
    }

    /// The delivered events of one type.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.task(TASK).events_of(kind)
    }

    /// Every request that came, delivered or not.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.task(TASK).attempts()
    }

    /// The terminal event, when it was delivered.
    pub fn terminal(&self) -> Option<Value> {
        self.task(TASK).terminal()
    }

    /// The events from now on, as they are delivered. Not bounded: a viewer must not slow the runner down.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Value> {
        self.task(TASK).subscribe()
    }

    /// Waits until an event that `wanted` accepts was delivered.
    pub async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.task(TASK).wait_for(wanted).await
    }

    /// Waits until something that a request may change is so.
    pub async fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = wait_until(&self.shared, || is_so(self).then_some(()));
        if wait.await.is_none() {
            panic!("within {WAIT:?} it did not come to this: {what}");
        }
    }

    /// What broke the protocol so far, at whatever task or registration.
    pub fn violations(&self) -> Vec<String> {
        let mut record = self.shared.record();
        record.looked_at = true;
        record.violations()
    }

    /// What broke the protocol, now that the runner has ended: a missing terminal event too, of the tasks that were
    /// handed out or, when nobody has registered, of the one task.
    pub fn final_violations(&self) -> Vec<String> {
        let mut violations = self.violations();
        let record = self.shared.record();
        let mut handed_out: Vec<i64> = record.runners.registrations.iter().filter_map(|one| one.task).collect();
        if record.runners.registrations.is_empty() {
            handed_out = vec![TASK];
        }
        let none = TaskRecord::default();
        for id in handed_out {
            let task = record.tasks.get(&id).unwrap_or(&none);
            violations.extend(task.rules.finish());
        }
        violations
    }
}

/// Waits until a request has made something so; nothing when it takes longer than [`WAIT`].
pub(crate) async fn wait_until<T>(shared: &Shared, found: impl Fn() -> Option<T>) -> Option<T> {
    let search = async {
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = found() {
                return found;
            }
            changed.await;
        }
    };
    tokio::time::timeout(WAIT, search).await.ok()
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let record = self.shared.record();
        let violations = record.violations();
        if !record.looked_at && !violations.is_empty() {
            panic!("the runner broke the protocol:\n  {}", violations.join("\n  "));
        }
    }
}

/// Counts a request as in flight for as long as it lives: also when the client gives up.
struct InFlight<'a>(&'a Shared, i64);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared, id: i64) -> Self {
        let mut record = shared.record();
        let task = record.tasks.entry(id).or_default();
        task.in_flight += 1;
        if task.in_flight > 1 {
            let count = task.in_flight;
            task.violations.push(format!("{count} requests in flight at once"));
        }
        drop(record);
        Self(shared, id)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.record().tasks.entry(self.1).or_default().in_flight -= 1;
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    Path(id): Path<i64>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let max_body = shared.settings.lock().expect("no script panics").max_body;
    if max_body.is_some_and(|most| body.len() > most) {
        let mut record = shared.record();
        record.before_it.push(body.len());
        let key = text_of(&headers, "idempotency-key").unwrap_or_default();
        record.tasks.entry(id).or_default().too_large.insert(key);
        return answer::reply(413, String::new());
    }
    if body.len() > MAX_BODY {
        return refuse_large(&shared, id, &body, &wire);
    }
    let (several_runs, restarts) = {
        let settings = shared.settings.lock().expect("no script panics");
        (settings.several_runs, settings.restarts)
    };
    // What a runner that was killed has sent may still be dealt with.
    let _in_flight = (!several_runs && !restarts).then(|| InFlight::new(&shared, id));
    let answer = match shared.refuses(&headers) {
        Some(note) => {
            shared.record().tasks.entry(id).or_default().violations.extend(note);
            Answer::Status(401)
        }
        None => {
            let mut settings = shared.settings.lock().expect("no script panics");
            let Settings {
                request_id,
                batches,
                conflicts,
                light,
                restarts,
                script,
                ..
            } = &mut *settings;
            let path = uri.path_and_query().map_or("", |path| path.as_str());
            let expected = Expected {
                path,
                request_id: request_id.as_deref(),
                batches: *batches,
                conflicts: *conflicts,
                light: *light,
                restarts: *restarts,
                script: script.as_mut(),
            };
            let mut record = shared.record();
            let answer = match several_runs {
                true => judge_run(&mut record, id, headers, body, expected),
                false => record.tasks.entry(id).or_default().judge(headers, body, expected),
            };
            if record.tasks.get(&id).is_some_and(TaskRecord::has_ended) {
                record.runners.has_ended(id);
            }
            answer
        }
    };
    shared.changed.notify_waiters();
    answer.give(&wire, answer::ok()).await
}

/// Judges what one of several runs of a task sends, as far as one can that ends at any moment.
fn judge_run(record: &mut Record, id: i64, headers: HeaderMap, body: Bytes, expected: Expected<'_>) -> Answer {
    let runner = text_of(&headers, "x-request-id");
    let number = record.tasks.entry(id).or_default().number;
    let run = record.runs.entry((id, runner.clone().unwrap_or_default())).or_default();
    run.number = number;
    run.is_one_of_several = true;
    let request_id = runner.as_deref();
    let begun = run.begun;
    let answer = run.judge(headers, body, Expected { request_id, ..expected });
    // What comes again under its key is taken again.
    let taken = run.delivered.last().filter(|_| answer.takes()).cloned();
    let begun = run.begun - begun;
    let task = record.tasks.entry(id).or_default();
    task.is_one_of_several = true;
    task.begun += begun;
    task.delivered.extend(taken);
    answer
}

/// What the real server does with a body that is too large: it cuts the connection, and the next time it says 413.
fn refuse_large(shared: &Shared, id: i64, body: &Bytes, wire: &Wire) -> Response {
    let mut record = shared.record();
    record.too_large += 1;
    let begin = String::from_utf8_lossy(&body[..200]).into_owned();
    let wrong = format!(
        "a body of {} bytes, and the server takes {MAX_BODY}: {begin}",
        body.len()
    );
    record.tasks.entry(id).or_default().violations.push(wrong);
    match record.too_large % 2 {
        1 => answer::cut(wire),
        _ => answer::reply(413, String::new()),
    }
}

async fn register(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (answer, usual) = match shared.refuses(&headers) {
        Some(note) => {
            shared.record().runners.violations.extend(note);
            (Answer::Status(401), String::new())
        }
        None => {
            let base = shared.base.get().map_or("", String::as_str);
            shared.record().runners.register(&headers, &body, base)
        }
    };
    shared.changed.notify_waiters();
    answer.give(&wire, usual).await
}

async fn heartbeat(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (answer, usual) = match shared.refuses(&headers) {
        Some(note) => {
            shared.record().runners.violations.extend(note);
            (Answer::Status(401), String::new())
        }
        None => shared.record().runners.beat(id, &headers, &body),
    };
    shared.changed.notify_waiters();
    answer.give(&wire, usual).await
}
