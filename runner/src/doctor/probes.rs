//! What is around the sandbox: the kernel's help for file tools, the tools themselves, and who has to be reached.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use url::Url;

use super::{Check, State};
use crate::config::{DoctorConfig, PodName, variables};
use crate::run::plugin_dir;
use plue_contract::http;
use plue_contract::transport::{Direct, Route, Transport};
use plue_sandbox::Sandbox;
use plue_sandbox::strict::StrictSandbox;
use plue_sandbox::weak::WeakSandbox;
use plue_tool_host::{Allocation, Host, HostConfig};

/// Whether the kernel resolves paths below a folder by itself.
pub(super) fn openat2() -> Check {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let opened = rustix::fs::openat2(rustix::fs::CWD, ".", OFlags::PATH, Mode::empty(), ResolveFlags::BENEATH);
    let (state, seen) = match opened {
        Ok(_) => (State::Ok, "openat2(RESOLVE_BENEATH) opens a folder".to_owned()),
        Err(error) => (State::Without, format!("openat2: {error}")),
    };
    Check::new(
        "openat2",
        state,
        seen,
        "the kernel keeps the paths of file tools in the workspace; without it the runner does, one part at a time",
        "a newer kernel, or a newer gVisor; nothing is unsafe without",
    )
}

/// What of others on this machine commands do not reach, and what they do.
pub(super) fn others(sandbox: &StrictSandbox) -> Vec<Check> {
    let found = sandbox.covered();
    let private: Vec<String> = found.private.iter().map(|path| path.display().to_string()).collect();
    let sockets = match found.sockets {
        0 => "no socket of a service is in sight".to_owned(),
        1 => "1 socket of a service".to_owned(),
        count => format!("{count} sockets of services"),
    };
    let groups: Vec<String> = found.groups.iter().map(u32::to_string).collect();
    let state = if groups.is_empty() { State::Ok } else { State::Without };
    vec![
        Check::new(
            "what is covered",
            State::Ok,
            format!("{sockets}; {}", private.join(", ")),
            "commands reach no home, and no service of this machine",
            "",
        ),
        Check::new(
            "groups",
            state,
            match groups.is_empty() {
                true => "commands have no group but their own".to_owned(),
                false => format!("commands keep the groups {}", groups.join(", ")),
            },
            "commands open nothing of the image by a group of the runner's user",
            "only root can give groups up: start the runner as a user without groups that open anything (docker, lxd, \
                adm)",
        ),
    ]
}

/// The plugins, their folder, and the memory of their calls.
pub(super) async fn tools(config: &DoctorConfig, sandbox: Option<Arc<StrictSandbox>>) -> Vec<Check> {
    let folder = plugin_dir(config.plugin_dir.as_deref());
    let mut checks = vec![ownership(&folder)];
    let sandbox: Arc<dyn Sandbox> = match sandbox {
        Some(sandbox) => sandbox,
        // Nothing is run in it: plugins are loaded, and that is all.
        None => match WeakSandbox::new(&config.workspace, &config.commands) {
            Ok(sandbox) => Arc::new(sandbox),
            Err(_) => return checks,
        },
    };
    let config = HostConfig {
        plugin_dir: folder.clone(),
        workspace: config.workspace.clone(),
        sandbox,
    };
    let loaded = tokio::task::spawn_blocking(move || Host::load(config)).await;
    let plugins = |state, seen: String| {
        let meaning = "agents have tools";
        Check::new(
            "plugins",
            state,
            seen,
            meaning,
            "see `plue-runner plugin list`; PLUGIN_DIR names the folder",
        )
    };
    match loaded {
        Ok(Ok(host)) => {
            checks.push(plugins(State::Ok, format!("loaded: {}", host.names().join(", "))));
            let pooling = host.allocation() == Allocation::Pooling;
            checks.push(Check::new(
                "pooled tool memory",
                if pooling { State::Ok } else { State::Without },
                format!("allocation: {}", host.allocation().as_str()),
                "a tool's call starts in microseconds",
                "raise the limit on address space (`ulimit -v unlimited`)",
            ));
        }
        Ok(Err(error)) => checks.push(plugins(State::Missing, error.to_string())),
        Err(error) => checks.push(plugins(State::Missing, error.to_string())),
    }
    checks
}

fn ownership(folder: &Path) -> Check {
    let check = |state, seen: String| {
        let meaning = "nobody else can put code into the runner";
        let remedy = format!(
            "`chmod -R go-w {0}`, and let root or the runner's user own it",
            folder.display()
        );
        Check::new("plugin folder", state, seen, meaning, &remedy)
    };
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(error) => check(State::Missing, format!("{shown}: {error}")),
        Ok(found) => {
            let us = rustix::process::geteuid().as_raw();
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            let good = (owner == 0 || owner == us) && mode & 0o022 == 0;
            let state = if good { State::Ok } else { State::Missing };
            check(state, format!("{shown}: owner {owner}, mode {mode:o}"))
        }
    }
}

/// The name that a standby runner registers under.
pub(super) fn pod_name(name: &PodName) -> Check {
    let shown: String = name.name.chars().filter(|c| !c.is_control()).collect();
    Check::new(
        "pod name",
        State::Ok,
        format!("a standby runner registers as {shown} ({})", name.source),
        "the API server tells runners apart; no two may have one name",
        "",
    )
}

/// The callback and the Messages API, as far as the environment names them.
pub(super) async fn reachable(config: &DoctorConfig) -> Vec<Check> {
    let callback = async {
        match &config.callback_url {
            Some(url) => reach("callback", url, &config.transport).await,
            None => {
                let meaning = "events arrive";
                Check::new("callback", State::NotTried, "CALLBACK_URL is not set", meaning, "")
            }
        }
    };
    let (callback, model) = tokio::join!(callback, reach("model", &config.model_url, &config.transport));
    vec![callback, model]
}

/// Any answer of the origin will do, and none of ours is a request of a task: no path, no key.
async fn reach(name: &str, url: &Url, transport: &Transport) -> Check {
    let mut origin = url.clone();
    origin.set_path("/");
    origin.set_query(None);
    let _ = origin.set_username("");
    let _ = origin.set_password(None);
    let asked = async {
        let client = http::client_builder(&origin, transport)?
            .timeout(super::PATIENCE)
            .build()?;
        client.head(origin.clone()).send().await
    };
    let problem = "see that the name resolves and that the pod's NetworkPolicy lets the runner there";
    let (remedy, meaning) = match name {
        "callback" => (variables::CALLBACK_URL.wrong(problem), "events arrive"),
        _ => (
            variables::ANTHROPIC_BASE_URL.wrong(problem),
            "agents can ask a model; a workflow does without",
        ),
    };
    match asked.await {
        Ok(answer) => Check::new(
            name,
            State::Ok,
            format!("{origin} answers with {}", answer.status()),
            meaning,
            &remedy,
        ),
        Err(error) => {
            // A workflow runs without a model.
            let state = if name == "callback" {
                State::Missing
            } else {
                State::Without
            };
            Check::new(
                name,
                state,
                format!("{origin}: {}", http::describe(&error.without_url())),
                meaning,
                &remedy,
            )
        }
    }
}

/// By which way each of the three servers is reached, and whose certificates count besides the system's. Nothing of a
/// proxy's credentials.
pub(super) fn routes(config: &DoctorConfig) -> Vec<Check> {
    let callback = config.callback_url.as_ref().or(config.register_url.as_ref());
    let servers = [
        ("model route", Some(&config.model_url), "ANTHROPIC_BASE_URL"),
        ("callback route", callback, "CALLBACK_URL (or REGISTER_URL)"),
        (
            "collector route",
            config.collector_url.as_ref(),
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ];
    let meaning = "by a proxy only where the operator wants one";
    let checks = servers.into_iter().map(|(name, url, variable)| match url {
        Some(url) => Check::new(name, State::Ok, route(url, &config.transport), meaning, ""),
        None => Check::new(name, State::NotTried, format!("{variable} is not set"), meaning, ""),
    });
    let certificates = match config.transport.certificates.count() {
        0 => "the system's".to_owned(),
        count => format!("the system's, and {count} of EXTRA_CA_CERTS"),
    };
    let meaning = "servers and proxies are who they say";
    checks
        .chain([Check::new("certificates", State::Ok, certificates, meaning, "")])
        .collect()
}

fn route(url: &Url, transport: &Transport) -> String {
    let variable = match url.scheme() {
        "https" => "HTTPS_PROXY",
        _ => "HTTP_PROXY",
    };
    let server = url.origin().ascii_serialization();
    match transport.route(url) {
        Route::Proxy(proxy) => format!("{server} by the proxy {} ({})", proxy.place(), proxy.variable()),
        Route::Direct(Direct::NotAsked) => format!("{server} directly, since USE_PROXY is not 1"),
        Route::Direct(Direct::NoProxy) => format!("{server} directly, since {variable} is not set"),
        Route::Direct(Direct::Excepted(entry)) => format!("{server} directly, since NO_PROXY has {entry}"),
    }
}
