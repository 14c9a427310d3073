//! The documents say what the code says: the README's tables are those of the code, and every promise of the
//! specification names a test, an attack or a protection that exists.
//!
//! `PLUE_UPDATE_DOCUMENTS=1 cargo test --test documents` writes the tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use plue_runner::config;
use plue_runner::events::TaskErrorCode;
use plue_runner::mutation::Protection;
use plue_runner::run::Exit;
use plue_runner::tools::{ToolErrorCode, limits};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
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

/// Each table of the README, by the name in its marker.
fn tables() -> [(&'static str, String); 4] {
    let variables = config::VARIABLES
        .iter()
        .map(|variable| vec![code(variable.name), code(variable.default), variable.meaning.to_owned()]);
    let task_errors = TaskErrorCode::TABLE
        .iter()
        .map(|(_, name, meaning)| vec![code(name), (*meaning).to_owned()]);
    let tool_errors = ToolErrorCode::TABLE
        .iter()
        .map(|(_, name, meaning)| vec![code(name), (*meaning).to_owned()]);
    let limits = limits::table().iter().map(|limit| {
        vec![
            code(limit.name),
            limit.unit.show(limit.default),
            limit.code.map_or_else(String::new, |it| code(it.as_str())),
            if limit.in_manifest { "yes".into() } else { String::new() },
            limit.meaning.to_owned(),
        ]
    });
    [
        ("variables", table(&["variable", "default", "meaning"], variables)),
        ("task-errors", table(&["code", "meaning"], task_errors)),
        ("tool-errors", table(&["code", "meaning"], tool_errors)),
        (
            "limits",
            table(&["limit", "default", "code", "in the manifest", "meaning"], limits),
        ),
    ]
}

#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    let path = root().join("README.md");
    let mut text = fs::read_to_string(&path).unwrap();
    let mut wrong = Vec::new();
    for (name, table) in tables() {
        let start = format!("<!-- table: {name} -->\n");
        let begin = text
            .find(&start)
            .unwrap_or_else(|| panic!("README.md has no {}", start.trim()))
            + start.len();
        let end = begin
            + text[begin..]
                .find("<!-- end -->")
                .expect("a marker that ends the table");
        if text[begin..end] != table {
            wrong.push(name);
            text.replace_range(begin..end, &table);
        }
    }
    if std::env::var_os("PLUE_UPDATE_DOCUMENTS").is_some() {
        fs::write(path, text).unwrap();
    } else {
        assert!(
            wrong.is_empty(),
            "these tables of README.md are not those of the code: {wrong:?}; PLUE_UPDATE_DOCUMENTS=1 writes them"
        );
    }
}

/// What the first cells of a table say, by the name in the marker before it. Its rows are written by hand.
fn first_cells(text: &str, name: &str) -> Vec<String> {
    let marker = format!("<!-- rows: {name} -->");
    let (_, table) = text
        .split_once(&marker)
        .unwrap_or_else(|| panic!("docs/operations.md has no {marker}"));
    let (table, _) = table.split_once("<!-- end -->").expect("a marker that ends the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    // The head is no row.
    rows.skip(1)
        .filter_map(|row| row.split_once(" | "))
        .map(|(cell, _)| cell.trim_matches('`').to_owned())
        .collect()
}

#[test]
fn the_operations_guide_says_what_to_do_about_every_exit_code_and_error_code() {
    const EXITS: [Exit; 6] = [
        Exit::Success,
        Exit::Failed,
        Exit::Invalid,
        Exit::Undelivered,
        Exit::Interrupted,
        Exit::Terminated,
    ];
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let exits: Vec<String> = EXITS.iter().map(|exit| exit.code().to_string()).collect();
    assert_eq!(first_cells(&text, "exit-codes"), exits);
    let errors: Vec<&str> = TaskErrorCode::TABLE.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(first_cells(&text, "task-errors"), errors);
}

/// The parts of `cargo xtask pod`, as its program lists them.
fn pod_parts() -> Vec<String> {
    let text = fs::read_to_string(root().join("tests/pod/main.rs")).unwrap();
    let (_, table) = text.split_once("const PARTS").expect("the table of parts");
    let (table, _) = table.split_once("];\n").expect("the end of the table");
    let rows = table.split_once("= [").expect("its beginning").1.split('(').skip(1);
    rows.filter_map(|row| row.split('"').nth(1).map(str::to_owned))
        .collect()
}

#[test]
fn every_promise_of_the_specification_names_a_test_that_exists() {
    let specification = fs::read_to_string(root().join("SPECIFICATION.md")).unwrap();
    let (tests, attacks, parts) = (test_names(), attack_names(), pod_parts());
    let mut rows = 0;
    let mut wrong = Vec::new();
    // A row is a line of a table that names anything at all; tables of figures name no test.
    for row in specification
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("::"))
    {
        rows += 1;
        let named: Vec<&str> = row.split('`').filter(|part| part.contains("::")).collect();
        assert!(!named.is_empty(), "a promise without a test: {row}");
        for name in named {
            let is_there = match name.split_once("::") {
                Some(("escape", attack)) => match attack.strip_suffix('*') {
                    Some(beginning) => attacks.iter().any(|known| known.starts_with(beginning)),
                    None => attacks.contains(attack),
                },
                Some(("pod", part)) => parts.iter().any(|known| known == part),
                Some(("mutation", protection)) => Protection::ALL.iter().any(|(known, _)| *known == protection),
                _ => tests.contains(name.rsplit("::").next().unwrap()),
            };
            if !is_there {
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "SPECIFICATION.md names what is not there: {wrong:#?}");
    assert!(rows > 50, "the specification has {rows} promises");
    for promise in 1..=7 {
        let row = format!("| S{promise} | ");
        assert!(
            specification.contains(&row),
            "S{promise} of SECURITY.md is not in SPECIFICATION.md"
        );
    }
}

/// The names of the attacks of tests/escape, as its sources have them.
fn attack_names() -> BTreeSet<String> {
    const CLASSES: [&str; 5] = ["files", "processes", "network", "components", "input"];
    let mut names = BTreeSet::new();
    for text in sources(vec![root().join("tests/escape/attacks")]) {
        let strings = text.split('"').filter(|part| {
            let class = part.split_once('/').map(|(class, _)| class);
            class.is_some_and(|class| CLASSES.contains(&class)) && !part.contains(char::is_whitespace)
        });
        names.extend(strings.map(str::to_owned));
    }
    names
}

/// The names of all test functions in this repository.
fn test_names() -> BTreeSet<String> {
    let folders = ["runner/src", "tests", "tool-plugins", "xtask/src"].map(|name| root().join(name));
    let mut names = BTreeSet::new();
    for text in sources(folders.to_vec()) {
        let functions = text.lines().filter_map(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix("async ").unwrap_or(line);
            line.strip_prefix("fn ")?
                .split_once(['(', '<'])
                .map(|(name, _)| name.to_owned())
        });
        names.extend(functions);
    }
    names
}

/// The text of all Rust files in these folders.
fn sources(mut folders: Vec<PathBuf>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}
