//! What [`tool!`](crate::tool) expands to: from the wire to the author's function and back.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::bindings::plue::tool::types::{Definition, Effects};
use crate::{Context, Output, ToolError, schema};

/// The author's function.
pub type Run<Input> = fn(Input, &Context) -> Result<Output, ToolError>;

/// What a component exports. Elsewhere it is only mentioned, so that the compiler does not take it for unused.
#[cfg(not(target_family = "wasm"))]
pub type Unexported = (fn() -> Definition, fn(String) -> Result<Output, ToolError>);

/// The names that the macro's `effects` list knows.
pub mod effect {
    use super::Effects;

    /// Nothing beyond computing.
    pub fn none() -> Effects {
        Effects::empty()
    }
    /// Reads files of the workspace.
    pub fn reads() -> Effects {
        Effects::READS
    }
    /// Creates, changes or removes files of the workspace.
    pub fn writes() -> Effects {
        Effects::WRITES
    }
    /// Runs commands.
    pub fn executes() -> Effects {
        Effects::EXECUTES
    }
}

/// How the tool presents itself; the schema is that of the function's input.
pub fn definition<Input: JsonSchema>(
    name: &str,
    description: &str,
    effects: Effects,
    idempotent: bool,
    _run: Run<Input>,
) -> Definition {
    Definition {
        name: name.to_owned(),
        description: description.to_owned(),
        input_schema: schema::of::<Input>().to_string(),
        effects,
        idempotent,
    }
}

/// Decodes the input and runs the author's function. The host has validated the input against the schema; what the
/// schema cannot say and serde can is refused here.
pub fn call<Input: DeserializeOwned>(input: &str, run: Run<Input>) -> Result<Output, ToolError> {
    let input = serde_json::from_str(input)
        .map_err(|error| ToolError::InvalidInput(format!("The input cannot be used: {error}")))?;
    run(input, &Context::new())
}
