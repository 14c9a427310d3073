//! Every promise of `SPECIFICATION.md` names what enforces it.

use std::collections::BTreeSet;

use plue_sandbox::mutation::Protection;

use crate::{code_folders, files, read};

#[test]
fn the_readme_is_short_enough_to_be_read() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
    let lines = read("STYLE.md").lines().count();
    assert!(lines <= 40, "STYLE.md has {lines} lines");
}

/// The parts of `cargo xtask pod`, as its program lists them.
fn pod_parts() -> Vec<String> {
    let text = read("tests/pod/main.rs");
    let (_, table) = text.split_once("const PARTS").expect("the table of parts");
    let (table, _) = table.split_once("];\n").expect("the end of the table");
    let rows = table.split_once("= [").expect("its beginning").1.split('(').skip(1);
    rows.filter_map(|row| row.split('"').nth(1).map(str::to_owned))
        .collect()
}

#[test]
fn every_promise_of_the_specification_names_a_test_that_exists() {
    let specification = read("SPECIFICATION.md");
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
                Some(("mutation", protection)) => Protection::ALL.iter().any(|known| known.name() == protection),
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

#[test]
fn every_test_that_a_recipe_names_exists() {
    let text = read("CONTRIBUTING.md");
    let tests = test_names();
    let named: Vec<&str> = text
        .split('`')
        .filter(|part| part.contains("::") && !part.contains(['(', ' ']))
        .collect();
    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| !tests.contains(name.rsplit("::").next().unwrap()))
        .collect();
    assert!(
        missing.is_empty(),
        "CONTRIBUTING.md names tests that are not there: {missing:?}"
    );
    assert!(named.len() > 10, "the recipes name {} tests", named.len());
}

/// The names of the attacks of escape, as its sources have them.
fn attack_names() -> BTreeSet<String> {
    const CLASSES: [&str; 5] = ["files", "processes", "network", "components", "input"];
    let mut names = BTreeSet::new();
    for (_, text) in files(&["escape/src/attacks"], &["rs"]) {
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
    let mut names = BTreeSet::new();
    for (_, text) in files(&code_folders(), &["rs"]) {
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
