//! Pods that wait for tasks: what deploy/overlays/warm-pool makes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use support::{ApiServer, Assignment, Claude, Reply, Turn};
use tokio::time::sleep;

use crate::cluster::{self, SONNET};
use crate::container::{Node, Pod};
use crate::figures::Figures;

/// How long an idle runner is left alone before it is looked at, and how long its processor time is counted.
const SETTLE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(5);

/// What a fast model streams: so many pieces, and the time between two.
const PIECES: usize = 300;
const PACE: Duration = Duration::from_millis(10);

/// Three tasks in a row, the probes, what the runner takes, and an attack.
pub async fn three_tasks(node: &Node, figures: &mut Figures) -> Result<()> {
    let api = cluster::api().await?;
    let model = cluster::model(hello).await?;
    let mut pod = node.create("standby").await?;
    let started = pod.start().await?;
    idle(&api).await?;
    figures.registered = Some(api.registrations()[0].at - started);
    sleep(SETTLE).await;
    let share = share_of_a_core(&pod, sleep(IDLE)).await?;
    let idle = pod.memory().await?;
    // Twice the aim: what one run holds, next to nothing may double.
    ensure!(idle.runner < 80_000_000, "an idle runner holds {idle:?}");
    figures.idle = Some((idle, share));
    probes(&pod).await?;
    surroundings(&pod).await?;

    let agent = json!({ "type": "agent", "model": SONNET, "tools": ["write_file", "read_file"],
        "messages": [{ "role": "user", "content": "Greet." }] });
    let failing = json!({ "type": "workflow", "steps": [
        { "run": "ls -A /workspace /tmp; echo that is all" }, { "run": "exit 3" }] });
    for (id, task, expected) in [
        (11, agent.clone(), "done"),
        (12, failing, "step_failed"),
        (13, agent, "done"),
    ] {
        let asked = model.requests().len();
        model.begin_anew();
        api.assign(Assignment::new(id, task).with_path());
        api.wait_until("the task has ended", |api| api.task(id).terminal().is_some())
            .await;
        cluster::ending(&api, id, expected)?;
        let assigned = assignment(&api, id)?;
        figures.turnaround.push(turnaround(&api, id).await?);
        let first = api.task(id).attempts().first().context("no event came")?.at;
        figures.first_event.push(first - assigned);
        figures
            .model_request
            .extend(model.requests().get(asked).map(|request| request.at - assigned));
    }
    let lines = cluster::lines(&api, 12);
    ensure!(
        lines.contains("that is all") && !lines.contains("greeting"),
        "the second task found what the first had left: {lines}"
    );
    work(&pod, &api, &model, figures).await?;
    // As an operator does who wants to know: kubectl exec POD -- plue-runner escape-test
    let attack = ["plue-runner", "escape-test", "--only", "files/dotdot-in-the-middle"].map(str::to_owned);
    pod.must_exec(&attack).await.context("an attack in the pod")?;
    pod.signal("TERM").await?;
    let code = pod.wait().await?;
    end(pod, &api, &[11, 12, 13, 14], Some(&model), (code, 143)).await
}

/// An agent whose model streams for some seconds: what that takes.
async fn work(pod: &Pod, api: &ApiServer, model: &Claude, figures: &mut Figures) -> Result<()> {
    model.begin_anew();
    let task = json!({ "type": "agent", "model": SONNET, "tools": [],
        "messages": [{ "role": "user", "content": STREAM }] });
    api.assign(Assignment::new(14, task).with_path());
    api.wait_until("the model streams", |api| !api.task(14).events_of("token").is_empty())
        .await;
    let share = share_of_a_core(pod, sleep(PACE * (PIECES as u32 / 2))).await?;
    figures.streaming = Some((pod.memory().await?, share));
    api.wait_until("the task has ended", |api| api.task(14).terminal().is_some())
        .await;
    cluster::ending(api, 14, "done").map(drop)
}

/// What share of a core the pod takes while something else is waited for.
async fn share_of_a_core(pod: &Pod, waiting: impl Future<Output = ()>) -> Result<f64> {
    let before = (Instant::now(), pod.processor()?);
    waiting.await;
    Ok((pod.processor()? - before.1).as_secs_f64() / before.0.elapsed().as_secs_f64())
}

/// From the arrival of a task's ending to the next question for a task.
async fn turnaround(api: &ApiServer, task: i64) -> Result<Duration> {
    let attempts = api.task(task).attempts();
    let ended = attempts.last().context("no event came")?.at;
    let next = |api: &ApiServer| {
        api.registrations()
            .into_iter()
            .map(|asked| asked.at)
            .find(|at| *at > ended)
    };
    api.wait_until("the runner asks for another task", |api| next(api).is_some())
        .await;
    Ok(next(api).context("the runner asks no more")? - ended)
}

/// A runner that works is told to go by its hook. It finishes, and what waits goes to another one.
pub async fn drain(node: &Node) -> Result<()> {
    let api = cluster::api().await?;
    let mut pod = node.create("standby").await?;
    pod.start().await?;
    idle(&api).await?;
    let last = json!({ "type": "workflow", "steps": [{ "run": "echo begun; sleep 3; echo whole" }] });
    api.assign(Assignment::new(21, last).with_path());
    api.wait_until("the task has begun", |api| !api.task(21).events_of("log").is_empty())
        .await;
    api.assign(Assignment::new(22, json!({ "type": "workflow", "steps": [{ "run": "echo never" }] })).with_path());
    let code = pod.stop().await?;
    cluster::ending(&api, 21, "done")?;
    ensure!(api.waiting() == 1, "a runner that drains took another task");
    end(pod, &api, &[21], None, (code, 0)).await
}

/// The kernel kills a runner at work, and kubelet starts its container again: the same name, the same volumes.
pub async fn restart(node: &Node) -> Result<()> {
    let api = cluster::api_for_several_runs().await?;
    let mut pod = node.create("standby").await?;
    pod.start().await?;
    idle(&api).await?;
    let task = json!({ "type": "workflow", "steps": [{ "run": "echo begun; sleep 300" }] });
    api.assign(Assignment::new(31, task).with_path());
    api.wait_until("the task has begun", |api| !api.task(31).events_of("log").is_empty())
        .await;
    pod.signal("KILL").await?;
    let code = pod.wait().await?;
    ensure!(code == 137, "the killed runner ended with {code}");
    ensure!(api.task(31).terminal().is_none(), "somebody ended the task already");
    let asked = api.registrations().len();
    drop(pod);
    // The kernel takes a moment to take the pod's network away, and kubelet waits longer.
    sleep(SETTLE).await;

    let mut pod = node.create("standby").await?;
    let next = json!({ "type": "workflow", "steps": [{ "run": "ls -A /workspace; echo that is all" }] });
    api.assign(Assignment::new(32, next).with_path());
    pod.start().await?;
    api.wait_until("both tasks have ended", |api| api.has_ended(31) && api.has_ended(32))
        .await;
    cluster::ending(&api, 31, "worker_lost")?;
    cluster::ending(&api, 32, "done")?;
    ensure!(
        cluster::lines(&api, 32) == "that is all",
        "the next task found something"
    );
    let again = &api.registrations()[asked];
    let told = api.ended_at(31).context("the task has no ending")?;
    ensure!(
        told < again.at,
        "it asked for a task before it ended the one that it had"
    );
    ensure!(
        again.body["pod_name"] == api.registrations()[0].body["pod_name"],
        "the runner has changed its name: {}",
        again.body
    );
    pod.signal("TERM").await?;
    let code = pod.wait().await?;
    end(pod, &api, &[31, 32], None, (code, 143)).await
}

/// Waits until the runner has registered.
async fn idle(api: &ApiServer) -> Result<()> {
    api.wait_until("the runner has registered", |api| !api.registrations().is_empty())
        .await;
    let first = &api.registrations()[0];
    ensure!(first.status == 200, "the registration was refused");
    ensure!(
        first.body["pod_name"]
            .as_str()
            .is_some_and(|name| name.starts_with("plue-runner-")),
        "the runner does not know its pod's name: {}",
        first.body
    );
    Ok(())
}

/// When the API server handed a task out.
fn assignment(api: &ApiServer, task: i64) -> Result<Instant> {
    let registrations = api.registrations();
    let handed_out = registrations
        .iter()
        .find(|registration| registration.task == Some(task));
    Ok(handed_out.context("the task was not handed out")?.at)
}

/// Fails unless the container is what manifest and image say, outside of the sandbox that commands have.
const SURROUNDINGS: &str = r#"
test "$(id -u):$(id -g)" = 10001:10001
test "$(grep -cE '^Cap(Inh|Prm|Eff|Bnd):\s0{16}$' /proc/self/status)" = 4
test "$HOME" = /home/runner
touch /workspace/probe /tmp/probe && rm /workspace/probe /tmp/probe
for place in / /etc /usr /home/runner /opt/plue /opt/plue/plugins; do
    if touch "$place/probe" 2>/dev/null; then echo "$place can be written to"; exit 1; fi
done
test ! -e /var/run/secrets/kubernetes.io
if command -v cc gcc cargo rustc; then echo "there is a compiler"; exit 1; fi
grep -q '^Linux version 4.4.0' /proc/version"#;

async fn surroundings(pod: &Pod) -> Result<()> {
    let look = ["/bin/sh", "-euxc", SURROUNDINGS].map(str::to_owned);
    pod.must_exec(&look)
        .await
        .context("the container is not what the manifest says")
        .map(drop)
}

/// What kubelet and Docker ask, of a runner that is registered.
async fn probes(pod: &Pod) -> Result<()> {
    let [startup, liveness, readiness] = [&pod.facts.startup, &pod.facts.liveness, &pod.facts.readiness];
    let (liveness, readiness) = (liveness.as_ref().context("no liveness probe")?, readiness.as_ref());
    pod.must_exec(startup.as_ref().context("no startup probe")?)
        .await
        .context("the startup probe")?;
    pod.must_exec(liveness).await.context("the liveness probe")?;
    pod.must_exec(readiness.context("no readiness probe")?)
        .await
        .context("the readiness probe")?;
    pod.must_exec(&pod.facts.health)
        .await
        .context("the image's HEALTHCHECK")
        .map(drop)
}

/// What the task asks for whose model streams.
const STREAM: &str = "Say much.";

/// Writes a file, and greets.
fn hello(request: &support::Request) -> Reply {
    if request.messages()[0].to_string().contains(STREAM) {
        return Turn::text(&vec!["word "; PIECES]).pace(PACE).into();
    }
    match request.messages().len() {
        1 => Turn::new()
            .call(
                "toolu_write",
                "write_file",
                json!({ "path": "greeting", "content": "Hello.\n" }),
            )
            .into(),
        _ => Turn::says("Hello.").into(),
    }
}

/// What has to hold of a runner that has ended: it has left nothing, besides all else.
async fn end(pod: Pod, api: &ApiServer, tasks: &[i64], model: Option<&Claude>, codes: (i64, i64)) -> Result<()> {
    let left: Vec<_> = fs::read_dir(pod.volume("workspace"))?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    cluster::finish(pod, api, tasks, model, codes).await?;
    ensure!(left.is_empty(), "the workspace was left with {left:?}");
    Ok(())
}
