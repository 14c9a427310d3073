//! The commands of the binary. Without one it runs the task of its environment, as in a pod.

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::api_client::Renewal;
use crate::config::{self, Config, ConfigError, Mode};
use crate::events::TaskErrorCode;
use crate::failure::Failure;
use crate::health::Health;
use crate::run::{self, Exit, Process, Signals};
use crate::standby;
use crate::telemetry::{self, Telemetry};
use plue_contract::secret::Secret;
use plue_redaction::{self, Redactor};

mod check;
mod doctor;
mod drain;
mod escape_test;
mod health;
mod output;
mod plugin;

/// The task waits for the network and for its tools; two threads let both go on.
const WORKER_THREADS: usize = 2;

/// Runs one Claude agent or one workflow, with tools as sandboxed WebAssembly components.
///
/// Without a command it runs the task that its environment names (TASK_ID, CALLBACK_URL, TASK_CONFIG, …) and streams
/// events to the callback URL. docs/reference/environment.md lists all variables.
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
    /// Tries everything that the runner needs where it stands: each layer of the sandbox, the tools, the network.
    ///
    /// Exits with 1 when something is missing that a task needs.
    Doctor(doctor::DoctorOptions),
    /// Attacks the sandbox from inside, and says whether it held.
    ///
    /// Runs the harness `plue-escape` that lies beside this binary, with the attacks that make sense in a live pod.
    /// Exits with 1 when something got through, and with 2 when it could not be run.
    EscapeTest(escape_test::EscapeTestOptions),
    /// Has the runner that stands here finish its task and take no other, and waits until it has ended.
    ///
    /// The hook `preStop` of a pod: a rolling update and a smaller pool lose no task. Exits with 0 when the runner has
    /// ended, and with 1 when there is none, it hangs, or it has not ended in time.
    Drain(drain::DrainOptions),
    /// Says whether the runner that stands here lives, for a probe of Kubernetes or Docker.
    ///
    /// Reads what the runner writes into SPOOL_DIR every few seconds. Exits with 0 when it lives, and with 1 when it
    /// does not, or hangs.
    Health(health::HealthOptions),
    /// What a standby runner runs one task in.
    #[command(hide = true, name = standby::WORKER)]
    Worker,
    /// What `doctor` runs in the sandbox.
    #[command(hide = true, name = crate::doctor::INSIDE)]
    Inside {
        /// What it is to find there, as JSON.
        expected: String,
    },
    /// Lists or compiles plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Exit {
    match cli.command {
        None => in_runtime(start),
        Some(Command::Check { file }) => check::run(&file, &environment),
        Some(Command::Doctor(options)) => doctor::run(&options, &environment),
        Some(Command::EscapeTest(options)) => escape_test::run(&options),
        Some(Command::Drain(options)) => drain::run(&options, &environment),
        Some(Command::Health(options)) => health::run(&options, &environment),
        Some(Command::Worker) => in_runtime(start_worker),
        Some(Command::Inside { expected }) => doctor::inside(&expected),
        Some(Command::Plugin(command)) => plugin::run(command, &environment),
    }
}

/// One variable of the process's environment; one that is no UTF-8 counts as malformed text, not as absent.
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// What this process must not tell.
fn secrets() -> Vec<String> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let variables: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let mut secrets = plue_redaction::secrets(variables.iter().map(|(name, value)| (&**name, &**value)));
    secrets.extend(config::header_secrets(&environment));
    secrets.extend(config::environment_proxy_secrets(&environment));
    secrets
}

/// Reads the configuration, and has what is secret in it masked before anybody says a word of it.
fn read_config(redactor: &'static Redactor) -> Result<Config, ConfigError> {
    let read = Config::read(&environment);
    let secrets = match &read {
        Ok(config) => &config.secrets,
        Err(error) => &error.secrets,
    };
    redactor.learn(secrets.iter().map(Secret::expose));
    let mut config = read?;
    let renewal = Renewal::new(move || match read_config(redactor) {
        Ok(config) => config.api.token,
        Err(error) => {
            let error = error.to_string();
            tracing::warn!(error, "CALLBACK_TOKEN_FILE cannot be read again");
            None
        }
    });
    config.set_renewal(&renewal);
    Ok(config)
}

/// Runs what talks to the API server, or for it: with a log, and whatever happens.
fn in_runtime<F: Future<Output = Exit>>(work: fn(Process) -> F) -> Exit {
    // Before anything can be said.
    let redactor: &'static Redactor = Box::leak(Box::new(Redactor::new(secrets())));
    telemetry::init(config::log_filter(&environment), redactor);
    let telemetry = Telemetry::new(config::traceparent(&environment));
    // Tokio panics where it cannot have what it starts with (a file descriptor, for one). The panic hook has logged it
    // as the critical line that it is; what runs a task catches its panics itself.
    let working = AssertUnwindSafe(|| block_on(work, redactor, telemetry));
    let exit = panic::catch_unwind(working).unwrap_or(Exit::Invalid);
    telemetry::flush();
    exit
}

fn block_on<F: Future<Output = Exit>>(
    work: fn(Process) -> F,
    redactor: &'static Redactor,
    telemetry: Telemetry,
) -> Exit {
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
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(critical = true, error = %error, "signals cannot be received");
                return Exit::Invalid;
            }
        };
        let process = Process {
            signals,
            redactor,
            telemetry,
            read_config,
        };
        work(process).await
    });
    // A thread that was given up (a tool that hangs in the kernel, a read of standard input) must not hold the exit.
    runtime.shutdown_background();
    exit
}

/// What the environment says: one task, or one after the other.
async fn start(process: Process) -> Exit {
    let config = match read_config(process.redactor) {
        Ok(config) => Arc::new(config),
        Err(error) => return refuse(error, &process).await,
    };
    let health = Health::start(&config.spool.folder);
    match &config.mode {
        Mode::Active { identity, task } => {
            health.working(&identity.task_id);
            telemetry::set_identity(Some(identity.task_id.to_value()), identity.api.request_id.clone());
            let process = process.exporting(&config);
            let exit = run::active(Arc::clone(&config), identity, task, &process).await;
            process.end_export().await;
            exit
        }
        Mode::Standby(standby) => {
            telemetry::set_identity(None, config.api.request_id.clone());
            let forbidden = environment("HOME").map(PathBuf::from);
            let process = process.exporting(&config);
            let exit = standby::run(Arc::clone(&config), standby, forbidden, &health, process.clone()).await;
            process.end_export().await;
            exit
        }
    }
}

async fn start_worker(process: Process) -> Exit {
    match read_config(process.redactor) {
        Ok(config) => {
            let process = process.exporting(&config);
            let exit = standby::work(&config, &process).await;
            process.end_export().await;
            exit
        }
        Err(error) => {
            // Its supervisor has read the same.
            tracing::error!(error = %error, "a worker is started by a standby runner, and by nobody else");
            Exit::Invalid
        }
    }
}

/// Says once what is wrong with the configuration: to the callback, when it is known, and with the refusal's own log
/// line; else in a log line of its own.
async fn refuse(error: ConfigError, process: &Process) -> Exit {
    let message = error.to_string();
    let sandbox = error.sandbox;
    let Some(identity) = error.identity else {
        tracing::error!(error = message, "the configuration is invalid");
        return Exit::Invalid;
    };
    telemetry::set_identity(Some(identity.task_id.to_value()), identity.api.request_id.clone());
    let failure = Failure {
        code: TaskErrorCode::Internal,
        message,
    };
    run::report_refusal(&identity, failure, sandbox, process).await
}
