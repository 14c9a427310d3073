//! Why the tools could not be loaded. The runner ends with exit code 2 and this text, which names the file, the reason,
//! and what to do about it.

use std::io;
use std::path::PathBuf;

use super::engine::MIN_ADDRESS_SPACE;
use super::limits::Unit;
use super::linker::{NotGranted, SUPPORTED_VERSIONS};
use super::manifest::ManifestError;
use plue_contract::ToolErrorCode;

/// Why the tool host could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder with the plugins is not there, or may not be read.
    #[error("cannot read the plugin folder {}: {error}; set PLUGIN_DIR to the folder with the \
        plugins", .path.display())]
    PluginDir {
        /// The folder.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// The folder has no plugin in it.
    #[error(
        "there is no plugin in {}: no folder in it holds a plugin.toml; set PLUGIN_DIR to the folder \
         with the plugins, which lies beside the runner where it is installed",
        .0.display()
    )]
    NoPlugin(PathBuf),
    /// The workspace is not there, or may not be read.
    #[error("cannot open the workspace {}: {error}; set WORKSPACE to a folder that exists", .path.display())]
    Workspace {
        /// The folder.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// One of the two folders lies in the other.
    #[error(
        "the plugin folder {} and the workspace {} are not apart; a tool could change the plugins: move one of them",
        .plugins.display(), .workspace.display()
    )]
    NotApart {
        /// The folder with the plugins, without links.
        plugins: PathBuf,
        /// The workspace, without links.
        workspace: PathBuf,
    },
    /// The process may not have as much address space as tools need.
    #[error(
        "the address space of this process is limited to {} MiB (RLIMIT_AS, `ulimit -v`), and tools need {} MiB; \
            raise the limit or remove it: memory is limited by the container, not by the address space",
        .limit >> 20, MIN_ADDRESS_SPACE >> 20
    )]
    AddressSpace {
        /// In bytes.
        limit: u64,
    },
    /// wasmtime cannot be set up, for this reason.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
    /// One or more plugins cannot be loaded.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Plugins(Vec<PluginError>),
}

/// Why one plugin cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("plugin {}: {problem}", .file.display())]
pub struct PluginError {
    /// The manifest, component or compiled form that is at fault.
    pub file: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a plugin.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The manifest is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The component cannot be read.
    #[error("the component cannot be read: {0}")]
    Read(io::Error),
    /// The component is larger than any tool is.
    #[error("the component has {size} bytes; at most {} are allowed", Unit::Bytes.show(*.most))]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The largest size in bytes.
        most: u64,
    },
    /// It is not the component that the operator pinned.
    #[error("the component's sha256 is {found}, and the manifest says {expected}")]
    Digest {
        /// In hex, of the file.
        found: String,
        /// In hex, of the manifest.
        expected: String,
    },
    /// It is a core module.
    #[error(
        "is a core WebAssembly module, and a tool is a component; build it for wasm32-wasip2, or with `cargo component`"
    )]
    CoreModule,
    /// It is something else.
    #[error("is no WebAssembly component")]
    NotWasm,
    /// wasmtime does not take it, for this reason.
    #[error("does not compile: {0}")]
    Compile(String),
    /// Its ahead-of-time form cannot be read.
    #[error("cannot read the compiled form {}: {error}", .file.display())]
    CompiledRead {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Its ahead-of-time form cannot be written.
    #[error("cannot write the compiled form {}: {error}", .file.display())]
    CompiledWrite {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Somebody else could have written its ahead-of-time form.
    #[error("compiled code is not taken from {}: {why}; {remedy}", .file.display())]
    UnsafeCompiled {
        /// The file.
        file: PathBuf,
        /// Who could have.
        why: String,
        /// What the operator does about it.
        remedy: String,
    },
    /// It speaks a version of the contract that this host does not.
    #[error("was built for plue:tool {found:?}; this runner speaks {}", SUPPORTED_VERSIONS.join(" and "))]
    Version {
        /// What the component imports.
        found: String,
    },
    /// It does not export what a tool exports.
    #[error("exports no `plue:tool/plugin`, so it is no tool")]
    NoTool,
    /// It imports more than it is granted.
    #[error("imports what its manifest does not grant: \
        {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NotGranted(Vec<NotGranted>),
    /// It does not fit the contract, for this reason.
    #[error("does not fit the interfaces of this runner: {0}")]
    Link(String),
    /// It does not say what it is.
    #[error("describe() failed with {}: {text}", .code.as_str())]
    Describe {
        /// Of the call.
        code: ToolErrorCode,
        /// What the component said, or what went wrong.
        text: String,
    },
    /// It and its manifest have two names.
    #[error("the manifest says that the tool is called {manifest:?}, and the component says {component:?}")]
    Name {
        /// The manifest's.
        manifest: String,
        /// The component's.
        component: String,
    },
    /// What it says of its input is no JSON Schema that a model takes.
    #[error("the input schema {0}")]
    Schema(String),
    /// Two plugins have one name.
    #[error("the name {name:?} is already taken by {}", .other.display())]
    Duplicate {
        /// The name.
        name: String,
        /// Who has it.
        other: PathBuf,
    },
    /// Loading it panicked.
    #[error("loading it panicked; this is a defect of the runner")]
    Panicked,
}

/// A task names tools that are not installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tools: there is no plugin named {}; there are: {}", list(.names), list(.installed))]
pub struct UnknownTools {
    /// Those that are not there, in the order of the task.
    pub names: Vec<String>,
    /// Those that are, sorted.
    pub installed: Vec<String>,
}

/// Names for a sentence.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
