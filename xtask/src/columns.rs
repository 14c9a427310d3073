//! No line of code is wider than a reader's window. rustfmt breaks code, and neither comments nor strings.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::docs::{MAX_COLUMNS, files};

/// Reports all lines that are too wide at once.
pub fn check(root: &Path) -> Result<()> {
    let sources = files(root, &["rs", "wit", "sh", "py"])?;
    ensure!(sources.len() > 300, "only {} sources were found", sources.len());
    let mut wide = Vec::new();
    for path in sources {
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        wide.extend(too_wide(&text).map(|(line, columns)| format!("{name}:{line}: has {columns} columns")));
    }
    if !wide.is_empty() {
        bail!("more than {MAX_COLUMNS} columns:\n{}", wide.join("\n"));
    }
    Ok(())
}

/// What JSON and WebAssembly's text have, and nothing else here. Lines that hold either are quoted as they go over a
/// wire or into an assembler, and not broken.
const QUOTED: [&str; 4] = ["\":", "\\\":", "(i32.", "(func "];

/// The lines that are too wide, with their widths.
fn too_wide(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let own = |line: &str| !QUOTED.iter().any(|part| line.contains(part));
    let lines = (1..).zip(text.lines()).filter(move |(_, line)| own(line));
    let widths = lines.map(|(number, line)| (number, line.chars().count()));
    widths.filter(|(_, columns)| *columns > MAX_COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::too_wide;

    #[test]
    fn a_line_is_as_wide_as_it_has_characters() {
        let (fits, wide) = ("\u{e9}".repeat(120), "x".repeat(121));
        let text = format!("short\n{fits}\n{wide}\n{{\"type\":\"{wide}\"}}\n");
        assert_eq!(too_wide(&text).collect::<Vec<_>>(), [(3, 121)]);
    }
}
