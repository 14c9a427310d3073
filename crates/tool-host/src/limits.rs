//! The limits of a tool call, in one table: name, default, unit, error code, meaning. `docs/reference/limits.md` is
//! written from it, a manifest's `[limits]` is read by it, and every message about a limit speaks its names.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use plue_contract::{ToolErrorCode, size};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Kept in milliseconds, written in seconds: durations are in seconds in every document of this project.
    Seconds,
    /// Memory or text.
    Bytes,
    /// Pieces of something.
    Count,
}

impl Unit {
    /// The word in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }

    /// Says an amount as a person would.
    pub fn show(self, amount: u64) -> String {
        match self {
            Self::Seconds if amount.is_multiple_of(1000) => format!("{} s", amount / 1000),
            Self::Seconds => format!("{}.{:03} s", amount / 1000, amount % 1000),
            Self::Bytes if amount >= MIB && amount.is_multiple_of(MIB) => format!("{} MiB", amount / MIB),
            Self::Bytes if amount >= KIB && amount.is_multiple_of(KIB) => format!("{} KiB", amount / KIB),
            Self::Bytes => format!("{amount} bytes"),
            Self::Count => amount.to_string(),
        }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const WEEK: u64 = 7 * 24 * 3600 * 1000;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// As a manifest writes it.
    pub name: &'static str,
    /// In the unit; durations in milliseconds.
    pub default: u64,
    /// What it counts.
    pub unit: Unit,
    /// The code of a call that goes over it; `None` for what is cut, or refused when the plugin is loaded.
    pub code: Option<ToolErrorCode>,
    /// Whether a manifest may set it for its tool.
    pub in_manifest: bool,
    /// A few words for the reference.
    pub meaning: &'static str,
}

macro_rules! limits {
    ($($name:ident: $default:expr, $unit:ident, $code:expr, $in_manifest:expr, $meaning:literal;)*) => {
        /// The limits of one plugin: the defaults, and what its manifest sets. Durations are in milliseconds.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $(#[doc = $meaning] pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            fn slot(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }

        /// Each limit by its name, so that a slip in one does not compile.
        #[allow(non_upper_case_globals)]
        pub(super) mod limit {
            use super::*;

            $(pub(crate) const $name: Limit = Limit {
                name: stringify!($name),
                default: $default,
                unit: Unit::$unit,
                code: $code,
                in_manifest: $in_manifest,
                meaning: $meaning,
            };)*
        }

        static TABLE: &[Limit] = &[$(limit::$name,)*];
    };
}

use ToolErrorCode as Code;

limits! {
    deadline: 60_000, Seconds, Some(Code::Timeout), true,
        "wall-clock time of a call; the time inside host calls counts";
    cpu: 30_000, Seconds, Some(Code::LimitCpu), true,
        "processor time of a call, the component's and the host's for it";
    memory: 256 * MIB, Bytes, Some(Code::LimitMemory), true,
        "all linear memories of a call together";
    tables: 200_000, Count, Some(Code::LimitTables), true,
        "elements in all tables of a call together";
    instances: 64, Count, Some(Code::LimitInstances), true,
        "core instances in a call";
    host_call: 16 * MIB, Bytes, Some(Code::LimitHostCall), true,
        "data that one host call hands to the host";
    handles: 4096, Count, Some(Code::LimitHandles), true,
        "resources that a call holds at one time: streams, pollables, descriptors, commands";
    open_files: 256, Count, Some(Code::LimitOpenFiles), true,
        "files and directories that a call has open at one time";
    output: MIB, Bytes, Some(Code::LimitOutput), true,
        "text of a result";
    live_output: 8 * MIB, Bytes, Some(Code::LimitLiveOutput), true,
        "live output and log lines of a tool, and 64 for each of them; live output of a command is cut there, and the \
            command goes on";
    command_head: 64 * KIB, Bytes, None, true,
        "of each output of a command, kept from its beginning";
    command_tail: 64 * KIB, Bytes, None, true,
        "of each output of a command, kept from its end";
    stdio: 64 * KIB, Bytes, None, false,
        "of a component's standard output and error, kept for the log";
    random: MIB, Bytes, Some(Code::Trap), false,
        "random bytes in one host call";
    describe: 5_000, Seconds, None, false,
        "wall-clock time of describe(), when a plugin is loaded";
    component: 64 * MIB, Bytes, None, false,
        "file of a component";
    schema: 256 * KIB, Bytes, None, false,
        "input schema of a tool";
    schema_paths: 20_000, Count, None, false,
        "paths through the input schema of a tool from subschema to subschema of the same value, a `$ref` counting as \
            all that it names";
    schema_steps: 10_000_000, Count, Some(Code::InvalidInput), false,
        "visits of subschemas to values when the input of a call is checked";
    calls: 16, Count, None, false,
        "calls at one time; the next one waits, at most as long as its deadline";
    cancel_grace: 5_000, Seconds, Some(Code::Cancelled), true,
        "how long a cancelled call may go on, to end its command and say how far it came";
}

/// Every limit, in the order of the reference.
pub fn table() -> &'static [Limit] {
    TABLE
}

/// What is wrong with a `[limits]` entry of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitProblem {
    /// There is no limit of this name.
    #[error("there is no limit of this name; the limits are {}", names())]
    Unknown,
    /// There is one, and no manifest may set it.
    #[error("this limit is the same for every tool and cannot be set in a manifest")]
    Fixed,
    /// This is no amount of what the limit counts.
    #[error("{found} is no amount for a limit in {unit}: {allowed}")]
    Amount {
        /// What the manifest says.
        found: String,
        /// What the limit counts.
        unit: &'static str,
        /// How an amount may be written.
        allowed: &'static str,
    },
}

fn names() -> String {
    let names: Vec<_> = TABLE
        .iter()
        .filter(|limit| limit.in_manifest)
        .map(|limit| limit.name)
        .collect();
    names.join(", ")
}

/// An amount as a manifest writes it: a number, or a size with its unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// A whole number.
    Integer(i64),
    /// A number with a fraction, as seconds may have.
    Float(f64),
    /// A number with its unit, `64MiB`.
    Text(String),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl Limits {
    /// Sets one limit from a manifest.
    pub fn set(&mut self, name: &str, amount: &Amount) -> Result<(), LimitProblem> {
        let limit = TABLE
            .iter()
            .find(|limit| limit.name == name)
            .ok_or(LimitProblem::Unknown)?;
        if !limit.in_manifest {
            return Err(LimitProblem::Fixed);
        }
        let value = in_unit(limit.unit, amount).ok_or_else(|| LimitProblem::Amount {
            found: amount.to_string(),
            unit: limit.unit.as_str(),
            allowed: match limit.unit {
                Unit::Seconds => "a number over 0 and at most 86400",
                Unit::Bytes => "a whole number from 1 to 4 GiB, or a size such as \"64MiB\"",
                Unit::Count => "a whole number from 1 to 10000000",
            },
        })?;
        if let Some(slot) = self.slot(name) {
            *slot = value;
        }
        Ok(())
    }

    /// For a mutation run: nothing ends a call for its time.
    pub(super) fn without_deadlines(&mut self) {
        for time in [&mut self.deadline, &mut self.cpu, &mut self.describe] {
            *time = WEEK;
        }
    }

    /// For a mutation run: nothing ends a call for its memory.
    pub(super) fn without_memory(&mut self) {
        self.memory = u64::MAX;
    }

    /// The deadline as a duration.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline)
    }

    /// How long a cancelled call may go on.
    pub(crate) fn cancel_grace(&self) -> Duration {
        Duration::from_millis(self.cancel_grace)
    }
}

fn in_unit(unit: Unit, amount: &Amount) -> Option<u64> {
    let value = match (unit, amount) {
        (Unit::Seconds, Amount::Integer(seconds)) => u64::try_from(*seconds).ok()?.checked_mul(1000)?,
        (Unit::Seconds, Amount::Float(seconds)) if (0.0..=86_400.0).contains(seconds) => (seconds * 1000.0) as u64,
        (Unit::Bytes | Unit::Count, Amount::Integer(number)) => u64::try_from(*number).ok()?,
        (Unit::Bytes, Amount::Text(text)) => size::parse(text)?,
        _ => return None,
    };
    let most = match unit {
        Unit::Seconds => 86_400_000,
        // The linear memory of wasm32 ends there.
        Unit::Bytes => 4 * GIB,
        Unit::Count => 10_000_000,
    };
    (1..=most).contains(&value).then_some(value)
}

/// A call went over a limit. Travels as the reason of a trap, so that the outcome can name the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitHit {
    limit: Limit,
    allowed: u64,
    /// How much was used or asked for; `None` when wasmtime stopped the call without saying.
    used: Option<u64>,
}

impl LimitHit {
    /// The hit of a limit, which is so much for this call.
    pub(crate) fn new(limit: Limit, allowed: u64, used: Option<u64>) -> Self {
        Self { limit, allowed, used }
    }

    pub(crate) fn code(&self) -> ToolErrorCode {
        self.limit.code.unwrap_or(ToolErrorCode::Failed)
    }
}

impl fmt::Display for LimitHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.limit.unit;
        let used = match self.used {
            Some(used) => format!("{} used or asked for", unit.show(used)),
            None => "more was used or asked for".to_owned(),
        };
        let allowed = unit.show(self.allowed);
        write!(
            f,
            "the call was ended: limit `{}` is {allowed} ({}), and {used}",
            self.limit.name, self.limit.meaning
        )
    }
}

impl std::error::Error for LimitHit {}
