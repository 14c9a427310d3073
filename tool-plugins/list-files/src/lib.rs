//! The tool `list_files`: what is in a folder.

use plue_tool::{Context, FileKind, Output, ToolError, Unit, quote};

/// Longest result, in bytes. Names of 255 bytes and a large `max_results` must not fill the model's context.
const MAX_TEXT: usize = 256 * 1024;

/// How many entries are looked at between two questions whether the call was cancelled.
const CANCEL_INTERVAL: u64 = 1024;

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The folder, relative to the workspace.
    #[serde(default = "plue_tool::whole_workspace")]
    path: String,
    /// Also what is in its folders, and in theirs. Symbolic links are shown but not followed.
    #[serde(default)]
    recursive: bool,
    /// Also names that begin with a dot.
    #[serde(default)]
    include_hidden: bool,
    /// The most entries to list.
    #[serde(default = "max_results")]
    #[schemars(range(min = 1))]
    max_results: u64,
}

fn max_results() -> u64 {
    200
}

fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
    let workspace = ctx.workspace()?;
    let path = workspace.path(&input.path)?;
    let keep = |name: &str| input.include_hidden || !name.starts_with('.');
    let mut walk = workspace.walk(&path, keep)?;
    let mut text = String::new();
    let mut shown = 0;
    let mut cut = false;
    while let Some(item) = walk.next_item() {
        if shown == input.max_results || text.len() > MAX_TEXT {
            cut = true;
            break;
        }
        if shown % CANCEL_INTERVAL == CANCEL_INTERVAL - 1 && ctx.is_cancelled() {
            return Err(ToolError::Cancelled("The call was cancelled.".into()));
        }
        let is_folder = match item.kind {
            FileKind::Folder => true,
            // From the workspace, not from the link's folder: it may lead up.
            FileKind::Link => workspace
                .stat(&path.join(item.path))
                .is_ok_and(|stat| stat.kind == FileKind::Folder),
            FileKind::File | FileKind::Special => false,
        };
        push_entry(&mut text, item.path, is_folder);
        shown += 1;
        if !input.recursive {
            walk.skip_folder();
        }
    }
    // The one that was taken and not shown counts too.
    let total = (!input.recursive).then(|| shown + u64::from(cut) + walk.siblings_left() as u64);
    if cut {
        let of = total.map_or_else(|| "there are more".to_owned(), |total| format!("there are {total}"));
        text.push_str(&format!(
            "[The list was cut after {shown} entries; {of}. List a folder below, or raise max_results.]\n"
        ));
    }
    for note in walk.problems.notes() {
        text.push_str(&format!("[{note}]\n"));
    }
    if text.is_empty() {
        text.push_str(if input.include_hidden {
            "[No entries.]\n"
        } else {
            "[No entries that are not hidden.]\n"
        });
    }
    // One line for each entry, without a newline behind the last.
    text.pop();
    let output = Output::from(text);
    Ok(if cut {
        output.truncated(shown, total, Unit::Entries)
    } else {
        output
    })
}

fn push_entry(text: &mut String, path: &str, is_folder: bool) {
    if is_folder {
        text.push_str(&quote(&format!("{path}/")));
    } else {
        text.push_str(&quote(path));
    }
    text.push('\n');
}

plue_tool::tool! {
    name: "list_files",
    description: "Lists a folder of the workspace, sorted, one entry a line, relative to the folder; folders end in /. \
        Ignore files such as .gitignore are not applied. A name with unusual characters is shown as a JSON string.",
    effects: [reads],
    idempotent: true,
    run: run,
}
