//! The commands of the binary. Without one it runs the task of its environment, as in a pod.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::events::TaskErrorCode;
use crate::failure::Failure;
use crate::run::{self, Exit, Stop};
use crate::telemetry;

mod check;
mod plugin;

/// The task waits for the network and for its tools; two threads let both go on.
const WORKER_THREADS: usize = 2;

/// Runs one Claude agent or one workflow, with tools as sandboxed WebAssembly components.
///
/// Without a command it runs the task that its environment names (TASK_ID, CALLBACK_URL, TASK_CONFIG, …) and streams
/// events to the callback URL. The README lists all variables.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a task document without running it: all problems at once, unknown keys included.
    Check {
        /// A JSON or YAML file.
        file: PathBuf,
    },
    /// Lists or compiles plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Exit {
    match cli.command {
        None => run_task(),
        Some(Command::Check { file }) => check::run(&file, &environment),
        Some(Command::Plugin(command)) => plugin::run(command, &environment),
    }
}

/// One variable of the process's environment; one that is no UTF-8 counts as malformed text, not as absent.
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn run_task() -> Exit {
    telemetry::init(config::log_level(&environment));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("plue")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(critical = true, error = %error, "the runtime cannot be started");
            return Exit::Invalid;
        }
    };
    let exit = runtime.block_on(async {
        // First of all: as PID 1 of a pod, a process that does not listen for a signal does not get it.
        let stop = match Stop::on_signals() {
            Ok(stop) => stop,
            Err(error) => {
                tracing::error!(critical = true, error = %error, "signals cannot be received");
                return Exit::Invalid;
            }
        };
        match Config::read(&environment) {
            Ok(config) => {
                let task_id = serde_json::to_value(&config.identity.task_id).ok();
                telemetry::set_identity(task_id, config.identity.request_id.clone());
                run::active(config, stop).await
            }
            Err(error) => {
                let message = error.to_string();
                tracing::error!(error = message, "the configuration is invalid");
                match &error.identity {
                    None => Exit::Invalid,
                    Some(identity) => {
                        let failure = Failure {
                            code: TaskErrorCode::Internal,
                            message,
                        };
                        run::report_refusal(identity, failure, stop).await
                    }
                }
            }
        }
    });
    // A thread that was given up (a tool that hangs in the kernel, a read of standard input) must not hold the exit.
    runtime.shutdown_background();
    exit
}
