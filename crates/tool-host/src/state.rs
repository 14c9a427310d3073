//! What belongs to one call: its grant, its limits, and how much of them is used. Lives in the wasmtime store, and dies
//! with it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::bindings::{cancellation, progress};
use super::guest_log::GuestLog;
use super::limits::{Limit, LimitHit, Limits, limit};
use super::live_text::without_nul;
use super::manifest::{Manifest, Workspace};
use super::resources::Entries;
use plue_contract::LiveOutput;
use plue_sandbox::Sandbox;

/// In a tool's environment: the absolute path by which commands and the model know the workspace.
const WORKSPACE_VARIABLE: &str = "PLUE_WORKSPACE";

/// In a tool's environment, only when that path leads through a symbolic link: the path without links, which `pwd -P`
/// and many programs show to the model.
const REAL_WORKSPACE_VARIABLE: &str = "PLUE_WORKSPACE_REAL";

/// What a piece of live output and a log line cost besides their text, in bytes: a million empty lines are a flood too.
const PIECE: usize = 64;

/// The workspace's folder, by both names that the model may come to know.
pub(crate) struct WorkspaceFolder {
    /// As the operator wrote it.
    pub(crate) named: PathBuf,
    /// Absolute and without symbolic links.
    pub(crate) real: PathBuf,
}

/// What a call can reach, as far as its grant goes.
#[derive(Clone)]
pub(crate) struct CallGrants {
    /// The workspace's folder; `None` when the call may not touch it.
    pub(crate) workspace: Option<Arc<WorkspaceFolder>>,
    /// Where commands are started; `None` when the call may start none.
    pub(crate) sandbox: Option<Arc<dyn Sandbox>>,
    pub(crate) live: LiveOutput,
    /// What people are to know of the call's commands.
    pub(crate) notes: Arc<Mutex<Vec<String>>>,
    pub(crate) cancel: CancellationToken,
}

impl CallGrants {
    /// What `describe()` can reach: nothing.
    pub(crate) fn nothing() -> Self {
        Self {
            workspace: None,
            sandbox: None,
            live: Arc::new(|_| {}),
            notes: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }
}

/// The data of a store.
pub(crate) struct CallState {
    pub(crate) tool: Arc<str>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) grants: CallGrants,
    pub(crate) limiter: Limiter,
    pub(crate) table: ResourceTable,
    wasi: WasiCtx,
    stdout: GuestLog,
    stderr: GuestLog,
    /// Bytes of live output and log lines so far.
    live_used: u64,
    /// At least as many files are open as this; see [`CallState::count_open_file`].
    open_files: usize,
}

impl CallState {
    /// Makes the state of one call. Fails when the workspace cannot be opened.
    pub(crate) fn new(
        manifest: &Manifest,
        tool: Arc<str>,
        limits: Arc<Limits>,
        grants: CallGrants,
    ) -> wasmtime::Result<Self> {
        let stdio = limits.stdio as usize;
        let (stdout, stderr) = (GuestLog::new(stdio), GuestLog::new(stdio));
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(stdout.clone()).stderr(stderr.clone());
        wasi.max_random_size(limits.random);
        // A call has its own thread, so that file operations can block it; a hop for each would cost most of a search.
        wasi.allow_blocking_current_thread(true);
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        let permissions = match manifest.workspace {
            Workspace::None => None,
            Workspace::Read => Some(FsPerms::ReadOnly),
            Workspace::ReadWrite => Some(FsPerms::ReadWrite),
        };
        if let (Some(permissions), Some(workspace)) = (permissions, &grants.workspace) {
            wasi.preopened_dir(&workspace.named, ".", permissions)?;
            wasi.env(WORKSPACE_VARIABLE, workspace.named.to_string_lossy());
            if workspace.real != workspace.named {
                wasi.env(REAL_WORKSPACE_VARIABLE, workspace.real.to_string_lossy());
            }
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles as usize);
        Ok(Self {
            tool,
            limiter: Limiter::new(&limits),
            limits,
            grants,
            table,
            wasi: wasi.build(),
            stdout,
            stderr,
            live_used: 0,
            open_files: 0,
        })
    }

    /// Keeps what people are to know of a command. Of many commands of one call, the first.
    pub(crate) fn note(&self, note: &plue_sandbox::Note) {
        /// A tool may start any number of commands.
        const MAX_NOTES: usize = 20;
        let mut notes = self.grants.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTES {
            notes.push(note.to_string());
        }
    }

    /// Counts a piece of live output or a log line; an error when there was too much.
    fn count_live_output(&mut self, text: &str) -> wasmtime::Result<()> {
        self.live_used = self.live_used.saturating_add((text.len() + PIECE) as u64);
        let allowed = self.limits.live_output;
        if self.live_used > allowed {
            return Err(LimitHit::new(limit::live_output, allowed, Some(self.live_used)).into());
        }
        Ok(())
    }

    /// Takes from the live output that a command may still show; no error, since a command goes on when nobody sees it.
    pub(crate) fn take_live_output(&mut self, bytes: usize) -> bool {
        let used = self.live_used.saturating_add(bytes as u64);
        let fits = used <= self.limits.live_output;
        if fits {
            self.live_used = used;
        }
        fits
    }

    /// To be called before a file is opened: an error when too many are open.
    ///
    /// Counting each close as well would need every way by which a file is closed. So opens are counted, and only when
    /// that count reaches the limit, the resources that hold a file open are counted in the table.
    pub(crate) fn count_open_file(&mut self) -> wasmtime::Result<()> {
        let allowed = self.limits.open_files as usize;
        if self.open_files >= allowed {
            self.open_files = self.table.iter_mut().filter(|entry| holds_file(&**entry)).count();
        }
        if self.open_files >= allowed {
            let used = self.open_files as u64 + 1;
            return Err(LimitHit::new(limit::open_files, self.limits.open_files, Some(used)).into());
        }
        self.open_files += 1;
        Ok(())
    }

    /// Writes the component's standard output and error to the log.
    pub(crate) fn report_log(&self) {
        self.stdout.report(&self.tool, "stdout");
        self.stderr.report(&self.tool, "stderr");
    }
}

/// A stream keeps the file it was made from open after the descriptor is dropped, so streams count as files.
fn holds_file(entry: &(dyn std::any::Any + Send)) -> bool {
    entry.is::<Descriptor>() || entry.is::<Entries>() || entry.is::<DynInputStream>() || entry.is::<DynOutputStream>()
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl progress::Host for CallState {
    fn output(&mut self, text: String) -> wasmtime::Result<()> {
        self.count_live_output(&text)?;
        (self.grants.live)(&without_nul(text));
        Ok(())
    }

    fn log(&mut self, level: progress::Level, message: String) -> wasmtime::Result<()> {
        self.count_live_output(&message)?;
        if message.is_empty() {
            return Ok(());
        }
        let tool = &*self.tool;
        match level {
            progress::Level::Debug => tracing::debug!(tool, "{message}"),
            progress::Level::Info => tracing::info!(tool, "{message}"),
            progress::Level::Warning => tracing::warn!(tool, "{message}"),
            progress::Level::Error => tracing::error!(tool, "{message}"),
        }
        Ok(())
    }
}

impl cancellation::Host for CallState {
    fn is_cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.grants.cancel.is_cancelled())
    }
}

/// Adds up what all linear memories and all tables of a call hold; wasmtime asks it before each grows.
pub(crate) struct Limiter {
    memory: Total,
    tables: Total,
    instances: usize,
}

struct Total {
    limit: Limit,
    used: u64,
    allowed: u64,
    /// What the last growth added, to take it back when it fails after all.
    last: u64,
}

impl Total {
    fn grow(&mut self, current: usize, desired: usize) -> wasmtime::Result<bool> {
        self.last = (desired as u64).saturating_sub(current as u64);
        let used = self.used.saturating_add(self.last);
        if used > self.allowed {
            // An error, not a refusal: a program that is refused memory usually aborts, and nobody learns why.
            return Err(LimitHit::new(self.limit, self.allowed, Some(used)).into());
        }
        self.used = used;
        Ok(true)
    }

    fn take_back(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.last));
    }
}

impl Limiter {
    fn new(limits: &Limits) -> Self {
        let total = |limit, allowed| Total {
            limit,
            used: 0,
            allowed,
            last: 0,
        };
        Self {
            memory: total(limit::memory, limits.memory),
            tables: total(limit::tables, limits.tables),
            instances: limits.instances as usize,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.memory.grow(current, desired)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.take_back();
        tracing::debug!("a linear memory could not grow: {error:#}");
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.tables.grow(current, desired)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables.take_back();
        tracing::debug!("a table could not grow: {error:#}");
        Ok(())
    }

    fn instances(&self) -> usize {
        self.instances
    }
}
