//! The zoo: programs that people have in their steps, and what each must print there. One table, for this machine, for
//! the pod in gVisor, and for docs/reference/what-runs.md.

mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

pub use rows::ROWS;

use crate::ApiServer;

/// One program, or what belongs together.
#[derive(Debug)]
pub struct Row {
    /// What it is called, as its script is.
    pub name: &'static str,
    /// What is run, for people.
    pub what: &'static str,
    /// The packages of Debian that it needs.
    pub packages: &'static [&'static str],
    /// The step: what an author of workflows would write.
    pub script: &'static str,
    /// What must stand in its output, all of it.
    pub prints: &'static [&'static str],
    /// What an author has to do for it, when that surprises.
    pub note: &'static str,
    /// Why it cannot run on this machine, or in gVisor.
    pub not_natively: Option<&'static str>,
    pub not_in_gvisor: Option<&'static str>,
}

/// How long one row may take, in seconds. The slowest takes a tenth of it.
pub const LIMIT: u32 = 240;

/// Where the root file system says which rows it has not got what they need for: a line for each, `name: reason`.
pub const MISSING: &str = "opt/zoo/missing";

impl Row {
    /// The task: a workflow with this one step.
    pub fn task(&self) -> Value {
        json!({
            "type": "workflow",
            "timeout_seconds": LIMIT,
            "steps": [{ "name": self.name, "run": self.script }],
        })
    }

    /// What is wrong with what a task of this row has told, and all that it printed.
    pub fn judge(&self, api: &ApiServer, task: i64) -> Result<(), String> {
        let logs = api.task(task).events_of("log");
        let lines: Vec<&str> = logs.iter().filter_map(|log| log["message"].as_str()).collect();
        let printed = lines.join("\n");
        let mut wrong = api.task(task).final_violations();
        match api.task(task).terminal() {
            None => wrong.push("it has no ending".to_owned()),
            Some(ending) if ending["sandbox"] != "strict" => wrong.push(format!("the sandbox was not whole: {ending}")),
            Some(ending) if ending["type"] != "done" => wrong.push(format!("it failed: {}", ending["message"])),
            Some(_) => {
                let missing = self.prints.iter().filter(|part| !printed.contains(**part));
                wrong.extend(missing.map(|part| format!("it did not print {part:?}")));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!("{}\n{printed}", wrong.join("\n"))),
        }
    }

    /// What came of it, for people.
    pub fn line(&self, time: Duration, result: &Result<(), String>) -> String {
        let (name, seconds) = (self.name, time.as_secs_f64());
        match result {
            Ok(()) => format!("  {name:22} {seconds:5.1} s  {}", self.what),
            Err(wrong) => format!("  {name:22} FAILED   {}\n{wrong}", self.what),
        }
    }

    /// The same for one that was not run.
    pub fn skipped(&self, reason: &str) -> String {
        format!("  {:22} skipped  {reason}", self.name)
    }
}

/// The rows with these names, all when there are none. An error is a name that none has.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Row>, &str> {
    let known = |name: &&String| ROWS.iter().any(|row| row.name == **name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(unknown);
    }
    let is_chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| name == row.name);
    Ok(ROWS.iter().filter(is_chosen).collect())
}

/// The rows that this root file system lacks something for, with the reasons.
pub fn missing(root: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(root.join(MISSING)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::*;

    #[test]
    fn each_row_has_a_name_of_its_own_a_script_and_something_to_print() {
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for row in ROWS {
            assert!(!row.prints.is_empty() && !row.packages.is_empty(), "{}", row.name);
            let parsed = Command::new("sh").args(["-n", "-c", row.script]).status().unwrap();
            assert!(parsed.success(), "{}", row.name);
        }
    }

    #[test]
    fn rows_are_chosen_by_name_and_a_name_that_none_has_is_an_error() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(chosen(&[]).unwrap().len(), ROWS.len());
        assert_eq!(chosen(&names(&["make", "git"])).unwrap().len(), 2);
        assert_eq!(chosen(&names(&["git", "none"])).unwrap_err(), "none");
    }

    #[test]
    fn what_is_missing_is_read_by_row() {
        let folder = tempfile::tempdir().unwrap();
        assert!(missing(folder.path()).is_empty());
        fs::create_dir_all(folder.path().join("opt/zoo")).unwrap();
        fs::write(folder.path().join(MISSING), "go: no such package: golang\n").unwrap();
        assert_eq!(missing(folder.path())["go"], "no such package: golang");
    }
}
