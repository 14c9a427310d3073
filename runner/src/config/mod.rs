//! Environment → one [`Config`], read and checked once. Below `main` nothing asks the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::api_client::{ApiConfig, Renewal};
pub use crate::events::Identity;
use crate::events::SpoolConfig;
use crate::telemetry::{LogFilter, OtlpConfig};
use plue_contract::secret::Secret;
use plue_contract::transport::Transport;
use plue_messages::AuthStyle;
use plue_messages::models;
use plue_sandbox::Level;
use plue_sandbox::strict::CommandRules;

mod otlp;
mod reader;
mod secret_file;
mod transport;
pub mod variables;

pub use otlp::header_secrets;
use reader::Reader;
pub use transport::environment_proxy_secrets;
use variables::*;

/// The models that a task may ask for without the operator's word. All four are retired at Anthropic, so that others
/// are sent in their place: see [`TaskRules::sent`].
pub const BUILT_IN_MODELS: &[&str] = &[
    "claude-sonnet-4-20250514",
    "claude-3-5-sonnet-20241022",
    "claude-3-5-haiku-20241022",
    "claude-3-opus-20240229",
];

/// Where the task document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskSource {
    /// The text of `TASK_CONFIG`.
    Inline(String),
    File(PathBuf),
    Stdin,
}

/// What the process is there for.
#[derive(Clone, Debug)]
pub enum Mode {
    /// One task now, and then the end.
    Active { identity: Identity, task: TaskSource },
    /// One task after the other, as the API server gives them.
    Standby(StandbyConfig),
}

/// How many characters of a pod's name the API server takes.
pub const MAX_POD_NAME: usize = 255;

/// What a standby runner registers as, and why.
#[derive(Clone, Debug)]
pub struct PodName {
    pub name: String,
    /// Where the name comes from, for people.
    pub source: &'static str,
}

/// How a standby runner gets its tasks.
#[derive(Clone, Debug)]
pub struct StandbyConfig {
    pub register_url: Url,
    /// Origins besides that of `register_url` that the operator trusts with the token.
    pub callback_origins: Vec<Url>,
    pub pod_name: String,
    pub pod_ip: String,
    pub node_name: Option<String>,
    pub labels: Vec<String>,
    /// How often the server hears that we live.
    pub heartbeat: Duration,
    /// After how much silence the server gives a runner's task to another one.
    pub heartbeat_timeout: Duration,
    /// After how many tasks the runner ends; `None`: never.
    pub max_tasks: Option<u64>,
}

impl StandbyConfig {
    /// How long a worker may say nothing until it is taken for hung.
    pub fn silence(&self) -> Duration {
        /// A worker says that it lives as often as the runner does.
        const SILENT_BEATS: u32 = 4;
        self.heartbeat * SILENT_BEATS
    }

    /// How the server of a task's callback is spoken to. Whoever answers a registration says where that is, so the
    /// token goes there only when it is where the runner registers, or where the operator says.
    pub fn api_of(&self, callback: &Url, api: &ApiConfig) -> ApiConfig {
        let mut trusted = std::iter::once(&self.register_url).chain(&self.callback_origins);
        if api.token.is_none() || trusted.any(|url| url.origin() == callback.origin()) {
            return api.clone();
        }
        tracing::warn!(
            origin = callback.origin().ascii_serialization(),
            "the callback of this task is at another origin than REGISTER_URL, and is not in CALLBACK_ORIGINS: \
             its events go there without CALLBACK_TOKEN"
        );
        ApiConfig {
            token: None,
            renewal: None,
            ..api.clone()
        }
    }
}

/// How the Messages API is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    pub api_key: Option<Secret>,
    pub base_url: Url,
    pub auth_style: AuthStyle,
    /// How long one turn may be waited for.
    pub patience: Duration,
    /// How long nothing of an answer may come.
    pub stall_timeout: Duration,
    pub transport: Transport,
}

/// What decides whether a task is valid: all that `plue-runner check` needs to know.
#[derive(Clone, Debug)]
pub struct TaskRules {
    /// Every model that a task may ask for: built-in and added.
    pub models: Vec<String>,
    /// Asked → sent, as the operator says.
    pub aliases: BTreeMap<String, String>,
    /// A model that is retired is replaced by today's of its family, when the operator has no alias for it.
    pub replace_retired: bool,
    /// The tools that a task may name.
    pub tools: Vec<String>,
    /// The folder that tools and commands see as the workspace; absolute.
    pub workspace: PathBuf,
}

impl TaskRules {
    /// Reads the variables that speak of tasks, and no others.
    ///
    /// # Errors
    /// All problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(lookup);
        let rules = reader.rules();
        if reader.problems.is_empty() {
            return Ok(rules);
        }
        Err(reader.failed(Level::default(), None))
    }

    /// The model that is asked in place of the one that a task names.
    pub fn sent<'m>(&'m self, asked: &'m str) -> &'m str {
        if let Some(sent) = self.aliases.get(asked) {
            return sent;
        }
        self.replaced(asked).map_or(asked, |(replacement, _)| replacement)
    }

    /// What is sent in place of a model that a task names and that is retired, and the day it ended; not where the
    /// operator says himself what is sent.
    pub fn replaced(&self, asked: &str) -> Option<(&'static str, &'static str)> {
        let decided = !self.replace_retired || self.aliases.contains_key(asked);
        let today = jiff::Timestamp::now().to_string();
        (!decided).then(|| models::replacement(asked, &today)).flatten()
    }
}

/// Everything the operator decided.
#[derive(Clone, Debug)]
pub struct Config {
    pub mode: Mode,
    /// How the API server is spoken to.
    pub api: ApiConfig,
    /// Whether it takes many events in one request.
    pub batches: bool,
    /// Where events wait that do not fit in memory.
    pub spool: SpoolConfig,
    /// Where is kept what a task has done, for a runner that goes on with it. `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    pub rules: TaskRules,
    /// `None`: `plugins/` beside the binary.
    pub plugin_dir: Option<PathBuf>,
    pub model: ModelConfig,
    /// How far commands are confined.
    pub sandbox: Level,
    /// How, when they are.
    pub commands: CommandRules,
    pub extra_events: bool,
    pub flush_timeout: Duration,
    pub shutdown_grace: Duration,
    /// How long a task may take that does not say. `None`: as long as it likes.
    pub task_timeout: Option<Duration>,
    /// Where traces and metrics go. `None`: nowhere.
    pub telemetry: Option<OtlpConfig>,
    /// What must not be told of all that.
    pub secrets: Vec<Secret>,
    /// The folders of the files that secrets are in. No command sees them.
    pub secret_folders: Vec<PathBuf>,
}

/// What is around the runner, as far as the environment says: all that `plue-runner doctor` needs, with no task.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    pub workspace: PathBuf,
    /// `None`: `plugins/` beside the binary.
    pub plugin_dir: Option<PathBuf>,
    pub commands: CommandRules,
    pub callback_url: Option<Url>,
    /// Where a standby runner asks for tasks.
    pub register_url: Option<Url>,
    pub model_url: Url,
    pub collector_url: Option<Url>,
    pub transport: Transport,
    /// The folders of the files that secrets are in.
    pub secret_folders: Vec<PathBuf>,
    /// What a standby runner would register as.
    pub pod_name: PodName,
}

impl DoctorConfig {
    /// # Errors
    /// All problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(lookup);
        let rules = reader.rules();
        let commands = reader.commands();
        let plugin_dir = reader.get(PLUGIN_DIR).map(PathBuf::from);
        let callback_url = reader.url_if_set(CALLBACK_URL);
        let register_url = reader.url_if_set(REGISTER_URL);
        let pod_name = reader.pod_name();
        let transport = reader.transport();
        // Its files are looked at.
        reader.api(&transport);
        let collector_url = reader.telemetry(&transport).map(|otlp| otlp.endpoint);
        match reader.model(&transport) {
            Some(model) if reader.problems.is_empty() => Ok(Self {
                workspace: rules.workspace,
                plugin_dir,
                commands,
                callback_url,
                register_url,
                model_url: model.base_url,
                collector_url,
                transport,
                secret_folders: reader.secret_folders,
                pod_name,
            }),
            _ => Err(reader.failed(Level::default(), None)),
        }
    }
}

/// What is wrong with the environment: one line, each problem with its variable and an example.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct ConfigError {
    pub problems: Vec<String>,
    /// How far commands would have been confined; the error event says it.
    pub sandbox: Level,
    /// Set when the task and its callback are known, so that the error can be reported there.
    pub identity: Option<Box<Identity>>,
    /// What must not be told of what was read.
    pub secrets: Vec<Secret>,
}

/// `LOG_LEVEL` alone, since logging starts before all else. One that is malformed is reported by [`Config::read`].
pub fn log_filter(lookup: &dyn Fn(&str) -> Option<String>) -> LogFilter {
    lookup(LOG_LEVEL.name)
        .and_then(|text| LogFilter::parse(&text).ok())
        .unwrap_or_default()
}

/// `TRACEPARENT` alone, since it goes with whatever the runner says, also of a configuration that is wrong. Whether it
/// is one is for [`crate::telemetry`] to say: the trace of somebody else must not keep a task from running.
pub fn traceparent(lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    Reader::new(lookup).get(TRACEPARENT)
}

impl Config {
    /// Has the token read again in this way when the API server does not take it.
    pub fn set_renewal(&mut self, renewal: &Renewal) {
        self.api.renewal = Some(renewal.clone());
        if let Mode::Active { identity, .. } = &mut self.mode {
            identity.api.renewal = Some(renewal.clone());
        }
    }

    /// Reads the variables through `lookup`. A variable that is set to nothing counts as not set, but for
    /// `ALLOWED_TOOLS`.
    ///
    /// # Errors
    /// All problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(lookup);
        let standby = match reader.text(MODE).as_str() {
            "active" => false,
            "standby" => true,
            mode => {
                reader.wrong(MODE, &format!("{mode:?} is neither active nor standby"));
                false
            }
        };
        let transport = reader.transport();
        let api = reader.api(&transport);
        let identity = if standby { None } else { reader.identity(&api) };
        let registration = if standby { reader.standby(&api) } else { None };
        if let Err(problem) = LogFilter::parse(&reader.text(LOG_LEVEL)) {
            reader.wrong(LOG_LEVEL, &problem);
        }
        let telemetry = reader.telemetry(&transport);
        let sandbox = reader.sandbox();
        let commands = reader.commands();
        let model = reader.model(&transport);
        let rules = reader.rules();
        let plugin_dir = reader.get(PLUGIN_DIR).map(PathBuf::from);
        let extra_events = reader.flag(CALLBACK_EXTRA_EVENTS);
        let batches = reader.batches();
        let spool = reader.spool();
        let state_dir = reader.state_dir(&rules.workspace);
        let flush_timeout = Duration::from_secs(reader.number(FLUSH_TIMEOUT));
        let task_timeout = Some(reader.number(TASK_TIMEOUT)).filter(|seconds| *seconds > 0);
        let task_timeout = task_timeout.map(Duration::from_secs);
        let shutdown_grace = Duration::from_secs(reader.number(SHUTDOWN_GRACE));
        let mode = match (&identity, registration) {
            (Some(identity), _) => Some(Mode::Active {
                identity: identity.clone(),
                task: reader.task(),
            }),
            (None, Some(standby)) => Some(Mode::Standby(standby)),
            (None, None) => None,
        };
        match (mode, model) {
            (Some(mode), Some(model)) if reader.problems.is_empty() => Ok(Config {
                mode,
                api,
                batches,
                spool,
                state_dir,
                rules,
                plugin_dir,
                model,
                sandbox,
                commands,
                extra_events,
                flush_timeout,
                task_timeout,
                shutdown_grace,
                telemetry,
                secrets: reader.secrets,
                secret_folders: reader.secret_folders,
            }),
            _ => Err(reader.failed(sandbox, identity)),
        }
    }
}

#[cfg(test)]
mod tests;
