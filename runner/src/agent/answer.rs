//! What a task comes to: the final text, or the JSON that its `output_schema` asks for.

use serde_json::value::RawValue;

use crate::events::TaskErrorCode;
use crate::failure::Failure;
use crate::task::AgentTask;
use plue_messages::models;
use plue_tool_host::AnswerSchema;

/// Keywords that the API takes in the schema of an answer. Any other makes it refuse the request.
const TAKEN_BY_API: [&str; 11] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
    "description",
    "title",
    "default",
];

/// What is made of the final text.
pub(super) enum Verdict {
    Good(Box<RawValue>),
    /// It does not fit, and the model is told this.
    Repair(String),
    /// It still does not.
    Bad(String),
}

/// The answer as it grows over the turns, and what it has to be.
pub(super) struct Answer {
    schema: Option<Schema>,
    /// What came before, of an answer that was cut off and goes on.
    so_far: String,
    was_repaired: bool,
}

struct Schema {
    text: Box<RawValue>,
    compiled: AnswerSchema,
    /// Whether the API holds the model to it.
    by_api: bool,
}

impl Answer {
    pub(super) fn new(task: &AgentTask, model: &str) -> Result<Self, Failure> {
        let schema = match &task.output_schema {
            Some(text) => Some(Schema {
                compiled: AnswerSchema::new(text.get()).map_err(|problem| Failure {
                    code: TaskErrorCode::InvalidTask,
                    message: format!("the task's output_schema {problem}"),
                })?,
                by_api: models::lookup(model).is_some() && is_taken_by_api(text),
                text: text.clone(),
            }),
            None => None,
        };
        Ok(Self {
            schema,
            so_far: String::new(),
            was_repaired: false,
        })
    }

    /// What the API holds the model to.
    pub(super) fn schema_for_api(&self) -> Option<&RawValue> {
        let schema = self.schema.as_ref().filter(|schema| schema.by_api)?;
        Some(&schema.text)
    }

    /// What the model is told when the API does not.
    pub(super) fn instruction(&self) -> Option<String> {
        let schema = self.schema.as_ref().filter(|schema| !schema.by_api)?;
        Some(format!(
            "When you are done, your last message must be one JSON value and nothing else, without a code fence. It \
                has \
             to fit this JSON Schema:\n{}",
            schema.text.get()
        ))
    }

    /// Whether the first request failed since the API does not hold this model to a schema, or not to this one. Then
    /// nobody does but we.
    pub(super) fn is_refused_by_api(&mut self, failure: &Failure) -> bool {
        let Some(schema) = self.schema.as_mut().filter(|schema| schema.by_api) else {
            return false;
        };
        let names_it = ["output_config", "output_format", "schema", "structured"];
        let is_refused = failure.code == TaskErrorCode::ModelError
            && failure.message.contains("answered 400")
            && names_it.iter().any(|word| failure.message.contains(word));
        schema.by_api = !is_refused;
        is_refused
    }

    /// As an earlier process was refused.
    pub(super) fn do_without_api(&mut self) {
        if let Some(schema) = &mut self.schema {
            schema.by_api = false;
        }
    }

    /// A part of the answer, which goes on in the next turn.
    pub(super) fn continue_with(&mut self, text: &str) {
        self.so_far.push_str(text);
    }

    /// What was said so far was no answer.
    pub(super) fn begin_anew(&mut self) {
        self.so_far.clear();
    }

    /// The last part of the answer.
    pub(super) fn finish(&mut self, text: &str) -> Verdict {
        let answer = std::mem::take(&mut self.so_far) + text;
        let Some(schema) = &self.schema else {
            return match serde_json::value::to_raw_value(&answer) {
                Ok(text) => Verdict::Good(text),
                Err(error) => Verdict::Bad(format!("the answer is no text: {error}")),
            };
        };
        // As in a call: half a character would be none anywhere.
        let json = plue_messages::without_halves(without_fence(&answer));
        let json = &*json;
        let checked = schema.compiled.check(json);
        match checked.and_then(|()| RawValue::from_string(json.to_owned()).map_err(|error| error.to_string())) {
            Ok(result) => Verdict::Good(result),
            Err(problems) if self.was_repaired => Verdict::Bad(format!(
                "the model's answer does not fit the task's output_schema, also after it was told so: {problems}"
            )),
            Err(problems) => {
                self.was_repaired = true;
                Verdict::Repair(format!(
                    "{problems}\nAnswer again, with the corrected JSON value alone. It has to fit this JSON \
                        Schema:\n{}",
                    schema.text.get()
                ))
            }
        }
    }
}

/// The JSON of an answer around which the model put a code fence all the same.
fn without_fence(answer: &str) -> &str {
    let answer = answer.trim();
    let fenced = answer.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let inner = fenced.and_then(|fenced| fenced.split_once('\n'));
    inner.map_or(answer, |(_, json)| json.trim())
}

/// Whether the API can hold a model to a schema: its own kind is a part of JSON Schema, in which each object names all
/// that it may have.
fn is_taken_by_api(schema: &RawValue) -> bool {
    fn taken(schema: &serde_json::Value) -> bool {
        let Some(fields) = schema.as_object() else { return false };
        let all = |value: &serde_json::Value| match value {
            serde_json::Value::Object(schemas) => schemas.values().all(taken),
            serde_json::Value::Array(schemas) => schemas.iter().all(taken),
            _ => false,
        };
        let is_object = fields.get("type").is_some_and(|kind| kind == "object") || fields.contains_key("properties");
        let is_closed = fields.get("additionalProperties").is_some_and(|more| *more == false);
        (!is_object || is_closed)
            && fields.iter().all(|(key, value)| match key.as_str() {
                "properties" | "anyOf" => all(value),
                "items" => taken(value),
                key => TAKEN_BY_API.contains(&key),
            })
    }
    serde_json::from_str(schema.get()).is_ok_and(|schema| taken(&schema))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fence_around_an_answer_is_no_part_of_it() {
        for answer in [
            "{\"a\":1}",
            " {\"a\":1}\n",
            "```json\n{\"a\":1}\n```",
            "```\n{\"a\":1}```\n",
        ] {
            assert_eq!(without_fence(answer), "{\"a\":1}", "{answer:?}");
        }
        assert_eq!(without_fence("``` is a fence"), "``` is a fence");
    }

    #[test]
    fn the_api_takes_a_part_of_json_schema() {
        for (schema, expected) in [
            (
                r#"{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}"#,
                true,
            ),
            (
                r#"{"type":"array","items":{"anyOf":[{"const":1},{"enum":["a"]}]}}"#,
                true,
            ),
            (r#"{"type":"object","properties":{"a":{"type":"string"}}}"#, false),
            (
                r#"{"type":"object","properties":{"a":{"minLength":1}},"additionalProperties":false}"#,
                false,
            ),
            (r#"{"type":"array","items":{"type":"object"}}"#, false),
            (r##"{"$ref":"#"}"##, false),
            ("true", false),
        ] {
            let schema = RawValue::from_string(schema.to_owned()).unwrap();
            assert_eq!(is_taken_by_api(&schema), expected, "{schema}");
        }
    }
}
