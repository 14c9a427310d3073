//! The one wasmtime engine: how components are compiled, where their memory comes from, and the clock that interrupts
//! them. Every number of the set-up stands here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, Memory, MemoryType, PoolingAllocationConfig, Store,
};

use super::limits::Limits;

/// How often a running component is interrupted, so that its deadline, its processor time and its cancellation are
/// looked at. A limit on time is kept to this precision.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The ticker stops when no call has run for so many ticks: an idle pod does not wake up.
const TICKS_UNTIL_REST: u32 = 100;

/// How long a resting ticker sleeps before it looks whether the engine is still there.
const REST: Duration = Duration::from_secs(1);

/// The stack of a component, below the 2 MiB that a fiber has: interpreters written for native stacks recurse deeply.
const WASM_STACK: usize = 1 << 20;

/// Kept warm of a memory slot between two calls: clearing it costs less than giving the pages back and faulting them in
/// again. Larger parts are given back, so that an idle runner stays small.
const WARM_MEMORY: usize = 128 << 10;
/// The same where the kernel says which pages were written (PAGEMAP_SCAN, Linux 6.7): only those are cleared, so that
/// the whole of a small memory may stay.
const WARM_MEMORY_SCANNED: usize = 2 << 20;
const WARM_TABLE: usize = 16 << 10;

/// Slots that stay prepared for their last component after a call: one for each built-in tool.
const WARM_SLOTS: u32 = 5;

/// What one component may bring; a language runtime has some twenty core instances.
const MEMORIES_PER_COMPONENT: u32 = 8;
const TABLES_PER_COMPONENT: u32 = 32;

/// Memory slots of the pool; each reserves 4 GiB of address space, and no memory until it is used.
const MEMORIES: u32 = 32;
const TABLES: u32 = 256;

/// Where linear memories come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// From slots that were reserved at the start: the fastest.
    Pooling,
    /// Reserved for each call, since the address space does not allow for the pool.
    OnDemand,
    /// Reserved for each call and moved when they grow, since memories of full size do not fit. Compiled forms that
    /// were made for the other two do not fit this one.
    OnDemandSmall,
}

impl Allocation {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pooling => "pooling",
            Self::OnDemand => "on-demand",
            Self::OnDemandSmall => "on-demand-small",
        }
    }
}

/// The least address space, in bytes, with which the runner starts: to load tools when they have to be compiled, one
/// after the other, and to run them. With 450,000 KiB not all five load, and with less the first allocation that fails
/// aborts the process, which cannot be caught: so it is refused before.
pub(crate) const MIN_ADDRESS_SPACE: u64 = 768 << 20;

/// The limit on this process's address space, in bytes; `None` when there is none.
pub(crate) fn address_space_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::As).current
}

/// The CPU that components are compiled for: what every machine that a pod may be put on has, not what the build
/// machine has. <https://gitlab.com/x86-psABIs/x86-64-ABI> names the x86-64 levels.
#[cfg(target_arch = "x86_64")]
pub const BASELINE_CPU: &str = "x86-64-v2";
#[cfg(target_arch = "aarch64")]
pub const BASELINE_CPU: &str = "armv8-a";

#[cfg(target_arch = "x86_64")]
const CPU_FLAGS: &[&str] = &[
    "has_cmpxchg16b",
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
];
#[cfg(target_arch = "aarch64")]
const CPU_FLAGS: &[&str] = &[];

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
const TARGET: &str = "x86_64-unknown-linux-gnu";
#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
const TARGET: &str = "x86_64-unknown-linux-musl";
#[cfg(all(target_arch = "aarch64", target_env = "gnu"))]
const TARGET: &str = "aarch64-unknown-linux-gnu";
#[cfg(all(target_arch = "aarch64", target_env = "musl"))]
const TARGET: &str = "aarch64-unknown-linux-musl";

/// The engine, and the ticker that goes with it.
pub(crate) struct ToolEngine {
    pub(crate) engine: Engine,
    pub(crate) allocation: Allocation,
    pub(crate) ticker: Arc<Ticker>,
}

impl ToolEngine {
    /// Sets the engine up, with the best allocation that this process's address space allows.
    pub(crate) fn new() -> Result<Self, wasmtime::Error> {
        let (engine, allocation) = Self::probe()?;
        tracing::debug!(
            allocation = allocation.as_str(),
            cpu = BASELINE_CPU,
            "tool engine is ready"
        );
        let ticker = Ticker::start(&engine)?;
        Ok(Self {
            engine,
            allocation,
            ticker,
        })
    }

    /// How many plugins are loaded side by side: each compilation takes address space, where there is little.
    pub(crate) fn threads(&self) -> usize {
        match self.allocation {
            Allocation::Pooling | Allocation::OnDemand => thread::available_parallelism().map_or(1, usize::from),
            Allocation::OnDemandSmall => 1,
        }
    }

    fn probe() -> Result<(Engine, Allocation), wasmtime::Error> {
        // Making the engine reserves the whole pool, which is the probe.
        let reason = match Engine::new(&config(Allocation::Pooling)?) {
            Ok(engine) => return Ok((engine, Allocation::Pooling)),
            Err(reason) => reason,
        };
        let engine = Engine::new(&config(Allocation::OnDemand)?)?;
        let (engine, allocation) = if has_room(&engine) {
            (engine, Allocation::OnDemand)
        } else {
            (
                Engine::new(&config(Allocation::OnDemandSmall)?)?,
                Allocation::OnDemandSmall,
            )
        };
        tracing::warn!(
            allocation = allocation.as_str(),
            reason = format!("{reason:#}"),
            "no address space for pooled tool instances: calls are slower; raise `ulimit -v` to have the pool"
        );
        Ok((engine, allocation))
    }
}

/// Whether there is address space for as many calls as may run at a time, with a memory each.
fn has_room(engine: &Engine) -> bool {
    let mut store = Store::new(engine, ());
    (0..Limits::default().calls).all(|_| Memory::new(&mut store, MemoryType::new(1, None)).is_ok())
}

fn config(allocation: Allocation) -> Result<Config, wasmtime::Error> {
    let mut config = Config::new();
    config.epoch_interruption(true).max_wasm_stack(WASM_STACK);
    // Not needed by any tool, and what is not there cannot be attacked: shared memories are not counted by the limiter.
    config.wasm_memory64(false).wasm_tail_call(true);
    // Wasmtime 48.0.8 is built here without its feature `gc`, and still compiles calls by a supertype; one such call
    // aborts the process (RUSTSEC-2026-0570, mended in 48.0.9).
    config.wasm_gc(false);
    // For debuggers and profilers only: a third of a compiled form, and time at each load.
    config.native_unwind_info(false).generate_address_map(false);
    // Naming the target keeps cranelift from looking at this machine's CPU.
    config.target(TARGET)?;
    for flag in CPU_FLAGS {
        // SAFETY: the flags only name instructions of the baseline CPU; wasmtime checks that the host has each before
        // it runs the code.
        #[allow(unsafe_code)]
        unsafe {
            config.cranelift_flag_enable(flag);
        }
    }
    match allocation {
        Allocation::Pooling => config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool())),
        Allocation::OnDemand => config.allocation_strategy(InstanceAllocationStrategy::OnDemand),
        Allocation::OnDemandSmall => config
            .allocation_strategy(InstanceAllocationStrategy::OnDemand)
            .memory_reservation(0)
            .memory_guard_size(64 << 10)
            // A memory that outgrows its place is copied: not at every step.
            .memory_reservation_for_growth(64 << 20),
    };
    Ok(config)
}

fn pool() -> PoolingAllocationConfig {
    let limits = Limits::default();
    // One more than may run at a time: loading calls describe().
    let calls = u32::try_from(limits.calls).unwrap_or(u32::MAX).saturating_add(4);
    let instances = u32::try_from(limits.instances).unwrap_or(u32::MAX).saturating_add(1);
    let warm_memory = if PoolingAllocationConfig::is_pagemap_scan_available() {
        WARM_MEMORY_SCANNED
    } else {
        WARM_MEMORY
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(instances))
        .total_memories(MEMORIES)
        .total_tables(TABLES)
        .total_stacks(calls)
        .max_core_instances_per_component(instances)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .table_elements(usize::try_from(limits.tables).unwrap_or(usize::MAX))
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(warm_memory)
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(WARM_TABLE);
    pool
}

/// Advances the engine's epoch while calls run. Holds the engine weakly, and ends with it.
pub(crate) struct Ticker {
    running: AtomicUsize,
    resting: AtomicBool,
    thread: Thread,
}

/// A call that runs: the ticker ticks as long as there is one.
pub(crate) struct Running(Arc<Ticker>);

impl Ticker {
    fn start(engine: &Engine) -> Result<Arc<Self>, wasmtime::Error> {
        let engine = engine.weak();
        let (send, receive) = std::sync::mpsc::sync_channel::<Arc<Self>>(1);
        let handle = thread::Builder::new()
            .name("tool-epoch".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                let Ok(ticker) = receive.recv() else { return };
                let mut idle = 0;
                while let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    idle = if ticker.running.load(Ordering::SeqCst) == 0 {
                        idle + 1
                    } else {
                        0
                    };
                    if idle < TICKS_UNTIL_REST {
                        thread::sleep(TICK);
                        continue;
                    }
                    ticker.resting.store(true, Ordering::SeqCst);
                    // Looked at again after the flag is up: a call that comes between the two sees the flag and
                    // unparks.
                    if ticker.running.load(Ordering::SeqCst) == 0 {
                        thread::park_timeout(REST);
                    }
                    ticker.resting.store(false, Ordering::SeqCst);
                    idle = TICKS_UNTIL_REST;
                }
            })?;
        let thread = handle.thread().clone();
        let ticker = Arc::new(Self {
            running: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            thread,
        });
        // The receiver is there: the thread waits for this message before anything else.
        let _ = send.send(ticker.clone());
        Ok(ticker)
    }

    /// Counts a call as running until the guard is dropped.
    pub(crate) fn running(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(self.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
