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
pub use registry::{Host, HostConfig, LoadedTools, PluginInfo, compile_plugins, list_plugins};
pub use toolbox::TaskToolbox;

mod arguments;
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
mod regular_file;
mod schema;
mod state;
mod strict_type;
mod toolbox;
mod workspace;

/// Why a tool call failed, as events name it. The serialized name is fixed.
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
    /// Every code with its name in events and its meaning: `docs/reference/codes.md` is written from it.
    pub const TABLE: &[(ToolErrorCode, &str, &str)] = &[
        (
            Self::InvalidInput,
            "invalid_input",
            "the arguments do not fit the tool's schema, or make no sense to it",
        ),
        (
            Self::NotFound,
            "not_found",
            "a file or folder that the call names is not there",
        ),
        (
            Self::Denied,
            "denied",
            "the call asks for something outside of the workspace, or that its grant does not allow",
        ),
        (Self::TooLarge, "too_large", "something is larger than the tool handles"),
        (
            Self::Timeout,
            "timeout",
            "the call, or the command that it ran, took too long",
        ),
        (
            Self::Cancelled,
            "cancelled",
            "the task was cancelled, or the model's answer was cut off inside the call",
        ),
        (Self::Failed, "failed", "the tool failed, or gave a result that is none"),
        (Self::Trap, "trap", "the component crashed"),
        (Self::UnknownTool, "unknown_tool", "there is no tool of this name"),
        (
            Self::NotAllowed,
            "not_allowed",
            "the tool exists, and this task may not use it",
        ),
        (Self::LimitCpu, "limit_cpu", "processor time"),
        (Self::LimitMemory, "limit_memory", "linear memory"),
        (Self::LimitTables, "limit_tables", "table elements"),
        (Self::LimitInstances, "limit_instances", "core instances"),
        (
            Self::LimitHostCall,
            "limit_host_call",
            "data handed to the host in one call",
        ),
        (Self::LimitHandles, "limit_handles", "resources held at one time"),
        (Self::LimitOpenFiles, "limit_open_files", "open files"),
        (Self::LimitOutput, "limit_output", "size of the result"),
        (Self::LimitLiveOutput, "limit_live_output", "live output and log"),
        (
            Self::LimitCommand,
            "limit_command",
            "reserved: a command's memory or number of processes",
        ),
    ];

    /// The name in events.
    pub fn as_str(self) -> &'static str {
        Self::TABLE
            .iter()
            .find(|(code, ..)| *code == self)
            .map_or("failed", |(_, name, _)| name)
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
