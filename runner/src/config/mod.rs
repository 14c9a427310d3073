//! Environment → one [`Config`], read and checked once. Below `main` nothing asks the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::api_client::ApiConfig;
use crate::events::{SpoolConfig, TaskId};
use crate::model::client::AuthStyle;
use crate::sandbox::Level;
use crate::sandbox::strict::CommandRules;
use crate::secret::Secret;
use crate::telemetry::{LogFilter, OtlpConfig};

mod otlp;
mod reader;
mod variables;

pub use otlp::header_secrets;
use reader::Reader;
pub use variables::{VARIABLES, Variable};

/// The models that a task may ask for without the operator's word. All four are retired at Anthropic: see
/// [`crate::model::models`].
pub const BUILT_IN_MODELS: &[&str] = &[
    "claude-sonnet-4-20250514",
    "claude-3-5-sonnet-20241022",
    "claude-3-5-haiku-20241022",
    "claude-3-opus-20240229",
];

/// The tools that a task may name when `ALLOWED_TOOLS` does not say otherwise.
pub const BUILT_IN_TOOLS: &[&str] = &["read_file", "write_file", "list_files", "grep", "shell"];

/// Who the task is and where its events go: all that is needed to report an error.
#[derive(Clone, Debug)]
pub struct Identity {
    pub task_id: TaskId,
    pub callback_url: Url,
    pub api: ApiConfig,
}

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

/// How a standby runner gets its tasks.
#[derive(Clone, Debug)]
pub struct StandbyConfig {
    pub register_url: Url,
    pub pod_name: String,
    pub pod_ip: String,
    pub node_name: Option<String>,
    pub labels: Vec<String>,
    /// How often the server hears that we live.
    pub heartbeat: Duration,
    /// After how many tasks the runner ends; `None`: never.
    pub max_tasks: Option<u64>,
}

/// How the Messages API is reached.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    pub api_key: Option<Secret>,
    pub base_url: Url,
    pub auth_style: AuthStyle,
}

/// What decides whether a task is valid: all that `plue-runner check` needs to know.
#[derive(Clone, Debug)]
pub struct TaskRules {
    /// Every model that a task may ask for: built-in and added.
    pub models: Vec<String>,
    /// Asked → sent.
    pub aliases: BTreeMap<String, String>,
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
        Err(ConfigError {
            problems: reader.problems,
            sandbox: Level::default(),
            identity: None,
        })
    }

    /// The model that is asked in place of the one that a task names.
    pub fn sent<'m>(&'m self, asked: &'m str) -> &'m str {
        self.aliases.get(asked).map_or(asked, String::as_str)
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
    /// Where traces and metrics go. `None`: nowhere.
    pub telemetry: Option<OtlpConfig>,
}

/// What is around the runner, as far as the environment says: all that `plue-runner doctor` needs, with no task.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub workspace: PathBuf,
    /// `None`: `plugins/` beside the binary.
    pub plugin_dir: Option<PathBuf>,
    pub commands: CommandRules,
    pub callback_url: Option<Url>,
    pub model_url: Url,
}

impl Surroundings {
    /// # Errors
    /// All problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(lookup);
        let rules = reader.rules();
        let commands = reader.commands();
        let plugin_dir = reader.get("PLUGIN_DIR").map(PathBuf::from);
        let callback_url = reader.callback_url();
        match reader.model() {
            Some(model) if reader.problems.is_empty() => Ok(Self {
                workspace: rules.workspace,
                plugin_dir,
                commands,
                callback_url,
                model_url: model.base_url,
            }),
            _ => Err(ConfigError {
                problems: reader.problems,
                sandbox: Level::default(),
                identity: None,
            }),
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
}

/// What is wrong with a variable, in the form that all such errors have: its name, the problem, an example.
pub fn wrong_value(name: &str, problem: &str) -> String {
    let example = VARIABLES
        .iter()
        .find(|variable| variable.name == name)
        .map_or("", |variable| variable.example);
    format!("{name}: {problem} (example: {name}={example})")
}

/// `LOG_LEVEL` alone, since logging starts before all else. One that is malformed is reported by [`Config::read`].
pub fn log_filter(lookup: &dyn Fn(&str) -> Option<String>) -> LogFilter {
    lookup("LOG_LEVEL")
        .and_then(|text| LogFilter::parse(&text).ok())
        .unwrap_or_default()
}

/// `TRACEPARENT` alone, since it goes with whatever the runner says, also of a configuration that is wrong. Whether it
/// is one is for [`crate::telemetry`] to say: the trace of somebody else must not keep a task from running.
pub fn traceparent(lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    Reader::new(lookup).get("TRACEPARENT")
}

impl Config {
    /// Reads the variables through `lookup`. A variable that is set to nothing counts as not set, but for `ALLOWED_TOOLS`.
    ///
    /// # Errors
    /// All problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(lookup);
        let standby = match reader.get("MODE").as_deref() {
            None | Some("active") => false,
            Some("standby") => true,
            Some(mode) => {
                reader.wrong("MODE", &format!("{mode:?} is neither active nor standby"));
                false
            }
        };
        let api = reader.api();
        let identity = if standby { None } else { reader.identity(&api) };
        let registration = if standby { reader.standby() } else { None };
        if let Some(Err(problem)) = reader.get("LOG_LEVEL").map(|text| LogFilter::parse(&text)) {
            reader.wrong("LOG_LEVEL", &problem);
        }
        let telemetry = reader.telemetry();
        let sandbox = reader.sandbox();
        let commands = reader.commands();
        let model = reader.model();
        let rules = reader.rules();
        let plugin_dir = reader.get("PLUGIN_DIR").map(PathBuf::from);
        let extra_events = reader.flag("CALLBACK_EXTRA_EVENTS");
        let batches = reader.batches();
        let spool = reader.spool();
        let flush_timeout = Duration::from_secs(reader.number("FLUSH_TIMEOUT", 600));
        let shutdown_grace = Duration::from_secs(reader.number("SHUTDOWN_GRACE", 25));
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
                rules,
                plugin_dir,
                model,
                sandbox,
                commands,
                extra_events,
                flush_timeout,
                shutdown_grace,
                telemetry,
            }),
            _ => Err(ConfigError {
                problems: reader.problems,
                sandbox,
                identity: identity.map(Box::new),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sandbox::strict::Network;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::read(&|name| map.get(name).cloned())
    }

    const GOOD: [(&str, &str); 2] = [("TASK_ID", "7"), ("CALLBACK_URL", "http://127.0.0.1:1/x")];

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = read(&GOOD).unwrap();
        assert_eq!(config.rules.workspace, PathBuf::from("/workspace"));
        assert!(matches!(
            config.mode,
            Mode::Active {
                task: TaskSource::Stdin,
                ..
            }
        ));
        assert_eq!((config.batches, config.spool), (false, SpoolConfig::default()));
        assert_eq!(config.rules.tools, BUILT_IN_TOOLS);
        assert_eq!(config.api.retry_base, Duration::from_millis(500));
        assert_eq!(config.api.timeout, Duration::from_secs(30));
        assert_eq!(config.model.base_url.as_str(), "https://api.anthropic.com/");
        assert_eq!(config.flush_timeout, Duration::from_secs(600));
        assert_eq!(config.sandbox, Level::Strict);
        assert_eq!(config.commands, CommandRules::default());
        for variable in VARIABLES {
            assert!(
                !variable.meaning.is_empty() && !variable.example.is_empty(),
                "{}",
                variable.name
            );
        }
    }

    #[test]
    fn a_malformed_variable_is_named_with_an_example_and_the_callback_stays_known() {
        let cases = [
            ("MODE", "passive"),
            ("LOG_LEVEL", "loud"),
            ("LOG_LEVEL", "INFO,events=loud"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:secret@collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret%0a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment"),
            ("SANDBOX", "none"),
            ("SANDBOX", "Weak"),
            ("COMMAND_NETWORK", "host"),
            ("COMMAND_READ_PATHS", "usr/share"),
            ("COMMAND_READ_PATHS", "/opt/tools,/"),
            ("COMMAND_READ_PATHS", "/dev/snd"),
            ("COMMAND_MEMORY", "1 horse"),
            ("COMMAND_MEMORY", "0"),
            ("COMMAND_MEMORY", "99999999999Gi"),
            ("COMMAND_PROCESSES", "0"),
            ("COMMAND_PROCESSES", "many"),
            ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
            ("ANTHROPIC_BASE_URL", "ftp://host/"),
            ("ANTHROPIC_AUTH_STYLE", "basic"),
            ("ANTHROPIC_API_KEY", "key\n"),
            ("ANTHROPIC_API_KEY", "a b"),
            ("ANTHROPIC_BASE_URL", "https://user@host/"),
            ("ANTHROPIC_BASE_URL", "https://:secret@host/"),
            ("MODEL_ALIASES", "just-one-name"),
            ("MODEL_ALIASES", "=x"),
            ("CALLBACK_RETRY_BASE_MS", "-1"),
            ("CALLBACK_EXTRA_EVENTS", "maybe"),
            ("CALLBACK_BATCH", "csv"),
            ("CALLBACK_TIMEOUT", "0"),
            ("SPOOL_DIR", "relative"),
            ("SPOOL_SIZE", "much"),
            ("CALLBACK_TOKEN", "a\u{7f}"),
            ("FLUSH_TIMEOUT", "ten"),
            ("SHUTDOWN_GRACE", "1e9"),
            ("REQUEST_ID", "a\nb"),
        ];
        for (name, value) in cases {
            let error = read(&[GOOD[0], GOOD[1], (name, value)]).unwrap_err();
            assert_eq!(error.problems.len(), 1, "{name}={value}: {error}");
            assert!(error.problems[0].starts_with(&format!("{name}: ")), "{error}");
            assert!(error.problems[0].contains(&format!("(example: {name}=")), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(error.identity.is_some(), "{name}");
        }
    }

    #[test]
    fn without_a_task_id_or_a_good_callback_url_nobody_can_be_told() {
        for (id, url) in [
            ("", GOOD[1].1),
            ("7", ""),
            ("7", "not a url"),
            ("7", "file:///x"),
            ("a\nb", GOOD[1].1),
            ("", ""),
        ] {
            let error = read(&[("TASK_ID", id), ("CALLBACK_URL", url)]).unwrap_err();
            assert!(error.identity.is_none(), "{id:?} {url:?}");
        }
        let both = read(&[]).unwrap_err();
        assert_eq!(both.problems.len(), 2, "{both}");
    }

    #[test]
    fn standby_asks_for_a_registration_url_and_for_no_task() {
        let standby = |pairs: &[(&str, &str)]| {
            let pairs = [&[("MODE", "standby")], pairs].concat();
            read(&pairs)
        };
        let config = standby(&[("REGISTER_URL", "http://api/internal/runners/register")]).unwrap();
        let Mode::Standby(standby_config) = config.mode else {
            unreachable!()
        };
        assert_eq!(
            (standby_config.pod_name.as_str(), standby_config.pod_ip.as_str()),
            ("unknown", "unknown")
        );
        assert_eq!(
            (standby_config.heartbeat, standby_config.max_tasks),
            (Duration::from_secs(15), None)
        );
        let url = ("REGISTER_URL", "http://api/internal/runners/register");
        let config = standby(&[
            url,
            ("RUNNER_LABELS", "a, b"),
            ("STANDBY_MAX_TASKS", "3"),
            ("NODE_NAME", "n"),
        ])
        .unwrap();
        let Mode::Standby(standby_config) = config.mode else {
            unreachable!()
        };
        assert_eq!(
            (standby_config.labels, standby_config.max_tasks),
            (vec!["a".into(), "b".into()], Some(3))
        );
        for (pairs, name) in [
            (&[][..], "REGISTER_URL"),
            (&[("REGISTER_URL", "nowhere")], "REGISTER_URL"),
            (&[url, ("HEARTBEAT_SECONDS", "0")], "HEARTBEAT_SECONDS"),
            (&[url, ("STANDBY_MAX_TASKS", "-1")], "STANDBY_MAX_TASKS"),
        ] {
            let error = standby(pairs).unwrap_err();
            assert_eq!(error.problems.len(), 1, "{error}");
            assert!(error.problems[0].starts_with(&format!("{name}: ")), "{error}");
        }
    }

    #[test]
    fn the_operator_extends_models_and_replaces_tools() {
        let config = read(&[
            GOOD[0],
            GOOD[1],
            ("ALLOWED_MODELS", "a, b,"),
            ("MODEL_ALIASES", "claude-3-opus-20240229=a"),
            ("ALLOWED_TOOLS", "grep"),
        ])
        .unwrap();
        assert_eq!(config.rules.models.len(), BUILT_IN_MODELS.len() + 2);
        assert_eq!(config.rules.aliases["claude-3-opus-20240229"], "a");
        assert_eq!(config.rules.tools, ["grep"]);
        for none in ["", ",", " , "] {
            let config = read(&[GOOD[0], GOOD[1], ("ALLOWED_TOOLS", none)]).unwrap();
            assert!(config.rules.tools.is_empty(), "{none:?}");
        }
    }

    #[test]
    fn commands_are_confined_as_the_operator_says() {
        let config = read(&[
            GOOD[0],
            GOOD[1],
            ("SANDBOX", "weak"),
            ("COMMAND_NETWORK", "pod"),
            ("COMMAND_READ_PATHS", "/opt/tools, /home/me/.rustup"),
            ("COMMAND_MEMORY", "2Gi"),
            ("COMMAND_PROCESSES", "64"),
        ])
        .unwrap();
        let expected = CommandRules {
            network: Network::Pod,
            read_paths: vec!["/opt/tools".into(), "/home/me/.rustup".into()],
            memory: Some(2 << 30),
            processes: Some(64),
        };
        assert_eq!((config.sandbox, config.commands), (Level::Weak, expected));
        for (text, bytes) in [
            ("1073741824", 1 << 30),
            ("64Mi", 64 << 20),
            ("64MiB", 64 << 20),
            ("1 GiB", 1 << 30),
            ("65536Ki", 64 << 20),
        ] {
            let config = read(&[GOOD[0], GOOD[1], ("COMMAND_MEMORY", text)]).unwrap();
            assert_eq!(config.commands.memory, Some(bytes), "{text}");
        }
    }

    #[test]
    fn a_relative_workspace_is_made_absolute() {
        let here = std::env::current_dir().unwrap();
        for (set, expected) in [("sub", here.join("sub")), (".", here.clone()), ("/a/b", "/a/b".into())] {
            let config = read(&[GOOD[0], GOOD[1], ("WORKSPACE", set)]).unwrap();
            assert_eq!(config.rules.workspace, expected, "{set}");
        }
    }

    #[test]
    fn the_rules_for_tasks_are_read_without_a_task_and_ask_for_no_other_variable() {
        let read = |name: &str, value: &'static str| {
            let name = name.to_owned();
            TaskRules::read(&move |asked| (asked == name).then(|| value.to_owned()))
        };
        let rules = read("MODEL_ALIASES", "a=b").unwrap();
        assert_eq!((rules.sent("a"), rules.sent("c")), ("b", "c"));
        assert_eq!(rules.tools, BUILT_IN_TOOLS);
        assert!(read("MODE", "passive").is_ok());
        let error = read("MODEL_ALIASES", "a").unwrap_err();
        assert!(error.to_string().starts_with("MODEL_ALIASES: "), "{error}");
    }

    #[test]
    fn the_debug_form_of_a_configuration_shows_no_secret() {
        let config = read(&[
            GOOD[0],
            GOOD[1],
            ("ANTHROPIC_API_KEY", "sk-secret"),
            ("CALLBACK_TOKEN", "tok-secret"),
        ]);
        assert!(!format!("{:?}", config.unwrap()).contains("secret"));
    }
}
