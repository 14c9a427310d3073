//! The tool `read_file`: the text of a file, or some of its lines.

mod lines;
mod text;

use plue_tool::{Context, File, Output, ToolError, WorkspacePath};

use crate::lines::{LineRange, Selection};
use crate::text::MAX_BYTES;

/// How far into a file its lines are counted, in bytes. More would take longer than a call may.
const MAX_SCAN: u64 = 1 << 30;

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The file, relative to the workspace.
    path: String,
    /// The first line to read, counted from 1.
    #[serde(default)]
    #[schemars(range(min = 1))]
    start_line: Option<u64>,
    /// The last line to read, counted from 1, itself included.
    #[serde(default)]
    #[schemars(range(min = 1))]
    end_line: Option<u64>,
}

fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
    let range = LineRange::new(input.start_line, input.end_line).map_err(ToolError::InvalidInput)?;
    let workspace = ctx.workspace()?;
    let path = workspace.path(&input.path)?;
    let file = workspace.open_file(&path)?;
    match range {
        None => {
            let bytes = file.read_up_to(MAX_BYTES)?;
            let is_all = (bytes.len() as u64) < MAX_BYTES;
            Ok(text::render(&bytes, is_all, 1, file.size))
        }
        Some(range) => read_lines(&file, &path, range, ctx),
    }
}

/// Reads piece by piece, and keeps only the lines that were asked for.
fn read_lines(file: &File, path: &WorkspacePath, range: LineRange, ctx: &Context) -> Result<Output, ToolError> {
    let mut selection = Selection::new(range, MAX_BYTES as usize);
    let mut offset = 0;
    while !selection.is_complete() {
        if offset >= MAX_SCAN {
            return Err(ToolError::TooLarge(format!(
                "Line {} of {path} was not reached within the first {MAX_SCAN} bytes; the file has {} bytes.",
                range.first, file.size
            )));
        }
        // Once every 16 MiB.
        if offset % (1 << 24) == 0 && ctx.is_cancelled() {
            return Err(ToolError::Cancelled("The call was cancelled.".into()));
        }
        let piece = file.read(offset)?;
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        selection.push(&piece);
    }
    if let Some(lines) = selection.ended_before_first() {
        return Err(ToolError::InvalidInput(format!(
            "{path} has {lines} lines; start_line {} is behind its end.",
            range.first
        )));
    }
    Ok(text::render(
        selection.bytes(),
        !selection.is_full(),
        range.first,
        file.size,
    ))
}

plue_tool::tool! {
    name: "read_file",
    description: "Reads a text file of the workspace, whole or from start_line to end_line. A text longer than 100,000 \
        characters is cut, with a note that gives the file's size: read it in parts by their lines.",
    effects: [reads],
    idempotent: true,
    run: run,
}
