//! The regular expressions of a schema: how many, how large, and what one costs for each byte that it looks at.

use std::collections::HashMap;

use jsonschema::{Draft, PatternOptions, Regex};
use serde_json::json;

/// How many different ones a schema may have.
const MAX_PATTERNS: usize = 128;
/// How long one may be, in bytes. Some take a time to translate that grows with the square of it.
const MAX_PATTERN_BYTES: usize = 4 << 10;
/// How large one may be when it is compiled, in bytes, and with that how slow: for each byte of a text, the engine may
/// have to look at all of it.
const MAX_COMPILED: usize = 256 << 10;
/// The cache of the engine for one, in bytes.
const CACHE: usize = 512 << 10;
/// Sizes by which they are told apart, each with what a byte of a text costs then.
const SIZES: &[(usize, u64)] = &[(4 << 10, 4), (16 << 10, 16), (64 << 10, 64), (MAX_COMPILED, 256)];

/// The engine: linear in the text, whatever the pattern is.
pub(super) fn engine(compiled: usize) -> PatternOptions<Regex> {
    PatternOptions::regex().size_limit(compiled).dfa_size_limit(CACHE)
}

/// The engine as it is used.
pub(super) fn largest_engine() -> PatternOptions<Regex> {
    engine(MAX_COMPILED)
}

/// The patterns that were seen, with their cost.
#[derive(Default)]
pub(super) struct Patterns(HashMap<String, u64>);

impl Patterns {
    /// What a byte costs that is matched with it. The error is the end of "the input schema …".
    pub(super) fn cost(&mut self, pattern: &str) -> Result<u64, String> {
        if let Some(cost) = self.0.get(pattern) {
            return Ok(*cost);
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            let bytes = pattern.len();
            return Err(format!(
                "has a pattern of {bytes} bytes; at most {MAX_PATTERN_BYTES} are allowed"
            ));
        }
        if self.0.len() >= MAX_PATTERNS {
            return Err(format!("has more than {MAX_PATTERNS} different patterns"));
        }
        let schema = json!({ "pattern": pattern });
        let builds = |compiled: usize| {
            let options = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .offline()
                .with_pattern_options(engine(compiled));
            options.build(&schema).is_ok()
        };
        let Some((_, cost)) = SIZES.iter().find(|(compiled, _)| builds(*compiled)) else {
            return Err(format!(
                "is no JSON Schema of draft 2020-12: the pattern {:?} is no regular expression, has what cannot be \
                 matched in linear time (look-around, back-references), or is larger than {} KiB when it is compiled",
                pattern.chars().take(100).collect::<String>(),
                MAX_COMPILED >> 10
            ));
        };
        self.0.insert(pattern.to_owned(), *cost);
        Ok(*cost)
    }
}
