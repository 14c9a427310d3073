//! What the Messages API knows of each model, as far as it decides whether a request is refused. Source: the models
//! overview and the deprecations page of platform.claude.com, as of 2026-11-23. Kept apart from the runner's own table
//! on purpose: a double that shared it could not find a mistake in it.

/// Which `thinking` settings a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// `adaptive` only; it cannot be turned off.
    Always,
    /// `adaptive`, or `between_tools`.
    BetweenTools,
    /// `adaptive` or `disabled`.
    Adaptive,
    /// `adaptive`, `disabled` or, deprecated, `enabled` with a budget.
    AdaptiveOrBudget,
    /// `enabled` with a budget, or `disabled`.
    Budget,
}

/// One model that answers.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub id: &'static str,
    /// Tokens.
    pub max_output: u64,
    pub thinking: Thinking,
    /// Whether `output_config.effort` is taken.
    pub effort: bool,
}

const fn model(id: &'static str, max_output: u64, thinking: Thinking, effort: bool) -> Model {
    Model {
        id,
        max_output,
        thinking,
        effort,
    }
}

/// The models that answer today. Every other name is a 404, retired ones too.
pub const MODELS: &[Model] = &[
    model("claude-fable-5-2", 128_000, Thinking::Always, true),
    model("claude-mythos-5-2", 128_000, Thinking::Always, true),
    model("claude-fable-5-1", 128_000, Thinking::Always, true),
    model("claude-mythos-5-1", 128_000, Thinking::Always, true),
    model("claude-fable-5", 128_000, Thinking::Always, true),
    model("claude-mythos-5", 128_000, Thinking::Always, true),
    model("claude-opus-5-5", 128_000, Thinking::Always, true),
    model("claude-sonnet-5-5", 128_000, Thinking::BetweenTools, true),
    model("claude-haiku-5-5", 128_000, Thinking::Adaptive, true),
    model("claude-opus-5", 128_000, Thinking::Adaptive, true),
    model("claude-sonnet-5", 128_000, Thinking::Adaptive, true),
    model("claude-opus-4-8", 128_000, Thinking::Adaptive, true),
    model("claude-opus-4-7", 128_000, Thinking::Adaptive, true),
    model("claude-opus-4-6", 128_000, Thinking::AdaptiveOrBudget, true),
    model("claude-sonnet-4-6", 128_000, Thinking::AdaptiveOrBudget, true),
    model("claude-opus-4-5-20251101", 64_000, Thinking::Budget, true),
    model("claude-opus-4-5", 64_000, Thinking::Budget, true),
    model("claude-haiku-4-5-20251001", 64_000, Thinking::Budget, false),
    model("claude-haiku-4-5", 64_000, Thinking::Budget, false),
    model("claude-sonnet-4-5-20250929", 64_000, Thinking::Budget, false),
    model("claude-sonnet-4-5", 64_000, Thinking::Budget, false),
];

/// The model of this name, unless it is retired or never was.
pub fn find(id: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.id == id)
}

impl Thinking {
    /// Whether the model takes this `thinking.type`.
    pub fn takes(self, kind: &str) -> bool {
        match kind {
            "adaptive" => self != Self::Budget,
            "disabled" => matches!(self, Self::Adaptive | Self::AdaptiveOrBudget | Self::Budget),
            "enabled" => matches!(self, Self::AdaptiveOrBudget | Self::Budget),
            "between_tools" => self == Self::BetweenTools,
            _ => false,
        }
    }
}
