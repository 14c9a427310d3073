//! Why the tools could not be loaded. The runner ends with exit code 2 and this text, which names the file, the reason,
//! and what to do about it.

use std::io;
use std::path::PathBuf;

use super::engine::LEAST_ADDRESS_SPACE;
use super::limits::Unit;
use super::linker::{NotGranted, SUPPORTED_VERSIONS};
use super::manifest::ManifestError;
use crate::contract::ToolErrorCode;

/// Why the tool host could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the plugin folder {}: {error}; set PLUGIN_DIR to the folder with the plugins", .path.display())]
    PluginDir { path: PathBuf, error: io::Error },
    #[error(
        "there is no plugin in {}: no folder in it holds a plugin.toml; run `cargo xtask plugins`, or set PLUGIN_DIR to \
         the folder with the plugins",
        .0.display()
    )]
    NoPlugin(PathBuf),
    #[error("cannot open the workspace {}: {error}; set WORKSPACE to a folder that exists", .path.display())]
    Workspace { path: PathBuf, error: io::Error },
    #[error(
        "the plugin folder {} and the workspace {} are not apart; a tool could change the plugins: move one of them",
        .plugins.display(), .workspace.display()
    )]
    NotApart { plugins: PathBuf, workspace: PathBuf },
    #[error(
        "the address space of this process is limited to {} MiB (RLIMIT_AS, `ulimit -v`), and tools need {} MiB; raise the \
         limit or remove it: memory is limited by the container, not by the address space",
        .limit >> 20, LEAST_ADDRESS_SPACE >> 20
    )]
    AddressSpace {
        /// In bytes.
        limit: u64,
    },
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
    /// One or more plugins cannot be loaded.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Plugins(Vec<PluginError>),
    #[error("ALLOWED_TOOLS: {}", missing(.names, .installed))]
    Missing { names: Vec<String>, installed: Vec<String> },
}

/// Why one plugin cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("plugin {}: {problem}", .file.display())]
pub struct PluginError {
    /// The manifest, component or compiled form that is at fault.
    pub file: PathBuf,
    #[source]
    pub problem: Problem,
}

/// What is wrong with a plugin.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the component cannot be read: {0}")]
    Read(io::Error),
    #[error("the component has {size} bytes; at most {} are allowed", Unit::Bytes.show(*.most))]
    TooLarge { size: u64, most: u64 },
    #[error("the component's sha256 is {found}, and the manifest says {expected}")]
    Digest { found: String, expected: String },
    #[error(
        "is a core WebAssembly module, and a tool is a component; build it for wasm32-wasip2, or with `cargo component`"
    )]
    CoreModule,
    #[error("is no WebAssembly component")]
    NotWasm,
    #[error("does not compile: {0}")]
    Compile(String),
    #[error("cannot read the compiled form {}: {error}", .file.display())]
    CompiledRead { file: PathBuf, error: io::Error },
    #[error("cannot write the compiled form {}: {error}", .file.display())]
    CompiledWrite { file: PathBuf, error: io::Error },
    #[error("compiled code is not taken from {}: {why}; {remedy}", .file.display())]
    UnsafeCompiled { file: PathBuf, why: String, remedy: String },
    #[error("was built for plue:tool {found:?}; this runner speaks {}", SUPPORTED_VERSIONS.join(" and "))]
    Version { found: String },
    #[error("exports no `plue:tool/plugin`, so it is no tool")]
    NoTool,
    #[error("imports what its manifest does not grant: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NotGranted(Vec<NotGranted>),
    #[error("does not fit the interfaces of this runner: {0}")]
    Link(String),
    #[error("describe() failed with {}: {text}", .code.as_str())]
    Describe { code: ToolErrorCode, text: String },
    #[error("the manifest says that the tool is called {manifest:?}, and the component says {component:?}")]
    Name { manifest: String, component: String },
    #[error("the input schema {0}")]
    Schema(String),
    #[error("the name {name:?} is already taken by {}", .other.display())]
    Duplicate { name: String, other: PathBuf },
    #[error("loading it panicked; this is a defect of the runner")]
    Panicked,
}

/// A task names tools that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolsError {
    #[error("tools: {}", missing(.names, .installed))]
    Unknown { names: Vec<String>, installed: Vec<String> },
    #[error("tools: {} may not be used here; the operator allows: {}", list(.names), list(.allowed))]
    NotAllowed { names: Vec<String>, allowed: Vec<String> },
}

fn missing(names: &[String], installed: &[String]) -> String {
    format!(
        "there is no plugin named {}; there are: {}",
        list(names),
        list(installed)
    )
}

/// Names for a sentence.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
