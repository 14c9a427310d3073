//! The workspace on disk, what lies outside of it, and the real tools on it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use plue_sandbox::{CommandSpec, Level, RunningCommand, Sandbox, StartError};
use plue_tool_host::{Host, HostConfig, TaskToolbox, ToolOutcome, Toolbox};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::reference::Reference;
use super::tree::{Id, Node, ROOT, Tree};

/// In the content and in the name of everything outside: no answer may hold it.
pub const MARKER: &str = "canary";

/// No call of these takes longer; one that does hangs.
const MAX_CALL: Duration = Duration::from_secs(30);

pub struct Place {
    outside: TempDir,
    workspace: PathBuf,
    toolbox: TaskToolbox,
    runtime: tokio::runtime::Runtime,
    pub reference: Reference,
    canary: Vec<String>,
}

impl Place {
    /// `plugins` is the folder of the built tools. `before_tools` runs between the start of the reference and that of
    /// the tools, and can take something away from these.
    pub fn new(plugins: &Path, before_tools: impl FnOnce()) -> Self {
        let outside = TempDir::with_prefix("plue-paths-").unwrap();
        // Without links in it, so that the two names of a workspace are one.
        let folder = outside.path().canonicalize().unwrap();
        let workspace = folder.join("work space");
        fs::create_dir(&workspace).unwrap();
        for sibling in ["canary-folder", "work space-canary"] {
            fs::create_dir(folder.join(sibling)).unwrap();
            fs::write(folder.join(sibling).join("canary-below"), "the canary sings\n").unwrap();
        }
        fs::write(folder.join("canary-file"), "the canary sings\n").unwrap();
        symlink("canary-folder", folder.join("canary-link")).unwrap();
        let canary = digest(&folder, &workspace);
        let reference = Reference::new(workspace.clone());
        before_tools();
        let host = Host::load(HostConfig {
            plugin_dir: plugins.to_owned(),
            workspace: workspace.clone(),
            sandbox: Arc::new(NoCommands),
        })
        .unwrap_or_else(|error| panic!("{error} (run `cargo xtask build`, or set PLUE_PLUGINS_DIR)"));
        let toolbox = host
            .toolbox(&["read_file", "write_file", "list_files", "grep"].map(String::from))
            .unwrap();
        Self {
            workspace,
            toolbox,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            reference,
            canary,
            outside,
        }
    }

    /// The workspace's absolute path.
    pub fn root(&self) -> &str {
        self.workspace.to_str().unwrap()
    }

    /// The absolute path of the folder around it.
    pub fn around(&self) -> &str {
        self.workspace.parent().unwrap().to_str().unwrap()
    }

    /// A path without links, from the root.
    pub fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.workspace.join(OsStr::from_bytes(path))
    }

    /// Removes all that is in the workspace.
    pub fn empty(&self) {
        for entry in fs::read_dir(&self.workspace).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    }

    pub fn call(&self, tool: &str, input: &str) -> ToolOutcome {
        let call = self
            .toolbox
            .call(tool, input, Arc::new(|_: &str| {}), CancellationToken::new());
        self.runtime
            .block_on(async { tokio::time::timeout(MAX_CALL, call).await })
            .unwrap_or_else(|_| panic!("{tool} {input} hangs"))
    }

    /// What differs between the tree and the disk, if anything.
    pub fn difference(&self, tree: &Tree) -> Option<String> {
        self.compare(tree, ROOT, &self.workspace, &mut HashMap::new())
    }

    fn compare(&self, tree: &Tree, id: Id, path: &Path, inodes: &mut HashMap<u64, Id>) -> Option<String> {
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) => return Some(format!("{}: {error}", path.display())),
        };
        if *inodes.entry(metadata.ino()).or_insert(id) != id {
            return Some(format!("{}: is one file with another", path.display()));
        }
        let kind = metadata.file_type();
        let is_same = match tree.node(id) {
            Node::File(content) => kind.is_file() && fs::read(path).unwrap() == *content,
            Node::Link(target) => kind.is_symlink() && fs::read_link(path).unwrap().as_os_str() == target.as_str(),
            Node::Fifo => kind.is_fifo(),
            Node::Folder(children) => {
                if !kind.is_dir() {
                    return Some(format!("{}: is no folder", path.display()));
                }
                let mut names: Vec<Vec<u8>> = fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
                    .collect();
                names.sort();
                if !names.iter().eq(children.keys()) {
                    let shown = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
                    return Some(format!(
                        "{}: holds {:?}, and should hold {:?}",
                        path.display(),
                        names.iter().map(shown).collect::<Vec<_>>(),
                        children.keys().map(shown).collect::<Vec<_>>()
                    ));
                }
                return children
                    .iter()
                    .find_map(|(name, child)| self.compare(tree, *child, &path.join(OsStr::from_bytes(name)), inodes));
            }
        };
        (!is_same).then(|| format!("{}: is not {:?}", path.display(), tree.node(id)))
    }

    /// Nothing outside of the workspace has changed.
    pub fn canary_lives(&self) -> bool {
        digest(&self.outside.path().canonicalize().unwrap(), &self.workspace) == self.canary
    }
}

/// Everything below a folder but the workspace: kind, permissions, inode, times, and content.
fn digest(folder: &Path, workspace: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path == workspace {
            continue;
        }
        let metadata = path.symlink_metadata().unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            kind if kind.is_file() => fs::read_to_string(&path).unwrap(),
            _ => {
                lines.extend(digest(&path, workspace));
                String::new()
            }
        };
        lines.push(format!(
            "{path:?} {:o} {} {} {}.{} {content}",
            metadata.mode(),
            metadata.ino(),
            metadata.nlink(),
            metadata.mtime(),
            metadata.mtime_nsec()
        ));
    }
    lines.sort();
    lines
}

/// The file tools start none.
struct NoCommands;

impl Sandbox for NoCommands {
    fn level(&self) -> Level {
        Level::Weak
    }

    fn start(&self, _: CommandSpec, _: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>> {
        Box::pin(async { Err(StartError::Denied("no commands here".to_owned())) })
    }
}
