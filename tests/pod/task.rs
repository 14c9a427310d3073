//! Pods that run one task: what deploy/overlays/job makes.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use support::demo::{Script, repository};
use support::{Reply, Turn};

use crate::cluster;
use crate::container::{Memory, Node};
use crate::figures::Figures;

/// The user and the group of the manifests.
const USER: u32 = 10001;
/// Those of tests/pod/deploy/any-user.
const ANY_USER: u32 = 1_000_680_000;

/// The task's number in the manifest.
const TASK: i64 = 1;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The time between two events of a last answer. The exit code is lost when the pod has ended before `runsc wait` has
/// got to it; the shortest of the pods takes half a second by itself.
const PACE: Duration = Duration::from_millis(250);

/// The demo's agent, and what it takes.
pub async fn agent(node: &Node, figures: &mut Figures) -> Result<()> {
    let api = cluster::api().await?;
    let mut script = Script::default();
    let model = cluster::model(move |request| script.answer(request)).await?;
    let mut pod = node.create("agent").await?;
    let workspace = pod.volume("workspace");
    // As an init container does that checks a repository out.
    repository::lay_out(&workspace).context("lay the repository out")?;
    give_away(&workspace)?;
    pod.start().await?;
    let mut most = Memory::default();
    while !pod.has_ended() {
        // It may end while it is looked at.
        if let Ok(now) = pod.memory().await {
            most = most.most(now);
        }
        tokio::time::sleep(LOOK).await;
    }
    let code = pod.wait().await?;
    let changes = repository::changes(&workspace)?;
    cluster::finish(pod, &api, &[TASK], Some(&model), (code, 0)).await?;
    cluster::ending(&api, TASK, "done")?;
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    ensure!(
        paths == ["lib/invoice.sh"],
        "one file was to be changed, and these were: {paths:?}"
    );
    ensure!(most.runner < 120_000_000, "the agent held {most:?}");
    figures.at_work = Some(most);
    Ok(())
}

/// Steps that look at where they are.
pub async fn workflow(node: &Node) -> Result<()> {
    steps(node, "workflow", USER).await
}

/// The same as a user that the image does not know, in group 0: how OpenShift starts an image.
pub async fn any_user(node: &Node) -> Result<()> {
    steps(node, "any-user", ANY_USER).await
}

async fn steps(node: &Node, name: &str, user: u32) -> Result<()> {
    let api = cluster::api().await?;
    let mut pod = node.create(name).await?;
    pod.start().await?;
    let code = pod.wait().await?;
    let lines = cluster::lines(&api, TASK);
    cluster::finish(pod, &api, &[TASK], None, (code, 0))
        .await
        .with_context(|| lines.clone())?;
    cluster::ending(&api, TASK, "done")?;
    // The manifest's limit is what gVisor says that the machine has, where there are control groups.
    let limit = if node.limits {
        "MemTotal: 2097152 kB"
    } else {
        "MemTotal: "
    };
    for expected in [
        "git version ",
        "jq-",
        &format!("user {user} runner of "),
        " sandbox",
        "Plue Runner,",
        "no key here",
        limit,
    ] {
        ensure!(lines.contains(expected), "the steps did not say {expected:?}: {lines}");
    }
    Ok(())
}

/// SIGTERM, and nothing before: a Job's pod has no hook. The manifest's grace is what it has.
pub async fn sigterm(node: &Node) -> Result<()> {
    let api = cluster::api().await?;
    let mut pod = node.create("sigterm").await?;
    pod.start().await?;
    api.wait_until("the step has begun", |api| !api.task(TASK).events_of("log").is_empty())
        .await;
    ensure!(pod.facts.pre_stop.is_none(), "a Job's pod has a hook");
    let code = pod.stop().await?;
    cluster::finish(pod, &api, &[TASK], None, (code, 143)).await?;
    cluster::ending(&api, TASK, "cancelled")?;
    ensure!(api.task(TASK).events_of("step_end").len() == 1, "the step has no end");
    Ok(())
}

/// Everything in the pod is killed while a command runs, and the container is started again: the same name, the same
/// volumes. The agent goes on, and makes no call twice.
pub async fn resume(node: &Node) -> Result<()> {
    let api = cluster::api_for_restarts().await?;
    let model = cluster::model(|request| -> Reply {
        let call = |id: &str, command: &str| Turn::new().call(id, "shell", json!({ "command": command })).into();
        match request.messages().len() {
            1 => call("toolu_one", "echo one >> made"),
            3 => call("toolu_two", "echo two >> made; sleep 300"),
            5 if request.results().iter().all(|result| !result.is_error) => {
                Reply::Wrong("the call that was killed has succeeded".into())
            }
            5 => call("toolu_three", "echo three >> made"),
            _ => Turn::says("Done.").pace(PACE).into(),
        }
    })
    .await?;
    let mut pod = node.create("resume").await?;
    pod.start().await?;
    let made = pod.volume("workspace").join("made");
    while !fs::read_to_string(&made).is_ok_and(|made| made.contains("two")) {
        ensure!(!pod.has_ended(), "the pod has ended: {}", pod.log().await);
        tokio::time::sleep(LOOK).await;
    }
    pod.signal("KILL").await?;
    let code = pod.wait().await?;
    ensure!(code == 137, "the killed runner ended with {code}");
    ensure!(api.task(TASK).terminal().is_none(), "somebody ended the task already");
    drop(pod);
    // The kernel takes a moment to take the pod's network away, and kubelet waits longer.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut pod = node.create("resume").await?;
    pod.start().await?;
    let code = pod.wait().await?;
    let (written, left) = (fs::read_to_string(&made), pod.volume("tmp").join("plue-state"));
    let left = fs::read_dir(&left)
        .with_context(|| format!("{} is not there", left.display()))?
        .count();
    cluster::finish(pod, &api, &[TASK], Some(&model), (code, 0)).await?;
    cluster::ending(&api, TASK, "done")?;
    ensure!(
        written.is_ok_and(|made| made == "one\ntwo\nthree\n"),
        "a call was made twice, or not at all"
    );
    ensure!(
        cluster::lines(&api, TASK).contains("the runner was restarted"),
        "nobody was told of the restart"
    );
    ensure!(left == 0, "the task's files are left");
    Ok(())
}

/// An agent without commands, in the image without a shell.
pub async fn slim(node: &Node) -> Result<()> {
    let api = cluster::api().await?;
    let model = cluster::model(|request| -> Reply {
        match request.index {
            0 => Turn::new()
                .call(
                    "toolu_write",
                    "write_file",
                    json!({ "path": "notes.txt", "content": "from a small image\n" }),
                )
                .into(),
            1 => Turn::new()
                .call("toolu_grep", "grep", json!({ "pattern": "small" }))
                .into(),
            _ => match request.success("toolu_grep") {
                Ok(found) if found.contains("notes.txt:1:from a small image") => Turn::says("Done.").pace(PACE).into(),
                other => Reply::Wrong(format!("grep gave {other:?}")),
            },
        }
    })
    .await?;
    let mut pod = node.create("slim").await?;
    pod.start().await?;
    let code = pod.wait().await?;
    let written = fs::read_to_string(pod.volume("workspace").join("notes.txt"));
    cluster::finish(pod, &api, &[TASK], Some(&model), (code, 0)).await?;
    ensure!(
        written.is_ok_and(|text| text == "from a small image\n"),
        "the file was not written"
    );
    cluster::ending(&api, TASK, "done").map(drop)
}

/// Makes the pod's user the owner of all in a folder.
fn give_away(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let path = entry?.path();
        chown(&path, Some(USER), Some(USER)).with_context(|| format!("could not give {} away", path.display()))?;
        if path.is_dir() {
            give_away(&path)?;
        }
    }
    Ok(())
}
