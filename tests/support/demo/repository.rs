//! The small repository of the demo: a shop's invoice in shell, one bug, and a test that finds it. Only `/bin/sh` is
//! needed, so that the demo runs wherever the runner does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use similar::TextDiff;

const README: &str = "\
# Invoice

Adds up an order, in whole cents.

- `line_total QUANTITY CENTS`: the price of one line
- `discounted CENTS PERCENT`: the price after a discount
- `shipping CENTS`: 4.90, and free for orders of 50.00 or more

Test it with `sh tests/run.sh`.
";

const INVOICE: &str = "\
# The sums of an order. Money is counted in whole cents, so that nothing is lost to rounding.

# line_total QUANTITY CENTS
line_total() {
    echo $(($1 * $2))
}

# discounted CENTS PERCENT
discounted() {
    echo $(($1 - $1 * $2 / 100))
}

# shipping CENTS: free for orders of 50.00 or more
shipping() {
    if [ \"$1\" -gt 5000 ]; then
        echo 0
    else
        echo 490
    fi
}
";

const TEST: &str = "\
#!/bin/sh
# Runs every check, and fails when one does.
. ./lib/invoice.sh
count=0
failed=0

# check CALL EXPECTED
check() {
    count=$((count + 1))
    got=$($1)
    if [ \"$got\" = \"$2\" ]; then
        echo \"ok $count - $1 = $2\"
    else
        echo \"not ok $count - $1: expected $2, got $got\"
        failed=1
    fi
}

check 'line_total 3 1250' 3750
check 'discounted 10000 15' 8500
check 'shipping 4999' 490
check 'shipping 5000' 0
check 'shipping 5001' 0
exit $failed
";

/// The hidden file is there to be left out of a listing that does not ask for hidden files.
const EDITORCONFIG: &str = "root = true\n";

/// What runs the test, from the repository's root.
pub const TEST_COMMAND: &str = "sh tests/run.sh";

/// Every file, by its path.
pub const FILES: &[(&str, &str)] = &[
    (".editorconfig", EDITORCONFIG),
    ("README.md", README),
    ("lib/invoice.sh", INVOICE),
    ("tests/run.sh", TEST),
];

/// Writes the repository into a folder.
pub fn lay_out(folder: &Path) -> io::Result<()> {
    for (path, content) in FILES {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    Ok(())
}

/// One file that is not what was laid out.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    /// In the unified form, with its header.
    pub diff: String,
}

/// What has changed in the folder since [`lay_out`].
pub fn changes(folder: &Path) -> io::Result<Vec<Change>> {
    let before: BTreeMap<String, String> = FILES
        .iter()
        .map(|(path, text)| ((*path).into(), (*text).into()))
        .collect();
    let mut after = BTreeMap::new();
    read_all(folder, "", &mut after)?;
    let empty = String::new();
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let changed = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    Ok(changed
        .map(|path| {
            let (old, new) = (before.get(path), after.get(path));
            let name = |side: &str, there: bool| {
                if there {
                    format!("{side}/{path}")
                } else {
                    "/dev/null".to_owned()
                }
            };
            let diff = TextDiff::from_lines(old.unwrap_or(&empty), new.unwrap_or(&empty))
                .unified_diff()
                .header(&name("a", old.is_some()), &name("b", new.is_some()))
                .to_string();
            Change {
                path: path.clone(),
                diff,
            }
        })
        .collect())
}

fn read_all(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_all(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.insert(path, String::from_utf8_lossy(&fs::read(entry.path())?).into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_a_new_file_and_a_removed_one_are_all_in_the_diff() {
        let folder = tempfile::tempdir().unwrap();
        lay_out(folder.path()).unwrap();
        assert_eq!(changes(folder.path()).unwrap(), []);
        fs::write(folder.path().join("lib/invoice.sh"), INVOICE.replace("-gt", "-ge")).unwrap();
        fs::write(folder.path().join("lib/new.sh"), "true\n").unwrap();
        fs::remove_file(folder.path().join("README.md")).unwrap();
        let changes = changes(folder.path()).unwrap();
        let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["README.md", "lib/invoice.sh", "lib/new.sh"]);
        assert!(changes[0].diff.contains("+++ /dev/null"));
        assert!(changes[1].diff.contains("-    if [ \"$1\" -gt 5000 ]"));
        assert!(changes[1].diff.contains("+    if [ \"$1\" -ge 5000 ]"));
        assert!(changes[2].diff.contains("--- /dev/null"));
    }
}
