//! The events that the documents show are events that a runner could send.

use serde_json::Value;
use support::event_rules::EventRules;
use support::schema::event_errors;

use crate::read;

#[test]
fn the_tool_that_the_documents_show_is_the_one_that_the_sdk_compiles() {
    let sdk = read("tool-plugins/sdk/src/lib.rs");
    let (example, _) = sdk.split_once("//! # fn main() {}").unwrap();
    let known: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .collect();
    for document in ["README.md", "docs/guide/write-a-tool.md"] {
        let text = read(document);
        let (_, rest) = text.split_once("```rust\n").unwrap();
        let (code, _) = rest.split_once("```").unwrap();
        assert!(code.lines().count() > 5);
        for line in code.lines() {
            assert!(
                known.contains(&line.trim()),
                "{document}: the SDK's example has no line {line:?}"
            );
        }
    }
}

#[test]
fn the_events_of_the_reference_are_whole_tasks_of_the_protocol() {
    let text = read("docs/reference/events.md");
    let streams: Vec<&str> = text
        .split("```jsonl\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(streams.len(), 2);
    for stream in streams {
        let mut rules = EventRules::default();
        for line in stream.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event_errors(&event), Vec::<String>::new(), "{line}");
            assert_eq!(rules.accept(&event, 0), Vec::<String>::new(), "{line}");
        }
        assert_eq!(rules.finish(), Vec::<String>::new());
    }
}
