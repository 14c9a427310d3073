//! What the author of a Plue Runner tool needs: an input struct, one function, and [`tool!`].
//!
//! ```
//! use plue_tool::{Context, Output, ToolError};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Input {
//!     /// The file, relative to the workspace.
//!     path: String,
//! }
//!
//! fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
//!     let workspace = ctx.workspace()?;
//!     let file = workspace.open_file(&workspace.path(&input.path)?)?;
//!     Ok(format!("{} bytes", file.size).into())
//! }
//!
//! plue_tool::tool! {
//!     name: "file_size",
//!     description: "Says how large a file is.",
//!     effects: [reads],
//!     idempotent: true,
//!     run: run,
//! }
//! # fn main() {}
//! ```
//!
//! The doc comments of the fields become the descriptions that the model reads. Build with
//! `cargo build --release --target wasm32-wasip2` or `cargo component build`, as a `cdylib`, and put a `plugin.toml`
//! beside the component. What a tool can reach is the manifest's business: what is not granted there cannot be linked.

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod call;
mod context;
mod error;
mod file;
mod folder;
mod output;
mod path;
pub mod process;
mod quote;
mod schema;
mod walk;
mod workspace;

pub use bindings::plue::tool::progress::Level;
pub use bindings::plue::tool::types::{Output, ToolError, Truncation, Unit};
pub use context::Context;
pub use file::{File, READ_SIZE};
pub use folder::{Entries, Folder};
pub use path::{WorkspacePath, whole_workspace};
pub use quote::quote;
pub use walk::{Item, Walk, WalkProblems};
/// Why the host refused a file operation.
pub use wasip2::filesystem::types::ErrorCode;
pub use workspace::{FileKind, Stat, Workspace};

/// Makes a component of a function. Once in a crate.
///
/// `effects` lists what a call may do: `reads`, `writes`, `executes`. `run` is a
/// `fn(Input, &Context) -> Result<Output, ToolError>`, where `Input` is `Deserialize` and `JsonSchema`. A panic in it
/// ends the call as a trap; the message goes to the runner's log.
#[macro_export]
macro_rules! tool {
    (
        name: $name:expr,
        description: $description:expr,
        effects: [$($effect:ident),* $(,)?],
        idempotent: $idempotent:expr,
        run: $run:expr $(,)?
    ) => {
        #[doc(hidden)]
        struct PlueTool;

        impl $crate::bindings::exports::plue::tool::plugin::Guest for PlueTool {
            fn describe() -> $crate::bindings::plue::tool::types::Definition {
                $crate::call::definition(
                    $name,
                    $description,
                    $crate::call::effect::none() $(| $crate::call::effect::$effect())*,
                    $idempotent,
                    $run,
                )
            }

            fn call(input: String) -> Result<$crate::Output, $crate::ToolError> {
                $crate::call::call(&input, $run)
            }
        }

        // Only a component exports; the tests of a tool are an ordinary program, where these symbols mean nothing.
        #[cfg(target_family = "wasm")]
        $crate::bindings::export!(PlueTool with_types_in $crate::bindings);
        #[cfg(not(target_family = "wasm"))]
        const _: $crate::call::Unexported = (
            <PlueTool as $crate::bindings::exports::plue::tool::plugin::Guest>::describe,
            <PlueTool as $crate::bindings::exports::plue::tool::plugin::Guest>::call,
        );
    };
}
