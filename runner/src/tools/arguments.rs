//! The JSON text of a call's arguments, as a value that means one thing only.

use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

/// Parses the arguments; the error is for the model. A key that stands twice in an object is refused: RFC 8259 §4 leaves
/// open which of the two counts, and what the host validates must be what the tool reads.
pub(crate) fn parse(input: &str) -> Result<Value, String> {
    let mut text = serde_json::Deserializer::from_str(input);
    let value = text.deserialize_any(Unambiguous).and_then(|value| {
        text.end()?;
        Ok(value)
    });
    value.map_err(|error| match error.classify() {
        Category::Data => format!("The arguments cannot be used: {error}"),
        Category::Io | Category::Syntax | Category::Eof => format!("The arguments are not valid JSON: {error}"),
    })
}

/// Longest key that a message repeats, in bytes.
const SHOWN_KEY: usize = 100;

/// Makes a [`Value`] of any JSON, and remembers the keys of each object. Its nesting is bounded by serde_json.
struct Unambiguous;

impl<'de> serde::de::DeserializeSeed<'de> for Unambiguous {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Unambiguous)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let shown = &key[..key.floor_char_boundary(SHOWN_KEY)];
                return Err(A::Error::custom(format_args!(
                    "the key {shown:?} stands twice in one object; leave one of the two out"
                )));
            }
            object.insert(key, entries.next_value_seed(Unambiguous)?);
        }
        Ok(Value::Object(object))
    }
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
