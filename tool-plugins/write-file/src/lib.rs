//! The tool `write_file`: gives a file new content, or adds to its end.

use plue_tool::{Context, Output, ToolError, quote};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The file, relative to the workspace. It and its folders are created when they do not exist.
    path: String,
    /// What to write.
    content: String,
    /// Add to the end of the file instead of replacing its content.
    #[serde(default)]
    append: bool,
}

fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
    let workspace = ctx.workspace()?;
    let path = workspace.path(&input.path)?;
    let content = input.content.as_bytes();
    let write = || {
        if input.append {
            workspace.append_file(&path, content)
        } else {
            workspace.replace_file(&path, content)
        }
    };
    match write() {
        // Most files are written to folders that exist; only then is it worth a look.
        Err(ToolError::NotFound(_)) => workspace.write_with_parents(&path, write)?,
        done => done?,
    }
    Ok(format!("Successfully wrote {} bytes to {}", content.len(), quote(&input.path)).into())
}

plue_tool::tool! {
    name: "write_file",
    description: "Writes a file of the workspace. The content replaces the file at once, or is added to its end with \
        append. Folders on the way are created; an existing file keeps its permissions.",
    effects: [writes],
    idempotent: false,
    run: run,
}
