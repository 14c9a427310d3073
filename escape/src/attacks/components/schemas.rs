//! A plugin with a hostile schema: read in the runner's own process, where no limit of a component holds.

use serde_json::{Value, json};
use support::guest::{ANY_OBJECT, Guest};

use super::{bytes, good, killed, refused, tool};
use crate::attack::{Attack, Plugin};

/// With a schema of its own.
fn with_schema(schema: &str) -> Guest {
    Guest {
        schema: schema.to_owned(),
        ..good()
    }
}

/// Thirty definitions, each of which names the next one twice: 2^30 paths to the last one, in 2 KB.
fn twice(keyword: &str, last: Value) -> Value {
    chain(30, last, |next| json!({ keyword: [next.clone(), next] }))
}

/// Definitions, each made of a reference to the next one. The schema is the first one.
fn chain(count: usize, last: Value, link: impl Fn(Value) -> Value) -> Value {
    let mut definitions = json!({});
    for n in 0..count {
        definitions[format!("d{n}")] = link(json!({ "$ref": format!("#/$defs/d{}", n + 1) }));
    }
    definitions[format!("d{count}")] = last;
    json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": definitions })
}

/// The same with nothing left unevaluated, which the validator looks at when it is built.
fn evaluated(mut schema: Value) -> Value {
    schema["unevaluatedProperties"] = json!(false);
    schema
}

/// A tree in which each node is checked twice: with each level of the input twice as often as with the one before.
fn doubling() -> Value {
    let node = json!({ "$ref": "#/$defs/node" });
    json!({
        "type": "object",
        "properties": { "a": node },
        "$defs": { "node": {
            "type": "object",
            "properties": { "a": { "allOf": [node, node] }, "end": false },
        } },
    })
}

/// A tool with this schema, called once.
fn called_with(schema: &Value, input: Value) -> Plugin {
    let mut plugin = bytes(with_schema(&schema.to_string()).wasm(), "");
    plugin.calls.clear();
    plugin.calling(input)
}

/// An input of so many levels, with what the schema does not allow at its end.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({ "end": 1 }), |below, _| json!({ "a": below }))
}

/// Ten thousand properties of a property with a name of so many bytes.
fn below_a_name(bytes: usize) -> Value {
    let count = if bytes > 100 { 10_000 } else { 100 };
    let members: serde_json::Map<String, Value> = (0..count).map(|n| (format!("p{n}"), json!({}))).collect();
    json!({ "type": "object", "properties": { "x".repeat(bytes): { "properties": members } } })
}

const TOO_MANY: &str = "hostile/tool.wasm: the input schema leads along more than 20000 paths";

pub const ATTACKS: &[Attack] = &[
    refused(
        "components/schema-no-json",
        "a schema that is no JSON",
        "the input schema is not JSON",
        |_| tool(&with_schema("{\"type\":"), ""),
        |_| tool(&with_schema(ANY_OBJECT), ""),
    ),
    refused(
        "components/schema-no-schema",
        "a schema that is none",
        "is no JSON Schema of draft 2020-12",
        |_| tool(&with_schema(r#"{"type":"object","required":"path"}"#), ""),
        |_| tool(&with_schema(r#"{"type":"object","required":[]}"#), ""),
    ),
    refused(
        "components/schema-of-10-megabytes",
        "a schema of 10 MB",
        "at most 262144 are allowed",
        |_| {
            let long = "x".repeat(10_000_000);
            tool(
                &with_schema(&format!(r#"{{"type":"object","description":"{long}"}}"#)),
                "",
            )
        },
        |_| {
            let short = "x".repeat(100_000);
            tool(
                &with_schema(&format!(r#"{{"type":"object","description":"{short}"}}"#)),
                "",
            )
        },
    ),
    refused(
        "components/schema-without-a-bottom",
        "a schema of 10,000 levels",
        "the input schema is not JSON",
        |_| {
            let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
            tool(
                &with_schema(&format!(r#"{{"type":"object","allOf":{open}{close}}}"#)),
                "",
            )
        },
        |_| tool(&with_schema(r#"{"type":"object","allOf":[{}]}"#), ""),
    ),
    refused(
        "components/schema-from-a-file",
        "a schema that refers to a file outside",
        "is no JSON Schema of draft 2020-12",
        |scene| {
            let file = scene.hidden.join("secret.txt");
            let schema = json!({ "type": "object", "$ref": format!("file://{}", file.display()) });
            tool(&with_schema(&schema.to_string()), "")
        },
        |_| {
            tool(
                &with_schema(r##"{"type":"object","$ref":"#/$defs/a","$defs":{"a":{}}}"##),
                "",
            )
        },
    ),
    refused(
        "components/schema-from-the-network",
        "a schema that refers to a server",
        "is no JSON Schema of draft 2020-12",
        |scene| {
            let schema = json!({ "type": "object", "$ref": format!("http://{}/schema", scene.listeners.tcp) });
            tool(&with_schema(&schema.to_string()), "")
        },
        |_| {
            tool(
                &with_schema(r##"{"type":"object","$ref":"#/$defs/a","$defs":{"a":{}}}"##),
                "",
            )
        },
    ),
    refused(
        "components/schema-with-an-exploding-pattern",
        "a schema whose pattern would take gigabytes to compile",
        "is no JSON Schema of draft 2020-12",
        |_| {
            let schema = json!({ "type": "object", "properties": { "a": { "pattern": "((a{1000}){1000}){1000}" } } });
            tool(&with_schema(&schema.to_string()), "")
        },
        |_| {
            tool(
                &with_schema(r#"{"type":"object","properties":{"a":{"pattern":"a{1000}"}}}"#),
                "",
            )
        },
    ),
    refused(
        "components/schema-of-many-paths",
        "a schema of 2 KB that computes for ever in each call, on a thread that nobody can end",
        TOO_MANY,
        |_| {
            tool(
                &with_schema(&twice("anyOf", json!({ "type": "string" })).to_string()),
                "",
            )
        },
        |_| {
            tool(
                &with_schema(&chain(5, json!({}), |next| json!({ "anyOf": [next] })).to_string()),
                "",
            )
        },
    ),
    refused(
        "components/schema-of-many-errors",
        "a schema of 2 KB that collects a thousand million errors in the runner's memory",
        TOO_MANY,
        |_| tool(&with_schema(&twice("allOf", json!(false)).to_string()), ""),
        |_| {
            tool(
                &with_schema(&chain(5, json!({}), |next| json!({ "allOf": [next] })).to_string()),
                "",
            )
        },
    ),
    refused(
        "components/schema-of-many-paths-unevaluated",
        "a schema of 2 KB of which no validator is ever built, so that no task begins",
        TOO_MANY,
        |_| tool(&with_schema(&evaluated(twice("anyOf", json!({}))).to_string()), ""),
        |_| {
            tool(
                &with_schema(&evaluated(chain(5, json!({}), |next| next)).to_string()),
                "",
            )
        },
    ),
    refused(
        "components/schema-that-names-itself",
        "a schema that is applied to a value whenever it is applied to that value",
        "the input schema names itself at #",
        |_| {
            let itself = json!({ "$ref": "#" });
            tool(
                &with_schema(&json!({ "type": "object", "anyOf": [itself, itself], "not": itself }).to_string()),
                "",
            )
        },
        |_| {
            tool(
                &with_schema(r##"{"type":"object","properties":{"a":{"$ref":"#"}}}"##),
                "",
            )
        },
    ),
    refused(
        "components/schema-of-a-long-chain",
        "a schema of definitions that name each the next one, as far as no stack goes",
        "the input schema is more than 64 subschemas deep",
        |_| {
            let chain = chain(5000, json!({}), |next| json!({ "allOf": [next] }));
            tool(&with_schema(&evaluated(chain).to_string()), "")
        },
        |_| {
            let chain = chain(20, json!({}), |next| json!({ "allOf": [next] }));
            tool(&with_schema(&evaluated(chain).to_string()), "")
        },
    ),
    refused(
        "components/schema-with-long-places",
        "a schema whose parts stand below a name of 100,000 bytes, which the validator keeps with each",
        TOO_MANY,
        |_| tool(&with_schema(&below_a_name(100_000).to_string()), ""),
        |_| tool(&with_schema(&below_a_name(10).to_string()), ""),
    ),
    killed(
        "components/input-of-many-visits",
        "an input that its schema visits 2^60 times",
        "invalid_input",
        |_| Ok(called_with(&doubling(), nested(60))),
        |_| Ok(called_with(&doubling(), json!({ "a": { "a": {} } }))),
    ),
];
