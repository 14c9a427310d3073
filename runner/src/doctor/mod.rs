//! `plue-runner doctor`: tries what the runner needs where it stands, and says what is missing and how to mend it.
//!
//! Nothing is concluded from a version or a setting: the sandbox is made as for a task, and a command in it tries what
//! no command may do.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::DoctorConfig;
use crate::run::runners_own;
use plue_sandbox::strict::{Finding, Layer, MissingLayer, StrictSandbox};
use plue_sandbox::{CommandEvent, CommandSpec, Sandbox, Stream};

mod probes;

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The hidden command that tries the layers from inside.
pub const INSIDE: &str = "try-sandbox";

/// What came of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is as it has to be.
    Ok,
    /// It is missing, and nothing runs without it.
    Missing,
    /// It is missing, and the runner does without, slower or with less.
    Without,
    /// It could not be tried, for the reason that is seen.
    NotTried,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub state: State,
    /// What was tried, and what came of it.
    pub seen: String,
    /// What it is for.
    pub meaning: String,
    /// What to do, when it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Whether it is a layer of the sandbox, and not something around it.
    pub is_layer: bool,
}

impl Check {
    fn new(name: &str, state: State, seen: impl Into<String>, meaning: &str, remedy: &str) -> Self {
        let mend = matches!(state, State::Missing | State::Without);
        Self {
            name: name.into(),
            state,
            seen: seen.into(),
            meaning: meaning.into(),
            remedy: mend.then(|| remedy.into()),
            is_layer: false,
        }
    }

    fn layer(layer: Layer, state: State, seen: impl Into<String>) -> Self {
        Self {
            is_layer: true,
            ..Self::new(layer.name(), state, seen, layer.meaning(), layer.remedy())
        }
    }
}

/// Tries everything.
pub async fn examine(config: &DoctorConfig) -> Vec<Check> {
    let own = runners_own(config.plugin_dir.as_deref(), &config.secret_folders);
    let started = StrictSandbox::start(&config.workspace, &own, &config.commands).await;
    let (mut checks, sandbox) = match started {
        Ok(sandbox) => {
            let sandbox = Arc::new(sandbox);
            (layers(from_inside(&sandbox).await), Some(sandbox))
        }
        Err(missing) => (up_to(&missing), None),
    };
    if let Some(sandbox) = &sandbox {
        checks.extend(probes::others(sandbox));
    }
    checks.push(probes::openat2());
    checks.extend(probes::tools(config, sandbox.clone()).await);
    checks.extend(probes::reachable(config).await);
    checks.extend(probes::routes(config));
    checks.push(probes::pod_name(&config.pod_name));
    if let Some(sandbox) = sandbox {
        sandbox.shut_down().await;
    }
    checks
}

/// The layers before the one that is missing were made; those after it were not tried.
fn up_to(missing: &MissingLayer) -> Vec<Check> {
    // The workspace is looked at before anything is made.
    let mut state = if missing.layer == Layer::Workspace {
        State::NotTried
    } else {
        State::Ok
    };
    let lines = Layer::ALL.iter().map(|&layer| {
        if layer == missing.layer {
            state = State::NotTried;
            let mut check = Check::layer(layer, State::Missing, format!("{}: {}", missing.doing, missing.problem));
            if missing.remedy.is_some() {
                check.remedy.clone_from(&missing.remedy);
            }
            return check;
        }
        let seen = if state == State::Ok {
            "made"
        } else {
            "not tried, since another layer is missing"
        };
        Check::layer(layer, state, seen)
    });
    lines.collect()
}

/// All layers were made; this is what a command saw of them.
fn layers(inside: Result<Vec<Finding>, String>) -> Vec<Check> {
    let findings = match inside {
        Ok(findings) => findings,
        Err(problem) => {
            return vec![Check::layer(
                Layer::Init,
                State::Missing,
                format!("trying it from inside: {problem}"),
            )];
        }
    };
    let lines = Layer::ALL
        .iter()
        .map(|&layer| match findings.iter().find(|finding| finding.layer == layer) {
            Some(finding) if finding.holds => Check::layer(layer, State::Ok, finding.seen.clone()),
            Some(finding) => Check::layer(layer, State::Missing, finding.seen.clone()),
            None => Check::layer(layer, State::Ok, "made"),
        });
    lines.collect()
}

/// Runs ourselves as a command in the sandbox.
async fn from_inside(sandbox: &StrictSandbox) -> Result<Vec<Finding>, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let expected = serde_json::to_string(&sandbox.expected(port)).map_err(|error| error.to_string())?;
    let spec = CommandSpec {
        // Wherever the binary is, and whether or not commands see that place.
        argv: vec!["/proc/self/exe".into(), INSIDE.into(), expected],
        working_directory: PathBuf::from("."),
        env: Default::default(),
        timeout: PATIENCE,
    };
    let started = sandbox.start(spec, CancellationToken::new()).await;
    let mut command = started.map_err(|error| error.to_string())?;
    let mut output = Vec::new();
    while let Some(event) = command.events.recv().await {
        match event {
            CommandEvent::Output(Stream::Stdout, bytes) => output.extend_from_slice(&bytes),
            CommandEvent::Output(Stream::Stderr, _) | CommandEvent::Note(_) => {}
            CommandEvent::Exited(status) if status.code != 0 => return Err(format!("exit code {}", status.code)),
            CommandEvent::Exited(_) => break,
        }
    }
    serde_json::from_slice(&output).map_err(|error| error.to_string())
}
