#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod closed_set;
#[cfg(feature = "http")]
pub mod http;
pub mod secret;
pub mod size;
mod tool;
#[cfg(feature = "http")]
pub mod transport;
pub mod unique_keys;

pub use tool::{LiveOutput, ToolDefinition, ToolErrorCode, ToolOutcome, Toolbox};
