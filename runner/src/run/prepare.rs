//! What stands between a configuration and a task that runs. Each step that fails says what to do, and nothing has been
//! run yet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::agent::NoTools;
use crate::config::{Config, TaskSource, variables};
use crate::events::TaskErrorCode;
use crate::failure::Failure;
use crate::task::{self, AgentTask, Document, DocumentError, Format, InvalidTask, Task};
use crate::telemetry::Telemetry;
use plue_contract::Toolbox;
use plue_contract::secret::Secret;
use plue_messages::models;
use plue_messages::{ClientConfig, MessagesClient, Traceparent};
use plue_sandbox::strict::StrictSandbox;
use plue_sandbox::weak::WeakSandbox;
use plue_sandbox::{Level, Sandbox};
use plue_tool_host::{Host, LoadedTools, may_run_commands};

use super::no_commands::NoCommands;
use super::settings::check_settings;

/// Nothing was run, and this is why.
#[derive(Debug)]
pub struct Refused(pub Failure);

/// A task with all that it needs.
pub(super) struct Prepared {
    pub(super) task: Task,
    pub(super) sandbox: Arc<dyn Sandbox>,
    /// Set for an agent task.
    pub(super) agent: Option<AgentParts>,
}

pub(super) struct AgentParts {
    /// That another model is asked than the task names, when that was not the operator's word: for the task's log.
    pub(super) replaced: Option<String>,
    /// The model as it is sent.
    pub(super) model_name: String,
    pub(super) model: MessagesClient,
    pub(super) tools: Box<dyn Toolbox>,
}

fn refused(code: TaskErrorCode, message: impl Into<String>) -> Refused {
    Refused(Failure {
        code,
        message: message.into(),
    })
}

/// What a task needs and no task decides: it can be there before the task comes. What is missing is made when it is
/// needed.
#[derive(Default)]
pub struct Ready {
    sandbox: Option<Arc<dyn Sandbox>>,
    host: Option<Host>,
    model: Option<MessagesClient>,
}

impl Ready {
    /// Makes all of it, as far as the configuration goes.
    ///
    /// # Errors
    /// What no task could do without.
    pub async fn make(config: &Config, telemetry: &Telemetry) -> Result<Self, Refused> {
        let tools = async {
            let (sandbox, loaded) = tokio::join!(sandbox(config), loaded(config));
            let sandbox = sandbox?;
            Ok::<_, Refused>((Arc::clone(&sandbox), loaded?.with_sandbox(sandbox)))
        };
        let model = async {
            // A workflow does without; an agent's task is told what is wrong.
            match &config.model.api_key {
                Some(key) => model(config, telemetry, key).await.ok(),
                None => None,
            }
        };
        let (tools, model) = tokio::join!(tools, model);
        let (sandbox, host) = tools?;
        Ok(Self {
            sandbox: Some(sandbox),
            host: Some(host),
            model,
        })
    }

    /// What of it still is right when the files of the configuration have changed since it was made. The rest is made
    /// anew when the task needs it.
    pub async fn still_right(mut self, made_by: &Config, now: &Config) -> Self {
        if made_by.model != now.model {
            self.model = None;
        }
        // Commands are to see the new folders as little as the old ones.
        if made_by.secret_folders != now.secret_folders {
            self.host = None;
            if let Some(sandbox) = self.sandbox.take() {
                sandbox.shut_down().await;
            }
        }
        self
    }
}

/// Checks a task, and builds what it needs.
pub(super) async fn prepare(
    config: &Config,
    telemetry: &Telemetry,
    document: Document,
    ready: Ready,
) -> Result<Prepared, Refused> {
    let valid = task::validate(&document, &config.rules);
    let unknown_keys = match &valid {
        Ok(valid) => &valid.unknown_keys,
        Err(invalid) => &invalid.unknown_keys,
    };
    for problem in unknown_keys {
        tracing::warn!("the task, {problem}");
    }
    let task = valid
        .map_err(|error| refused(TaskErrorCode::InvalidTask, error.to_string()))?
        .task;
    let (sandbox, agent) = match &task {
        Task::Agent(task) => {
            let (sandbox, agent) = prepare_agent(config, telemetry, task, ready).await?;
            (sandbox, Some(agent))
        }
        Task::Workflow(_) => match ready.sandbox {
            Some(sandbox) => (sandbox, None),
            None => (sandbox(config).await?, None),
        },
    };
    Ok(Prepared { task, sandbox, agent })
}

/// Makes the sandbox that the operator asked for.
async fn sandbox(config: &Config) -> Result<Arc<dyn Sandbox>, Refused> {
    let workspace = &config.rules.workspace;
    let unusable = |error: std::io::Error| {
        let problem = format!("the folder {} cannot be used: {error}", workspace.display());
        refused(TaskErrorCode::Internal, variables::WORKSPACE.wrong(&problem))
    };
    if !workspace.metadata().map_err(unusable)?.is_dir() {
        return Err(unusable(std::io::ErrorKind::NotADirectory.into()));
    }
    if config.sandbox == Level::Weak {
        tracing::warn!(
            "SANDBOX=weak: commands are not confined. They see the files, processes and network that the runner sees, \
             its API key included, and their memory is not bounded"
        );
        return Ok(Arc::new(
            WeakSandbox::new(workspace, &config.commands).map_err(unusable)?,
        ));
    }
    let own = runners_own(config.plugin_dir.as_deref(), &config.secret_folders);
    let sandbox = StrictSandbox::start(workspace, &own, &config.commands).await;
    Ok(Arc::new(sandbox.map_err(|missing| {
        let way_out = "; `plue-runner doctor` tries each layer, and SANDBOX=weak runs commands without any";
        refused(TaskErrorCode::Sandbox, format!("{missing}{way_out}"))
    })?))
}

async fn prepare_agent(
    config: &Config,
    telemetry: &Telemetry,
    task: &AgentTask,
    ready: Ready,
) -> Result<(Arc<dyn Sandbox>, AgentParts), Refused> {
    let Some(api_key) = &config.model.api_key else {
        return Err(refused(
            TaskErrorCode::ModelAuth,
            variables::ANTHROPIC_API_KEY
                .wrong("it is required for an agent task and is not set, nor is ANTHROPIC_API_KEY_FILE"),
        ));
    };
    let model_name = config.rules.sent(&task.model).to_owned();
    let replaced = replaced(config, &task.model, &model_name);
    let problems = check_settings(&model_name, task);
    if !problems.is_empty() {
        let unknown_keys = Vec::new();
        let error = InvalidTask { problems, unknown_keys };
        return Err(refused(TaskErrorCode::InvalidTask, error.to_string()));
    }
    // The sandbox is made and the plugins are loaded while the HTTP client reads the system's certificates.
    let tools = async {
        let sandbox = async {
            match ready.sandbox {
                Some(sandbox) => Ok(sandbox),
                // Who runs no command is not told that none could be confined.
                None if !may_run_commands(&plugin_dir(config.plugin_dir.as_deref()), &task.tools) => {
                    Ok(Arc::new(NoCommands(config.sandbox)) as Arc<dyn Sandbox>)
                }
                None => sandbox(config).await,
            }
        };
        let loaded = async {
            match ready.host.is_some() || task.tools.is_empty() {
                true => Ok(None),
                false => loaded(config).await.map(Some),
            }
        };
        let (sandbox, loaded) = tokio::join!(sandbox, loaded);
        let sandbox = sandbox?;
        let host = match loaded? {
            Some(loaded) => Some(loaded.with_sandbox(Arc::clone(&sandbox))),
            None => ready.host,
        };
        Ok::<_, Refused>((sandbox, toolbox(task, host)?))
    };
    let model = async {
        match ready.model {
            Some(model) => Ok(model),
            None => model(config, telemetry, api_key).await,
        }
    };
    let (tools, model) = tokio::join!(tools, model);
    let (sandbox, tools) = tools?;
    let parts = AgentParts {
        replaced,
        model_name,
        model: model?,
        tools,
    };
    Ok((sandbox, parts))
}

/// Says that a model is retired: that another is sent in its place, which whoever watches the task is to know, or how
/// to have that.
fn replaced(config: &Config, asked: &str, sent: &str) -> Option<String> {
    if let Some((_, retired_on)) = config.rules.replaced(asked) {
        let said = format!("the model {asked} was retired on {retired_on}: {sent} is asked in its place");
        tracing::warn!(asked, sent, retired_on, "{said} (MODEL_ALIASES says otherwise)");
        return Some(said);
    }
    if let Some(retired) = models::retired(sent) {
        tracing::warn!(
            model = sent,
            retired_on = retired.retired_on,
            "the model is retired and requests for it fail; set MODEL_ALIASES={asked}={} to send today's model in its \
                place",
            retired.replacement,
        );
    }
    None
}

async fn model(config: &Config, telemetry: &Telemetry, api_key: &Secret) -> Result<MessagesClient, Refused> {
    let client = ClientConfig {
        auth_style: config.model.auth_style,
        request_id: config.api.request_id.clone(),
        traceparent: Traceparent::from(telemetry.trace_source()),
        patience: config.model.patience,
        stall_timeout: config.model.stall_timeout,
        transport: config.model.transport.clone(),
        ..ClientConfig::new(config.model.base_url.clone(), api_key.expose().to_owned())
    };
    blocking(move || MessagesClient::new(client)).await?.map_err(internal)
}

/// The tools of a task. Without any there may be no host.
fn toolbox(task: &AgentTask, host: Option<Host>) -> Result<Box<dyn Toolbox>, Refused> {
    match host {
        Some(host) if !task.tools.is_empty() => Ok(Box::new(host.toolbox(&task.tools).map_err(internal)?)),
        _ => Ok(Box::new(NoTools)),
    }
}

async fn loaded(config: &Config) -> Result<LoadedTools, Refused> {
    let (plugins, workspace) = (plugin_dir(config.plugin_dir.as_deref()), config.rules.workspace.clone());
    // What the operator allows was checked with the task.
    blocking(move || LoadedTools::load(&plugins, workspace))
        .await?
        .map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> Refused {
    refused(TaskErrorCode::Internal, error.to_string())
}

/// The folder of the plugins: what the operator says, or `plugins/` beside the binary. Absolute, since the sandbox's
/// processes stand elsewhere.
pub fn plugin_dir(configured: Option<&Path>) -> PathBuf {
    match configured {
        Some(folder) => std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()),
        None => std::env::current_exe()
            .ok()
            .and_then(|binary| binary.parent().map(|folder| folder.join("plugins")))
            .unwrap_or_else(|| "plugins".into()),
    }
}

/// The folders that no command sees, whatever the operator opens: the plugins', and those with secrets in files.
pub fn runners_own(plugins: Option<&Path>, secret_folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut own = vec![plugin_dir(plugins)];
    own.extend_from_slice(secret_folders);
    own
}

/// Reads the task of an active runner.
pub(super) async fn read_document(source: TaskSource) -> Result<Document, Refused> {
    // Standard input may keep us waiting, and a thread that waits for it cannot be called back: not one of ours.
    blocking(move || read_blocking(&source)).await?
}

fn read_blocking(source: &TaskSource) -> Result<Document, Refused> {
    let read = match source {
        TaskSource::Inline(text) => Document::parse(text, Format::Json),
        TaskSource::Stdin => Document::read(std::io::stdin().lock(), ""),
        // It need not be a regular file: whoever starts the runner may hand the task over in a pipe.
        TaskSource::File(path) => File::open(path)
            .map_err(DocumentError::from)
            .and_then(|file| Document::read(file, &path.to_string_lossy())),
    };
    read.map_err(|error| {
        let message = match (&error, source) {
            (DocumentError::Read(_), TaskSource::File(path)) => {
                variables::TASK_FILE.wrong(&format!("the file {} {error}", path.display()))
            }
            (DocumentError::Read(_), _) => format!("the task on standard input {error}"),
            _ => error.to_string(),
        };
        refused(TaskErrorCode::InvalidTask, message)
    })
}

/// Runs what would hold up the event loop on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        refused(
            TaskErrorCode::Internal,
            "the runner has a fault: preparing the task panicked; see the log",
        )
    })
}
