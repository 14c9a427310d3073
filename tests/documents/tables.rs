//! The tables that are written from the code, wherever they stand between their markers.

use std::fmt::Write;
use std::fs;

use plue_runner::reference::Exit;
use plue_runner::reference::TaskErrorCode;
use plue_runner::reference::variables;
use plue_tool_host::{ToolErrorCode, limits};
use serde_json::Value;
use support::zoo::{ROWS, Row};

use crate::{files, read, root};

/// Every table, by the name in its marker.
fn tables() -> Vec<(&'static str, String)> {
    vec![
        ("variables", variables()),
        ("exit-codes", exit_codes()),
        (
            "task-errors",
            codes(TaskErrorCode::TABLE.iter().map(|(_, name, meaning)| (*name, *meaning))),
        ),
        (
            "tool-errors",
            codes(ToolErrorCode::TABLE.iter().map(|(_, name, meaning)| (*name, *meaning))),
        ),
        ("limits", limits()),
        ("task-limits", task_limits()),
        ("events", events()),
        ("event-fields", event_fields()),
        ("tools", tools()),
        ("zoo", zoo()),
    ]
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(&head) + &rule + &rows.into_iter().map(|row| line(&row)).collect::<String>()
}

fn code(text: &str) -> String {
    if text.is_empty() || text.contains('`') {
        text.to_owned()
    } else {
        format!("`{text}`")
    }
}

fn variables() -> String {
    let row = |variable: variables::Row| {
        vec![
            code(variable.name),
            match variable.is_a_value {
                true => code(&variable.default),
                false => variable.default.clone(),
            },
            variable.meaning.to_owned(),
            code(variable.example),
        ]
    };
    table(
        &["variable", "default", "meaning", "example"],
        variables::table().into_iter().map(row),
    )
}

fn exit_codes() -> String {
    let row = |exit: &Exit| vec![exit.code().to_string(), exit.meaning().to_owned()];
    table(&["code", "meaning"], Exit::ALL.iter().map(row))
}

fn codes<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    table(
        &["code", "meaning"],
        rows.map(|(name, meaning)| vec![code(name), meaning.to_owned()]),
    )
}

fn task_limits() -> String {
    let rows = plue_runner::reference::task_limits().into_iter();
    table(
        &["what", "limit"],
        rows.map(|(what, limit)| vec![what.to_owned(), limit]),
    )
}

fn limits() -> String {
    let row = |limit: &limits::Limit| {
        vec![
            code(limit.name),
            limit.unit.show(limit.default),
            limit.code.map_or_else(String::new, |it| code(it.as_str())),
            if limit.in_manifest { "yes".into() } else { String::new() },
            limit.meaning.to_owned(),
        ]
    };
    table(
        &["limit", "default", "code", "in the manifest", "meaning"],
        limits::table().iter().map(row),
    )
}

/// The schema of events: the double of the API server refuses every event that does not fit it.
struct EventSchema(Value);

/// What all events have.
const ENVELOPE: [&str; 4] = ["type", "task_id", "seq", "timestamp"];

impl EventSchema {
    fn read() -> Self {
        Self(serde_json::from_str(&read("protocol/event.schema.json")).unwrap())
    }

    /// The types, in the schema's order.
    fn types(&self) -> Vec<&str> {
        let types = self.0["properties"]["type"]["enum"].as_array().unwrap();
        types.iter().map(|name| name.as_str().unwrap()).collect()
    }

    fn of(&self, kind: &str) -> &Value {
        &self.0["$defs"][kind]
    }

    /// The fields of a type: name, schema, and whether it is always there.
    fn fields<'a>(&'a self, kind: &str) -> Vec<(&'a str, &'a Value, bool)> {
        let definition = self.of(kind);
        let required = definition["required"].as_array().unwrap();
        let properties = definition["properties"].as_object().unwrap();
        let field =
            |(name, schema): (&'a String, &'a Value)| (name.as_str(), schema, required.iter().any(|it| it == name));
        properties.iter().map(field).collect()
    }

    /// A member of a field's schema, in it or in what it refers to.
    fn member<'a>(&'a self, schema: &'a Value, name: &str) -> Option<&'a Value> {
        schema.get(name).or_else(|| {
            let target = schema["$ref"].as_str()?.strip_prefix("#/$defs/")?;
            self.member(&self.0["$defs"][target], name)
        })
    }

    /// The type in words.
    fn type_of(&self, schema: &Value) -> String {
        if let Some(values) = self.member(schema, "enum").and_then(Value::as_array) {
            let values: Vec<String> = values.iter().map(|value| code(value.as_str().unwrap())).collect();
            return if values.len() > 4 {
                "a code".into()
            } else {
                values.join(", ")
            };
        }
        if let Some(value) = self.member(schema, "const") {
            return code(&value.to_string());
        }
        if let Some(kind) = self.member(schema, "type").and_then(Value::as_str) {
            return kind.to_owned();
        }
        let parts = self.member(schema, "oneOf").or_else(|| self.member(schema, "allOf"));
        let parts = parts.and_then(Value::as_array).expect("a type");
        let mut kinds: Vec<String> = parts
            .iter()
            .filter_map(|part| self.member(part, "type").and_then(Value::as_str))
            .map(str::to_owned)
            .collect();
        kinds.dedup();
        kinds.join(" or ")
    }
}

fn description(schema: &EventSchema, field: &Value, what: &str) -> String {
    let text = schema.member(field, "description").and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("event.schema.json does not say what {what} is for"))
        .to_owned()
}

fn events() -> String {
    let schema = EventSchema::read();
    let row = |kind: &&str| {
        let fields = schema
            .fields(kind)
            .into_iter()
            .filter(|(name, ..)| !ENVELOPE.contains(name));
        let fields: Vec<String> = fields
            .map(|(name, _, always)| {
                if always {
                    code(name)
                } else {
                    format!("[{}]", code(name))
                }
            })
            .collect();
        vec![
            code(kind),
            fields.join(", "),
            description(&schema, schema.of(kind), kind),
        ]
    };
    table(&["type", "fields", "what it says"], schema.types().iter().map(row))
}

fn event_fields() -> String {
    let schema = EventSchema::read();
    // A field that means the same in several events is one row.
    let mut rows: Vec<(&str, String, String, Vec<&str>)> = Vec::new();
    for kind in schema.types() {
        for (name, field, _) in schema.fields(kind) {
            if name == "type" {
                continue;
            }
            let (form, meaning) = (
                schema.type_of(field),
                description(&schema, field, &format!("{kind}.{name}")),
            );
            match rows
                .iter_mut()
                .find(|row| (row.0, &row.1, &row.2) == (name, &form, &meaning))
            {
                Some(row) => row.3.push(kind),
                None => rows.push((name, form, meaning, vec![kind])),
            }
        }
    }
    let all = schema.types().len();
    let events = |kinds: &[&str]| match kinds.len() == all {
        true => "all".to_owned(),
        false => kinds.iter().map(|kind| code(kind)).collect::<Vec<_>>().join(", "),
    };
    let row = |(name, form, meaning, kinds): (&str, String, String, Vec<&str>)| {
        vec![code(name), form, events(&kinds), meaning]
    };
    let names = "one of the names of §3.2".to_owned();
    let kind = vec![code("type"), "string".into(), "all".into(), names];
    table(
        &["field", "type", "events", "what it is for"],
        std::iter::once(kind).chain(rows.into_iter().map(row)),
    )
}

/// What the model is told about the five tools. A test of the tools themselves holds the snapshot against them.
fn tools() -> String {
    const SNAPSHOT: &str = concat!(
        "crates/tool-host/tests/builtin_tools/snapshots/",
        "builtin_tools__contract__the_model_is_told_exactly_this_about_the_five_tools.snap"
    );
    let snapshot = read(SNAPSHOT);
    let (_, told) = snapshot
        .split_once("expression: told\n---\n")
        .expect("the snapshot's head");
    let mut text = String::new();
    for tool in told.split("\n}\n").map(str::trim).filter(|tool| !tool.is_empty()) {
        let (name, rest) = tool.split_once('\n').unwrap();
        let (about, schema) = rest.split_once('\n').unwrap();
        let schema: Value = serde_json::from_str(&format!("{schema}\n}}")).unwrap();
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let row = |(argument, property): (&String, &Value)| {
            let bounds = ["minimum", "maximum"]
                .iter()
                .filter_map(|name| Some(format!(", {name} {}", property.get(name)?)));
            let kind = property["type"].as_str().unwrap().to_owned() + &bounds.collect::<String>();
            let default = match property.get("default") {
                Some(default) => code(&default.to_string()),
                None if required.iter().any(|it| it == argument) => "required".into(),
                None => String::new(),
            };
            let meaning = property["description"].as_str().unwrap().to_owned();
            vec![code(argument), kind, default, meaning]
        };
        let properties = schema["properties"].as_object().unwrap();
        let arguments = table(
            &["argument", "type", "default", "what the model is told"],
            properties.iter().map(row),
        );
        write!(text, "\n### `{name}`\n\n{}\n\n{arguments}", wrapped(about)).unwrap();
    }
    text + "\n"
}

/// What the stage `zoo` runs.
fn zoo() -> String {
    /// Packages of rows that every Debian has.
    const BASE: [&str; 6] = ["bsdutils", "coreutils", "dpkg", "findutils", "tar", "util-linux"];
    let dockerfile = read("Dockerfile");
    let (_, full) = dockerfile.split_once(" AS full\n").expect("the image's target");
    let (_, installed) = full
        .split_once("--no-install-recommends")
        .expect("the image's packages");
    let installed: Vec<&str> = installed.split("&&").next().unwrap().split_whitespace().collect();
    let is_there = |name: &&&str| BASE.contains(name) || installed.contains(name);
    let row = |row: &Row| {
        let missing = row.packages.iter().filter(|name| !is_there(name));
        let missing: Vec<String> = missing.map(|name| code(name)).collect();
        let gives = |not: Option<&str>| not.map_or_else(|| "yes".to_owned(), |reason| format!("no: {reason}"));
        vec![
            code(row.name),
            row.what.to_owned(),
            missing.join(", "),
            gives(row.not_natively),
            gives(row.not_in_gvisor),
            row.note.to_owned(),
        ]
    };
    table(
        &[
            "row",
            "what is run",
            "packages besides the image's",
            "on Linux",
            "in gVisor",
            "what to mind",
        ],
        ROWS.iter().map(row),
    )
}

/// A paragraph in lines of at most 120 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= 120 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[test]
fn the_generated_tables_are_those_of_the_code() {
    let update = std::env::var_os("PLUE_UPDATE_DOCUMENTS").is_some();
    let mut unused: Vec<&str> = tables().iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (document, before) in files(&["docs", "protocol"], &["md"]) {
        let mut text = before.clone();
        for (name, table) in tables() {
            let start = format!("<!-- table: {name} -->\n");
            let Some(at) = text.find(&start) else { continue };
            unused.retain(|it| *it != name);
            let begin = at + start.len();
            let end = begin
                + text[begin..]
                    .find("<!-- end -->")
                    .expect("a marker that ends the table");
            if text[begin..end] != table {
                wrong.push(format!("{name} in {document}"));
                text.replace_range(begin..end, &table);
            }
        }
        let markers = text.matches("<!-- table: ").count();
        let known = tables()
            .iter()
            .filter(|(name, _)| text.contains(&format!("<!-- table: {name} -->")))
            .count();
        assert_eq!(markers, known, "{document} has a table that nobody knows, or one twice");
        if update && text != before {
            fs::write(root().join(&document), text).unwrap();
        }
    }
    assert_eq!(unused, Vec::<&str>::new(), "these tables stand in no document");
    assert!(
        update || wrong.is_empty(),
        "these tables are not those of the code: {wrong:?}; this writes them: \
         PLUE_UPDATE_DOCUMENTS=1 cargo test --release --workspace --test documents"
    );
}
