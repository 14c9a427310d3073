//! What is known about Anthropic's models: ONE table, with the day it was true. It answers how large an answer may be,
//! what a turn costs, which `thinking` and `effort` values a model takes, and what replaces a model that is gone.
//!
//! A model that is not in the table is not an error: an operator may allow any id with `ALLOWED_MODELS`, for a gateway's
//! own models or for one newer than this build. It gets careful defaults, no cost, and no checks.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Usage;

/// The day the table was true. Source: platform.claude.com, `docs/en/about-claude/{model-deprecations,pricing}` and the
/// overview page of each model.
pub const AS_OF: &str = "2026-11-23";

/// The `max_tokens` that a model of unknown size is asked for: every live model takes it.
pub const DEFAULT_MAX_OUTPUT: u32 = 32_000;

/// Where a model stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The newest of its family.
    Latest,
    /// Served, and a newer one of its family exists.
    Legacy,
    /// Served until the day in `retires`; requests fail afterwards.
    Deprecated,
}

/// US dollars for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    pub input: f64,
    pub output: f64,
    /// Into the cache with the 5-minute lifetime, the only one that we ask for.
    pub cache_write: f64,
    pub cache_read: f64,
}

/// A higher price for the whole request when its prompt is long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongPrompt {
    /// The price holds when the prompt (input, cache reads and cache writes together) has more tokens than this.
    pub above_tokens: u64,
    pub prices: Prices,
}

/// The forms of the request's `thinking` that a model takes. Any other is a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Debug)]
pub struct ModelInfo {
    pub id: &'static str,
    /// Another name that the API takes for it.
    pub alias: Option<&'static str>,
    pub state: State,
    /// Tokens of prompt and answer together.
    pub context_window: u32,
    /// The most tokens of an answer, thinking included: the largest `max_tokens`.
    pub max_output: u32,
    pub prices: Prices,
    pub long_prompt: Option<LongPrompt>,
    pub thinking: Thinking,
    /// The values of `effort` that it takes; empty when it takes none.
    pub efforts: &'static [&'static str],
    /// The earliest day of its retirement; for `Deprecated`, the day. ISO 8601, as precise as it is known.
    pub retires: &'static str,
    /// What to move to. `None` for the newest of a family.
    pub replacement: Option<&'static str>,
}

/// A model that is no longer served: a request for it is a 404.
#[derive(Debug, PartialEq, Eq)]
pub struct RetiredModel {
    /// The id, or an alias that ended with it.
    pub id: &'static str,
    /// The day it ended.
    pub retired_on: &'static str,
    /// Today's model of the same family.
    pub replacement: &'static str,
}

const EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];
const EFFORTS_4_6: &[&str] = &["low", "medium", "high", "max"];
const EFFORTS_OPUS_4_5: &[&str] = &["low", "medium", "high"];
const NO_EFFORT: &[&str] = &[];

const fn usd(input: f64, output: f64, cache_write: f64, cache_read: f64) -> Prices {
    Prices {
        input,
        output,
        cache_write,
        cache_read,
    }
}

/// A model with the context window (1M) and output (128K) that all models since 4.6 have.
const fn large(
    id: &'static str,
    state: State,
    prices: Prices,
    thinking: Thinking,
    efforts: &'static [&'static str],
    retires: &'static str,
    replacement: Option<&'static str>,
) -> ModelInfo {
    ModelInfo {
        id,
        alias: None,
        state,
        context_window: 1_000_000,
        max_output: 128_000,
        prices,
        long_prompt: None,
        thinking,
        efforts,
        retires,
        replacement,
    }
}

/// The live models, as of [`AS_OF`].
#[rustfmt::skip]
pub const MODELS: &[ModelInfo] = &[
    large("claude-fable-5-2", State::Latest, usd(8.0, 40.0, 10.0, 0.20), Thinking::Always, EFFORTS, "2027-11", None),
    large("claude-mythos-5-2", State::Latest, usd(8.0, 40.0, 10.0, 0.20), Thinking::Always, EFFORTS, "2027-11", None),
    large("claude-opus-5-5", State::Latest, usd(4.0, 20.0, 5.0, 0.20), Thinking::Always, EFFORTS, "2027-09", None),
    large("claude-sonnet-5-5", State::Latest, usd(2.0, 10.0, 2.50, 0.10), Thinking::AlwaysOrBetweenTools, EFFORTS, "2027-09", None),
    ModelInfo {
        long_prompt: Some(LongPrompt { above_tokens: 100_000, prices: usd(0.50, 2.50, 0.625, 0.05) }),
        ..large("claude-haiku-5-5", State::Latest, usd(0.10, 0.50, 0.125, 0.01), Thinking::OnUpToHigh, EFFORTS, "2027-10-07", None)
    },
    large("claude-fable-5-1", State::Legacy, usd(10.0, 50.0, 12.50, 0.25), Thinking::Always, EFFORTS, "2027-09", Some("claude-fable-5-2")),
    large("claude-mythos-5-1", State::Legacy, usd(10.0, 50.0, 12.50, 0.25), Thinking::Always, EFFORTS, "2027-09", Some("claude-mythos-5-2")),
    large("claude-fable-5", State::Legacy, usd(10.0, 50.0, 12.50, 1.0), Thinking::Always, EFFORTS, "2027-06-09", Some("claude-fable-5-2")),
    large("claude-mythos-5", State::Legacy, usd(10.0, 50.0, 12.50, 1.0), Thinking::Always, EFFORTS, "2027-06-09", Some("claude-mythos-5-2")),
    large("claude-opus-5", State::Legacy, usd(5.0, 25.0, 6.25, 0.50), Thinking::OnUpToHigh, EFFORTS, "2027-07-24", Some("claude-opus-5-5")),
    large("claude-sonnet-5", State::Legacy, usd(2.0, 10.0, 2.50, 0.20), Thinking::On, EFFORTS, "2027-06-30", Some("claude-sonnet-5-5")),
    large("claude-opus-4-8", State::Legacy, usd(5.0, 25.0, 6.25, 0.50), Thinking::Off, EFFORTS, "2027-05-28", Some("claude-opus-5-5")),
    large("claude-opus-4-7", State::Legacy, usd(5.0, 25.0, 6.25, 0.50), Thinking::Off, EFFORTS, "2027-04-16", Some("claude-opus-5-5")),
    large("claude-opus-4-6", State::Legacy, usd(5.0, 25.0, 6.25, 0.50), Thinking::OffOrBudget, EFFORTS_4_6, "2027-02-05", Some("claude-opus-5-5")),
    large("claude-sonnet-4-6", State::Legacy, usd(3.0, 15.0, 3.75, 0.30), Thinking::OffOrBudget, EFFORTS_4_6, "2027-02-17", Some("claude-sonnet-5-5")),
    ModelInfo {
        alias: Some("claude-opus-4-5"), context_window: 200_000, max_output: 64_000,
        ..large("claude-opus-4-5-20251101", State::Legacy, usd(5.0, 25.0, 6.25, 0.50), Thinking::Budget, EFFORTS_OPUS_4_5, "2026-11-24", Some("claude-opus-5-5"))
    },
    ModelInfo {
        alias: Some("claude-haiku-4-5"), context_window: 200_000, max_output: 64_000,
        ..large("claude-haiku-4-5-20251001", State::Legacy, usd(1.0, 5.0, 1.25, 0.10), Thinking::Budget, NO_EFFORT, "2026-10-15", Some("claude-haiku-5-5"))
    },
    ModelInfo {
        alias: Some("claude-sonnet-4-5"), context_window: 200_000, max_output: 64_000,
        ..large("claude-sonnet-4-5-20250929", State::Deprecated, usd(3.0, 15.0, 3.75, 0.30), Thinking::Budget, NO_EFFORT, "2026-11-30", Some("claude-sonnet-5-5"))
    },
];

const fn gone(id: &'static str, retired_on: &'static str, replacement: &'static str) -> RetiredModel {
    RetiredModel {
        id,
        retired_on,
        replacement,
    }
}

/// The models that are gone, as of [`AS_OF`], with the aliases that went with them. The four of the task whitelist are
/// all among them.
pub const RETIRED: &[RetiredModel] = &[
    gone("claude-sonnet-4-20250514", "2026-06-15", "claude-sonnet-5-5"),
    gone("claude-sonnet-4-0", "2026-06-15", "claude-sonnet-5-5"),
    gone("claude-opus-4-20250514", "2026-06-15", "claude-opus-5-5"),
    gone("claude-opus-4-0", "2026-06-15", "claude-opus-5-5"),
    gone("claude-opus-4-1-20250805", "2026-08-05", "claude-opus-5-5"),
    gone("claude-opus-4-1", "2026-08-05", "claude-opus-5-5"),
    gone("claude-3-7-sonnet-20250219", "2026-02-19", "claude-sonnet-5-5"),
    gone("claude-3-7-sonnet-latest", "2026-02-19", "claude-sonnet-5-5"),
    gone("claude-3-5-sonnet-20241022", "2025-10-28", "claude-sonnet-5-5"),
    gone("claude-3-5-sonnet-20240620", "2025-10-28", "claude-sonnet-5-5"),
    gone("claude-3-5-sonnet-latest", "2025-10-28", "claude-sonnet-5-5"),
    gone("claude-3-5-haiku-20241022", "2026-02-19", "claude-haiku-5-5"),
    gone("claude-3-5-haiku-latest", "2026-02-19", "claude-haiku-5-5"),
    gone("claude-3-opus-20240229", "2026-01-05", "claude-opus-5-5"),
    gone("claude-3-opus-latest", "2026-01-05", "claude-opus-5-5"),
    gone("claude-3-haiku-20240307", "2026-04-20", "claude-haiku-5-5"),
];

/// What is known about a live model, by its id or its alias.
pub fn lookup(id: &str) -> Option<&'static ModelInfo> {
    MODELS.iter().find(|model| model.id == id || model.alias == Some(id))
}

/// Whether a model is gone, and what takes its place.
pub fn retired(id: &str) -> Option<&'static RetiredModel> {
    RETIRED.iter().find(|model| model.id == id)
}

/// The largest `max_tokens` of a model; [`DEFAULT_MAX_OUTPUT`] for one that is not in the table.
pub fn max_output(id: &str) -> u32 {
    lookup(id).map_or(DEFAULT_MAX_OUTPUT, |model| model.max_output)
}

/// What ONE turn cost, in US dollars; `None` for a model without a known price. Add up the results, not the usage: a
/// long prompt makes the whole turn dearer. Pass the model that served ([`super::Turn::model`]).
pub fn cost(id: &str, usage: &Usage) -> Option<f64> {
    let model = lookup(id)?;
    let prompt_tokens = usage
        .input_tokens
        .saturating_add(usage.cache_read_tokens)
        .saturating_add(usage.cache_write_tokens);
    let prices = match model.long_prompt {
        Some(long) if prompt_tokens > long.above_tokens => long.prices,
        _ => model.prices,
    };
    let dollars = |tokens: u64, per_million: f64| tokens as f64 * per_million / 1e6;
    Some(
        dollars(usage.input_tokens, prices.input)
            + dollars(usage.output_tokens, prices.output)
            + dollars(usage.cache_write_tokens, prices.cache_write)
            + dollars(usage.cache_read_tokens, prices.cache_read),
    )
}

/// A value of a task that its model does not take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("{model} does not take effort {found:?}; {}", allowed_text("leave it out", .allowed))]
    Effort {
        model: String,
        found: String,
        allowed: &'static [&'static str],
    },
    #[error("{model} does not take thinking of type {found:?}; {}", allowed_text("leave it out", .allowed))]
    ThinkingType {
        model: String,
        found: String,
        allowed: &'static [&'static str],
    },
    #[error("{model} takes thinking of type \"disabled\" only with an effort of at most \"high\", found {effort:?}")]
    DisabledWithEffort { model: String, effort: String },
    #[error("thinking.budget_tokens must be at least 1024 and less than max_tokens ({max_tokens}), found {found}")]
    Budget { found: String, max_tokens: u32 },
    #[error("thinking must be an object with a string \"type\"")]
    ThinkingShape,
}

fn allowed_text(or_else: &str, allowed: &[&str]) -> String {
    match allowed {
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
        Some(model) if !model.efforts.contains(&effort) => Err(SettingError::Effort {
            model: id.to_owned(),
            found: effort.to_owned(),
            allowed: model.efforts,
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
