//! The tool `count_words`: how many lines, words and bytes a text has.

use plue_tool::{Context, Output, ToolError};

/// A larger file is refused, in bytes.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

// The schema that the model reads is made of this: names, types, defaults, and the comments as descriptions.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The file, relative to the workspace.
    path: String,
    /// Count each word only once.
    #[serde(default)]
    unique: bool,
}

fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
    let workspace = ctx.workspace()?;
    let file = workspace.open_file(&workspace.path(&input.path)?)?;
    if file.size > MAX_SIZE {
        return Err(ToolError::TooLarge(format!(
            "The file has {} bytes; {MAX_SIZE} is the most.",
            file.size
        )));
    }
    let bytes = file.read_up_to(MAX_SIZE)?;
    let text = String::from_utf8_lossy(&bytes);
    let words = if input.unique {
        text.split_whitespace().collect::<std::collections::BTreeSet<_>>().len()
    } else {
        text.split_whitespace().count()
    };
    Ok(format!("{} lines, {words} words, {} bytes", text.lines().count(), bytes.len()).into())
}

plue_tool::tool! {
    name: "count_words",
    description: "Counts the lines, words and bytes of a text file.",
    effects: [reads],
    idempotent: true,
    run: run,
}
