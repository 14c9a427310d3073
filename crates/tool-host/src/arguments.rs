//! The JSON text of a call's arguments, as a value that means one thing only.

use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_json::error::Category;

use plue_contract::unique_keys::UniqueKeys;

/// Parses the arguments; the error is for the model. A key that stands twice in an object is refused: RFC 8259 §4
/// leaves open which of the two counts, and what the host validates must be what the tool reads.
pub(crate) fn parse(input: &str) -> Result<Value, String> {
    let mut text = serde_json::Deserializer::from_str(input);
    let value = UniqueKeys.deserialize(&mut text).and_then(|value| {
        text.end()?;
        Ok(value)
    });
    value.map_err(|error| match error.classify() {
        Category::Data => format!("The arguments cannot be used: {error}"),
        Category::Io | Category::Syntax | Category::Eof => format!("The arguments are not valid JSON: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_text_means_what_serde_json_says_it_means() {
        for text in [
            "null",
            " true ",
            "-1",
            "18446744073709551615",
            "1.0",
            "1e20",
            r#""a\u0000b""#,
            r#"[1,[],{"a":{"a":[{}]}}]"#,
            r#"{"b":1,"a":"é"}"#,
        ] {
            assert_eq!(parse(text).ok(), serde_json::from_str(text).ok(), "{text}");
        }
    }

    #[test]
    fn a_text_that_may_mean_two_things_is_refused() {
        for (text, says) in [
            (r#"{"a":1,"a":1}"#, "the key \"a\" stands twice"),
            (r#"{"a":1,"\u0061":2}"#, "the key \"a\" stands twice"),
            (r#"{"x":[{"a":1,"b":2,"a":3}]}"#, "the key \"a\" stands twice"),
            ("{} {}", "not valid JSON"),
            ("1e999", "not valid JSON"),
        ] {
            assert!(
                parse(text).is_err_and(|error| error.contains(says)),
                "{text}: {:?}",
                parse(text)
            );
        }
    }
}
