//! Whether the documents speak of what is there: files that they link to, and commands that they name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;

use crate::Arguments;

/// What a newcomer reads. Each must be there.
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "SPECIFICATION.md",
    "SECURITY.md",
    "deploy/README.md",
    "docs/scale.md",
    "docs/operations.md",
];

/// Reports all that is wrong at once.
pub fn check(root: &Path) -> Result<()> {
    let commands: Vec<String> = Arguments::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let mut wrong = Vec::new();
    for name in DOCUMENTS {
        let path = root.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let missing_files = links(line)
                .filter(|target| !path.with_file_name(target).exists())
                .map(|target| format!("{name}:{}: links to {target}, which is not there", number + 1));
            let missing_commands = xtasks(line)
                .filter(|command| !commands.iter().any(|known| known == command))
                .map(|command| format!("{name}:{}: there is no `cargo xtask {command}`", number + 1));
            let open = line
                .contains("TBD")
                .then(|| format!("{name}:{}: something is to be filled in", number + 1));
            wrong.extend(missing_files.chain(missing_commands).chain(open));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// The files that a line of Markdown links to, without the place inside of them.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

/// The commands that a line names after `cargo xtask`.
fn xtasks(line: &str) -> impl Iterator<Item = &str> {
    line.split("cargo xtask ")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default())
        .filter(|command| !command.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_and_addresses_are_left_alone() {
        let line = "See [the design](docs/a.md#why), [here](#below), [the API](https://example.com/x) and [b](b.md).";
        assert_eq!(links(line).collect::<Vec<_>>(), ["docs/a.md", "b.md"]);
    }

    #[test]
    fn commands_are_found_in_text_and_code() {
        let line = "`cargo xtask demo --live`, then cargo xtask test. And cargo xtask --help";
        assert_eq!(xtasks(line).collect::<Vec<_>>(), ["demo", "test"]);
    }
}
