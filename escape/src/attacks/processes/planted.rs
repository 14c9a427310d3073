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

/// A repository that runs a program when git looks at it.
fn repository(scene: &Scene) -> Result<()> {
    let run = format!("touch {}", scene.workspace.join("planted-and-run").display());
    scene.file(".git/HEAD", "ref: refs/heads/main\n")?;
    scene.file(
        ".git/config",
        format!(
            "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = \"{run}; :\"\n\thooksPath = .hooks\n\tsshCommand = \
                {run}\n\
             \tpager = {run}\n\teditor = {run}\n[diff]\n\texternal = {run}\n[credential]\n\thelper = \"!{run}\"\n"
        ),
    )?;
    for name in [
        "pre-commit",
        "post-checkout",
        "post-index-change",
        "reference-transaction",
    ] {
        scene.file(&format!(".hooks/{name}"), format!("#!/bin/sh\n{run}\n"))?;
        let path = scene.workspace.join(".hooks").join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    for folder in [".git/objects", ".git/refs/heads"] {
        std::fs::create_dir_all(scene.workspace.join(folder))?;
    }
    scene.file(".gitattributes", "* filter=planted diff=planted\n")
}

/// The next command finds no variable, and no trace of what is planted.
const NOT_RUN: &str = "ls > /dev/null; cat /dev/null; sh -c :; \
    if [ -n \"$PLANTED$ENV$BASH_ENV$LD_PRELOAD\" ]; then echo 'a variable of the last command is set'; \
    elif [ -e planted-and-run ]; then echo 'what was planted was run'; else echo still-here; fi";

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
    script("processes/loader-variables", "variables of the operator's that make the loader or the shell run other \
        code", |_| {
        "for name in LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT BASH_ENV ENV PYTHONPATH PERL5LIB NODE_OPTIONS GIT_SSH_COMMAND \
         GIT_CONFIG_GLOBAL GIT_EXEC_PATH GIT_CONFIG_COUNT PROMPT_COMMAND; do eval \"value=\\${$name:-}\"; \
         case \"$name=$value=$GIT_CONFIG_KEY_0\" in GIT_CONFIG_COUNT=1=safe.directory) continue ;; esac; \
         if [ -n \"$value\" ]; then through \"$name is set\"; fi; done; held 'none of them is set'"
            .to_owned()
    })
    .env(&[
        // What is there anyway: the runner itself starts with it.
        ("LD_PRELOAD", "libm.so.6"),
        ("LD_LIBRARY_PATH", "/plue-escape-planted"),
        ("BASH_ENV", "/plue-escape-planted"),
        ("ENV", "/plue-escape-planted"),
        ("GIT_SSH_COMMAND", "/plue-escape-planted"),
        ("PYTHONPATH", "/plue-escape-planted"),
        // The sandbox has one setting of its own.
        ("GIT_CONFIG_COUNT", "2"),
        ("GIT_CONFIG_KEY_0", "core.pager"),
        ("GIT_CONFIG_KEY_1", "core.fsmonitor"),
    ])
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("LD_LIBRARY_PATH=planted-and-run sh -c 'echo \
            $LD_LIBRARY_PATH'", Duration::from_secs(10))?;
        ensure!(said.contains("planted-and-run"), "a variable is not inherited");
        Ok(())
    }))
    .falls_without(&[plue_sandbox::mutation::Protection::Environment]),
    script(
        "processes/planted-by-an-earlier-command",
        "programs and start files that a command leaves wherever it may write, for the next one to run",
        |_| {
            "mkdir -p \"$HOME/bin\"; for folder in . \"$HOME\" \"$HOME/bin\" /tmp /var/tmp; do \
             for name in .profile .bashrc .bash_profile .shrc .env ls cat sh; do \
             printf '#!/bin/sh\\nexport PLANTED=1\\necho > planted-and-run\\n' > \"$folder/$name\"; \
             chmod 755 \"$folder/$name\"; done; done; \
             export PATH=.:$PATH ENV=$PWD/.env BASH_ENV=$PWD/.env LD_PRELOAD=libm.so.6 PLANTED=1; \
             held 'all was planted'"
                .to_owned()
        },
    )
    .then(NOT_RUN)
    .baseline(Baseline::Bounded(|scene| {
        scene.file("ls", "echo planted-and-run")?;
        scene.outside("chmod 755 ls", Duration::from_secs(10))?;
        says(scene, "export PATH=.:$PATH; sh -c ls")
    })),
    script(
        "processes/planted-repository",
        "a repository whose settings and hooks run a program, for whoever asks git about the workspace",
        |_| "held 'whether somebody asks git is seen by the next command'".to_owned(),
    )
    .setup(repository)
    .then(NOT_RUN)
    .not_live()
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("git status; git commit --allow-empty -m x", Duration::from_secs(10))?;
        ensure!(
            scene.workspace.join("planted-and-run").exists(),
            "git runs nothing of it: {said}"
        );
        Ok(())
    })),
    script("processes/planted-configuration", "settings for the runner in the workspace, which would widen a \
        grant", |target| {
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
    // An option of the shell's would print the name of a canary, which nobody else says.
    Attack::call(
        "processes/begins-with-a-dash",
        "a command line that begins with `-`, and would be an option of the shell's",
        |_, _| json!({ "command": "-c 'echo inn''er.txt'" }),
    )
    .on(&[Surface::Shell])
    .of_class(Class::Processes)
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("set -- -c 'echo inn''er.txt'; sh \"$@\"", Duration::from_secs(10))?;
        ensure!(said.contains("inner.txt"), "it is no option: {said}");
        Ok(())
    })),
];
