//! The tool `shell`: runs a command line in the runner's sandbox.

use std::time::Duration;

use plue_tool::process::{Command, CommandOutput, Ending};
use plue_tool::{Context, FileKind, Output, ToolError, Unit};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The command line, for /bin/sh -c.
    command: String,
    /// Where it runs, relative to the workspace.
    #[serde(default = "plue_tool::whole_workspace")]
    working_directory: String,
    /// How long it may run, in seconds.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = 3600))]
    timeout: u64,
}

fn timeout() -> u64 {
    60
}

fn run(input: Input, ctx: &Context) -> Result<Output, ToolError> {
    if input.command.contains('\0') {
        return Err(ToolError::InvalidInput("The command contains a NUL character.".into()));
    }
    let workspace = ctx.workspace()?;
    let working_directory = workspace.path(&input.working_directory)?;
    // The sandbox decides for itself; asked first, the file system gives the same verdict as to every other tool.
    if workspace.stat(&working_directory)?.kind != FileKind::Folder {
        return Err(ToolError::InvalidInput(format!("{working_directory} is not a folder.")));
    }
    // `--` keeps a command line that begins with `-` from being taken for options.
    let output = Command::new(["/bin/sh", "-c", "--", &input.command])
        .working_directory(&working_directory)
        .timeout(Duration::from_secs(input.timeout))
        .run()?;
    result(&output, input.timeout)
}

/// A command that ended by itself is a successful call, whatever its code; one that was stopped is an error.
fn result(output: &CommandOutput, timeout: u64) -> Result<Output, ToolError> {
    let Some(status) = output.status else {
        return Err(ToolError::Failed("The command ended without a status.".into()));
    };
    let text = format!(
        "STDOUT:\n{}\n\nSTDERR:\n{}\n\nEXIT CODE: {}",
        output.stdout.text(),
        output.stderr.text(),
        status.code
    );
    match status.ending {
        Ending::Exited => {
            let kept = output.stdout.kept() + output.stderr.kept();
            let missing = output.stdout.missing() + output.stderr.missing();
            let whole = Output::from(text);
            Ok(if missing == 0 {
                whole
            } else {
                whole.truncated(kept, Some(kept + missing), Unit::Bytes)
            })
        }
        Ending::TimedOut => Err(ToolError::Timeout(format!(
            "The command was ended after {timeout} seconds, its time limit. Its output so far:\n\n{text}"
        ))),
        Ending::Cancelled => Err(ToolError::Cancelled(format!(
            "The command was cancelled. Its output so far:\n\n{text}"
        ))),
        Ending::Memory => Err(ToolError::Exhausted(format!(
            "The command was ended because it used more memory than a command may. Its output so far:\n\n{text}"
        ))),
        Ending::Processes => Err(ToolError::Exhausted(format!(
            "The command was ended because it had more processes than a command may. Its output so far:\n\n{text}"
        ))),
    }
}

plue_tool::tool! {
    name: "shell",
    description: "Runs a command line with /bin/sh -c in the workspace and returns its output and exit code. It has no \
        standard input, and what it leaves running in the background is ended with it.",
    effects: [reads, writes, executes],
    idempotent: false,
    run: run,
}

#[cfg(test)]
mod tests {
    use plue_tool::process::ExitStatus;

    use super::*;

    fn ended(code: i32, ending: Ending) -> Result<Output, ToolError> {
        let output = CommandOutput {
            status: Some(ExitStatus { code, ending }),
            ..CommandOutput::default()
        };
        result(&output, 7)
    }

    #[test]
    fn a_command_that_ends_by_itself_is_a_success_and_one_that_is_stopped_an_error() {
        let text = |code| format!("STDOUT:\n\n\nSTDERR:\n\n\nEXIT CODE: {code}");
        for code in [0, 1, 137] {
            assert_eq!(ended(code, Ending::Exited), Ok(Output::from(text(code))));
        }
        let Err(ToolError::Timeout(message)) = ended(143, Ending::TimedOut) else {
            unreachable!()
        };
        assert_eq!(
            message,
            format!(
                "The command was ended after 7 seconds, its time limit. Its output so far:\n\n{}",
                text(143)
            )
        );
        assert!(matches!(ended(143, Ending::Cancelled), Err(ToolError::Cancelled(_))));
        assert!(matches!(ended(137, Ending::Memory), Err(ToolError::Exhausted(_))));
        assert!(matches!(ended(137, Ending::Processes), Err(ToolError::Exhausted(_))));
    }
}
