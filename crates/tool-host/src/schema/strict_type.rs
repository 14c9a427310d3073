//! The keyword `type` of JSON Schema, as a tool's decoder sees it.

use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

/// To JSON Schema `1.0` and `1e20` are integers (draft 2020-12, validation §6.1.1). A decoder, serde's for instance,
/// takes neither for one, and the contract says that a tool never sees a malformed argument: so an integer is a number
/// that is written as one and fits into 64 bits. All else is as the draft says.
struct StrictType {
    allowed: Vec<String>,
}

/// Makes the keyword of a schema's `type`; what it may hold was checked against the meta-schema before.
pub(super) fn keyword<'a>(
    _schema: &'a Map<String, Value>,
    types: &'a Value,
    _location: jsonschema::paths::Location,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    let allowed = match types {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(Box::new(StrictType { allowed }))
}

impl<'i> Keyword<'i> for StrictType {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) {
            return Ok(());
        }
        let types: Vec<String> = self.allowed.iter().map(|name| format!("{name:?}")).collect();
        let mut message = format!("{instance} is not of type {}", types.join(" or "));
        if instance.is_f64() && self.allowed.iter().any(|name| name == "integer") {
            message.push_str(": an integer has no fraction and no exponent, and fits into 64 bits");
        }
        Err(ValidationError::custom(message))
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        self.allowed.iter().any(|name| match name.as_str() {
            "null" => instance.is_null(),
            "boolean" => instance.is_boolean(),
            "object" => instance.is_object(),
            "array" => instance.is_array(),
            "string" => instance.is_string(),
            "number" => instance.is_number(),
            "integer" => instance.is_i64() || instance.is_u64(),
            _ => false,
        })
    }
}
