//! What the tools say of themselves, and what they ask for.

use std::fmt::Write;

use plue_tool_host::{ToolErrorCode, Toolbox};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, TOOLS};

#[test]
fn the_model_is_told_exactly_this_about_the_five_tools() {
    let fixture = Fixture::new();
    let mut told = String::new();
    for definition in fixture.toolbox().definitions() {
        let schema: Value = serde_json::from_str(definition.input_schema.get()).unwrap();
        let schema = serde_json::to_string_pretty(&schema).unwrap();
        writeln!(told, "{}\n{}\n{schema}\n", definition.name, definition.description).unwrap();
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_tool_imports_no_more_than_it_needs() {
    let fixture = Fixture::new();
    for plugin in fixture.host.plugins() {
        let imports = |interface: &str| plugin.imports.iter().any(|import| import.contains(interface));
        let (workspace, process, replaces) = match plugin.name.as_str() {
            "shell" => ("read", true, false),
            "write_file" => ("read-write", false, true),
            _ => ("read", false, false),
        };
        assert_eq!(
            (plugin.workspace, plugin.process),
            (workspace, process),
            "{}",
            plugin.name
        );
        assert_eq!(
            imports("plue:tool/process"),
            process,
            "{}: {:?}",
            plugin.name,
            plugin.imports
        );
        assert_eq!(
            imports("plue:tool/workspace"),
            replaces,
            "{}: {:?}",
            plugin.name,
            plugin.imports
        );
        for never in ["wasi:sockets", "wasi:http"] {
            assert!(!imports(never), "{}: {:?}", plugin.name, plugin.imports);
        }
    }
    assert_eq!(fixture.host.names().len(), TOOLS.len());
}

#[test]
fn input_that_does_not_fit_the_schema_is_refused_before_the_call() {
    let fixture = Fixture::new();
    for (tool, input) in [
        ("read_file", json!({})),
        ("read_file", json!({"path": 1})),
        ("read_file", json!({"path": "a", "start_line": 0})),
        ("read_file", json!({"path": "a", "end_line": -1})),
        ("read_file", json!({"path": "a", "start_line": 1.5})),
        ("read_file", json!({"path": "a", "lines": 2})),
        ("write_file", json!({"path": "a"})),
        ("write_file", json!({"content": "a"})),
        ("write_file", json!({"path": "a", "content": "b", "append": "yes"})),
        ("list_files", json!({"max_results": 0})),
        ("grep", json!({})),
        ("grep", json!({"pattern": "a", "max_results": 0})),
        ("grep", json!({"pattern": "a", "include": 1})),
        ("shell", json!({})),
        ("shell", json!({"command": "a", "timeout": 0})),
        ("shell", json!({"command": "a", "timeout": 3601})),
    ] {
        fixture.refused(tool, input, ToolErrorCode::InvalidInput);
    }
    // What JSON Schema takes for an integer and a decoder does not, and what has two meanings.
    for (tool, input, says) in [
        (
            "read_file",
            r#"{"path": "a", "start_line": 1.0}"#,
            "/start_line: 1.0 is not of type \"integer\"",
        ),
        (
            "read_file",
            r#"{"path": "a", "end_line": 1e20}"#,
            "/end_line: 1e+20 is not of type \"integer\"",
        ),
        (
            "read_file",
            r#"{"path": "a", "end_line": 18446744073709551616}"#,
            "fits into 64 bits",
        ),
        ("list_files", r#"{"max_results": 2.0}"#, "/max_results: "),
        ("grep", r#"{"pattern": "a", "max_results": 1e2}"#, "/max_results: "),
        ("shell", r#"{"command": "a", "timeout": 1.0}"#, "/timeout: "),
        (
            "write_file",
            r#"{"path": "a", "content": "b", "path": "c"}"#,
            "the key \"path\" stands twice",
        ),
    ] {
        let (outcome, _) = fixture.call_with(tool, input, &CancellationToken::new());
        assert_eq!(outcome.error, Some(ToolErrorCode::InvalidInput), "{tool} {input}");
        assert!(outcome.text.contains(says), "{tool} {input}: {}", outcome.text);
    }
    assert!(!fixture.path("a").exists() && !fixture.path("c").exists());
    assert!(fixture.sandbox.asked.lock().unwrap().is_empty());
}
