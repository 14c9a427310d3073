//! A plugin folder and a workspace on disk, and the host that is loaded from them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use plue_sandbox::{CommandEvent, CommandSpec, Level, RunningCommand, Sandbox, StartError};
use plue_tool_host::{Host, HostConfig, LiveOutput, LoadError, TaskToolbox, ToolErrorCode, ToolOutcome, Toolbox};
use tokio_util::sync::CancellationToken;

use support::guest::Guest;

/// No call of these tests may take longer; each limit that ends one is far below.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Fixture {
    folder: tempfile::TempDir,
    pub sandbox: Arc<ScriptedSandbox>,
}

impl Fixture {
    /// An empty plugin folder, and an empty workspace.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["plugins", "workspace"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        close(&folder.path().join("plugins"));
        Self {
            folder,
            sandbox: Arc::default(),
        }
    }

    /// With a tool `good` that works, and this one.
    pub fn with(guest: &Guest, manifest: &str) -> Self {
        let fixture = Self::new();
        fixture.install(&Guest::good("good"), "");
        fixture.install(guest, manifest);
        fixture
    }

    pub fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    /// The folder of a plugin.
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.plugins().join(name)
    }

    /// Installs a tool under its own name; `manifest` is added to name and component.
    pub fn install(&self, guest: &Guest, manifest: &str) {
        let name = &guest.name;
        self.install_bytes(
            name,
            &guest.wasm(),
            &format!("name = \"{name}\"\ncomponent = \"tool.wasm\"\n{manifest}\n"),
        );
    }

    /// Installs any bytes as a component, with this manifest.
    pub fn install_bytes(&self, folder: &str, component: &[u8], manifest: &str) {
        let folder = self.plugin(folder);
        fs::create_dir(&folder).unwrap();
        close(&folder);
        fs::write(folder.join("tool.wasm"), component).unwrap();
        fs::write(folder.join("plugin.toml"), manifest).unwrap();
    }

    pub fn config(&self) -> HostConfig {
        HostConfig {
            plugin_dir: self.plugins(),
            workspace: self.workspace(),
            sandbox: self.sandbox.clone(),
        }
    }

    pub fn load(&self) -> Result<Host, LoadError> {
        Host::load(self.config())
    }

    /// The text of the error with which loading ends.
    pub fn refusal(&self) -> String {
        match self.load() {
            Ok(host) => panic!("loaded {:?}", host.names()),
            Err(error) => error.to_string(),
        }
    }

    /// All installed tools.
    pub fn toolbox(&self) -> TaskToolbox {
        let host = self.load().unwrap_or_else(|error| panic!("{error}"));
        host.toolbox(&host.names()).unwrap()
    }
}

/// The umask of whoever runs the tests may let the group write.
pub fn close(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Calls a tool, and nobody cares for its live output.
pub async fn call(toolbox: &TaskToolbox, tool: &str, input: &str) -> ToolOutcome {
    let nobody: LiveOutput = Arc::new(|_| {});
    let call = toolbox.call(tool, input, nobody, CancellationToken::new());
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| panic!("{tool} did not end"))
}

/// Calls the tool and expects this code; then the host has to answer a good call.
pub async fn expect(toolbox: &TaskToolbox, tool: &str, code: ToolErrorCode) -> ToolOutcome {
    let outcome = call(toolbox, tool, "{}").await;
    assert_eq!(outcome.error, Some(code), "{}", outcome.text);
    expect_good(toolbox).await;
    outcome
}

/// The host still answers.
pub async fn expect_good(toolbox: &TaskToolbox) {
    let good = call(toolbox, "good", r#"{"still":"there"}"#).await;
    assert_eq!((good.error, good.text.as_str()), (None, r#"{"still":"there"}"#));
}

/// A sandbox that plays what a test gives it, and remembers what it was asked.
#[derive(Default)]
pub struct ScriptedSandbox {
    /// What the next command says; when it does not end with `Exited`, it runs until it is ended.
    pub script: Mutex<Vec<CommandEvent>>,
    pub started: Mutex<Vec<CommandSpec>>,
    /// The token of the last command: it is cancelled when the command has to end.
    pub last: Mutex<Option<CancellationToken>>,
}

impl Sandbox for ScriptedSandbox {
    fn level(&self) -> Level {
        Level::Weak
    }

    fn start(&self, spec: CommandSpec, cancel: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>> {
        self.started.lock().unwrap().push(spec);
        *self.last.lock().unwrap() = Some(cancel.clone());
        let script = std::mem::take(&mut *self.script.lock().unwrap());
        let (send, events) = tokio::sync::mpsc::channel(1);
        let ended = cancel.clone();
        tokio::spawn(async move {
            for event in script {
                let last = matches!(event, CommandEvent::Exited(_));
                if send.send(event).await.is_err() || last {
                    return;
                }
            }
            ended.cancelled().await;
        });
        Box::pin(async move { Ok(RunningCommand { events, cancel }) })
    }
}
