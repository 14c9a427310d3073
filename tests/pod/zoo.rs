//! The zoo in a pod of the warm pool: each row is a task, one after the other.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use support::zoo::{self, LIMIT, Row};
use support::{ApiServer, Assignment};
use tokio::time::{sleep, timeout};

use crate::cluster;
use crate::container::Node;

/// How often it is looked whether a row has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Runs rows, all when none is named, and says what came of each.
pub async fn rows(node: &Node, names: &[String]) -> Result<()> {
    let rows = zoo::chosen(names).map_err(|name| anyhow!("there is no row {name}"))?;
    let api = cluster::api().await?;
    let mut pod = node.create("zoo").await?;
    let missing = zoo::missing(&pod.root()?);
    pod.start().await?;
    let mut failed = Vec::new();
    let mut tasks = Vec::new();
    for (task, row) in (1..).zip(rows) {
        let skip = missing.get(row.name).map(String::as_str).or(row.not_in_gvisor);
        if let Some(reason) = skip {
            println!("{}", row.skipped(reason));
            continue;
        }
        let started = Instant::now();
        let result = one(&api, task, row).await;
        println!("{}", row.line(started.elapsed(), &result));
        if result.is_err() {
            failed.push(row.name);
        }
        if pod.has_ended() {
            bail!("the pod ended under {}:\n{}", row.name, pod.log().await);
        }
        tasks.push(task);
    }
    pod.signal("TERM").await?;
    let code = pod.wait().await?;
    cluster::finish(pod, &api, &tasks, None, (code, 143)).await?;
    ensure!(failed.is_empty(), "these do not run: {}", failed.join(", "));
    Ok(())
}

async fn one(api: &ApiServer, task: i64, row: &Row) -> Result<(), String> {
    api.assign(Assignment::new(task, row.task()).with_path());
    let ended = async {
        while !api.has_ended(task) {
            sleep(LOOK).await;
        }
    };
    // The task has a limit of its own, and the runner says so when it is over it.
    let _ = timeout(Duration::from_secs(2 * u64::from(LIMIT)), ended).await;
    row.judge(api, task)
}
