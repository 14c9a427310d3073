//! What is known about Anthropic's models: how large an answer may be, what a turn costs, which `thinking` and `effort`
//! values a model takes, and what replaces a model that is gone. The facts are data, with the day they were true:
//! `models.toml`.
//!
//! A model that is not in the table is not an error: an operator may allow any id with `ALLOWED_MODELS`, for a
//! gateway's own models or for one newer than this build. It gets careful defaults, no cost, and no checks.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Usage;

/// The `max_tokens` that a model of unknown size is asked for: every live model takes it.
pub const DEFAULT_MAX_OUTPUT: u32 = 32_000;

/// The table. A unit test sees that it can be read.
static TABLE: LazyLock<Table> = LazyLock::new(|| toml::from_str(include_str!("models.toml")).unwrap_or_default());

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    as_of: String,
    models: Vec<ModelInfo>,
    retired: Vec<RetiredModel>,
}

/// Where a model stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The newest of its family.
    Latest,
    /// Served, and a newer one of its family exists.
    Legacy,
    /// Served until the day in `retires`; requests fail afterwards.
    Deprecated,
}

/// US dollars for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Of the prompt, but for what the cache has to do with.
    pub input: f64,
    /// Of the answer, thinking included.
    pub output: f64,
    /// Into the cache with the 5-minute lifetime, the only one that we ask for.
    pub cache_write: f64,
    /// From the cache.
    pub cache_read: f64,
}

/// A higher price for the whole request when its prompt is long.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongPrompt {
    /// The price holds when the prompt (input, cache reads and cache writes together) has more tokens than this.
    pub above_tokens: u64,
    /// What it costs then.
    pub prices: Prices,
}

/// The forms of the request's `thinking` that a model takes. Any other is a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// `adaptive`, and it cannot be turned off.
    Always,
    /// `adaptive`, or `between_tools` in place of turning it off.
    AlwaysOrBetweenTools,
    /// `adaptive` (what the model does by itself), or `disabled` as long as the effort is at most `high`.
    OnUpToHigh,
    /// `adaptive` (what the model does by itself), or `disabled`.
    On,
    /// `adaptive`, or `disabled` (what the model does by itself).
    Off,
    /// As `Off`, and `enabled` with a budget, which is deprecated.
    OffOrBudget,
    /// `enabled` with a budget, or `disabled` (what the model does by itself).
    Budget,
}

/// What is known about one live model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// As requests name it.
    pub id: String,
    /// Another name that the API takes for it.
    pub alias: Option<String>,
    /// Where it stands in its life.
    pub state: State,
    /// Tokens of prompt and answer together.
    pub context_window: u32,
    /// The most tokens of an answer, thinking included: the largest `max_tokens`.
    pub max_output: u32,
    /// What its tokens cost.
    pub prices: Prices,
    /// What they cost when the prompt is long; `None`: the same.
    pub long_prompt: Option<LongPrompt>,
    /// The forms of `thinking` that it takes.
    pub thinking: Thinking,
    /// The values of `effort` that it takes; empty when it takes none.
    pub efforts: Vec<String>,
    /// The earliest day of its retirement; for `Deprecated`, the day. ISO 8601, as precise as it is known.
    pub retires: String,
    /// What to move to. `None` for the newest of a family.
    pub replacement: Option<String>,
}

/// A model that is no longer served: a request for it is a 404.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredModel {
    /// The id, or an alias that ended with it.
    pub id: String,
    /// The day it ended.
    pub retired_on: String,
    /// Today's model of the same family.
    pub replacement: String,
}

/// The day the table was true, ISO 8601.
pub fn as_of() -> &'static str {
    &TABLE.as_of
}

/// The live models, as of [`as_of`].
pub fn live() -> &'static [ModelInfo] {
    &TABLE.models
}

/// The models that are gone, as of [`as_of`], with the aliases that went with them. The four of the task whitelist are
/// all among them.
pub fn gone() -> &'static [RetiredModel] {
    &TABLE.retired
}

/// What is sent in place of a model that is not served any more on this day (ISO 8601), with the day it ended. A
/// deprecated model is served until its day, which the table knows in advance.
pub fn replacement(id: &str, today: &str) -> Option<(&'static str, &'static str)> {
    if let Some(model) = retired(id) {
        return Some((&model.replacement, &model.retired_on));
    }
    let model = lookup(id).filter(|model| model.state == State::Deprecated && *model.retires <= *today)?;
    Some((model.replacement.as_deref()?, &model.retires))
}

/// What is known about a live model, by its id or its alias.
pub fn lookup(id: &str) -> Option<&'static ModelInfo> {
    live()
        .iter()
        .find(|model| model.id == id || model.alias.as_deref() == Some(id))
}

/// Whether a model is gone, and what takes its place.
pub fn retired(id: &str) -> Option<&'static RetiredModel> {
    gone().iter().find(|model| model.id == id)
}

/// The largest `max_tokens` of a model; [`DEFAULT_MAX_OUTPUT`] for one that is not in the table.
pub fn max_output(id: &str) -> u32 {
    lookup(id).map_or(DEFAULT_MAX_OUTPUT, |model| model.max_output)
}

/// What ONE turn cost, in US dollars; `None` for a model without a known price. Add up the results, not the usage: a
/// long prompt makes the whole turn dearer. Pass the model that served ([`super::Turn::model`]).
pub fn cost(id: &str, usage: &Usage) -> Option<f64> {
    let model = lookup(id)?;
    let prompt_tokens = usage.prompt_tokens()?;
    let prices = match model.long_prompt {
        Some(long) if prompt_tokens > long.above_tokens => long.prices,
        _ => model.prices,
    };
    let dollars = |tokens: Option<u64>, per_million: f64| Some(tokens? as f64 * per_million / 1e6);
    Some(
        dollars(usage.input_tokens, prices.input)?
            + dollars(usage.output_tokens, prices.output)?
            + dollars(usage.cache_write_tokens, prices.cache_write)?
            + dollars(usage.cache_read_tokens, prices.cache_read)?,
    )
}

/// A value of a task that its model does not take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not with this effort.
    #[error("{model} does not take effort {found:?}; {}", allowed_text("leave it out", .allowed))]
    Effort {
        /// The model, as the task names it.
        model: String,
        /// The effort that the task asks for.
        found: String,
        /// Those that it takes; none: the effort has to be left out.
        allowed: &'static [String],
    },
    /// Not with this type of thinking.
    #[error("{model} does not take thinking of type {found:?}; {}", allowed_text("leave it out", .allowed))]
    ThinkingType {
        /// The model, as the task names it.
        model: String,
        /// The type that the task asks for.
        found: String,
        /// Those that it takes; none: thinking has to be left out.
        allowed: &'static [&'static str],
    },
    /// Not without thinking at this effort.
    #[error("{model} takes thinking of type \"disabled\" only with an effort of at most \"high\", found {effort:?}")]
    DisabledWithEffort {
        /// The model, as the task names it.
        model: String,
        /// The effort that the task asks for.
        effort: String,
    },
    /// Not with this budget.
    #[error("thinking.budget_tokens must be at least 1024 and less than max_tokens ({max_tokens}), found {found}")]
    Budget {
        /// What stands in the task.
        found: String,
        /// What the budget has to be less than.
        max_tokens: u32,
    },
    /// No `thinking` at all.
    #[error("thinking must be an object with a string \"type\"")]
    ThinkingShape,
}

fn allowed_text(or_else: &str, allowed: &[impl AsRef<str>]) -> String {
    let allowed: Vec<&str> = allowed.iter().map(AsRef::as_ref).collect();
    match allowed.as_slice() {
        [] => format!("{or_else}: it takes none"),
        some => format!("allowed: {}", some.join(", ")),
    }
}

impl Thinking {
    /// The values of `thinking.type` that are no 400.
    pub fn types(self) -> &'static [&'static str] {
        match self {
            Self::Always => &["adaptive"],
            Self::AlwaysOrBetweenTools => &["adaptive", "between_tools"],
            Self::OnUpToHigh | Self::On | Self::Off => &["adaptive", "disabled"],
            Self::OffOrBudget => &["adaptive", "disabled", "enabled"],
            Self::Budget => &["enabled", "disabled"],
        }
    }

    /// Whether the model thinks when the request does not speak of it.
    pub fn is_default(self) -> bool {
        matches!(
            self,
            Self::Always | Self::AlwaysOrBetweenTools | Self::OnUpToHigh | Self::On
        )
    }
}

/// Whether a model takes this `effort`. Every value is accepted for a model that is not in the table.
pub fn check_effort(id: &str, effort: &str) -> Result<(), SettingError> {
    match lookup(id) {
        Some(model) if !model.efforts.iter().any(|known| known == effort) => Err(SettingError::Effort {
            model: id.to_owned(),
            found: effort.to_owned(),
            allowed: &model.efforts,
        }),
        _ => Ok(()),
    }
}

/// Whether a model takes this `thinking` object with this effort and `max_tokens`. For a model that is not in the
/// table only the shape is checked.
pub fn check_thinking(
    id: &str,
    thinking: &RawValue,
    effort: Option<&str>,
    max_tokens: u32,
) -> Result<(), SettingError> {
    #[derive(Deserialize)]
    struct Shape {
        r#type: String,
        budget_tokens: Option<serde_json::Value>,
    }
    let Ok(shape) = serde_json::from_str::<Shape>(thinking.get()) else {
        return Err(SettingError::ThinkingShape);
    };
    let Some(model) = lookup(id) else { return Ok(()) };
    let allowed = model.thinking.types();
    if !allowed.contains(&shape.r#type.as_str()) {
        return Err(SettingError::ThinkingType {
            model: id.to_owned(),
            found: shape.r#type,
            allowed,
        });
    }
    if let (Thinking::OnUpToHigh, "disabled", Some(effort @ ("xhigh" | "max"))) =
        (model.thinking, shape.r#type.as_str(), effort)
    {
        return Err(SettingError::DisabledWithEffort {
            model: id.to_owned(),
            effort: effort.to_owned(),
        });
    }
    if shape.r#type == "enabled" {
        let budget = shape.budget_tokens.as_ref().and_then(serde_json::Value::as_u64);
        if !budget.is_some_and(|budget| (1024..u64::from(max_tokens)).contains(&budget)) {
            let found = shape
                .budget_tokens
                .map_or_else(|| "nothing".to_owned(), |value| value.to_string());
            return Err(SettingError::Budget { found, max_tokens });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_can_be_read() {
        let table: Table = toml::from_str(include_str!("models.toml")).unwrap();
        assert_eq!((table.models.len(), table.retired.len()), (live().len(), gone().len()));
        assert!(!live().is_empty() && !gone().is_empty());
    }
}
