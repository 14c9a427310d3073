//! The same attack where nothing holds it: only what gets through here is an attack.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::attack::{Action, Attack, Baseline, Kind, Surface};
use crate::canary::Digest;
use crate::drive::{self, Harness};
use crate::judge::{self, cut};
use crate::scene::{Places, Scene};
use crate::secrets;
use crate::surface;
use crate::target::{self, Outcome};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The variable that a command has in its baseline, and in no sandbox.
pub const BASELINE: &str = "PLUE_ESCAPE_BASELINE";

/// What a baseline shows.
#[derive(Clone, Debug)]
pub enum Shown {
    /// The attack is real.
    Real,
    /// The machine refuses it to everybody.
    NotHere(String),
    Failed(String),
}

/// Tries the attack without a sandbox, in a scene of its own.
pub async fn try_out(harness: &Harness, attack: &Attack, surface: Surface) -> Shown {
    match outcome(harness, attack, surface).await {
        Ok(Outcome::GotThrough(_)) => Shown::Real,
        Ok(Outcome::Held { how, errno }) => match attack.baseline {
            Baseline::Unless(errnos, why) | Baseline::InNamespacesUnless(errnos, why)
                if errno.is_some_and(|errno| errnos.contains(&errno)) =>
            {
                Shown::NotHere(format!("{why} ({how})"))
            }
            _ => Shown::Failed(format!("it does not work outside of the sandbox: {how}")),
        },
        Ok(Outcome::Broken(why)) => Shown::Failed(why),
        Err(error) => Shown::Failed(format!("{error:#}")),
    }
}

async fn outcome(harness: &Harness, attack: &Attack, surface: Surface) -> Result<Outcome> {
    let scenes = harness.scenes_for(attack);
    let scene = scenes.take().await?;
    let outcome = outcome_in(&scene, harness, attack, surface).await;
    // Where nothing held it, more may be left than can be seen, and later than now. What was done to files can be seen.
    let is_seen = match attack.baseline {
        // A task or a model may go to the outside, where that is no harm.
        Baseline::Harmless(_) => surface.is_file_tool() || surface == Surface::Component,
        Baseline::Bounded(_) => matches!(attack.action, Action::Path(_) | Action::Call(_)),
        _ => surface.is_file_tool(),
    };
    if outcome.is_ok() && is_seen {
        scenes.give_back(scene).await;
    }
    outcome
}

async fn outcome_in(scene: &Scene, harness: &Harness, attack: &Attack, surface: Surface) -> Result<Outcome> {
    let places = &harness.scenes_for(attack).places;
    (attack.setup)(scene).context("set the attack up")?;
    if let Baseline::Bounded(bounded) = attack.baseline {
        bounded(scene)?;
        return Ok(Outcome::GotThrough("as far as it may go".to_owned()));
    }
    if let Baseline::Harmless(action) = attack.baseline {
        let harmless = Attack { action, ..*attack };
        let launch = surface::launch(harness, scene, &harmless, surface)?;
        let seen = drive::run(harness, scene, launch).await?;
        places.adopted.end_all(&scene.id).await;
        return Ok(judge::harmless(&seen));
    }
    let before = scene.digest()?;
    if surface.is_file_tool() || matches!(attack.action, Action::Call(_)) {
        let Action::Path(path) = attack.action else {
            bail!("an attack that is no path needs a baseline of its own");
        };
        let at = |kind| scene.workspace.join(path(scene, kind));
        return Ok(match surface {
            Surface::ReadFile => reads(&at(Kind::File), scene),
            Surface::WriteFile => writes(&at(Kind::File), scene, &before),
            _ => lists(&at(Kind::Folder)),
        });
    }
    if !surface.is_command() {
        bail!("a component, a task or a model needs a baseline of its own");
    }
    scene.write_target(scene.bystander.pid(), true)?;
    let output = command(places, scene, attack).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = target::outcomes(&text);
    if let Some(evidence) = said.iter().find(|outcome| matches!(outcome, Outcome::GotThrough(_))) {
        return Ok(evidence.clone());
    }
    let mut evidence = scene.listeners.reached();
    evidence.extend(scene.bystander.noticed());
    for (before, after) in before.iter().zip(&scene.digest()?) {
        evidence.extend(before.changes(after));
    }
    evidence.extend(secrets::secret_in(&output.stdout, &scene.secrets.prefix).map(str::to_owned));
    if !evidence.is_empty() {
        return Ok(Outcome::GotThrough(evidence.join("; ")));
    }
    let shown = || format!("{} {}", cut(&text), cut(&String::from_utf8_lossy(&output.stderr)));
    Ok(said
        .into_iter()
        .next()
        .unwrap_or_else(|| Outcome::Broken(format!("it said nothing: {}", shown()))))
}

/// Runs an attack's command as the runner would without any sandbox: in the workspace, with the runner's variables.
async fn command(places: &Places, scene: &Scene, attack: &Attack) -> Result<Output> {
    let own = matches!(
        attack.baseline,
        Baseline::InNamespaces | Baseline::InNamespacesUnless(..)
    );
    let script = surface::command(scene, attack)?;
    let mut command = if own {
        let mut command = Command::new(&places.program);
        command.args(["in-namespaces", "/bin/sh", "-c", &script]);
        command
    } else {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]);
        command
    };
    command
        .current_dir(&scene.workspace)
        .env("ANTHROPIC_API_KEY", &scene.secrets.api_key)
        .env("CALLBACK_TOKEN", &scene.secrets.callback_token)
        .env("OPERATOR_SECRET", &scene.secrets.operator)
        .env("OPERATOR_SETTING", &scene.secrets.plain)
        .env(BASELINE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let (child, pid) = places
        .adopted
        .start(|| command.spawn(), Child::id)
        .context("start /bin/sh")?;
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    places.adopted.forget(pid);
    // What an attack leaves behind is no finding here, and must not be one of the next.
    places.adopted.end_all(&scene.id).await;
    output.context("it does not end")?.context("wait for it")
}

fn reads(path: &Path, scene: &Scene) -> Outcome {
    match fs::read(path) {
        Ok(bytes) if secrets::secret_in(&bytes, &scene.secrets.prefix).is_some() => {
            Outcome::GotThrough("it was read".to_owned())
        }
        Ok(_) => Outcome::held("no canary was read"),
        Err(error) => Outcome::refused("read", &error),
    }
}

fn writes(path: &Path, scene: &Scene, before: &[Digest]) -> Outcome {
    if let Err(error) = fs::write(path, surface::OVERWRITTEN) {
        return Outcome::refused("write", &error);
    }
    match scene.digest() {
        Ok(after) if before != after => Outcome::GotThrough("it was written".to_owned()),
        Ok(_) => Outcome::held("no canary was changed"),
        Err(error) => Outcome::Broken(format!("{error:#}")),
    }
}

fn lists(path: &Path) -> Outcome {
    match fs::read_dir(path).map(Iterator::count) {
        Ok(0) => Outcome::held("the folder is empty"),
        Ok(_) => Outcome::GotThrough("it was listed".to_owned()),
        Err(error) => Outcome::refused("list", &error),
    }
}
