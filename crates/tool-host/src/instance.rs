//! One use of a component: a fresh store and a fresh instance, its limits in force, and what every way to end means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTableError;
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::{AnyToolPre, Definition, Output, ToolError};
use super::engine::Ticker;
use super::limits::{LimitHit, Limits, limit};
use super::manifest::Manifest;
use super::state::{CallGrants, CallState};
use plue_contract::ToolErrorCode;

/// A component that is linked against its grant, ready to be instantiated.
pub(crate) struct LinkedTool {
    pub(crate) tool: Arc<str>,
    pub(crate) manifest: Manifest,
    pub(crate) limits: Arc<Limits>,
    pub(crate) pre: AnyToolPre<CallState>,
    pub(crate) ticker: Arc<Ticker>,
}

/// Why a use of a component failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ToolErrorCode,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: ToolErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

impl From<&LimitHit> for Failure {
    fn from(hit: &LimitHit) -> Self {
        Self::new(hit.code(), hit.to_string())
    }
}

impl LinkedTool {
    /// Asks the component what it is. It can reach nothing meanwhile.
    pub(crate) async fn describe(&self) -> Result<Definition, Failure> {
        let mut limits = (*self.limits).clone();
        limits.deadline = limits.describe;
        let mut using = Instance::new(self, Arc::new(limits), CallGrants::nothing())?;
        using
            .run(async |store, pre| {
                pre.instantiate_async(&mut *store)
                    .await?
                    .plue_tool_plugin()
                    .call_describe(store)
                    .await
            })
            .await
    }

    /// Makes an instance and drops it: what a call costs before it does anything.
    pub(crate) async fn instantiate(&self) -> Result<(), Failure> {
        let mut using = Instance::new(self, self.limits.clone(), CallGrants::nothing())?;
        using
            .run(async |store, pre| pre.instantiate_async(store).await.map(|_| ()))
            .await
    }

    /// Does one call. The calling thread is blocked by file operations: it has to be one that can be given up.
    pub(crate) async fn call(&self, input: &str, grants: CallGrants) -> Result<Output, Failure> {
        let mut using = Instance::new(self, self.limits.clone(), grants)?;
        let result = using
            .run(async |store, pre| {
                pre.instantiate_async(&mut *store)
                    .await?
                    .plue_tool_plugin()
                    .call_call(store, input)
                    .await
            })
            .await?;
        let allowed = self.limits.output;
        let text = match &result {
            Ok(output) => &output.text,
            Err(error) => message(error).1,
        };
        if text.len() as u64 > allowed {
            return Err(Failure::from(&LimitHit::new(
                limit::output,
                allowed,
                Some(text.len() as u64),
            )));
        }
        result.map_err(|error| {
            let (code, text) = message(&error);
            Failure::new(code, text)
        })
    }
}

/// The code and the text of a failure that the tool reports itself.
fn message(error: &ToolError) -> (ToolErrorCode, &String) {
    match error {
        ToolError::InvalidInput(text) => (ToolErrorCode::InvalidInput, text),
        ToolError::NotFound(text) => (ToolErrorCode::NotFound, text),
        ToolError::Denied(text) => (ToolErrorCode::Denied, text),
        ToolError::TooLarge(text) => (ToolErrorCode::TooLarge, text),
        ToolError::Timeout(text) => (ToolErrorCode::Timeout, text),
        ToolError::Cancelled(text) => (ToolErrorCode::Cancelled, text),
        ToolError::Exhausted(text) => (ToolErrorCode::LimitCommand, text),
        ToolError::Failed(text) => (ToolErrorCode::Failed, text),
    }
}

/// A store with everything that watches over it.
struct Instance<'a> {
    linked: &'a LinkedTool,
    store: Store<CallState>,
    watch: Watch,
}

impl<'a> Instance<'a> {
    fn new(linked: &'a LinkedTool, limits: Arc<Limits>, grants: CallGrants) -> Result<Self, Failure> {
        let watch = Watch::new(limits.clone(), grants.cancel.clone());
        let state = CallState::new(&linked.manifest, linked.tool.clone(), limits.clone(), grants).map_err(|error| {
            Failure::new(
                ToolErrorCode::Failed,
                format!("the workspace cannot be opened: {error:#}"),
            )
        })?;
        let mut store = Store::new(engine(linked), state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits.host_call as usize);
        store.set_max_component_handles(limits.handles as usize);
        store.set_epoch_deadline(1);
        let mut ticks = watch.clone();
        store.epoch_deadline_callback(move |_| ticks.check().map(|()| UpdateDeadline::Continue(1)).map_err(Into::into));
        Ok(Self { linked, store, watch })
    }

    /// Runs `work` until it ends, or a limit on time ends it.
    async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Store<CallState>, &AnyToolPre<CallState>) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        let _running = self.linked.ticker.running();
        let watch = &self.watch;
        // The callback ends a component that computes; this ends one that waits inside a host call.
        let result = tokio::select! {
            biased;
            result = work(&mut self.store, &self.linked.pre) => result,
            hit = watch.wait() => Err(hit.into()),
        };
        self.store.data().report_log();
        result.map_err(|error| failure(&error, &self.store.data().limits))
    }
}

fn engine(linked: &LinkedTool) -> &Engine {
    linked.pre.engine()
}

/// The clocks of a use: wall-clock, processor, and the time since it was cancelled.
#[derive(Clone)]
struct Watch {
    limits: Arc<Limits>,
    started: Instant,
    cpu_started: Duration,
    cancel: CancellationToken,
    cancelled: Option<Instant>,
}

impl Watch {
    fn new(limits: Arc<Limits>, cancel: CancellationToken) -> Self {
        Self {
            limits,
            started: Instant::now(),
            cpu_started: thread_cpu_time(),
            cancel,
            cancelled: None,
        }
    }

    /// Called at every tick, on the thread that runs the component.
    fn check(&mut self) -> Result<(), LimitHit> {
        let over = |name, allowed: u64, used: Duration| {
            let used = used.as_millis() as u64;
            if used >= allowed {
                Err(LimitHit::new(name, allowed, Some(used)))
            } else {
                Ok(())
            }
        };
        over(limit::deadline, self.limits.deadline, self.started.elapsed())?;
        over(
            limit::cpu,
            self.limits.cpu,
            thread_cpu_time().saturating_sub(self.cpu_started),
        )?;
        if self.cancel.is_cancelled() {
            let since = self.cancelled.get_or_insert_with(Instant::now).elapsed();
            over(limit::cancel_grace, self.limits.cancel_grace, since)?;
        }
        Ok(())
    }

    /// Ends when the time of the call is over, by its deadline or by its cancellation.
    async fn wait(&self) -> LimitHit {
        let cancelled = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(self.limits.cancel_grace()).await;
        };
        let hit = |name, allowed: u64| LimitHit::new(name, allowed, Some(allowed));
        let deadline = (self.started + self.limits.deadline()).into();
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => hit(limit::deadline, self.limits.deadline),
            () = cancelled => hit(limit::cancel_grace, self.limits.cancel_grace),
        }
    }
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What wasmtime says when it refuses something and has no type for it. The tests of the limits hold these to the
/// version that we build with.
const HOST_CALL: &str = "fuel allocated for hostcalls has been exhausted";
const HANDLES: &str = "store handle limit exceeded";
const INSTANCES: &str = "instance count too high";

/// Says why the component was ended.
fn failure(error: &wasmtime::Error, limits: &Limits) -> Failure {
    if let Some(hit) = error.downcast_ref::<LimitHit>() {
        return hit.into();
    }
    let hit = |name, allowed: u64, used| Failure::from(&LimitHit::new(name, allowed, used));
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return hit(limit::handles, limits.handles, None);
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Failure::new(
            ToolErrorCode::Trap,
            format!("the tool ended itself with exit code {}", exit.0),
        );
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return Failure::new(ToolErrorCode::Trap, format!("the tool crashed: {trap}"));
    }
    let reason = error.root_cause().to_string();
    if reason.contains(HOST_CALL) {
        // The data of a host call comes with the place in the component that made it; a result does not.
        return match error.downcast_ref::<WasmBacktrace>() {
            Some(_) => hit(limit::host_call, limits.host_call, None),
            None => hit(limit::output, limits.output, None),
        };
    }
    if reason.contains(HANDLES) {
        return hit(limit::handles, limits.handles, None);
    }
    if reason.contains(INSTANCES) {
        return hit(limit::instances, limits.instances, Some(limits.instances + 1));
    }
    Failure::new(ToolErrorCode::Trap, format!("the tool was ended: {reason}"))
}
