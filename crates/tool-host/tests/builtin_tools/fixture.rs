//! A workspace with the five tools on it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use plue_tool_host::{Host, HostConfig, TaskToolbox, ToolErrorCode, ToolOutcome, Toolbox, compile_plugins};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::sandbox_double::SandboxDouble;

/// No call of these tests takes longer; one that does is one that hangs.
const MAX_CALL: Duration = Duration::from_secs(30);

/// The tools, in the order of the protocol, §5.
pub const TOOLS: [&str; 5] = ["read_file", "write_file", "list_files", "grep", "shell"];

/// A fresh workspace, and the host that serves it.
pub struct Fixture {
    /// Holds the workspace, and beside it what no tool may reach.
    pub outside: TempDir,
    pub host: Host,
    pub sandbox: Arc<SandboxDouble>,
    toolbox: TaskToolbox,
    /// Only taken when the fixture goes.
    runtime: Option<Runtime>,
}

impl Fixture {
    pub fn new() -> Self {
        let outside = TempDir::with_prefix("plue toolbox ").unwrap();
        let workspace = outside.path().join("work space");
        fs::create_dir(&workspace).unwrap();
        Self::at(outside, workspace)
    }

    /// With a workspace that the operator names by a symbolic link.
    pub fn behind_a_link() -> Self {
        let outside = TempDir::with_prefix("plue toolbox ").unwrap();
        fs::create_dir(outside.path().join("work space")).unwrap();
        let link = outside.path().join("link");
        std::os::unix::fs::symlink("work space", &link).unwrap();
        Self::at(outside, link)
    }

    fn at(outside: TempDir, workspace: PathBuf) -> Self {
        let sandbox = Arc::new(SandboxDouble::default());
        let host = Host::load(HostConfig {
            plugin_dir: plugins().to_owned(),
            workspace,
            sandbox: sandbox.clone(),
        })
        .unwrap();
        let toolbox = host.toolbox(&TOOLS.map(String::from)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            outside,
            host,
            sandbox,
            toolbox,
            runtime: Some(runtime),
        }
    }

    pub fn toolbox(&self) -> &TaskToolbox {
        &self.toolbox
    }

    /// A path of the workspace, on disk.
    pub fn path(&self, path: &str) -> PathBuf {
        self.outside.path().join("work space").join(path)
    }

    /// Puts a file into the workspace, with its folders.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
    }

    pub fn fifo(&self, path: &str) {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, self.path(path), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }

    pub fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o7777
    }

    /// One call.
    pub fn call(&self, tool: &str, input: Value) -> ToolOutcome {
        self.call_with(tool, &input.to_string(), &CancellationToken::new()).0
    }

    /// One call, with what it showed while it ran.
    pub fn call_with(&self, tool: &str, input: &str, cancel: &CancellationToken) -> (ToolOutcome, String) {
        let live = Arc::new(Mutex::new(String::new()));
        let shown = live.clone();
        let call = self.toolbox.call(
            tool,
            input,
            Arc::new(move |text: &str| shown.lock().unwrap().push_str(text)),
            cancel.clone(),
        );
        let runtime = self.runtime.as_ref().unwrap();
        let outcome = runtime
            .block_on(async { tokio::time::timeout(MAX_CALL, call).await })
            .unwrap_or_else(|_| panic!("{tool} {input} hangs"));
        let live = live.lock().unwrap().clone();
        (outcome, live)
    }

    /// The text of a call that has to succeed.
    #[track_caller]
    pub fn text(&self, tool: &str, input: Value) -> String {
        let outcome = self.call(tool, input.clone());
        assert_eq!(outcome.error, None, "{tool} {input}: {}", outcome.text);
        outcome.text
    }

    /// The text of a call that has to fail with this code. It must not say a word about what is outside.
    #[track_caller]
    pub fn refused(&self, tool: &str, input: Value, code: ToolErrorCode) -> String {
        let outcome = self.call(tool, input.clone());
        assert_eq!(outcome.error, Some(code), "{tool} {input}: {}", outcome.text);
        outcome.text
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A call that hangs must fail its test, and not the whole run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where the plugins are, compiled once for all tests of this program, so that each loads them in milliseconds.
fn plugins() -> &'static Path {
    static PLUGINS: OnceLock<PathBuf> = OnceLock::new();
    PLUGINS.get_or_init(|| {
        let built = std::env::var_os("PLUE_PLUGINS_DIR").map_or_else(
            || {
                Path::new(env!("CARGO_TARGET_TMPDIR"))
                    .parent()
                    .unwrap()
                    .join("dist/plugins")
            },
            PathBuf::from,
        );
        assert!(
            built.is_dir(),
            "no plugins in {}: run `cargo xtask plugins`, or set PLUE_PLUGINS_DIR",
            built.display()
        );
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("toolbox-plugins");
        if copy.exists() {
            fs::remove_dir_all(&copy).unwrap();
        }
        for folder in fs::read_dir(&built).unwrap() {
            let folder = folder.unwrap().path();
            let to = copy.join(folder.file_name().unwrap());
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(&folder).unwrap() {
                let file = file.unwrap().path();
                if file.extension().is_some_and(|extension| extension != "cwasm") {
                    fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        compile_plugins(&copy).unwrap();
        copy
    })
}
