//! The tool host: engine, plugin registry, grants, limits, and one call. It does not know who calls.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

pub use engine::{Allocation, BASELINE_CPU};
pub use linker::{NotGranted, SUPPORTED_VERSIONS};
pub use load_error::{LoadError, PluginError, Problem, ToolsError};
pub use registry::{Host, HostConfig, PluginInfo, compile_plugins, list_plugins};
pub use toolbox::TaskToolbox;

mod bindings;
mod call;
mod compiled;
mod engine;
mod files;
mod guest_log;
mod instance;
mod interrupt;
pub mod limits;
mod linker;
mod live_text;
mod load_error;
pub mod manifest;
mod plugin;
mod process;
mod registry;
mod schema;
mod state;
mod toolbox;
mod workspace;

/// Why a tool call failed, as events and the README name it. The serialized name is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolErrorCode {
    /// The arguments do not fit the schema, or the tool refused them.
    InvalidInput,
    NotFound,
    Denied,
    TooLarge,
    /// The call's deadline, or the time limit of the command that it ran.
    Timeout,
    Cancelled,
    /// The tool said that it failed, or gave a result that is no result.
    Failed,
    /// The component trapped.
    Trap,
    /// No plugin has this name.
    UnknownTool,
    /// There is such a plugin, and this task may not use it.
    NotAllowed,
    LimitCpu,
    LimitMemory,
    LimitTables,
    LimitInstances,
    LimitHostCall,
    LimitHandles,
    LimitOpenFiles,
    LimitOutput,
    LimitLiveOutput,
    /// A command went over its memory or its number of processes.
    LimitCommand,
}

impl ToolErrorCode {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Trap => "trap",
            Self::UnknownTool => "unknown_tool",
            Self::NotAllowed => "not_allowed",
            Self::LimitCpu => "limit_cpu",
            Self::LimitMemory => "limit_memory",
            Self::LimitTables => "limit_tables",
            Self::LimitInstances => "limit_instances",
            Self::LimitHostCall => "limit_host_call",
            Self::LimitHandles => "limit_handles",
            Self::LimitOpenFiles => "limit_open_files",
            Self::LimitOutput => "limit_output",
            Self::LimitLiveOutput => "limit_live_output",
            Self::LimitCommand => "limit_command",
        }
    }
}

/// What the model is told about a tool.
#[derive(Clone, Debug)]
pub struct ToolDefinition {
    pub name: String,
    pub description: String,
    /// A JSON Schema of `type: object`.
    pub input_schema: Arc<RawValue>,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct ToolOutcome {
    /// `None`: success.
    pub error: Option<ToolErrorCode>,
    /// What the model reads: the result, or what went wrong.
    pub text: String,
    /// Whether something was left out of the text.
    pub truncated: bool,
    /// From the call to its end.
    pub duration: Duration,
}

/// Where live output of a running tool goes. Must not block.
pub type LiveOutput = Arc<dyn Fn(&str) + Send + Sync>;

/// What the agent knows of tools.
pub trait Toolbox: Send + Sync {
    /// The tools that this task may use, in a fixed order.
    fn definitions(&self) -> &[ToolDefinition];

    /// Does one call. Every failure is an outcome: a limit, a trap, a tool that is unknown or not allowed. `input` is
    /// the JSON text that the model wrote.
    fn call<'a>(
        &'a self,
        name: &'a str,
        input: &'a str,
        live: LiveOutput,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, ToolOutcome>;
}
