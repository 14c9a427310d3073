//! The tool `grep`: the lines of files that a regular expression matches.
//!
//! Every file below the folder is searched, hidden and ignored ones too. For each, the host is asked to open it, to
//! read it and to close it, and nothing else; what is read is searched where it lies.

mod content;
mod deadline;
mod include;
mod pieces;
mod report;
mod search;

use plue_tool::{Context, FileKind, Output, ToolError, Unit, Walk, WorkspacePath};

use crate::deadline::Deadline;
use crate::include::Include;
use crate::report::Report;
use crate::search::{MAX_SLICE, Outcome, Search};

/// How many files are searched between two looks at the clock.
const CHECK_INTERVAL: u64 = 64;

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// A regular expression, held against each line. The syntax is that of ripgrep: no look-around, no back-references.
    pattern: String,
    /// The file, or the folder with all below it, relative to the workspace.
    #[serde(default = "plue_tool::whole_workspace")]
    path: String,
    /// Search only the files whose name matches this glob, such as *.rs or *.{ts,tsx}; with a / in it, whose path does.
    #[serde(default)]
    include: Option<String>,
    /// Do not tell upper from lower case.
    #[serde(default)]
    ignore_case: bool,
    /// The most matches to show.
    #[serde(default = "max_results")]
    #[schemars(range(min = 1))]
    max_results: u64,
}

fn max_results() -> u64 {
    100
}

fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
    let search = Search::new(&input.pattern, input.ignore_case).map_err(ToolError::InvalidInput)?;
    let workspace = ctx.workspace()?;
    let path = workspace.path(&input.path)?;
    let mut report = Report::new(input.max_results);
    let deadline = Deadline::new(ctx);
    let late = if workspace.stat(&path)?.kind == FileKind::Folder {
        let walk = workspace.walk(&path, |_: &str| true)?;
        search_folder(walk, &path, input.include.as_deref(), search, &mut report, &deadline)?
    } else {
        search_file(workspace.open_file(&path)?, &path, search, &mut report, &deadline)?
    };
    if late && ctx.is_cancelled() {
        return Err(ToolError::Cancelled(format!(
            "The search was cancelled. What it found so far:\n{}",
            report.text
        )));
    }
    Ok(finish(report, late))
}

/// Searches one file; says whether the time ended first.
fn search_file(
    file: plue_tool::File,
    path: &WorkspacePath,
    mut search: Search,
    report: &mut Report,
    deadline: &Deadline<'_>,
) -> Result<bool, ToolError> {
    let outcome = if file.size > MAX_SLICE {
        search.stream(path.as_str(), &file, report, deadline)
    } else {
        search.slice(path.as_str(), &file.read_up_to(MAX_SLICE)?, report)
    };
    match outcome {
        Outcome::Unreadable(reason) => Err(ToolError::Failed(format!("Cannot search {path} to its end: {reason}."))),
        outcome => Ok(outcome == Outcome::Late),
    }
}

/// Searches all below a folder; says whether the time ended first.
fn search_folder<Keep: Fn(&str) -> bool>(
    mut walk: Walk<Keep>,
    path: &WorkspacePath,
    include: Option<&str>,
    mut search: Search,
    report: &mut Report,
    deadline: &Deadline<'_>,
) -> Result<bool, ToolError> {
    let prefix = if path.as_str().is_empty() {
        String::new()
    } else {
        format!("{}/", path.as_str())
    };
    let include = Include::new(include, &prefix).map_err(ToolError::InvalidInput)?;
    let mut scratch = Vec::new();
    let mut shown_path = prefix.clone();
    let mut count = 0_u64;
    let mut late = false;
    while let Some(item) = walk.next_item() {
        count += 1;
        if count.is_multiple_of(CHECK_INTERVAL) && deadline.is_over() {
            late = true;
            break;
        }
        if item.kind != FileKind::File || !include.takes(item.name, item.path) {
            continue;
        }
        shown_path.truncate(prefix.len());
        shown_path.push_str(item.path);
        // One byte more than is searched in one piece tells that it is larger.
        let outcome = match item.parent.read_file(item.name, MAX_SLICE + 1, &mut scratch) {
            Ok(content) if content.len() as u64 <= MAX_SLICE => {
                let outcome = search.slice(&shown_path, &content, report);
                if content.capacity() > scratch.capacity() {
                    scratch = content;
                }
                outcome
            }
            Ok(_) => match item.parent.open_file(item.name) {
                Ok(file) => search.stream(&shown_path, &file, report, deadline),
                Err(code) => Outcome::Unreadable(code.message().to_owned()),
            },
            // Gone since its folder was listed.
            Err(plue_tool::ErrorCode::NoEntry) => Outcome::Done,
            Err(code) => Outcome::Unreadable(code.message().to_owned()),
        };
        match outcome {
            Outcome::Done => {}
            Outcome::Full => break,
            Outcome::Late => {
                late = true;
                break;
            }
            Outcome::Unreadable(reason) => walk.problems.unreadable(&shown_path, &reason),
        }
    }
    // Notes come after the cut, and the cut after the last match: both are added by `finish`.
    report.notes.extend(walk.problems.notes());
    Ok(late)
}

/// The result with its notes.
fn finish(mut report: Report, late: bool) -> Output {
    let matches = report.matches;
    if matches == 0 {
        report.note("No matches.");
    }
    if report.cut {
        report.note(&format!(
            "The result was cut after {matches} matches; there are more. Narrow the pattern or the path, or raise \
             max_results."
        ));
    }
    if late {
        report.note("The search took too long and was stopped; what is shown is not all. Search a folder below.");
    }
    for note in report.take_notes() {
        report.note(&note);
    }
    let cut = report.cut || late;
    let mut text = report.text;
    // One line for each match, without a newline behind the last.
    text.pop();
    let output = Output::from(text);
    if cut {
        output.truncated(matches, None, Unit::Matches)
    } else {
        output
    }
}

plue_tool::tool! {
    name: "grep",
    description: "Searches the files of the workspace for lines that match a regular expression, and shows them as \
        path:line:text, sorted by path. Hidden files are searched too, and ignore files such as .gitignore are not \
        applied. Symbolic links below the folder are not followed. Of a binary file, only that it matches is shown.",
    effects: [reads],
    idempotent: true,
    run: run,
}
