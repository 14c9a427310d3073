//! `plue-runner plugin …`: for tool authors and for whoever builds an image.

use std::path::PathBuf;

use clap::Subcommand;

use super::output::print;
use crate::run::{Exit, plugin_dir};

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Loads every plugin of a folder and says what it is. Exits with 2 when one does not load.
    List {
        /// The folder; by default PLUGIN_DIR, or `plugins/` beside the binary.
        #[arg(long)]
        plugin_dir: Option<PathBuf>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compiles every plugin of a folder ahead of time, so that the runner starts at once.
    Compile {
        /// The folder.
        folder: PathBuf,
    },
}

pub(super) fn run(command: PluginCommand, lookup: &dyn Fn(&str) -> Option<String>) -> Exit {
    let result = match command {
        PluginCommand::List {
            plugin_dir: folder,
            json,
        } => list(folder.or_else(|| lookup("PLUGIN_DIR").map(PathBuf::from)), json),
        PluginCommand::Compile { folder } => plue_tool_host::compile_plugins(&folder)
            .map(|files| files.iter().map(|file| format!("{}\n", file.display())).collect()),
    };
    match result {
        Ok(text) => print(&text, Exit::Success),
        Err(error) => print(&format!("{error}\n"), Exit::Invalid),
    }
}

fn list(folder: Option<PathBuf>, json: bool) -> Result<String, plue_tool_host::LoadError> {
    let plugins = plue_tool_host::list_plugins(&plugin_dir(folder.as_deref()))?;
    if json {
        return Ok(serde_json::to_string_pretty(&plugins).unwrap_or_default() + "\n");
    }
    let width = plugins.iter().map(|plugin| plugin.name.len()).max().unwrap_or_default();
    Ok(plugins
        .iter()
        .map(|plugin| {
            let process = if plugin.process { ", runs commands" } else { "" };
            format!("{:width$}  workspace: {}{process}\n", plugin.name, plugin.workspace)
        })
        .collect())
}
