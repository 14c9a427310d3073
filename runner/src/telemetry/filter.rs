//! `LOG_LEVEL`: how much is logged, for all and for single modules.

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;

/// The crate that ties the others together.
const RUNNER: &str = "plue_runner";

/// The rooms that are crates of their own, by the names that operators call them, and as targets begin.
const ROOMS: &[(&str, &str)] = &[
    ("contract", "plue_contract"),
    ("messages", "plue_messages"),
    ("model", "plue_messages"),
    ("redaction", "plue_redaction"),
    ("sandbox", "plue_sandbox"),
    ("tool_host", "plue_tool_host"),
    ("tools", "plue_tool_host"),
];

/// The modules of the runner's own crate: with the rooms, what a name without a crate may begin with. Any other name is
/// another crate's.
const MODULES: &[&str] = &[
    "agent",
    "api_client",
    "cli",
    "config",
    "doctor",
    "events",
    "failure",
    "framing",
    "health",
    "limits",
    "run",
    "spool_dir",
    "standby",
    "state",
    "task",
    "telemetry",
    "workflow",
];

/// How much is logged; the names are those of the log lines (protocol, §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warning,
    Error,
    Critical,
}

impl LogLevel {
    /// The names, as `LOG_LEVEL` takes them in any letter case.
    pub const NAMES: &str = "DEBUG, INFO, WARNING, ERROR, CRITICAL";

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "DEBUG" => Self::Debug,
            "INFO" => Self::Info,
            "WARNING" => Self::Warning,
            "ERROR" => Self::Error,
            "CRITICAL" => Self::Critical,
            _ => return None,
        })
    }

    /// The least level that passes. tracing has no CRITICAL: such a line is an ERROR with a field that says so.
    pub(super) fn least(self) -> Level {
        match self {
            Self::Debug => Level::DEBUG,
            Self::Info => Level::INFO,
            Self::Warning => Level::WARN,
            Self::Error | Self::Critical => Level::ERROR,
        }
    }
}

/// What is logged, by target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// The runner's own, where nothing else is said.
    default: LogLevel,
    /// Targets with a level of their own; the longest that fits counts.
    modules: Vec<(String, LogLevel)>,
}

impl LogFilter {
    /// Reads `LEVEL` and `module=LEVEL` items, separated by commas. A module is a path that begins with a room
    /// (`events`, `messages::client`) or with a crate (`hyper`, `plue_messages::client`).
    ///
    /// # Errors
    /// What is wrong with the first item that is malformed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut default = None;
        let mut modules: Vec<(String, LogLevel)> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (module, name) = match item.split_once('=') {
                Some((module, name)) => (Some(module.trim()), name.trim()),
                None => (None, item),
            };
            let Some(level) = LogLevel::parse(name) else {
                let known = LogLevel::NAMES;
                return Err(match module {
                    Some(_) => format!("in {item:?}, {name:?} is none of {known}"),
                    None => format!("{item:?} is none of {known}, and not of the form module=LEVEL"),
                });
            };
            let Some(module) = module else {
                if default.replace(level).is_some() {
                    return Err(
                        "it has two levels without a module: keep one, for all that have none of their own".into(),
                    );
                }
                continue;
            };
            if !is_path(module) {
                return Err(format!(
                    "in {item:?}, {module:?} is no name of a module, such as events or messages::client"
                ));
            }
            let target = target(module);
            if modules.iter().any(|(known, _)| *known == target) {
                return Err(format!("it has two levels for the module {module:?}"));
            }
            modules.push((target, level));
        }
        let default = default.unwrap_or_default();
        Ok(Self { default, modules })
    }

    /// The level for a target.
    pub(super) fn level_of(&self, target: &str) -> LogLevel {
        let said = self
            .modules
            .iter()
            .filter(|(module, _)| is_within(target, module))
            .max_by_key(|(module, _)| module.len());
        match said {
            Some((_, level)) => *level,
            None if is_ours(target) => self.default,
            // Other crates speak of their own insides: their warnings are enough.
            None => match self.default {
                LogLevel::Debug | LogLevel::Info => LogLevel::Warning,
                level => level,
            },
        }
    }

    /// The most that any target may say.
    pub(super) fn most(&self) -> LevelFilter {
        let levels = self.modules.iter().map(|(_, level)| *level).chain([self.default]);
        let most = levels.map(|level| LevelFilter::from_level(level.least())).max();
        most.unwrap_or(LevelFilter::INFO)
    }
}

fn is_within(target: &str, module: &str) -> bool {
    target
        .strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_path(module: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    module.split("::").all(is_name)
}

/// Whether a target is the runner's, or one of its rooms'.
fn is_ours(target: &str) -> bool {
    let mut crates = ROOMS.iter().map(|(_, name)| *name).chain([RUNNER]);
    crates.any(|name| is_within(target, name))
}

/// The target of what an operator names. Rooms were once modules of the runner's crate, and may still be called so.
fn target(module: &str) -> String {
    let room = module.strip_prefix("plue_runner::").unwrap_or(module);
    let (first, rest) = room.split_at(room.find("::").unwrap_or(room.len()));
    if let Some((_, name)) = ROOMS.iter().find(|(known, _)| *known == first) {
        return format!("{name}{rest}");
    }
    match MODULES.contains(&first) {
        true => format!("{RUNNER}::{room}"),
        false => module.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn level_names_are_read_in_any_letter_case() {
        assert_eq!(LogLevel::parse("warning"), Some(LogLevel::Warning));
        assert_eq!(LogLevel::parse("Critical"), Some(LogLevel::Critical));
        assert_eq!(LogLevel::parse("trace"), None);
    }

    #[test]
    fn each_module_has_the_level_of_the_longest_path_that_names_it() {
        use LogLevel::{Critical, Debug, Error, Info, Warning};
        let cases = [
            ("", "plue_runner::agent", Info),
            ("", "hyper::client", Warning),
            ("debug", "plue_runner", Debug),
            ("DEBUG", "hyper", Warning),
            ("ERROR", "hyper", Error),
            ("critical", "hyper", Critical),
            (
                "INFO,events=DEBUG,agent=WARNING",
                "plue_runner::events::callback",
                Debug,
            ),
            ("INFO,events=DEBUG,agent=WARNING", "plue_runner::agent", Warning),
            ("INFO,events=DEBUG,agent=WARNING", "plue_messages", Info),
            ("events=DEBUG", "plue_runner::events_of_others", Info),
            ("events=DEBUG , ERROR", "plue_runner::events", Debug),
            ("events=DEBUG , ERROR", "plue_runner::run", Error),
            ("debug", "plue_sandbox::strict", Debug),
            ("debug", "plue_sandbox_of_others", Warning),
            ("tools=debug", "plue_tool_host::call", Debug),
            ("tool_host::call=debug", "plue_tool_host::call", Debug),
            ("tool_host::call=debug", "plue_tool_host::engine", Info),
            ("plue_tool_host=debug", "plue_tool_host::call", Debug),
            ("plue_runner::model=debug", "plue_messages::client", Debug),
            ("model=ERROR,model::client=DEBUG", "plue_messages::client", Debug),
            ("messages::client=DEBUG,model=ERROR", "plue_messages::decoder", Error),
            ("plue_runner=ERROR", "plue_runner::run", Error),
            ("hyper=debug,", "hyper::client", Debug),
            ("hyper=debug", "hyper_util::client", Warning),
            ("hyper=debug", "plue_runner::run", Info),
        ];
        for (text, target, level) in cases {
            let filter = LogFilter::parse(text).unwrap();
            assert_eq!(filter.level_of(target), level, "{text} {target}");
        }
    }

    #[test]
    fn the_most_that_any_module_says_is_let_through_to_it() {
        for (text, most) in [
            ("", LevelFilter::INFO),
            ("ERROR,hyper=DEBUG", LevelFilter::DEBUG),
            ("CRITICAL", LevelFilter::ERROR),
            ("WARNING,agent=CRITICAL", LevelFilter::WARN),
        ] {
            assert_eq!(LogFilter::parse(text).unwrap().most(), most, "{text}");
        }
    }

    #[test]
    fn a_malformed_item_is_refused_with_a_reason() {
        for (text, reason) in [
            ("loud", "\"loud\" is none of DEBUG"),
            ("events", "\"events\" is none of DEBUG"),
            ("INFO,events=loud", "in \"events=loud\", \"loud\" is none of"),
            ("INFO,events=", "\"\" is none of"),
            ("=DEBUG", "\"\" is no name of a module"),
            ("INFO,DEBUG", "two levels without a module"),
            ("events=INFO,plue_runner::events=DEBUG", "two levels for the module"),
            ("model=INFO,messages=DEBUG", "two levels for the module"),
            ("a b=INFO", "\"a b\" is no name of a module"),
            ("events:=INFO", "\"events:\" is no name of a module"),
            ("events.queue=INFO", "is no name of a module"),
            ("events=INFO=DEBUG", "\"INFO=DEBUG\" is none of"),
        ] {
            let problem = LogFilter::parse(text).unwrap_err();
            assert!(problem.contains(reason), "{text}: {problem}");
        }
    }

    #[test]
    fn every_module_of_the_runner_can_be_named() {
        let declared = include_str!("../lib.rs").lines().filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        let mut declared: Vec<&str> = declared.collect();
        declared.sort_unstable();
        assert_eq!(declared, MODULES);
        let mut crates = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates"))
            .unwrap()
            .map(|entry| {
                format!(
                    "plue_{}",
                    entry.unwrap().file_name().to_str().unwrap().replace('-', "_")
                )
            });
        assert!(crates.all(|name| ROOMS.iter().any(|(_, room)| *room == name)));
    }
}
