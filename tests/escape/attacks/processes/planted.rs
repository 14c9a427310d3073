//! Files in the workspace that wait to be run, or to be believed.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::attack::{Attack, Baseline, Class, Surface};
use crate::scene::Scene;

const fn script(id: &'static str, what: &'static str, script: fn(&Scene) -> String) -> Attack {
    Attack::script(id, Class::Processes, what, script)
}

/// Programs with everyday names, which only somebody with `.` on their PATH runs.
fn programs(scene: &Scene) -> Result<()> {
    for name in ["ls", "cat", "sh", "bash", "git", "env", "id", "grep"] {
        scene.file(name, "#!/bin/sh\necho planted-and-run\n")?;
        std::fs::set_permissions(scene.workspace.join(name), std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Files that shells and programs read when they start, in folders where somebody may look.
fn start_files(scene: &Scene) -> Result<()> {
    for name in [
        ".profile",
        ".bashrc",
        ".bash_profile",
        ".shrc",
        ".env",
        "env.sh",
        ".kshrc",
    ] {
        scene.file(name, "export PLANTED=planted-and-run\necho planted-and-run\n")?;
    }
    Ok(())
}

fn says(scene: &Scene, script: &str) -> Result<()> {
    let (said, _) = scene.outside(script, Duration::from_secs(10))?;
    ensure!(
        said.contains("planted-and-run"),
        "nothing that is planted is run: {said}"
    );
    Ok(())
}

/// Says whether what is planted came into the output of the commands before.
const JUDGE: &str =
    "case \"$seen\" in *planted-and-run*) through 'what was planted was run' ;; esac; held 'nothing planted was run'";

pub const ATTACKS: &[Attack] = &[
    script("processes/planted-programs", "programs with everyday names in the workspace", |_| {
        format!("seen=$(ls; id; env; sh -c true; command -v cat); {JUDGE}")
    })
    .setup(programs)
    .baseline(Baseline::Bounded(|scene| says(scene, "PATH=.:$PATH; ls"))),
    script("processes/planted-start-files", "files in the workspace that a shell reads when it starts", |_| {
        format!("seen=$(sh -c 'echo $PLANTED'; sh -l -c 'echo $PLANTED'; echo $PLANTED$ENV$BASH_ENV); {JUDGE}")
    })
    .setup(start_files)
    .baseline(Baseline::Bounded(|scene| says(scene, "HOME=$PWD sh -l -c 'echo $PLANTED'"))),
    script("processes/planted-home", "a home folder that the last task has prepared", |_| {
        "case \"$HOME\" in \"$PWD\"*) through \"HOME is $HOME\" ;; esac; \
         if ls -A \"$HOME\" | grep -q .; then through 'something lies in HOME'; fi; held 'HOME is empty'"
            .to_owned()
    })
    .setup(start_files)
    .baseline(Baseline::Bounded(|scene| says(scene, "HOME=$PWD; cat $HOME/.profile"))),
    script("processes/loader-variables", "variables that make the loader or the shell run other code", |_| {
        "for name in LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT BASH_ENV ENV PYTHONPATH PERL5LIB NODE_OPTIONS GIT_SSH_COMMAND \
         GIT_CONFIG_GLOBAL GIT_EXEC_PATH IFS_ PROMPT_COMMAND; do eval \"value=\\${$name:-}\"; \
         if [ -n \"$value\" ]; then through \"$name is set\"; fi; done; held 'none of them is set'"
            .to_owned()
    })
    .env(&[
        ("LD_LIBRARY_PATH", "/plue-escape-planted"),
        ("BASH_ENV", "/plue-escape-planted"),
        ("ENV", "/plue-escape-planted"),
        ("GIT_SSH_COMMAND", "/plue-escape-planted"),
        ("PYTHONPATH", "/plue-escape-planted"),
    ])
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("LD_LIBRARY_PATH=planted-and-run sh -c 'echo $LD_LIBRARY_PATH'", Duration::from_secs(10))?;
        ensure!(said.contains("planted-and-run"), "a variable is not inherited");
        Ok(())
    }))
    .falls_without(&[plue_runner::mutation::Protection::Environment]),
    script("processes/planted-configuration", "settings for the runner in the workspace, which would widen a grant", |target| {
        format!(
            "seen=$(env; if [ -e {}/planted ]; then echo planted-and-run; fi); {JUDGE}",
            target.workspace.display()
        )
    })
    .setup(|scene| {
        scene.file(".env", "SANDBOX=weak\nCOMMAND_NETWORK=pod\nPLANTED=planted-and-run\n")?;
        scene.file("plugins/evil/plugin.toml", "name = \"evil\"\ncomponent = \"evil.wasm\"\nprocess = true\n")?;
        scene.file("plugin.toml", "name = \"shell\"\nworkspace = \"read-write\"\n")?;
        scene.file("task.yaml", "type: workflow\nsteps:\n  - run: touch planted\n")
    })
    .baseline(Baseline::Bounded(|scene| says(scene, ". ./.env; echo $PLANTED"))),
    Attack::call("processes/begins-with-a-dash", "a command line that begins with `-`", |_, _| {
        json!({ "command": "-c 'echo planted-and-run'" })
    })
    .on(&[Surface::Shell])
    .of_class(Class::Processes)
    .baseline(Baseline::Bounded(|scene| says(scene, "set -- -c 'echo planted-and-run'; sh \"$@\""))),
];
