//! What everybody who has to do with tools shares, and nobody's host: what a tool is to a model, how a call ends, and
//! the interface by which an agent calls. It imports nothing of ours.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::closed_set;

closed_set! {
    /// Why a tool call failed. The names are fixed.
    pub enum ToolErrorCode {
        InvalidInput = "invalid_input", "the arguments do not fit the tool's schema, or make no sense to it";
        NotFound = "not_found", "a file or folder that the call names is not there";
        Denied = "denied", "the call asks for something outside of the workspace, or that its grant does not allow";
        TooLarge = "too_large", "something is larger than the tool handles";
        Timeout = "timeout", "the call, or the command that it ran, took too long";
        Cancelled = "cancelled", "the task was cancelled, or the model's answer was cut off inside the call";
        Failed = "failed", "the tool failed, or gave a result that is none";
        Trap = "trap", "the component crashed";
        UnknownTool = "unknown_tool", "there is no tool of this name";
        NotAllowed = "not_allowed", "the tool exists, and this task may not use it";
        LimitCpu = "limit_cpu", "processor time";
        LimitMemory = "limit_memory", "linear memory";
        LimitTables = "limit_tables", "table elements";
        LimitInstances = "limit_instances", "core instances";
        LimitHostCall = "limit_host_call", "data handed to the host in one call";
        LimitHandles = "limit_handles", "resources held at one time";
        LimitOpenFiles = "limit_open_files", "open files";
        LimitOutput = "limit_output", "size of the result";
        LimitLiveOutput = "limit_live_output", "live output and log";
        LimitCommand = "limit_command", "a command's memory, or its number of processes";
    }
}

/// What the model is told about a tool.
#[derive(Clone, Debug)]
pub struct ToolDefinition {
    /// What the model calls it by.
    pub name: String,
    /// What it does and when to use it, in the words that the model reads.
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
    /// What people are to know of the call besides, a line each. The model does not read it.
    pub notes: Vec<String>,
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
