#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

pub use engine::{Allocation, BASELINE_CPU};
pub use linker::{NotGranted, SUPPORTED_VERSIONS};
pub use load_error::{LoadError, PluginError, Problem, UnknownTools};
pub use plue_contract::{LiveOutput, ToolDefinition, ToolErrorCode, ToolOutcome, Toolbox};
pub use registry::{Host, HostConfig, LoadedTools, PluginInfo, compile_plugins, list_plugins, may_run_commands};
pub use schema::AnswerSchema;
pub use toolbox::TaskToolbox;

mod arguments;
mod bindings;
mod call;
mod compiled;
mod engine;
mod files;
mod guest_log;
mod host;
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
mod resources;
mod schema;
mod state;
mod toolbox;
mod workspace;
