//! The five tools as the model meets them: the real components, in the real tool host, on a workspace on disk.
//!
//! The components come from `PLUE_PLUGINS_DIR`, or else from `dist/plugins` in the target folder, where `cargo xtask`
//! puts them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;
mod fixture;
mod grep;
mod list_files;
mod paths;
mod read_file;
mod sandbox_double;
mod shell;
mod write_file;
