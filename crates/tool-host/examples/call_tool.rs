//! Loads the components of a folder and calls one of them:
//! `cargo run --release -p plue-tool-host --example call_tool -- PLUGINS WORKSPACE TOOL INPUT`
//!
//! PLUGINS holds a folder for each tool, as `cargo xtask build` leaves them in `target/dist/plugins`. INPUT is JSON.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use plue_sandbox::strict::CommandRules;
use plue_sandbox::weak::WeakSandbox;
use plue_tool_host::{Host, HostConfig, Toolbox};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plugins, workspace, tool, input] = &arguments[..] else {
        return Err("name the folder of the plugins, a workspace, a tool, and its input as JSON".into());
    };
    let workspace = PathBuf::from(workspace);
    let host = Host::load(HostConfig {
        plugin_dir: PathBuf::from(plugins),
        // For tools that start commands. Who confines those starts a `StrictSandbox` here.
        sandbox: Arc::new(WeakSandbox::new(&workspace, &CommandRules::default())?),
        workspace,
    })?;
    let toolbox = host.toolbox(std::slice::from_ref(tool))?;
    let live = Arc::new(|piece: &str| print!("{piece}"));
    let outcome = toolbox.call(tool, input, live, CancellationToken::new()).await;
    match outcome.error {
        None => println!("{}", outcome.text),
        Some(code) => println!("{}: {}", code.as_str(), outcome.text),
    }
    Ok(())
}
