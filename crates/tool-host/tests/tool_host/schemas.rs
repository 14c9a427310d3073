//! Schemas that cost more than they look: refused when they are loaded, or an input of theirs before it is checked.

use std::fmt::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use support::guest::Guest;

use super::fixture::{Fixture, call, expect_good};
use plue_tool_host::{ToolErrorCode, ToolOutcome};

/// How long loading may take, or a call. Without the limits that are tested here it would be for ever.
const PATIENCE: Duration = Duration::from_secs(10);

fn with_schema(schema: &Value) -> Fixture {
    let guest = Guest {
        schema: schema.to_string(),
        ..Guest::good("tool")
    };
    Fixture::with(&guest, "")
}

/// What comes of it in time, on a thread of its own, which nobody waits for otherwise.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, done) = mpsc::channel();
    thread::spawn(move || send.send(work()));
    done.recv_timeout(PATIENCE)
        .unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn refusal(what: &str, schema: Value) -> String {
    in_time(what, move || with_schema(&schema).refusal())
}

/// Loads the tool, and calls it once.
fn called(what: &str, schema: Value, input: String) -> ToolOutcome {
    in_time(what, move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let outcome = runtime.block_on(async {
            let toolbox = with_schema(&schema).toolbox();
            let outcome = call(&toolbox, "tool", &input).await;
            expect_good(&toolbox).await;
            outcome
        });
        runtime.shutdown_background();
        outcome
    })
}

/// Thirty definitions, each of which names the next one twice.
fn twice(keyword: &str, last: Value) -> Value {
    let mut definitions = json!({ "d30": last });
    for n in 0..30 {
        let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
        definitions[format!("d{n}")] = json!({ keyword: [next.clone(), next] });
    }
    json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": definitions })
}

/// The same, with the names of the definitions made by other means.
fn twice_by(define: impl Fn(usize) -> Value, reference: impl Fn(usize) -> Value) -> Value {
    let mut definitions = json!({});
    for n in 0..=30 {
        let mut definition = define(n);
        if n < 30 {
            definition["anyOf"] = json!([reference(n + 1), reference(n + 1)]);
        } else {
            definition["required"] = json!(["missing"]);
        }
        definitions[format!("d{n}")] = definition;
    }
    json!({ "type": "object", "not": reference(0), "$defs": definitions })
}

#[test]
fn a_schema_of_too_many_paths_is_refused_before_it_is_built() {
    let with = |mut schema: Value, keyword: &str, value: Value| {
        schema[keyword] = value;
        schema
    };
    let anchor = |n: usize| json!({ "$anchor": format!("a{n}") });
    let dynamic = |n: usize| json!({ "$dynamicAnchor": format!("a{n}") });
    let id = |n: usize| json!({ "$id": format!("https://example.com/{n}") });
    let by_anchor = |n: usize| json!({ "$ref": format!("#a{n}") });
    let by_dynamic = |n: usize| json!({ "$dynamicRef": format!("#a{n}") });
    let by_id = |n: usize| json!({ "$ref": format!("https://example.com/{n}") });
    let mut in_turn = json!({});
    for _ in 0..40 {
        in_turn = json!({ "allOf": [in_turn], "unevaluatedProperties": false });
    }
    in_turn["type"] = json!("object");
    for (what, schema) in [
        ("anyOf", twice("anyOf", json!({ "type": "string" }))),
        ("allOf", twice("allOf", json!(false))),
        ("oneOf", twice("oneOf", json!({}))),
        (
            "unevaluatedProperties",
            with(twice("anyOf", json!({})), "unevaluatedProperties", json!(false)),
        ),
        (
            "unevaluatedItems",
            with(twice("allOf", json!({})), "unevaluatedItems", json!(false)),
        ),
        ("below a property", {
            let mut schema = twice("anyOf", json!({ "type": "string" }));
            schema["properties"] = json!({ "a": { "$ref": "#/$defs/d1" } });
            schema.as_object_mut().unwrap().remove("$ref");
            schema
        }),
        ("by anchor", twice_by(anchor, by_anchor)),
        ("by $dynamicAnchor", twice_by(dynamic, by_dynamic)),
        ("by $id", twice_by(id, by_id)),
        ("unevaluatedProperties in one another", in_turn),
    ] {
        let refusal = refusal(what, schema);
        for says in [
            "tool/tool.wasm: the input schema leads along more than 20000 paths",
            "`schema_paths`",
            "among them those of #",
        ] {
            assert!(refusal.contains(says), "{what}, {says}: {refusal}");
        }
    }
}

#[test]
fn a_schema_that_names_itself_in_place_is_refused() {
    for schema in [
        json!({ "type": "object", "$ref": "#" }),
        json!({ "type": "object", "allOf": [{ "$ref": "#" }] }),
        json!({ "type": "object", "$ref": "#/$defs/a",
            "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "not": { "$ref": "#/$defs/a" } } } }),
        json!({ "type": "object", "$dynamicRef": "#x", "$dynamicAnchor": "x" }),
        json!({ "type": "object", "$anchor": "x", "if": { "$ref": "#x" } }),
        json!({ "type": "object", "$id": "https://example.com/a", "oneOf": [{ "$ref": "https://example.com/a" }] }),
        json!({ "type": "object",
            "properties": { "a": { "dependentSchemas": { "b": { "$ref": "#/properties/a" } } } } }),
    ] {
        let refusal = refusal("names itself", schema.clone());
        assert!(
            refusal.contains("the input schema names itself at #"),
            "{schema}: {refusal}"
        );
    }
}

#[test]
fn a_schema_of_a_kind_that_takes_time_memory_or_stack_is_refused() {
    let mut chain = json!({ "d5000": {} });
    for n in 0..5000 {
        chain[format!("d{n}")] = json!({ "allOf": [{ "$ref": format!("#/$defs/d{}", n + 1) }] });
    }
    let chain = json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": chain, "unevaluatedProperties": false });
    let many: Value = (0..10_000)
        .map(|n| (format!("p{n}"), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let long_places = json!({ "type": "object",
        "properties": { "x".repeat(100_000): { "properties": many } } });
    let patterns: Value = (0..200)
        .map(|n| json!({ "pattern": format!("^a{n}") }))
        .collect::<Vec<_>>()
        .into();
    let controls = json!({ "type": "object", "properties": { "a": { "pattern": r"\ca".repeat(40_000) } } });
    // In each layer two that name both of the next one: as many ways to come to the last.
    let mut layers = json!({});
    for layer in 0..30 {
        for side in ["a", "b"] {
            let to = |side: &str| json!({ "$ref": format!("https://example.com/{side}{}", (layer + 1) % 30) });
            let properties = json!({ "x": to("a"), "y": to("b") });
            layers[format!("{side}{layer}")] =
                json!({ "$id": format!("https://example.com/{side}{layer}"), "properties": properties });
        }
    }
    let scopes = json!({ "type": "object", "$defs": layers, "properties": { "a": { "$ref": "#/$defs/a0" } } });
    let dialect = json!({ "type": "object", "properties": {
        "a": { "$id": "https://example.com/a", "$schema": "http://json-schema.org/draft-07/schema#" } } });
    for (what, schema, says) in [
        ("a chain", chain, "more than 64 subschemas deep at #"),
        ("long places", long_places, "more than 20000 paths"),
        (
            "patterns",
            json!({ "type": "object", "anyOf": patterns }),
            "more than 128 different patterns",
        ),
        (
            "a long pattern",
            controls,
            "has a pattern of 120000 bytes; at most 4096 are allowed",
        ),
        (
            "a large pattern",
            json!({ "type": "object", "patternProperties": { "(a{100}){100}": {} } }),
            "larger than 256 KiB",
        ),
        ("base URIs", scopes, "through too many or too long `$id`s"),
        ("a dialect", dialect, "has a `$schema` of its own at #/properties/a"),
    ] {
        let refusal = refusal(what, schema);
        assert!(refusal.contains(says), "{what}: {refusal}");
    }
}

#[test]
fn an_input_that_costs_too_much_to_check_is_refused() {
    let fan = json!({ "type": "object", "$defs": { "t": { "type": "object", "properties": {
        "a": { "allOf": [{ "$ref": "#/$defs/t" }, { "$ref": "#/$defs/t" }] },
        "end": false } } }, "properties": { "a": { "$ref": "#/$defs/t" } } });
    let deep = format!("{}{{\"end\":1}}{}", "{\"a\":".repeat(60), "}".repeat(60));
    let words = json!({ "type": "object", "properties": { "a": { "pattern": "^[ab]*a[ab]{900}$" } } });
    let text = json!({ "a": "ab".repeat(1 << 20) }).to_string();
    let many: Vec<_> = (0..2_000)
        .map(|n| json!({ "enum": [n], "type": ["null", "string"] }))
        .collect();
    let wide = json!({ "type": "object", "properties": { "a": { "items": { "anyOf": many } } } });
    let items = json!({ "a": vec![json!(-1); 50_000] }).to_string();
    for (what, schema, input) in [
        ("doubling", fan, deep),
        ("a pattern", words, text),
        ("items", wide, items),
    ] {
        let outcome = called(what, schema, input);
        assert_eq!(
            outcome.error,
            Some(ToolErrorCode::InvalidInput),
            "{what}: {}",
            outcome.text
        );
        assert!(
            outcome.text.contains("limit `schema_steps`"),
            "{what}: {}",
            outcome.text
        );
    }
}

#[test]
fn a_large_input_of_an_ordinary_schema_is_taken() {
    let schema = json!({ "type": "object",
        "properties": {
            "text": { "type": "string", "pattern": "\\S" },
            "items": { "type": "array", "items": { "anyOf": [{ "$ref": "#/$defs/item" }, { "type": "null" }] } },
        },
        "$defs": { "item": { "type": "object", "required": ["id", "kind"], "additionalProperties": false, "properties": {
            "id": { "type": "integer" },
            "kind": { "enum": ["file", "folder", "link"] },
            "tags": { "type": "array", "uniqueItems": true, "items": { "type": "string", "pattern": "^[a-z-]{1,30}$" } },
        } } } });
    let item = |id| json!({ "id": id, "kind": "file", "tags": ["one", "two"] });
    let input = json!({ "text": "a line\n".repeat(150_000), "items": (0..40_000).map(item).collect::<Vec<_>>() });
    let outcome = called("an ordinary schema", schema, input.to_string());
    // Its answer has as many bytes as the input, and is too long for a result; the input was taken.
    assert_ne!(outcome.error, Some(ToolErrorCode::InvalidInput), "{}", outcome.text);
}

#[test]
fn problems_of_a_large_input_are_not_all_collected() {
    let key = "x".repeat(100_000);
    let schema = json!({ "type": "object", "additionalProperties": { "items": { "type": "string" } } });
    let outcome = called("long places", schema, json!({ key: vec![1; 50_000] }).to_string());
    assert_eq!(outcome.error, Some(ToolErrorCode::InvalidInput));
    assert!(
        outcome.text.contains("too large to list what is wrong"),
        "{}",
        outcome.text
    );
}

#[test]
fn a_schema_that_names_itself_through_a_property_or_an_item_works() {
    let tree = json!({ "type": "object", "required": ["name"], "additionalProperties": false, "properties": {
        "name": { "type": "string" },
        "children": { "type": "array", "items": { "$ref": "#" } },
        "next": { "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] } },
        "$defs": { "node": { "type": "object", "$anchor": "node", "properties": {
            "left": { "$ref": "#node" }, "right": { "$ref": "#/$defs/node" }, "leaf": { "type": "integer" } },
            "unevaluatedProperties": false } } });
    let nested = format!(
        r#"{}{{"name":"leaf"}}{}"#,
        r#"{"name":"n","children":["#.repeat(30),
        "]}".repeat(30)
    );
    let mut list = String::new();
    for _ in 0..100 {
        write!(list, r#"{{"left":{{"leaf":1}},"right":"#).unwrap();
    }
    let list = format!(r#"{{"name":"a","next":{list}{{}}{}}}"#, "}".repeat(100));
    for input in [nested, list] {
        let outcome = called("a tree", tree.clone(), input.clone());
        assert_eq!((outcome.error, outcome.text), (None, input));
    }
    let outcome = called("a tree", tree, r#"{"name":"a","children":[{"name":1}]}"#.to_owned());
    assert_eq!(outcome.error, Some(ToolErrorCode::InvalidInput));
    assert!(
        outcome.text.contains("- /children/0/name: 1 is not of type"),
        "{}",
        outcome.text
    );
}

#[test]
fn the_deepest_check_that_is_allowed_fits_on_the_stack_of_a_call() {
    // 62 subschemas for one value, then a step into it, as deep as JSON goes.
    let mut definitions = json!({ "d30": { "properties": { "a": { "$ref": "#/$defs/d0" } }, "required": ["b"] } });
    for n in 0..30 {
        definitions[format!("d{n}")] = json!({ "anyOf": [{ "$ref": format!("#/$defs/d{}", n + 1) }] });
    }
    let schema = json!({ "type": "object", "$defs": definitions, "properties": { "a": { "$ref": "#/$defs/d0" } } });
    for levels in [1, 5, 10, 11, 12, 13, 14, 120] {
        let input = format!("{}{{}}{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let outcome = called("deep", schema.clone(), input);
        assert_eq!(outcome.error, Some(ToolErrorCode::InvalidInput), "{levels}");
    }
}

#[test]
fn a_schema_as_deep_as_its_text_may_be_is_built() {
    // What the validator builds at one time: eight definitions, each as deep as JSON goes. And a long way through them.
    for (count, depth) in [(20, 115), (3_000, 1)] {
        let mut definitions = json!({});
        definitions[format!("d{count}")] = json!({});
        for n in 0..count {
            let mut deep = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
            for _ in 0..depth {
                deep = json!({ "items": deep });
            }
            definitions[format!("d{n}")] = json!({ "properties": { "x": deep } });
        }
        let schema = json!({ "type": "object", "$defs": definitions, "properties": { "a": { "$ref": "#/$defs/d0" } } });
        let outcome = called("deep", schema, "{}".to_owned());
        assert_eq!(outcome.error, None, "{}", outcome.text);
    }
}
