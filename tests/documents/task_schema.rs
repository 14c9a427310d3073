//! The task reader is written by hand, for the sake of its messages. Here it is held against
//! `protocol/task.schema.json`: both take the same documents, as far as form goes.

use std::collections::BTreeSet;

use plue_runner::reference::TaskRules;
use plue_runner::reference::{Document, Format, InvalidTask, Valid, validate};
use serde_json::{Value, json};
use support::schema::task_errors;

use crate::read;

fn validated(task: &Value) -> Result<Valid, InvalidTask> {
    let rules = TaskRules::read(&|name| match name {
        "ALLOWED_MODELS" => Some("claude-sonnet-5-5".to_owned()),
        _ => None,
    });
    validate(
        &Document::parse(&task.to_string(), Format::Json).unwrap(),
        &rules.unwrap(),
    )
}

/// Whether the reader and the schema take it.
fn verdicts(task: &Value) -> (bool, bool) {
    (validated(task).is_ok(), task_errors(task).is_empty())
}

/// An agent task with one field more, or in place of another.
fn agent(name: &str, value: Value) -> Value {
    let mut task = json!({ "type": "agent", "messages": [{ "role": "user", "content": "Go." }] });
    task[name] = value;
    task
}

fn message(content: Value) -> Value {
    agent("messages", json!([{ "role": "user", "content": content }]))
}

fn block(block: Value) -> Value {
    message(json!([block]))
}

fn step(step: Value) -> Value {
    json!({ "steps": [step] })
}

fn run(name: &str, value: Value) -> Value {
    let mut one = json!({ "run": "true" });
    one[name] = value;
    step(one)
}

fn job(job: Value) -> Value {
    json!({ "jobs": { "build": job } })
}

/// Documents that both take.
fn good() -> Vec<Value> {
    let steps = json!([{ "run": "true" }]);
    vec![
        json!({ "messages": [{ "role": "user", "content": "Go." }] }),
        agent("model", json!("claude-sonnet-5-5")),
        agent("system_prompt", json!("")),
        agent(
            "messages",
            json!([
                { "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }, { "role": "user", "content": "c" },
            ]),
        ),
        message(json!([{ "type": "text", "text": "a\u{0}b" }, { "type": "image", "source": {} }])),
        block(json!({ "type": "image", "text": 7 })),
        agent("tools", json!([])),
        agent("tools", json!(["grep", "shell"])),
        agent("max_turns", json!(1)),
        agent("max_turns", json!(1000)),
        agent("max_tokens", json!(1_000_000)),
        agent("thinking", json!({ "type": "adaptive", "display": "omitted" })),
        agent("effort", json!("xhigh")),
        agent("max_cost_usd", json!(0.01)),
        agent("max_cost_usd", json!(5)),
        agent("max_tokens_total", json!(1)),
        agent("output_schema", json!({ "type": "object" })),
        agent("timeout_seconds", json!(604_800)),
        // A key that nobody knows is a warning, and at the top of a workflow, too.
        agent("colour", json!("red")),
        json!({ "steps": steps, "colour": "red" }),
        // What belongs to the other type is a key like any other.
        agent("steps", json!(7)),
        agent("jobs", json!(null)),
        json!({ "messages": [{ "role": "user", "content": "Go." }], "steps": steps }),
        json!({ "steps": steps }),
        json!({ "type": "workflow", "steps": steps, "messages": 7 }),
        json!({ "name": 7, "on": ["push"], "steps": steps, "timeout_seconds": 1 }),
        step(json!({ "type": "run", "run": "true", "name": "a" })),
        step(json!({ "type": "checkout" })),
        step(json!({ "type": "env", "env": {} })),
        step(json!({ "type": "env", "env": { "A": "1", "B": 2, "C": true, "D": 1.5, "E": "" } })),
        run("env", json!({ "A": "b=c" })),
        run("working_directory", json!("sub")),
        run("working-directory", json!("sub")),
        run("timeout_seconds", json!(1)),
        run("timeout-minutes", json!(10_080)),
        job(json!({ "steps": steps })),
        job(json!({ "name": 1, "runs-on": ["any"], "env": { "A": 1 }, "steps": steps })),
        job(json!({ "runs_on": "any", "steps": steps })),
        json!({ "jobs": { "a": { "steps": steps }, "": { "steps": steps } } }),
        json!({ "type": "workflow", "jobs": { "a": { "steps": steps } } }),
    ]
}

/// Documents that both refuse.
fn bad() -> Vec<Value> {
    let steps = json!([{ "run": "true" }]);
    let mut bad = vec![
        json!(null),
        json!([]),
        json!("agent"),
        json!({}),
        json!({ "type": "agent" }),
        json!({ "type": "agent", "steps": steps }),
        json!({ "type": "workflow" }),
        json!({ "type": "workflow", "messages": [{ "role": "user", "content": "Go." }] }),
        json!({ "type": null, "steps": steps }),
        json!({ "type": "checkout", "steps": steps }),
        agent("type", json!("checkout")),
        agent("type", json!(null)),
        json!({ "messages": null, "steps": steps }),
        json!({ "steps": steps, "jobs": { "a": { "steps": steps } } }),
        json!({ "steps": null, "jobs": { "a": { "steps": steps } } }),
        json!({ "steps": [] }),
        json!({ "steps": {} }),
        json!({ "steps": ["make"] }),
        json!({ "steps": [null] }),
        json!({ "jobs": {} }),
        json!({ "jobs": [] }),
        json!({ "jobs": { "a": null } }),
        json!({ "jobs": { "a": {} } }),
        json!({ "jobs": { "a": { "steps": [] } } }),
        json!({ "jobs": { "a": { "steps": [{}] } } }),
        job(json!({ "steps": steps, "env": [] })),
        job(json!({ "steps": steps, "runs-on": 1, "runs_on": 1 })),
        step(json!({})),
        step(json!({ "name": "a" })),
        step(json!({ "type": "run" })),
        step(json!({ "type": "uses", "run": "true" })),
        step(json!({ "type": null, "run": "true" })),
        step(json!({ "type": "env" })),
        step(json!({ "type": "env", "env": null })),
        step(json!({ "type": "checkout", "name": "" })),
        // A key that nobody knows, or that means nothing there.
        run("colour", json!(null)),
        run("timeout", json!(5)),
        step(json!({ "type": "checkout", "run": "true" })),
        step(json!({ "type": "env", "env": {}, "timeout_seconds": 1 })),
        job(json!({ "steps": steps, "needs": "a" })),
        json!({ "steps": steps, "env": { "A": "1" } }),
        json!({ "steps": steps, "defaults": {} }),
    ];
    for name in ["", " \t\u{85}\u{a0}\u{3000}", "a\u{0}"] {
        bad.extend([
            run("name", json!(name)),
            run("run", json!(name)),
            run("working-directory", json!(name)),
        ]);
        bad.extend([agent("tools", json!([name])), block(json!({ "type": name }))]);
    }
    for value in [json!(null), json!(7), json!(true), json!([]), json!({})] {
        bad.extend([
            run("name", value.clone()),
            run("run", value.clone()),
            run("working_directory", value.clone()),
        ]);
        bad.extend([
            agent("model", value.clone()),
            agent("system_prompt", value.clone()),
            agent("effort", value.clone()),
        ]);
        bad.extend([
            agent("thinking", value.clone()),
            agent("messages", json!([value])),
            message(value.clone()),
        ]);
        bad.extend([
            agent("tools", json!([value])),
            block(value.clone()),
            block(json!({ "type": value })),
        ]);
        bad.push(block(json!({ "type": "text", "text": value })));
    }
    for value in [
        json!(null),
        json!(0),
        json!(-1),
        json!(true),
        json!("1"),
        json!(1.5),
        json!(604_801),
        json!(1e30),
    ] {
        for name in [
            "timeout_seconds",
            "timeout-seconds",
            "timeout_minutes",
            "timeout-minutes",
        ] {
            bad.push(run(name, value.clone()));
        }
        if value != json!(604_801) {
            bad.push(agent("max_tokens", value.clone()));
        }
        bad.extend([
            agent("timeout_seconds", value.clone()),
            agent("max_turns", value.clone()),
        ]);
        bad.push(json!({ "steps": steps, "timeout_seconds": value }));
    }
    bad.extend([
        agent("max_turns", json!(1001)),
        agent("max_tokens", json!(0)),
        agent("max_tokens", json!(1_000_001)),
    ]);
    bad.extend([json!(null), json!(0), json!(-0.5), json!(true), json!("1")].map(|value| agent("max_cost_usd", value)));
    let wrong_total = [
        json!(null),
        json!(0),
        json!(1_000_000_000_001_u64),
        json!(true),
        json!("1"),
    ];
    bad.extend(wrong_total.map(|value| agent("max_tokens_total", value)));
    bad.extend([json!(null), json!(true), json!("{}")].map(|value| agent("output_schema", value)));
    bad.extend([json!(null), json!("grep"), json!({})].map(|value| agent("tools", value)));
    bad.push(agent("tools", json!(["grep", "grep"])));
    bad.extend([json!("maximum"), json!("")].map(|value| agent("effort", value)));
    bad.extend(
        [
            json!({ "type": "on" }),
            json!({ "type": null }),
            json!({ "budget_tokens": 5 }),
        ]
        .map(|value| agent("thinking", value)),
    );
    bad.extend([json!(null), json!([]), json!({}), json!("Go.")].map(|value| agent("messages", value)));
    bad.extend([json!(""), json!(" \n"), json!([])].map(message));
    bad.push(agent("messages", json!([{ "content": "Go." }])));
    bad.push(agent("messages", json!([{ "role": "user" }])));
    bad.push(agent("messages", json!([{ "role": "system", "content": "Go." }])));
    bad.extend(
        [
            json!({ "type": "text" }),
            json!({ "type": "text", "text": " " }),
            json!({ "text": "a" }),
        ]
        .map(block),
    );
    for env in [
        json!(null),
        json!([]),
        json!({ "": 1 }),
        json!({ "A=B": 1 }),
        json!({ "A": null }),
        json!({ "A": [] }),
    ] {
        bad.extend([run("env", env.clone()), step(json!({ "type": "env", "env": env }))]);
    }
    bad.extend([json!({ "A\u{0}": 1 }), json!({ "A": "\u{0}" })].map(|env| run("env", env)));
    for [one, other] in [
        ["timeout_seconds", "timeout_minutes"],
        ["timeout-seconds", "timeout_minutes"],
        ["timeout_seconds", "timeout-seconds"],
        ["timeout_minutes", "timeout-minutes"],
        ["working_directory", "working-directory"],
    ] {
        let value = if one.starts_with('w') { json!("a") } else { json!(1) };
        let mut both = json!({ "run": "true" });
        both[one] = value.clone();
        both[other] = value;
        bad.push(step(both));
    }
    bad
}

/// What the schema takes and the reader does not: rules of meaning, or of a form that JSON Schema cannot say. The
/// protocol lists them (§2).
fn beyond_the_schema() -> Vec<(&'static str, Value)> {
    vec![
        ("the operator's models", agent("model", json!("claude-unknown"))),
        ("the operator's tools", agent("tools", json!(["unknown"]))),
        (
            "the last of some messages",
            agent(
                "messages",
                json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }]),
            ),
        ),
        ("where the workspace is", run("working_directory", json!("/etc"))),
        ("a path that leaves it", run("working_directory", json!("a/../.."))),
        // JSON Schema takes `1.0` for an integer.
        ("how a number is written", agent("max_turns", json!(1.0))),
        ("how a number is written", run("timeout_seconds", json!(60.0))),
        (
            "what looks like a key",
            json!({ "steps": [{ "run": "true" }], "timeout_second": 1 }),
        ),
        (
            "what looks like a key",
            json!({ "steps": [{ "run": "true" }], "job": {} }),
        ),
    ]
}

#[test]
fn the_task_reader_and_the_schema_take_the_same_documents() {
    let (good, bad) = (good(), bad());
    for task in &good {
        let problems = validated(task).err().map(|invalid| invalid.to_string());
        assert_eq!((problems, task_errors(task)), (None, Vec::new()), "{task}");
    }
    for task in &bad {
        assert_eq!(verdicts(task), (false, false), "(reader, schema) take {task}");
    }
    for (rule, task) in beyond_the_schema() {
        assert_eq!(verdicts(&task), (false, true), "(reader, schema), {rule}: {task}");
    }
    assert!(
        good.len() > 35 && bad.len() > 150,
        "{} good, {} bad",
        good.len(),
        bad.len()
    );
}

/// The places of all rules in a schema: what can be taken out, and the rest is a schema still.
fn rules(schema: &Value, at: &str, found: &mut Vec<String>) {
    const NO_RULES: [&str; 6] = ["$schema", "$defs", "title", "description", "default", "properties"];
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                let in_names = at.ends_with("/properties") || at.ends_with("/$defs");
                if !in_names && !NO_RULES.contains(&name.as_str()) {
                    found.push(place.clone());
                }
                rules(value, &place, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                rules(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Rules that decide nothing, since another one refuses the same: they let a validator say better what is wrong. The
/// last is for the keys that belong to a kind of step.
const FOR_READERS: [&str; 6] = [
    "/type",
    "/if/anyOf/1/anyOf",
    "/$defs/job/type",
    "/$defs/step/type",
    "/$defs/step/allOf/1/if",
    "/$defs/step/allOf/1/then",
];

#[test]
fn each_rule_of_the_schema_decides_about_a_document_of_the_table() {
    let schema: Value = serde_json::from_str(&read("protocol/task.schema.json")).unwrap();
    let documents: Vec<Value> = good().into_iter().chain(bad()).collect();
    let verdicts = |schema: &Value| -> Vec<bool> {
        let validator = jsonschema::draft202012::new(schema).unwrap();
        documents.iter().map(|document| validator.is_valid(document)).collect()
    };
    let expected = verdicts(&schema);
    let mut places = Vec::new();
    rules(&schema, "", &mut places);
    let mut idle = Vec::new();
    for place in places
        .iter()
        .filter(|place| !FOR_READERS.iter().any(|rule| place.starts_with(rule)))
    {
        let (parent, name) = place.rsplit_once('/').unwrap();
        let mut weaker = schema.clone();
        let parent = weaker.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().remove(name);
        if verdicts(&weaker) == expected {
            idle.push(place);
        }
    }
    assert!(
        idle.is_empty(),
        "without these rules every verdict is the same: {idle:#?}"
    );
    assert!(places.len() > 100, "{} rules", places.len());
}

/// The keys that the reader knows at a place: it lists them when it is asked for one that nobody knows.
fn known_keys(task: &Value) -> BTreeSet<String> {
    let unknown = match validated(task) {
        Ok(valid) => valid.unknown_keys,
        Err(invalid) => [invalid.problems, invalid.unknown_keys].concat(),
    };
    let message = &unknown
        .iter()
        .find(|problem| problem.path.ends_with("zzzzzz"))
        .unwrap()
        .message;
    let (_, keys) = message.split_once("known here: ").unwrap();
    keys.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_schema_lists_the_keys_that_the_reader_knows() {
    let schema: Value = serde_json::from_str(&read("protocol/task.schema.json")).unwrap();
    let listed = |definition: &str| -> BTreeSet<String> {
        let properties = schema["$defs"][definition]["properties"].as_object().unwrap();
        // Both spellings are one key to the reader.
        properties.keys().map(|key| key.replace('-', "_")).collect()
    };
    let odd = json!(null);
    let steps = json!([{ "run": "true" }]);
    for (definition, task) in [
        ("agent", agent("zzzzzz", odd.clone())),
        (
            "message",
            agent("messages", json!([{ "role": "user", "content": "Go.", "zzzzzz": odd }])),
        ),
        ("workflow", json!({ "steps": steps, "zzzzzz": odd })),
        ("job", job(json!({ "steps": steps, "zzzzzz": odd }))),
        ("run_step", run("zzzzzz", odd.clone())),
        ("checkout_step", step(json!({ "type": "checkout", "zzzzzz": odd }))),
        ("env_step", step(json!({ "type": "env", "env": {}, "zzzzzz": odd }))),
    ] {
        assert_eq!(listed(definition), known_keys(&task), "{definition}");
    }
}
