//! What a tool has to answer, and what it does to the tree: the promises of the four file tools, once more.

use plue_tool_host::ToolErrorCode::{self, Denied, InvalidInput, NotFound};

use super::tree::{Found, Id, Node, Tree};

/// The text of a call that succeeds, or the code of one that does not.
pub type Answer = Result<String, ToolErrorCode>;

/// A path that a tool takes, relative to the workspace: `.` and doubled `/` are gone, one `/` is left at the end of
/// what has to be a folder.
pub fn relative(path: &str, root: &str) -> Result<String, ToolErrorCode> {
    if path.is_empty() || path.contains('\0') {
        return Err(InvalidInput);
    }
    let normal = |path: &str| -> Vec<String> {
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.map(str::to_owned).collect()
    };
    let mut parts = normal(path);
    if path.starts_with('/') {
        let root = normal(root);
        if !parts.starts_with(&root) {
            return Err(Denied);
        }
        parts.drain(..root.len());
    }
    if parts.first().is_some_and(|part| part == "..") {
        return Err(Denied);
    }
    let mut relative = parts.join("/");
    if !relative.is_empty() && (path.ends_with('/') || path.ends_with("/.")) {
        relative.push('/');
    }
    Ok(relative)
}

/// What a refused path is called; `None` when something is there.
fn refusal(found: &Found) -> Option<ToolErrorCode> {
    match found {
        Found::At { .. } => None,
        Found::Missing { .. } | Found::NoFolder { .. } | Found::NoEntry | Found::NotFolder => Some(NotFound),
        Found::Leaves | Found::Loop => Some(Denied),
        Found::TooLong => Some(InvalidInput),
    }
}

fn there(tree: &Tree, path: &str) -> Result<Id, ToolErrorCode> {
    match tree.resolve(path) {
        Found::At { id, .. } => Ok(id),
        found => Err(refusal(&found).unwrap_or(NotFound)),
    }
}

pub fn read(tree: &Tree, path: &str) -> Answer {
    match tree.node(there(tree, path)?) {
        Node::File(content) => Ok(as_text(content)),
        Node::Folder(_) => Err(InvalidInput),
        Node::Link(_) | Node::Fifo => Err(Denied),
    }
}

fn as_text(content: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(content).replace('\0', "\u{fffd}");
    let replaced = text.matches('\u{fffd}').count();
    if replaced > 0 {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!(
            "[The file is not UTF-8 text: {replaced} invalid bytes or NULs are shown as U+FFFD.]\n"
        ));
    }
    text
}

/// Changes the tree when it succeeds, and only then.
pub fn write(tree: &mut Tree, asked: &str, path: &str, content: &str, append: bool) -> Answer {
    let mut after = tree.clone();
    let mut found = after.resolve(path);
    // The path as such can only be a folder's.
    let is_folders = path.ends_with('/') || path.rsplit('/').next() == Some("..");
    if found == Found::NoEntry && !is_folders {
        make_parents(&mut after, path)?;
        found = after.resolve(path);
    }
    match found {
        Found::At { id, place } => match (after.node_mut(id), place) {
            (Node::File(old), _) if append => old.extend_from_slice(content.as_bytes()),
            // A file of its own, so that another name of the old one keeps what it had.
            (Node::File(_), Some(place)) => {
                after.put(&place, Node::File(content.into()));
            }
            (Node::Folder(_), _) => return Err(InvalidInput),
            _ => return Err(Denied),
        },
        Found::Missing { place, .. } => {
            after.put(&place, Node::File(content.into()));
        }
        Found::NoFolder { .. } => return Err(InvalidInput),
        Found::NoEntry | Found::NotFolder if is_folders => return Err(InvalidInput),
        found => return Err(refusal(&found).unwrap_or(NotFound)),
    }
    *tree = after;
    Ok(format!(
        "Successfully wrote {} bytes to {}",
        content.len(),
        quote(asked)
    ))
}

/// Makes the folders that a path lies in. A link that dangles does not become a folder.
fn make_parents(tree: &mut Tree, path: &str) -> Result<(), ToolErrorCode> {
    for (end, _) in path.match_indices('/') {
        match tree.resolve(&path[..end]) {
            Found::Missing { place, dangling: false } => {
                tree.put(&place, Node::Folder(Default::default()));
            }
            Found::At { id, .. } if matches!(tree.node(id), Node::Folder(_)) => {}
            Found::At { .. } => return Err(NotFound),
            found => return Err(refusal(&found).unwrap_or(NotFound)),
        }
    }
    Ok(())
}

pub fn list(tree: &Tree, path: &str, recursive: bool, hidden: bool) -> Answer {
    let folder = there(tree, path)?;
    if !matches!(tree.node(folder), Node::Folder(_)) {
        return Err(InvalidInput);
    }
    let keep = |name: &str| hidden || !name.starts_with('.');
    let mut lines = Vec::new();
    let mut unnameable = 0;
    walk(tree, folder, "", &mut unnameable, &mut |place, below| {
        if !keep(below.rsplit('/').next().unwrap_or_default()) {
            return false;
        }
        let whole = [path.trim_end_matches('/'), below].join("/");
        let is_folder = match tree.node(place) {
            Node::Folder(_) => true,
            Node::Link(_) => there(tree, &whole).is_ok_and(|id| matches!(tree.node(id), Node::Folder(_))),
            _ => false,
        };
        lines.push(quote(&if is_folder {
            format!("{below}/")
        } else {
            below.to_owned()
        }));
        recursive
    });
    lines.extend(unnameable_note(unnameable));
    if lines.is_empty() {
        let none = if hidden {
            "[No entries.]"
        } else {
            "[No entries that are not hidden.]"
        };
        lines.push(none.to_owned());
    }
    Ok(lines.join("\n"))
}

/// Every line that has `inside` in it.
pub fn grep(tree: &Tree, path: &str) -> Answer {
    let start = there(tree, path)?;
    let shown = path.trim_end_matches('/');
    let mut lines = Vec::new();
    let mut unnameable = 0;
    match tree.node(start) {
        Node::File(content) => matches(shown, content, &mut lines),
        Node::Folder(_) => walk(tree, start, "", &mut unnameable, &mut |id, below| {
            let whole = if shown.is_empty() {
                below.to_owned()
            } else {
                format!("{shown}/{below}")
            };
            if let Node::File(content) = tree.node(id) {
                matches(&whole, content, &mut lines);
            }
            true
        }),
        Node::Link(_) | Node::Fifo => return Err(Denied),
    }
    if lines.is_empty() {
        lines.push("[No matches.]".to_owned());
    }
    lines.extend(unnameable_note(unnameable));
    Ok(lines.join("\n"))
}

fn matches(path: &str, content: &[u8], found: &mut Vec<String>) {
    let text = String::from_utf8_lossy(content);
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains("inside"));
    let path = quote(path);
    let lines = lines.map(|(number, line)| format!("{path}:{}:{line}", number + 1));
    if content.contains(&0) {
        found.extend(lines.take(1).map(|_| format!("Binary file {path} matches")));
    } else {
        found.extend(lines);
    }
}

/// Shows everything below a folder, in order; goes into what `enter` says yes to. Names that are no text are counted.
fn walk(tree: &Tree, folder: Id, prefix: &str, unnameable: &mut usize, enter: &mut dyn FnMut(Id, &str) -> bool) {
    for (name, id) in tree.children(folder) {
        let Ok(name) = std::str::from_utf8(name) else {
            *unnameable += 1;
            continue;
        };
        let path = format!("{prefix}{name}");
        if enter(id, &path) {
            walk(tree, id, &format!("{path}/"), unnameable, enter);
        }
    }
}

fn unnameable_note(count: usize) -> Option<String> {
    (count > 0).then(|| format!("[{count} entries have names that are not UTF-8 and were left out.]"))
}

/// A name as the tools show it: a JSON string when something in it could mislead.
pub fn quote(path: &str) -> String {
    let odd = |c: char| c.is_control() || c == '\u{202e}';
    if !path.starts_with('"') && !path.contains(odd) {
        return path.to_owned();
    }
    let mut quoted = serde_json::to_string(path).unwrap();
    quoted = quoted.replace('\u{202e}', "\\u202e");
    quoted
}

/// The content of the file that a write made or changed.
pub fn written(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    match tree.node(there(tree, path).ok()?) {
        Node::File(content) => Some(content.clone()),
        _ => None,
    }
}
