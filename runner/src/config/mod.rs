//! Environment → one [`Config`], read and checked once. Below `main` nothing asks the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::events::TaskId;
use crate::model::client::AuthStyle;
use crate::secret::Secret;
use crate::telemetry::LogLevel;

mod variables;

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
    pub callback_token: Option<Secret>,
    pub callback_retry_base: Duration,
    pub request_id: Option<String>,
}

/// Where the task document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskSource {
    /// The text of `TASK_CONFIG`.
    Inline(String),
    File(PathBuf),
    Stdin,
}

/// What the operator allows, and how the Messages API is reached.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    pub api_key: Option<Secret>,
    pub base_url: Url,
    pub auth_style: AuthStyle,
    /// Every model that a task may ask for: built-in and added.
    pub allowed: Vec<String>,
    /// Asked → sent.
    pub aliases: BTreeMap<String, String>,
}

/// Everything the operator decided.
#[derive(Clone, Debug)]
pub struct Config {
    pub identity: Identity,
    pub task: TaskSource,
    pub workspace: PathBuf,
    /// `None`: `plugins/` beside the binary.
    pub plugin_dir: Option<PathBuf>,
    pub model: ModelConfig,
    pub allowed_tools: Vec<String>,
    pub extra_events: bool,
    pub flush_timeout: Duration,
    pub shutdown_grace: Duration,
}

/// What is wrong with the environment: one line, each problem with its variable and an example.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct ConfigError {
    pub problems: Vec<String>,
    /// Set when the task and its callback are known, so that the error can be reported there.
    pub identity: Option<Box<Identity>>,
}

/// `LOG_LEVEL` alone, since logging starts before all else. A level that is none is reported by [`Config::read`].
pub fn log_level(lookup: &dyn Fn(&str) -> Option<String>) -> LogLevel {
    lookup("LOG_LEVEL")
        .and_then(|name| LogLevel::parse(name.trim()))
        .unwrap_or_default()
}

impl Config {
    /// Reads the variables through `lookup`. A variable that is set to nothing counts as not set.
    ///
    /// # Errors
    /// All problems at once.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader {
            lookup,
            problems: Vec::new(),
        };
        let identity = reader.identity();
        if let Some(mode) = reader.get("MODE").filter(|mode| mode != "active") {
            reader.wrong(
                "MODE",
                &format!("{mode:?} is no mode that this version has: only \"active\" is"),
            );
        }
        if let Some(level) = reader
            .get("LOG_LEVEL")
            .filter(|level| LogLevel::parse(level.trim()).is_none())
        {
            reader.wrong("LOG_LEVEL", &format!("{level:?} is none of {}", LogLevel::NAMES));
        }
        if let Some(sandbox) = reader.get("SANDBOX").filter(|sandbox| sandbox != "weak") {
            reader.wrong("SANDBOX", &format!("{sandbox:?} is not built yet: only \"weak\" is"));
        }
        let task = match (reader.get("TASK_CONFIG"), reader.get("TASK_FILE")) {
            (Some(_), Some(_)) => {
                reader.wrong("TASK_FILE", "it is set together with TASK_CONFIG: keep one of the two");
                TaskSource::Stdin
            }
            (Some(text), None) => TaskSource::Inline(text),
            (None, Some(path)) => TaskSource::File(path.into()),
            (None, None) => TaskSource::Stdin,
        };
        let model = reader.model();
        let workspace = reader.get("WORKSPACE").unwrap_or_else(|| "/workspace".into()).into();
        let plugin_dir = reader.get("PLUGIN_DIR").map(PathBuf::from);
        let allowed_tools = reader
            .list("ALLOWED_TOOLS")
            .unwrap_or_else(|| BUILT_IN_TOOLS.iter().map(|&name| name.to_owned()).collect());
        let extra_events = reader.flag("CALLBACK_EXTRA_EVENTS");
        let flush_timeout = Duration::from_secs(reader.number("FLUSH_TIMEOUT", 600));
        let shutdown_grace = Duration::from_secs(reader.number("SHUTDOWN_GRACE", 25));
        match (identity, model) {
            (Some(identity), Some(model)) if reader.problems.is_empty() => Ok(Config {
                identity,
                task,
                workspace,
                plugin_dir,
                model,
                allowed_tools,
                extra_events,
                flush_timeout,
                shutdown_grace,
            }),
            (identity, _) => Err(ConfigError {
                problems: reader.problems,
                identity: identity.map(Box::new),
            }),
        }
    }
}

struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// Notes a problem, with the variable's example.
    fn wrong(&mut self, name: &str, problem: &str) {
        let example = VARIABLES
            .iter()
            .find(|variable| variable.name == name)
            .map_or("", |variable| variable.example);
        self.problems
            .push(format!("{name}: {problem} (example: {name}={example})"));
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let value = self.get(name);
        if value.is_none() {
            self.wrong(name, "it is required and is not set");
        }
        value
    }

    /// Both variables are looked at, whatever the first one is: all problems are told at once.
    fn identity(&mut self) -> Option<Identity> {
        let task_id = self.required("TASK_ID");
        let callback_url = self
            .required("CALLBACK_URL")
            .and_then(|text| self.url("CALLBACK_URL", &text));
        let callback_token = self.header("CALLBACK_TOKEN");
        let request_id = self.header("REQUEST_ID");
        let callback_retry_base = Duration::from_millis(self.number("CALLBACK_RETRY_BASE_MS", 500));
        let task_id = task_id.and_then(|id| {
            let usable = id.chars().all(|c| !c.is_control()) && id.len() <= 256 && id.is_ascii();
            if !usable {
                self.wrong(
                    "TASK_ID",
                    "it must be at most 256 printable ASCII characters, since a header carries it",
                );
            }
            usable.then_some(TaskId::Text(id))
        })?;
        Some(Identity {
            task_id,
            callback_url: callback_url?,
            callback_token: callback_token.map(Secret::new),
            callback_retry_base,
            request_id,
        })
    }

    fn model(&mut self) -> Option<ModelConfig> {
        let base_url = self
            .get("ANTHROPIC_BASE_URL")
            .unwrap_or_else(|| "https://api.anthropic.com".into());
        let base_url = self.url("ANTHROPIC_BASE_URL", &base_url);
        let auth_style = match self.get("ANTHROPIC_AUTH_STYLE").as_deref() {
            None | Some("x-api-key") => AuthStyle::XApiKey,
            Some("bearer") => AuthStyle::Bearer,
            Some(other) => {
                self.wrong(
                    "ANTHROPIC_AUTH_STYLE",
                    &format!("{other:?} is neither \"x-api-key\" nor \"bearer\""),
                );
                AuthStyle::XApiKey
            }
        };
        let mut allowed: Vec<String> = BUILT_IN_MODELS.iter().map(|&name| name.to_owned()).collect();
        allowed.extend(self.list("ALLOWED_MODELS").unwrap_or_default());
        let mut aliases = BTreeMap::new();
        for pair in self.list("MODEL_ALIASES").unwrap_or_default() {
            match pair.split_once('=').map(|(asked, sent)| (asked.trim(), sent.trim())) {
                Some((asked, sent)) if !asked.is_empty() && !sent.is_empty() => {
                    aliases.insert(asked.to_owned(), sent.to_owned());
                }
                _ => self.wrong("MODEL_ALIASES", &format!("{pair:?} is not of the form asked=sent")),
            }
        }
        let api_key = self.header("ANTHROPIC_API_KEY").map(Secret::new);
        Some(ModelConfig {
            api_key,
            base_url: base_url?,
            auth_style,
            allowed,
            aliases,
        })
    }

    fn url(&mut self, name: &str, text: &str) -> Option<Url> {
        // The value is not repeated in the message: a URL may carry credentials.
        match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                self.wrong(
                    name,
                    &format!("the scheme must be http or https, not {:?}", url.scheme()),
                );
                None
            }
            Ok(url) if url.host_str().is_none_or(str::is_empty) => {
                self.wrong(name, "the URL has no host");
                None
            }
            Ok(url) => Some(url),
            Err(error) => {
                self.wrong(name, &format!("it is no URL: {error}"));
                None
            }
        }
    }

    /// A value that goes into a header. It is not repeated in the message: it may be a secret.
    fn header(&mut self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        let usable = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !usable {
            self.wrong(
                name,
                "it has characters that no HTTP header may have (a newline at its end, perhaps)",
            );
        }
        usable.then_some(value)
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let value = self.get(name)?;
        Some(
            value
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.get(name).as_deref() {
            None | Some("0" | "false" | "off") => false,
            Some("1" | "true" | "on") => true,
            Some(other) => {
                self.wrong(name, &format!("{other:?} is neither 1 nor 0"));
                false
            }
        }
    }

    fn number(&mut self, name: &str, default: u64) -> u64 {
        /// A day in milliseconds; no wait of ours is longer.
        const MAX: u64 = 86_400_000;
        let Some(text) = self.get(name) else { return default };
        match text.trim().parse() {
            Ok(number) if number <= MAX => number,
            _ => {
                self.wrong(name, &format!("{text:?} is no whole number from 0 to {MAX}"));
                default
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::read(&|name| map.get(name).cloned())
    }

    const GOOD: [(&str, &str); 2] = [("TASK_ID", "7"), ("CALLBACK_URL", "http://127.0.0.1:1/x")];

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = read(&GOOD).unwrap();
        assert_eq!(config.workspace, PathBuf::from("/workspace"));
        assert_eq!(config.task, TaskSource::Stdin);
        assert_eq!(config.allowed_tools, BUILT_IN_TOOLS);
        assert_eq!(config.identity.callback_retry_base, Duration::from_millis(500));
        assert_eq!(config.model.base_url.as_str(), "https://api.anthropic.com/");
        assert_eq!(config.flush_timeout, Duration::from_secs(600));
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
            ("SANDBOX", "strict"),
            ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
            ("ANTHROPIC_BASE_URL", "ftp://host/"),
            ("ANTHROPIC_AUTH_STYLE", "basic"),
            ("ANTHROPIC_API_KEY", "key\n"),
            ("MODEL_ALIASES", "just-one-name"),
            ("MODEL_ALIASES", "=x"),
            ("CALLBACK_RETRY_BASE_MS", "-1"),
            ("CALLBACK_EXTRA_EVENTS", "maybe"),
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
    fn the_operator_extends_models_and_replaces_tools() {
        let config = read(&[
            GOOD[0],
            GOOD[1],
            ("ALLOWED_MODELS", "a, b,"),
            ("MODEL_ALIASES", "claude-3-opus-20240229=a"),
            ("ALLOWED_TOOLS", "grep"),
        ])
        .unwrap();
        assert_eq!(config.model.allowed.len(), BUILT_IN_MODELS.len() + 2);
        assert_eq!(config.model.aliases["claude-3-opus-20240229"], "a");
        assert_eq!(config.allowed_tools, ["grep"]);
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
