//! One call from the outside: the input is validated, the component runs on a thread of its own, and when that thread
//! cannot be stopped it is given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bindings::Output;
use super::instance::Failure;
use super::plugin::Plugin;
use super::state::Reach;
use super::{ToolErrorCode, ToolOutcome};

/// How long after its time a call may still answer by itself before its thread is given up: more than a few ticks.
const GIVE_UP: Duration = Duration::from_secs(1);

/// Does one call. Never fails: what goes wrong is the outcome.
///
/// When the caller drops the future, the call is cancelled.
pub(crate) async fn call(plugin: &Arc<Plugin>, slots: &Arc<Semaphore>, input: &str, reach: Reach) -> ToolOutcome {
    let started = Instant::now();
    let result = match plugin.schema.check(input) {
        Ok(()) => run(plugin, slots, input, reach, started).await,
        Err(problems) => Err(Failure::new(ToolErrorCode::InvalidInput, problems)),
    };
    let duration = started.elapsed();
    match result {
        Ok(output) => ToolOutcome {
            error: None,
            text: clean(output.text),
            truncated: output.truncated.is_some(),
            duration,
        },
        Err(failure) => ToolOutcome {
            error: Some(failure.code),
            text: clean(failure.text),
            truncated: false,
            duration,
        },
    }
}

async fn run(
    plugin: &Arc<Plugin>,
    slots: &Arc<Semaphore>,
    input: &str,
    mut reach: Reach,
    started: Instant,
) -> Result<Output, Failure> {
    let limits = &plugin.prepared.limits;
    let caller = reach.cancel.clone();
    if caller.is_cancelled() {
        return Err(Failure::new(
            ToolErrorCode::Cancelled,
            "the call was cancelled before it began",
        ));
    }
    let slot = tokio::time::timeout(limits.deadline(), slots.clone().acquire_owned());
    let Ok(Ok(slot)) = slot.await else {
        return Err(Failure::new(
            ToolErrorCode::Timeout,
            "all tool calls that may run at a time are still running",
        ));
    };
    // A token of its own: dropping this future, or giving the thread up, ends the command that the call runs.
    let own = caller.child_token();
    let _cancel_on_drop = own.clone().drop_guard();
    reach.cancel = own;
    let runtime = Handle::current();
    let (plugin, input) = (plugin.clone(), input.to_owned());
    let thread = tokio::task::spawn_blocking({
        let plugin = plugin.clone();
        move || {
            let result = runtime.block_on(plugin.prepared.call(&input, reach));
            // A slot stands for a thread and an instance: a thread that was given up keeps it until it really ends.
            drop(slot);
            result
        }
    });
    let patience = (started + limits.deadline() + GIVE_UP).into();
    tokio::select! {
        biased;
        result = joined(thread) => result,
        () = tokio::time::sleep_until(patience) => {
            Err(given_up(&plugin, ToolErrorCode::Timeout, format!("did not end within {:?}", limits.deadline())))
        }
        () = cancelled_for(&caller, limits.cancel_grace() + GIVE_UP) => {
            Err(given_up(&plugin, ToolErrorCode::Cancelled, "did not end when it was cancelled".to_owned()))
        }
    }
}

async fn joined(thread: JoinHandle<Result<Output, Failure>>) -> Result<Output, Failure> {
    thread.await.unwrap_or_else(|error| {
        tracing::error!("a tool call panicked: {error}");
        Err(Failure::new(
            ToolErrorCode::Failed,
            "the runner failed while it ran the tool; this is a defect of the runner",
        ))
    })
}

async fn cancelled_for(token: &CancellationToken, time: Duration) {
    token.cancelled().await;
    tokio::time::sleep(time).await;
}

/// A file operation that never returns: nothing in user space can interrupt it.
fn given_up(plugin: &Plugin, code: ToolErrorCode, why: String) -> Failure {
    let tool = &*plugin.prepared.tool;
    tracing::warn!(tool, "the thread of a tool call is given up: it {why}");
    Failure::new(
        code,
        format!("the call was given up: it {why}; a file operation may be blocked (a FIFO, a slow mount)"),
    )
}

/// PostgreSQL, where the API server keeps the text, cannot store NUL.
fn clean(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{FFFD}")
    } else {
        text
    }
}
