//! The plugins of a runner: found in the plugin folder, loaded side by side, and known by name.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::ThreadPoolBuilder;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tokio::sync::Semaphore;

use super::engine::{self, Allocation, MIN_ADDRESS_SPACE, ToolEngine};
use super::host::Shared;
use super::limits::Limits;
use super::load_error::{LoadError, PluginError, Problem, UnknownTools};
use super::manifest::{self, ManifestError, Workspace};
use super::plugin::{Folder, Plugin};
use super::state::WorkspaceFolder;
use super::toolbox::TaskToolbox;
use plue_sandbox::Sandbox;

/// What the tool host is made of.
pub struct HostConfig {
    /// The folder with one folder for each plugin.
    pub plugin_dir: PathBuf,
    /// The folder that tools see as the workspace. It has to exist.
    pub workspace: PathBuf,
    /// Where tools with `process = true` start their commands.
    pub sandbox: Arc<dyn Sandbox>,
}

/// All tools of this runner, ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

/// What `plue-runner plugin list` says of a plugin.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PluginInfo {
    /// The tool's name, as the model calls it.
    pub name: String,
    /// What the model is told of it.
    pub description: String,
    /// Where it is installed.
    pub folder: PathBuf,
    /// The grant: "none", "read" or "read-write".
    pub workspace: &'static str,
    /// Whether it may run commands.
    pub process: bool,
    /// The interfaces that the component imports.
    pub imports: Vec<String>,
}

/// All plugins, loaded, and no sandbox yet for the commands of those that start some: either takes its time, and
/// neither has to wait for the other.
pub struct LoadedTools {
    engine: ToolEngine,
    plugins: BTreeMap<String, Arc<Plugin>>,
    workspace: Arc<WorkspaceFolder>,
}

impl LoadedTools {
    /// Loads every plugin, as [`HostConfig`] describes it. Blocks, and may be called on any thread.
    pub fn load(plugin_dir: &Path, named: PathBuf) -> Result<Self, LoadError> {
        let unusable = |error| LoadError::Workspace {
            path: named.clone(),
            error,
        };
        let workspace = named.canonicalize().map_err(unusable)?;
        fs::read_dir(&workspace).map_err(unusable)?;
        let plugin_dir = plugin_dir.canonicalize().map_err(|error| LoadError::PluginDir {
            path: plugin_dir.to_owned(),
            error,
        })?;
        if plugin_dir.starts_with(&workspace) || workspace.starts_with(&plugin_dir) {
            return Err(LoadError::NotApart {
                plugins: plugin_dir,
                workspace,
            });
        }
        let (engine, plugins) = load_all(&plugin_dir)?;
        Ok(Self {
            engine,
            plugins,
            workspace: Arc::new(WorkspaceFolder { named, real: workspace }),
        })
    }

    /// The tools with a sandbox, in which those with `process = true` start their commands.
    pub fn with_sandbox(self, sandbox: Arc<dyn Sandbox>) -> Host {
        let Self {
            engine,
            mut plugins,
            workspace,
        } = self;
        let grace = u64::try_from(sandbox.grace().as_millis()).unwrap_or(u64::MAX);
        for plugin in plugins.values_mut().filter_map(Arc::get_mut) {
            if plugin.linked.manifest.process {
                // A call that is cancelled says how its command ended, and waits for that.
                let limits = Arc::make_mut(&mut plugin.linked.limits);
                limits.cancel_grace = limits.cancel_grace.saturating_add(grace);
            }
        }
        Host(Arc::new(Shared {
            engine,
            plugins,
            workspace,
            sandbox,
            slots: Arc::new(Semaphore::new(Limits::default().calls as usize)),
        }))
    }
}

impl Host {
    /// Loads every plugin. Blocks, and may be called on any thread.
    pub fn load(config: HostConfig) -> Result<Self, LoadError> {
        let loaded = LoadedTools::load(&config.plugin_dir, config.workspace)?;
        Ok(loaded.with_sandbox(config.sandbox))
    }

    /// The installed tools, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0.plugins.keys().cloned().collect()
    }

    /// Where the memory of tools comes from on this machine.
    pub fn allocation(&self) -> Allocation {
        self.0.engine.allocation
    }

    /// The tools of one task, in the order in which the task names them.
    pub fn toolbox(&self, allowed: &[String]) -> Result<TaskToolbox, UnknownTools> {
        TaskToolbox::new(self.0.clone(), allowed)
    }

    /// Makes an instance of a tool and drops it; for benchmarks. `None` when there is no such tool, or it failed.
    pub async fn instantiate(&self, name: &str) -> Option<()> {
        self.0.plugins.get(name)?.linked.instantiate().await.ok()
    }

    /// What is installed, for people.
    pub fn plugins(&self) -> Vec<PluginInfo> {
        self.0.plugins.values().map(|plugin| info(plugin)).collect()
    }
}

/// Loads the plugins of a folder without a workspace, to see whether they load and what they are.
pub fn list_plugins(plugin_dir: &Path) -> Result<Vec<PluginInfo>, LoadError> {
    let (_engine, plugins) = load_all(plugin_dir)?;
    if plugins.is_empty() {
        return Err(LoadError::NoPlugin(plugin_dir.to_owned()));
    }
    Ok(plugins.values().map(|plugin| info(plugin)).collect())
}

/// Whether one of these tools may run commands, by the manifests alone: before anything is loaded. What cannot be read
/// is an error of whoever loads it, and counts as one that may.
pub fn may_run_commands(plugin_dir: &Path, tools: &[String]) -> bool {
    let read = |file: PathBuf| manifest::read(&file).ok();
    let manifests: Option<Vec<_>> = find_folders(plugin_dir)
        .ok()
        .and_then(|files| files.into_iter().map(read).collect());
    manifests.is_none_or(|all| all.iter().any(|one| one.process && tools.contains(&one.name)))
}

/// Makes the ahead-of-time form of every plugin in a folder, and gives the files. Takes the right to write the folders
/// away from group and others: compiled code is only loaded from where nobody else can put it.
pub fn compile_plugins(plugin_dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let files = find_folders(plugin_dir)?;
    if files.is_empty() {
        return Err(LoadError::NoPlugin(plugin_dir.to_owned()));
    }
    let engine = new_engine()?;
    in_parallel(files, engine.threads(), |file| {
        Folder::read(file)?.compile(&engine.engine)
    })
}

fn info(plugin: &Plugin) -> PluginInfo {
    let manifest = &plugin.linked.manifest;
    PluginInfo {
        name: manifest.name.clone(),
        description: plugin.definition.description.clone(),
        folder: plugin.file.parent().unwrap_or(Path::new(".")).to_owned(),
        workspace: match manifest.workspace {
            Workspace::None => "none",
            Workspace::Read => "read",
            Workspace::ReadWrite => "read-write",
        },
        process: manifest.process,
        imports: plugin.imports.clone(),
    }
}

fn new_engine() -> Result<ToolEngine, LoadError> {
    match engine::address_space_limit() {
        Some(limit) if limit < MIN_ADDRESS_SPACE => Err(LoadError::AddressSpace { limit }),
        _ => ToolEngine::new().map_err(|error| LoadError::Engine(format!("{error:#}"))),
    }
}

fn load_all(plugin_dir: &Path) -> Result<(ToolEngine, BTreeMap<String, Arc<Plugin>>), LoadError> {
    let files = find_folders(plugin_dir)?;
    let engine = new_engine()?;
    let loaded = in_parallel(files, engine.threads(), |file| Folder::read(file)?.load(&engine))?;
    let mut plugins: BTreeMap<String, Arc<Plugin>> = BTreeMap::new();
    for plugin in loaded {
        let name = plugin.linked.manifest.name.clone();
        if let Some(first) = plugins.get(&name) {
            let problem = Problem::Duplicate {
                name,
                other: first.file.clone(),
            };
            return Err(LoadError::Plugins(vec![PluginError {
                file: plugin.file,
                problem,
            }]));
        }
        plugins.insert(name, Arc::new(plugin));
    }
    Ok((engine, plugins))
}

/// The manifests of the plugin folder, sorted, so that messages do not depend on the file system.
fn find_folders(plugin_dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |error| LoadError::PluginDir {
        path: plugin_dir.to_owned(),
        error,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(plugin_dir).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        if !folder.is_dir() {
            continue;
        }
        match manifest::find(&folder) {
            Ok(Some(file)) => files.push(file),
            Ok(None) => tracing::warn!(folder = %folder.display(), "no plugin.toml in this folder; it is not a plugin"),
            Err(error) => return Err(LoadError::Plugins(vec![several(folder, error)])),
        }
    }
    files.sort();
    Ok(files)
}

fn several(folder: PathBuf, error: ManifestError) -> PluginError {
    PluginError {
        file: folder,
        problem: error.into(),
    }
}

/// Does the work for each file on so many threads, and gives all results or all errors.
fn in_parallel<T: Send>(
    files: Vec<PathBuf>,
    threads: usize,
    work: impl Fn(PathBuf) -> Result<T, PluginError> + Sync,
) -> Result<Vec<T>, LoadError> {
    // A pool of its own, which ends with the work: threads that wait for nothing would cost a runner memory.
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads.min(files.len()).max(1))
        .build();
    let pool = pool.map_err(|error| LoadError::Engine(error.to_string()))?;
    let guarded = |file: PathBuf| {
        let panicked = || PluginError {
            file: file.clone(),
            problem: Problem::Panicked,
        };
        catch_unwind(AssertUnwindSafe(|| work(file.clone()))).unwrap_or_else(|_| Err(panicked()))
    };
    let done: Vec<_> = pool.install(|| files.into_par_iter().map(guarded).collect());
    let (results, errors): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
    let errors: Vec<PluginError> = errors.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() {
        Ok(results.into_iter().flatten().collect())
    } else {
        Err(LoadError::Plugins(errors))
    }
}
