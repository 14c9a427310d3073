//! What stands between a configuration and a task that runs. Each step that fails says what to do, and nothing has been
//! run yet.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::agent::{NoTools, OutputLimit};
use crate::config::{Config, TaskSource};
use crate::events::TaskErrorCode;
use crate::failure::Failure;
use crate::model::client::{ClientConfig, MessagesClient};
use crate::model::models;
use crate::sandbox::Sandbox;
use crate::sandbox::weak::WeakSandbox;
use crate::task::{self, AgentTask, Allowed, Document, Format, InvalidTask, MAX_DOCUMENT_BYTES, Problem, Task};
use crate::tools::{Host, HostConfig, Toolbox};

/// Nothing was run, and this is why.
pub(super) struct Refused(pub(super) Failure);

/// A task with all that it needs.
pub(super) struct Prepared {
    pub(super) task: Task,
    pub(super) sandbox: Arc<dyn Sandbox>,
    /// Set for an agent task.
    pub(super) agent: Option<AgentParts>,
}

pub(super) struct AgentParts {
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

/// Reads the task, checks it, and builds what it needs.
pub(super) async fn prepare(config: &Arc<Config>) -> Result<Prepared, Refused> {
    let source = config.task.clone();
    // Standard input may keep us waiting, and a thread that waits for it cannot be called back: not one of ours.
    let document = blocking(move || read_document(&source)).await??;
    let valid = task::validate(&document, Allowed::from(config.as_ref()));
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
    let sandbox: Arc<dyn Sandbox> = Arc::new(WeakSandbox::new(&config.workspace).map_err(|error| {
        let folder = config.workspace.display();
        refused(
            TaskErrorCode::Internal,
            format!("WORKSPACE: the folder {folder} cannot be used: {error}"),
        )
    })?);
    let agent = match &task {
        Task::Agent(task) => Some(prepare_agent(config, task, Arc::clone(&sandbox)).await?),
        Task::Workflow(_) => None,
    };
    Ok(Prepared { task, sandbox, agent })
}

async fn prepare_agent(
    config: &Arc<Config>,
    task: &AgentTask,
    sandbox: Arc<dyn Sandbox>,
) -> Result<AgentParts, Refused> {
    let Some(api_key) = config.model.api_key.clone() else {
        return Err(refused(
            TaskErrorCode::ModelAuth,
            "ANTHROPIC_API_KEY: it is required for an agent task and is not set (example: ANTHROPIC_API_KEY=sk-ant-…)",
        ));
    };
    let model_name = config.model.aliases.get(&task.model).unwrap_or(&task.model).clone();
    if let Some(retired) = models::retired(&model_name) {
        tracing::warn!(
            model = model_name,
            retired_on = retired.retired_on,
            "the model is retired and requests for it fail; set MODEL_ALIASES={}={} to send today's model in its place",
            task.model,
            retired.replacement,
        );
    }
    check_settings(&model_name, task)?;
    // The plugins are loaded while the HTTP client reads the system's certificates.
    let tools = tools(config, task, sandbox);
    let client = ClientConfig {
        auth_style: config.model.auth_style,
        request_id: config.identity.request_id.clone(),
        ..ClientConfig::new(config.model.base_url.clone(), api_key.expose().to_owned())
    };
    let model = blocking(move || MessagesClient::new(client));
    let (tools, model) = tokio::join!(tools, model);
    let model = model?.map_err(|error| refused(TaskErrorCode::Internal, error.to_string()))?;
    Ok(AgentParts {
        model_name,
        model,
        tools: tools?,
    })
}

/// What the model would answer with a 400 is refused before anything runs.
fn check_settings(model: &str, task: &AgentTask) -> Result<(), Refused> {
    let effort = task.effort.as_deref();
    let max_tokens = OutputLimit::new(model, task.max_tokens).tokens();
    let problems: Vec<Problem> = [
        (
            "effort",
            effort.and_then(|effort| models::check_effort(model, effort).err()),
        ),
        (
            "thinking",
            task.thinking
                .as_deref()
                .and_then(|it| models::check_thinking(model, it, effort, max_tokens).err()),
        ),
    ]
    .into_iter()
    .filter_map(|(path, error)| {
        Some(Problem {
            path: path.into(),
            message: error?.to_string(),
        })
    })
    .collect();
    if problems.is_empty() {
        return Ok(());
    }
    let error = InvalidTask {
        problems,
        unknown_keys: Vec::new(),
    };
    Err(refused(TaskErrorCode::InvalidTask, error.to_string()))
}

async fn tools(config: &Arc<Config>, task: &AgentTask, sandbox: Arc<dyn Sandbox>) -> Result<Box<dyn Toolbox>, Refused> {
    if task.tools.is_empty() {
        return Ok(Box::new(NoTools));
    }
    let host_config = HostConfig {
        plugin_dir: plugin_dir(config.plugin_dir.as_deref()),
        workspace: config.workspace.clone(),
        sandbox,
        // What the operator allows was checked with the task.
        allowed_tools: None,
    };
    let internal = |error: String| refused(TaskErrorCode::Internal, error);
    let host = blocking(move || Host::load(host_config))
        .await?
        .map_err(|error| internal(error.to_string()))?;
    let toolbox = host.toolbox(&task.tools).map_err(|error| internal(error.to_string()))?;
    Ok(Box::new(toolbox))
}

/// The folder of the plugins: what the operator says, or `plugins/` beside the binary.
pub fn plugin_dir(configured: Option<&Path>) -> PathBuf {
    match configured {
        Some(folder) => folder.to_owned(),
        None => std::env::current_exe()
            .ok()
            .and_then(|binary| binary.parent().map(|folder| folder.join("plugins")))
            .unwrap_or_else(|| "plugins".into()),
    }
}

fn read_document(source: &TaskSource) -> Result<Document, Refused> {
    let invalid = |message: String| refused(TaskErrorCode::InvalidTask, message);
    let (text, format) = match source {
        TaskSource::Inline(text) => (text.clone(), Format::Json),
        TaskSource::Stdin => {
            let text = read_bounded(std::io::stdin().lock())
                .map_err(|error| invalid(format!("the task cannot be read from standard input: {error}")))?;
            let format = Format::guess("", &text);
            (text, format)
        }
        TaskSource::File(path) => {
            let shown = path.display();
            let text = std::fs::File::open(path)
                .and_then(read_bounded)
                .map_err(|error| invalid(format!("TASK_FILE: the file {shown} cannot be read: {error}")))?;
            let format = Format::guess(&path.to_string_lossy(), &text);
            (text, format)
        }
    };
    Document::parse(&text, format).map_err(|error| invalid(error.to_string()))
}

/// Reads a text; one that is too large is read only so far that its size is seen to be wrong.
fn read_bounded(source: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
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
