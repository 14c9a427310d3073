//! What the attack program is told, and what it says: the two ends of `plue-escape attack`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the outside looks like from the outside. It lies in the workspace as JSON, and holds no secret: only the text
/// that each of them begins with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    pub scene: String,
    pub workspace: PathBuf,
    /// Canaries in a temporary folder, which a command does not see at all.
    pub hidden: PathBuf,
    /// Canaries at a place that a command may see, read-only, when there is one.
    pub visible: Option<PathBuf>,
    /// Canaries in homes and among what runs, where we may put any.
    pub private: Vec<PathBuf>,
    /// What every secret begins with.
    pub secret_prefix: String,
    /// The runner, and in a baseline the stand-in that holds the same secrets.
    pub runner: i32,
    /// A process outside, of the same user, that notices signals.
    pub bystander: i32,
    pub tcp: SocketAddr,
    pub tcp6: Option<SocketAddr>,
    pub udp: SocketAddr,
    /// Without the NUL in front.
    pub abstract_socket: String,
    pub socket: PathBuf,
    pub callback: String,
    /// Whether it runs outside of the sandbox, to see that it is real.
    pub baseline: bool,
}

/// How an attack ended, by what itself saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With what it got.
    GotThrough(String),
    Held {
        how: String,
        errno: Option<i32>,
    },
    /// The attack itself could not be made.
    Broken(String),
}

impl Outcome {
    pub fn held(how: impl Into<String>) -> Self {
        Self::Held {
            how: how.into(),
            errno: None,
        }
    }

    /// A success is an escape, and an error is what held.
    pub fn of<T>(what: &str, result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::GotThrough(format!("{what} succeeded")),
            Err(error) => Self::refused(what, &error),
        }
    }

    pub fn refused(what: &str, error: &io::Error) -> Self {
        Self::Held {
            how: format!("{what}: {error}"),
            // Who was ended by a signal has got no answer.
            errno: error
                .raw_os_error()
                .or((error.kind() == io::ErrorKind::Interrupted).then_some(libc::EINTR)),
        }
    }

    /// The first that got through, else the first that was broken, else the last that was held.
    pub fn any(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let mut all: Vec<Outcome> = outcomes.into_iter().collect();
        for wanted in [
            |outcome: &Outcome| matches!(outcome, Outcome::GotThrough(_)),
            |outcome: &Outcome| matches!(outcome, Outcome::Broken(_)),
        ] {
            if let Some(found) = all.iter().position(wanted) {
                return all.swap_remove(found);
            }
        }
        all.pop()
            .unwrap_or_else(|| Outcome::Broken("nothing was tried".to_owned()))
    }
}

/// The line that says that an attack begins: it may be ended before it can say how it ended.
pub const BEGUN: &str = "PLUE-ESCAPE-BEGINS";

/// Whether a command has printed that.
pub fn has_begun(text: &str) -> bool {
    text.lines().any(|line| line.trim() == BEGUN)
}

/// What a line with an outcome begins with.
const MARK: &str = "PLUE-ESCAPE ";

/// The line that the attack program prints.
pub fn line(outcome: &Outcome) -> String {
    match serde_json::to_string(outcome) {
        Ok(json) => format!("{MARK}{json}"),
        Err(error) => format!("{MARK}{{\"broken\":\"{error}\"}}"),
    }
}

/// The outcomes in what a command printed.
pub fn outcomes(text: &str) -> Vec<Outcome> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix(MARK))
        .map(|json| {
            serde_json::from_str(json.trim()).unwrap_or_else(|error| Outcome::Broken(format!("{error}: {json}")))
        })
        .collect()
}

/// Two functions for scripts, which print their outcome in the form of [`line()`].
pub const SCRIPT_FUNCTIONS: &str = r#"
held() { printf '\nPLUE-ESCAPE {"held":{"how":"%s","errno":null}}\n' "$1"; exit 0; }
through() { printf '\nPLUE-ESCAPE {"got_through":"%s"}\n' "$1"; exit 0; }
"#;
