//! Who a pod talks to: the API server and the Messages API, where the manifests' names lead to.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use support::api_server::Settings;
use support::claude::KEY;
use support::{ApiServer, Claude, Reply, Request};

use crate::container::Pod;
use crate::network;

/// `CALLBACK_TOKEN` in the Secret of the pods.
const TOKEN: &str = "callback-token-of-the-double";

/// The model that tasks ask for.
pub const SONNET: &str = "claude-sonnet-5-5";

pub async fn api() -> Result<ApiServer> {
    started(ApiServer::with()).await
}

/// One that knows that a runner may be killed and started again.
pub async fn api_for_several_runs() -> Result<ApiServer> {
    started(ApiServer::with().several_runs()).await
}

/// One that knows that a runner may be killed, and that the next one goes on with its task.
pub async fn api_for_restarts() -> Result<ApiServer> {
    started(ApiServer::with().restarts()).await
}

async fn started(api: Settings) -> Result<ApiServer> {
    let at = format!("{}:80", network::API).parse()?;
    api.token(TOKEN).start_at(at).await.context("start the API server")
}

pub async fn model(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Result<Claude> {
    let at = format!("{}:80", network::MODEL).parse()?;
    Claude::at(at, KEY, script).await.context("start the Messages API")
}

/// What has to hold of a pod that has ended, and of what was said of its tasks. The exit code, and the one that it must
/// be.
pub async fn finish(
    pod: Pod,
    api: &ApiServer,
    tasks: &[i64],
    model: Option<&Claude>,
    (code, expected): (i64, i64),
) -> Result<()> {
    let log = pod.log().await;
    judge(api, tasks, model, &log)?;
    ensure!(
        code == expected,
        "the exit code was {code} in place of {expected}:\n{log}"
    );
    Ok(())
}

/// What has to hold of everything that was said of these tasks, whatever they were.
fn judge(api: &ApiServer, tasks: &[i64], model: Option<&Claude>, log: &str) -> Result<()> {
    let mut violations = api.violations();
    violations.extend(tasks.iter().flat_map(|task| api.task(*task).final_violations()));
    ensure!(
        violations.is_empty(),
        "the protocol was broken:\n  {}\n{log}",
        violations.join("\n  ")
    );
    let refusals = model.map(Claude::refusals).unwrap_or_default();
    ensure!(
        refusals.is_empty(),
        "the model found something wrong:\n  {}",
        refusals.join("\n  ")
    );
    for secret in [KEY, TOKEN] {
        ensure!(!log.contains(secret), "a secret is in the log:\n{log}");
    }
    Ok(())
}

/// The ending of a task, which must be of this kind.
pub fn ending(api: &ApiServer, task: i64, expected: &str) -> Result<Value> {
    let ending = api
        .task(task)
        .terminal()
        .with_context(|| format!("task {task} has no ending"))?;
    let kind = ending["code"].as_str().or(ending["type"].as_str()).unwrap_or_default();
    ensure!(kind == expected, "task {task} was to end with `{expected}`: {ending}");
    ensure!(ending["sandbox"] == "strict", "the sandbox was not whole: {ending}");
    Ok(ending)
}

/// What the commands of a task have printed.
pub fn lines(api: &ApiServer, task: i64) -> String {
    let logs = api.task(task).events_of("log");
    let lines: Vec<&str> = logs.iter().filter_map(|log| log["message"].as_str()).collect();
    lines.join("\n")
}
