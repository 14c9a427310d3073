//! A plugin's manifest, `plugin.toml`: what the component is called, where it is, and
//! what it is granted. The operator writes it; nothing in a task, a model's answer or the workspace can change it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::limits::{Amount, LimitProblem, Limits};
use super::regular_file;
use plue_sandbox::mutation::Protection;

/// The name of the manifest in a plugin's folder.
pub const FILE_NAME: &str = "plugin.toml";

/// What somebody may take for one.
const NO_MANIFESTS: [&str; 3] = ["plugin.yaml", "plugin.yml", "plugin.json"];

/// A manifest is a dozen lines; what is larger is something else.
const MAX_BYTES: u64 = 64 << 10;

/// How much of the workspace a plugin sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workspace {
    /// No directory is preopened.
    #[default]
    None,
    /// It may read all of it.
    Read,
    /// It may read and write all of it.
    ReadWrite,
}

/// What a plugin may do, and which component it is.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The name the model calls it by.
    pub name: String,
    /// The component's file name, in the same folder.
    pub component: String,
    /// How much of the workspace it sees.
    pub workspace: Workspace,
    /// Whether it may run commands.
    pub process: bool,
    /// `wasi:sockets` interfaces that are linked and answer every call with access-denied, for language runtimes that
    /// import more than they use.
    pub inert: Vec<String>,
    /// The component's sha256 in hex, when the operator pins it.
    pub sha256: Option<String>,
    /// What one call of it may use.
    pub limits: Limits,
}

/// Why a manifest is refused. The file is said by the error around it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// There is a file that somebody may take for a manifest, and no manifest.
    #[error("a manifest is TOML, and called {FILE_NAME}; there is {0}")]
    OtherFormat(&'static str),
    /// It is far larger than a manifest is.
    #[error(
        "is larger than {MAX_BYTES} bytes; a manifest has name, component, workspace, process, inert, sha256 and limits"
    )]
    TooLarge,
    /// It is no TOML, or has a key that no manifest has.
    #[error("{0}")]
    Syntax(String),
    /// The API takes no such name.
    #[error("name: {0:?} is no tool name; allowed are 1 to 64 characters of a-z, A-Z, 0-9, _ and -")]
    Name(String),
    /// It names no file beside it.
    #[error("component: {0:?} is not the name of a file in this folder, for instance \"read_file.wasm\"")]
    Component(String),
    /// It wants an interface inert that must not be there at all.
    #[error("inert: {0:?} cannot be inert; only interfaces of wasi:sockets can, for instance \"wasi:sockets/tcp\"")]
    Inert(String),
    /// It pins something that is no digest.
    #[error("sha256: {0:?} is no digest; allowed are 64 characters of 0-9 and a-f")]
    Digest(String),
    /// A limit that there is not, or an amount that is none.
    #[error("limits.{name}: {problem}")]
    Limit {
        /// The key.
        name: String,
        /// What is wrong with it.
        problem: LimitProblem,
    },
}

/// The document as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    component: String,
    #[serde(default)]
    workspace: Workspace,
    #[serde(default)]
    process: bool,
    #[serde(default)]
    inert: Vec<String>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    limits: BTreeMap<String, Amount>,
}

/// Finds the manifest of a plugin's folder; `None` when there is none.
pub fn find(folder: &Path) -> Result<Option<PathBuf>, ManifestError> {
    // Also a broken link or a FIFO: reading it says what is wrong.
    let is_there = |name: &&str| folder.join(name).symlink_metadata().is_ok();
    if is_there(&FILE_NAME) {
        return Ok(Some(folder.join(FILE_NAME)));
    }
    match NO_MANIFESTS.into_iter().find(is_there) {
        Some(name) => Err(ManifestError::OtherFormat(name)),
        None => Ok(None),
    }
}

/// Reads and validates a manifest.
pub fn read(file: &Path) -> Result<Manifest, ManifestError> {
    let open = regular_file::open(file)?;
    if open.metadata()?.len() > MAX_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let text = io::read_to_string(open.take(MAX_BYTES))?;
    let document = toml::from_str::<Document>(&text);
    validate(document.map_err(|error| ManifestError::Syntax(error.to_string()))?)
}

fn validate(document: Document) -> Result<Manifest, ManifestError> {
    if !is_tool_name(&document.name) {
        return Err(ManifestError::Name(document.name));
    }
    let mut parts = Path::new(&document.component).components();
    let is_file_name =
        matches!(parts.next(), Some(std::path::Component::Normal(name)) if name == document.component.as_str());
    if !is_file_name || parts.next().is_some() {
        return Err(ManifestError::Component(document.component));
    }
    if let Some(other) = document.inert.iter().find(|name| !is_sockets_interface(name)) {
        return Err(ManifestError::Inert(other.clone()));
    }
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if let Some(digest) = document
        .sha256
        .as_ref()
        .filter(|digest| digest.len() != 64 || !digest.chars().all(hex))
    {
        return Err(ManifestError::Digest(digest.clone()));
    }
    let mut limits = Limits::default();
    for (name, amount) in &document.limits {
        limits.set(name, amount).map_err(|problem| ManifestError::Limit {
            name: name.clone(),
            problem,
        })?;
    }
    Ok(mutated(Manifest {
        name: document.name,
        component: document.component,
        workspace: document.workspace,
        process: document.process,
        inert: document.inert,
        sha256: document.sha256,
        limits,
    }))
}

/// What is in force of a manifest: all of it, unless a mutation run has switched a protection off.
fn mutated(mut manifest: Manifest) -> Manifest {
    if Protection::Grant.is_off() {
        manifest.workspace = Workspace::ReadWrite;
        manifest.process = true;
        manifest.inert = vec!["wasi:sockets".to_owned()];
    }
    if Protection::Deadline.is_off() {
        manifest.limits.without_deadlines();
    }
    if Protection::Memory.is_off() {
        manifest.limits.without_memory();
    }
    manifest
}

/// Whether the Messages API takes this as a tool's name.
fn is_tool_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// `wasi:sockets`, or one of its interfaces, without a version.
fn is_sockets_interface(name: &str) -> bool {
    match name.strip_prefix("wasi:sockets") {
        Some("") => true,
        Some(rest) => rest.starts_with('/') && !rest.contains('@'),
        None => false,
    }
}
