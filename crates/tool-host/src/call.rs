//! One call from the outside: the input is validated, the component runs on a thread of its own, and when that thread
//! cannot be stopped it is given up.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bindings::Output;
use super::instance::Failure;
use super::interrupt::Interruptible;
use super::live_text::without_nul;
use super::plugin::Plugin;
use super::state::CallGrants;
use plue_contract::{ToolErrorCode, ToolOutcome};

/// How long after its time a call may still answer by itself before its thread is given up: more than a few ticks.
const GIVE_UP: Duration = Duration::from_secs(1);

/// How often, and how far apart, a thread that is late is interrupted before it is given up.
const INTERRUPTS: u32 = 20;
const INTERRUPT_EVERY: Duration = Duration::from_millis(20);

/// Does one call. Never fails: what goes wrong is the outcome.
///
/// When the caller drops the future, the call is cancelled.
pub(crate) async fn call(plugin: &Arc<Plugin>, slots: &Arc<Semaphore>, input: &str, grants: CallGrants) -> ToolOutcome {
    let started = Instant::now();
    let notes = grants.notes.clone();
    let result = run(plugin, slots, input, grants).await;
    let duration = started.elapsed();
    let notes = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
    match result {
        Ok(output) => ToolOutcome {
            error: None,
            text: without_nul(output.text),
            truncated: output.truncated.is_some(),
            duration,
            notes,
        },
        Err(failure) => ToolOutcome {
            error: Some(failure.code),
            text: without_nul(failure.text),
            truncated: false,
            duration,
            notes,
        },
    }
}

async fn run(
    plugin: &Arc<Plugin>,
    slots: &Arc<Semaphore>,
    input: &str,
    mut grants: CallGrants,
) -> Result<Output, Failure> {
    let limits = &plugin.linked.limits;
    let caller = grants.cancel.clone();
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
    grants.cancel = own;
    let runtime = Handle::current();
    let thread = Arc::new(Interruptible::default());
    let running = tokio::task::spawn_blocking({
        let (plugin, thread, input) = (plugin.clone(), thread.clone(), input.to_owned());
        move || {
            let _entered = thread.enter();
            // A slot stands for a thread and an instance: a thread that was given up keeps it until it really ends.
            let _slot = slot;
            // Here, and not before there is a thread to give up: to check a large input may take a second or two.
            plugin
                .schema
                .check(&input)
                .map_err(|problems| Failure::new(ToolErrorCode::InvalidInput, problems))?;
            runtime.block_on(plugin.linked.call(&input, grants))
        }
    });
    let mut running = pin!(joined(running));
    let (code, why) = tokio::select! {
        biased;
        result = &mut running => return result,
        () = tokio::time::sleep(limits.deadline() + GIVE_UP) => {
            (ToolErrorCode::Timeout, format!("did not end within {:?}", limits.deadline()))
        }
        () = cancelled_for(&caller, limits.cancel_grace() + GIVE_UP) => {
            (ToolErrorCode::Cancelled, "did not end when it was cancelled".to_owned())
        }
    };
    for _ in 0..INTERRUPTS {
        thread.interrupt();
        if let Ok(result) = tokio::time::timeout(INTERRUPT_EVERY, &mut running).await {
            return result;
        }
    }
    let tool = &*plugin.linked.tool;
    tracing::warn!(tool, "the thread of a tool call is given up: it {why}");
    let text = format!("the call was given up: it {why}; a file operation may be blocked (a FIFO, a slow mount)");
    Err(Failure::new(code, text))
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
