//! The JSON Schema that a model reads, from the author's input struct.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value};

/// The schema of `Input`, without what only spends the model's attention: the name of the Rust type, its integer
/// formats, and `null` as another way of saying that an optional field is absent.
pub fn of<Input: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = None;
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<Input>();
    Clean.transform(&mut schema);
    // The description of the whole is the tool's own description.
    schema.remove("description");
    schema.to_value()
}

struct Clean;

impl Transform for Clean {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        if let Some(object) = schema.as_object_mut() {
            object.remove("title");
            if let Some(format) = object.remove("format") {
                bound(object, &format);
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            drop_null_type(object);
            drop_null_alternative(object);
            join_lines(object);
        }
        transform_subschemas(self, schema);
    }
}

/// What an integer's format says becomes bounds, so that no number reaches the tool that its type cannot hold. `u64`
/// needs none: a schema's integer is never larger.
fn bound(object: &mut Map<String, Value>, format: &Value) {
    // `usize` and `isize` have 32 bits in a component.
    let (least, most) = match format.as_str() {
        Some("int8") => (i64::from(i8::MIN), i64::from(i8::MAX)),
        Some("int16") => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Some("int32" | "int") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Some("int64") => (i64::MIN, i64::MAX),
        Some("uint8") => (0, i64::from(u8::MAX)),
        Some("uint16") => (0, i64::from(u16::MAX)),
        Some("uint32" | "uint") => (0, i64::from(u32::MAX)),
        _ => return,
    };
    if least != i64::MIN {
        object.entry("minimum").or_insert_with(|| least.into());
    }
    object.entry("maximum").or_insert_with(|| most.into());
}

/// `"type": ["integer", "null"]` becomes `"type": "integer"`.
fn drop_null_type(object: &mut Map<String, Value>) {
    let Some(Value::Array(types)) = object.get_mut("type") else {
        return;
    };
    types.retain(|name| name != "null");
    if let [only] = types.as_slice() {
        let only = only.clone();
        object.insert("type".into(), only);
    }
}

/// `"anyOf": [S, {"type": "null"}]` becomes S.
fn drop_null_alternative(object: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = object.get_mut("anyOf") else {
        return;
    };
    alternatives.retain(|alternative| alternative.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(only)] = alternatives.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// A doc comment that is wrapped in the source is one paragraph to the reader.
fn join_lines(object: &mut Map<String, Value>) {
    if let Some(Value::String(description)) = object.get_mut("description") {
        let paragraphs: Vec<String> = description
            .split("\n\n")
            .map(|paragraph| paragraph.split('\n').collect::<Vec<_>>().join(" "))
            .collect();
        *description = paragraphs.join("\n\n");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Input {
        /// Where to look,
        /// and how.
        ///
        /// Second paragraph.
        path: String,
        #[serde(default)]
        #[schemars(range(min = 1))]
        first: Option<u32>,
        #[serde(default = "twenty")]
        most: u64,
        #[serde(default)]
        offset: i8,
        #[serde(default)]
        title: Option<Inner>,
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[allow(dead_code)]
    struct Inner {
        format: bool,
    }

    fn twenty() -> u64 {
        20
    }

    #[test]
    fn a_schema_says_what_the_model_must_know_and_no_more() {
        assert_eq!(
            super::of::<Input>(),
            json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "Where to look, and how.\n\nSecond paragraph."},
                    "first": {"type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32},
                    "most": {"type": "integer", "minimum": 0, "default": 20},
                    "offset": {"type": "integer", "minimum": -128, "maximum": 127, "default": 0},
                    "title": {"type": "object", "properties": {"format": {"type": "boolean"}}, "required": ["format"]},
                },
                "required": ["path"],
                "additionalProperties": false,
            })
        );
    }
}
