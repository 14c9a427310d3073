//! `plue-runner doctor`: what is missing where the runner stands, for a person at a terminal or as JSON.

use clap::Args;

use super::output::print;
use crate::config::DoctorConfig;
use crate::doctor::{self, Check, State};
use crate::run::Exit;
use plue_sandbox::strict::try_layers;

#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Examines, and exits with 1 when something is missing that a task needs.
pub(super) fn run(options: &DoctorOptions, lookup: &dyn Fn(&str) -> Option<String>) -> Exit {
    let config = match DoctorConfig::read(lookup) {
        Ok(config) => config,
        Err(error) if options.json => {
            let problems = serde_json::json!({ "problems": error.problems });
            return print(&format!("{problems:#}\n"), Exit::Invalid);
        }
        Err(error) => return print(&format!("{error}\n"), Exit::Invalid),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return print(&format!("the runtime cannot be started: {error}\n"), Exit::Invalid),
    };
    let checks = runtime.block_on(doctor::examine(&config));
    let missing = checks.iter().any(|check| check.state == State::Missing);
    let exit = if missing { Exit::Failed } else { Exit::Success };
    if options.json {
        return print(
            &(serde_json::to_string_pretty(&checks).unwrap_or_default() + "\n"),
            exit,
        );
    }
    print(&table(&checks), exit)
}

/// Tries the sandbox from inside: what `doctor` runs as a command.
pub(super) fn inside(expected: &str) -> Exit {
    let findings = serde_json::from_str(expected).and_then(|expected| serde_json::to_string(&try_layers(&expected)));
    match findings {
        Ok(findings) => print(&(findings + "\n"), Exit::Success),
        Err(error) => print(
            &format!("this is for `plue-runner doctor` to call: {error}\n"),
            Exit::Invalid,
        ),
    }
}

/// One line for each check and, below those that ask for something, what it is for and what to do.
fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let word = match check.state {
            State::Ok => "ok",
            State::Missing => "MISSING",
            State::Without => "without",
            State::NotTried => "not tried",
        };
        text += &format!("{:width$}  {word:<9}  {}\n", check.name, check.seen);
        if let Some(remedy) = &check.remedy {
            let indent = " ".repeat(width + 13);
            text += &format!("{indent}what for: {}\n{indent}to do: {remedy}\n", check.meaning);
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    text += &match count(State::Missing) {
        0 => format!(
            "\n{} of {} as they have to be; nothing that a task needs is missing\n",
            count(State::Ok),
            checks.len()
        ),
        missing => {
            let layer = |check: &&Check| check.state == State::Missing && check.is_layer;
            let runs = match checks.iter().filter(layer).count() {
                0 => "; the sandbox itself is as it has to be",
                _ => ": no task runs with SANDBOX=strict before the sandbox is whole",
            };
            let verb = if missing == 1 { "is" } else { "are" };
            format!("\n{missing} {verb} missing{runs}\n")
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_stands_with_what_it_is_for_and_what_to_do() {
        let check = |name: &str, state, remedy: Option<&str>| Check {
            name: name.into(),
            state,
            seen: "seen".into(),
            meaning: "what it is for".into(),
            remedy: remedy.map(str::to_owned),
            is_layer: name == "user namespace",
        };
        let checks = [
            check("user namespace", State::Missing, Some("mend it")),
            check("model", State::Ok, None),
        ];
        let expected = "\
user namespace  MISSING    seen
                           what for: what it is for
                           to do: mend it
model           ok         seen

1 is missing: no task runs with SANDBOX=strict before the sandbox is whole
";
        assert_eq!(table(&checks), expected);
        let others = [check("callback", State::Missing, Some("mend it"))];
        assert!(table(&others).ends_with("1 is missing; the sandbox itself is as it has to be\n"));
    }
}
