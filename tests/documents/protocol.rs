//! `protocol/`: its sections, who cites them, and the codes in its schemas.

use std::collections::BTreeSet;

use plue_runner::reference::TaskErrorCode;
use plue_tool_host::ToolErrorCode;
use serde_json::Value;

use crate::{code_folders, files, read};

/// The sections, as the headings of `protocol/README.md` number them: `3`, `3.1`.
fn sections() -> Vec<String> {
    let text = read("protocol/README.md");
    let headings = text.lines().filter(|line| line.starts_with("##"));
    headings
        .map(|line| {
            let (level, title) = line
                .split_once(" §")
                .unwrap_or_else(|| panic!("no § in the heading {line:?}"));
            let (number, title) = title
                .split_once(' ')
                .unwrap_or_else(|| panic!("no title in the heading {line:?}"));
            let depth = 1 + number.matches('.').count();
            assert_eq!(level.len(), 1 + depth, "the level of the heading {line:?}");
            assert!(!title.trim().is_empty(), "no title in the heading {line:?}");
            number.to_owned()
        })
        .collect()
}

#[test]
fn the_sections_of_the_protocol_are_numbered_without_a_gap() {
    let mut expected = (0, 0);
    for section in sections() {
        expected = match section.contains('.') {
            true => (expected.0, expected.1 + 1),
            false => (expected.0 + 1, 0),
        };
        let number = match expected {
            (chapter, 0) => chapter.to_string(),
            (chapter, part) => format!("{chapter}.{part}"),
        };
        assert_eq!(section, number);
    }
    assert!(expected.0 >= 5, "the protocol has {} sections", expected.0);
}

/// A source without what begins the lines of a comment: a citation may go over two lines.
fn unbroken(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.trim().trim_start_matches('/').trim_start_matches('!').trim());
    lines.collect::<Vec<_>>().join(" ")
}

/// The number after a `§`: `3`, `3.4`.
fn number(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

#[test]
fn every_section_that_is_cited_exists() {
    // What other documents number with a § too.
    const FOREIGN: [&str; 3] = ["RFC 8259 ", "HTML standard, ", "validation "];
    let sections: BTreeSet<String> = sections().into_iter().collect();
    let mut wrong = Vec::new();
    let mut citations = 0;
    for (name, text) in files(&code_folders(), &["rs", "wit", "toml"]) {
        // This file speaks of sections that do not exist.
        if name.starts_with("tests/documents/") {
            continue;
        }
        let text = unbroken(&text);
        for (at, _) in text.match_indices('§') {
            let (before, after) = (&text[..at], number(&text[at + '§'.len_utf8()..]));
            if FOREIGN.iter().any(|document| before.ends_with(document)) {
                continue;
            }
            citations += 1;
            if !before.ends_with("protocol, ") {
                wrong.push(format!("{name}: §{after} is not cited as \"protocol, §{after}\""));
            } else if !sections.contains(after) {
                wrong.push(format!("{name}: there is no protocol, §{after}"));
            }
        }
        if text.contains("protocol.md") {
            wrong.push(format!(
                "{name}: there is no protocol.md; the protocol is in protocol/README.md"
            ));
        }
    }
    let own = files(&["protocol"], &["md", "json"]).into_iter();
    let at_the_top = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"].map(|name| (name.to_owned(), read(name)));
    for (name, text) in own.chain(files(&["docs"], &["md"])).chain(at_the_top) {
        for (at, _) in text.match_indices('§') {
            let cited = number(&text[at + '§'.len_utf8()..]);
            if !sections.contains(cited) {
                wrong.push(format!("{name}: there is no §{cited}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(citations >= 8, "the code cites the protocol {citations} times");
}

#[test]
fn every_schema_is_named_in_the_protocol_and_used_by_the_doubles() {
    let (text, doubles) = (read("protocol/README.md"), read("tests/support/schema.rs"));
    let schemas = files(&["protocol"], &["json"]);
    assert!(schemas.len() >= 7, "{} schemas", schemas.len());
    for (name, _) in schemas {
        let name = name.strip_prefix("protocol/").unwrap();
        let short = name
            .strip_suffix(".schema.json")
            .unwrap_or_else(|| panic!("{name} is no schema"));
        assert!(
            text.contains(&format!("({name})")),
            "protocol/README.md does not link to {name}"
        );
        assert!(
            doubles.contains(&format!("{short:?}")),
            "nothing is held against {name}"
        );
    }
}

#[test]
fn the_codes_of_the_event_schema_are_those_of_the_code() {
    let schema: Value = serde_json::from_str(&read("protocol/event.schema.json")).unwrap();
    let codes = |event: &str| -> Vec<String> {
        let codes = &schema["$defs"][event]["properties"]["code"]["enum"];
        codes
            .as_array()
            .unwrap()
            .iter()
            .map(|code| code.as_str().unwrap().to_owned())
            .collect()
    };
    let tasks: Vec<&str> = TaskErrorCode::TABLE.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(codes("error"), tasks);
    let calls: Vec<&str> = ToolErrorCode::TABLE.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(codes("tool_end"), calls);
}
