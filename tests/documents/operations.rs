//! `docs/operations.md` says what to do about every code.

use plue_runner::reference::Exit;
use plue_runner::reference::TaskErrorCode;

use crate::read;

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
    let text = read("docs/operations.md");
    let exits: Vec<String> = Exit::ALL.iter().map(|exit| exit.code().to_string()).collect();
    assert_eq!(first_cells(&text, "exit-codes"), exits);
    let errors: Vec<&str> = TaskErrorCode::TABLE.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(first_cells(&text, "task-errors"), errors);
}
