//! Whether the documents speak of what is there (files and headings that they link to, commands that they name), and
//! can be read in any editor.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::CommandFactory;

use crate::Arguments;

/// The widest line, in columns. In a document a table's row and code cannot be broken, and where a link leads is not
/// counted.
pub const MAX_COLUMNS: usize = 120;

/// Reports all that is wrong at once.
pub fn check(root: &Path) -> Result<()> {
    let commands: Vec<String> = Arguments::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let documents = files(root, &["md"])?;
    ensure!(documents.len() > 5, "only {} documents were found", documents.len());
    let mut wrong = Vec::new();
    for path in documents {
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        for (number, complaint) in complaints(&path, &text, &commands) {
            wrong.push(format!("{name}:{number}: {complaint}"));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// All files of the checkout with one of these extensions, sorted.
pub fn files(root: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|of| extensions.iter().any(|extension| of == *extension))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with a document, and in which line.
fn complaints(path: &Path, text: &str, commands: &[String]) -> Vec<(usize, String)> {
    let mut wrong = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        let may_be_wide = in_code || is_fence || line.trim_start().starts_with('|');
        let width = width(line);
        if width > MAX_COLUMNS && !may_be_wide {
            wrong.push((number, format!("has {width} columns, more than {MAX_COLUMNS}")));
        }
        if line.contains("TBD") {
            wrong.push((number, "something is to be filled in".to_owned()));
        }
        for command in xtasks(line).filter(|command| !commands.iter().any(|known| known == command)) {
            wrong.push((number, format!("there is no `cargo xtask {command}`")));
        }
        if in_code {
            continue;
        }
        for (target, heading) in links(line) {
            let file = if target.is_empty() {
                path.to_owned()
            } else {
                path.with_file_name(target)
            };
            if !file.exists() {
                wrong.push((number, format!("links to {target}, which is not there")));
            } else if let Some(heading) = heading
                && file.extension().is_some_and(|extension| extension == "md")
                && !fs::read_to_string(&file).is_ok_and(|text| headings(&text).any(|known| known == heading))
            {
                wrong.push((
                    number,
                    format!("links to #{heading}, and {} has no such heading", file.display()),
                ));
            }
        }
    }
    wrong
}

/// How wide a line is without the targets of its links.
fn width(line: &str) -> usize {
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().chars().count();
    let rest = parts.map(|part| part.split_once(')').map_or(part, |(_, after)| after).chars().count() + 3);
    first + rest.sum::<usize>()
}

/// The files that a line of Markdown links to or shows, and the headings in them. No file: this one.
fn links(line: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let between = |start: &'static str, end: char| {
        line.split(start)
            .skip(1)
            .filter_map(move |rest| rest.split_once(end))
            .map(|(target, _)| target)
    };
    between("](", ')')
        .chain(between(" src=\"", '"'))
        .chain(between(" srcset=\"", '"'))
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| match target.split_once('#') {
            Some((file, heading)) => (file, Some(heading)),
            None => (target, None),
        })
}

/// The headings of a text, as links name them: `## 5. Tools, as seen` is `5-tools-as-seen`.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    })
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
        assert_eq!(
            links(line).collect::<Vec<_>>(),
            [("docs/a.md", Some("why")), ("", Some("below")), ("b.md", None)]
        );
        let picture = r#"<source srcset="a.svg"> <img src="b.svg">"#;
        assert_eq!(links(picture).collect::<Vec<_>>(), [("b.svg", None), ("a.svg", None)]);
    }

    #[test]
    fn where_a_link_leads_is_not_counted() {
        assert_eq!(
            width("See [a](docs/reference/a.md), [b](https://example.com/x)."),
            "See [a](), [b]().".len()
        );
    }

    #[test]
    fn commands_are_found_in_text_and_code() {
        let line = "`cargo xtask demo --live`, then cargo xtask test. And cargo xtask --help";
        assert_eq!(xtasks(line).collect::<Vec<_>>(), ["demo", "test"]);
    }

    #[test]
    fn a_document_is_told_its_lines_links_headings_and_commands() {
        let wide = "x".repeat(121);
        let text = format!(
            "# A title: (1)\n{wide}\n| {wide} |\n```sh\n{wide} [a](nowhere.md)\n```\n[here](#a-title-1), \
                [x](#nowhere)\n\
             [x](nowhere.md) is TBD\ncargo xtask nothing\n"
        );
        let file = std::env::temp_dir().join(format!("plue-docs-{}.md", std::process::id()));
        fs::write(&file, &text).unwrap_or_else(|error| unreachable!("{error}"));
        let found = complaints(&file, &text, &["test".to_owned()]);
        let _ = fs::remove_file(&file);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 7, 8, 8, 9], "{found:?}");
    }
}
