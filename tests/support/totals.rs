//! How much text has come, and what it was, without keeping it: for outputs that no test holds in memory.

use std::collections::HashMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The length and the hash of a text that comes in parts.
#[derive(Clone, Default)]
pub struct Running {
    bytes: u64,
    hash: Sha256,
}

/// What [`Running`] has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

impl Running {
    pub fn add(&mut self, part: impl AsRef<[u8]>) {
        self.bytes += part.as_ref().len() as u64;
        self.hash.update(part);
    }

    pub fn total(&self) -> Total {
        let digest = self.hash.clone().finalize();
        Total {
            bytes: self.bytes,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl Total {
    /// Of a text that is there as a whole.
    pub fn of(text: impl AsRef<[u8]>) -> Self {
        let mut running = Running::default();
        running.add(text);
        running.total()
    }
}

/// The texts of one task: what the model said, and what each step printed. Whether events were merged makes no
/// difference.
#[derive(Clone, Default)]
pub(crate) struct Totals {
    pub(crate) tokens: Running,
    logs: HashMap<(String, Option<u64>), Running>,
}

impl Totals {
    pub(crate) fn add(&mut self, event: &Value) {
        let text = |field: &str| event[field].as_str().unwrap_or_default();
        match text("type") {
            "token" => self.tokens.add(text("text")),
            "log" => {
                let of = (text("level").to_owned(), event["step_index"].as_u64());
                let log = self.logs.entry(of).or_default();
                log.add(text("message"));
                // A line that has no end yet goes on in the next event.
                if event["partial"] != true {
                    log.add("\n");
                }
            }
            _ => {}
        }
    }

    /// The lines of a level and step, each with a newline at its end.
    pub(crate) fn log(&self, level: &str, step: Option<u64>) -> Total {
        let log = self.logs.get(&(level.to_owned(), step));
        log.cloned().unwrap_or_default().total()
    }
}
