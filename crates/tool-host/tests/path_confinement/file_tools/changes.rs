//! What the repository does, in the tree and on disk alike.

use std::fs;
use std::os::unix::fs::symlink;

use super::case::{At, Change, NAMES, Part, Path, Start, Target};
use super::place::{MARKER, Place};
use super::tree::{Entry, Id, Node, Place as InTree, ROOT, Tree};

/// Most names in a tree.
const MAX_ENTRIES: usize = 40;
/// The longest path that the repository makes, in bytes: with what a tool adds below it stays one that the kernel
/// takes.
const MAX_PATH: usize = 1200;

/// Does a change, where it makes sense; says what was done.
pub fn change(place: &Place, tree: &mut Tree, change: &Change) -> Option<String> {
    let entries = tree.entries();
    let pick = |index: usize| (!entries.is_empty()).then(|| &entries[index % entries.len()]);
    let is_full = entries.len() >= MAX_ENTRIES;
    match change {
        Change::File(at, content) if !is_full => {
            let (at, path) = free(tree, &entries, at)?;
            fs::write(place.on_disk(&path), content).unwrap();
            tree.put(&at, Node::File(content.clone()));
            Some(format!("file {} {:?}", shown(&path), String::from_utf8_lossy(content)))
        }
        Change::Folder(at) if !is_full => {
            let (at, path) = free(tree, &entries, at)?;
            fs::create_dir(place.on_disk(&path)).unwrap();
            tree.put(&at, Node::Folder(Default::default()));
            Some(format!("folder {}", shown(&path)))
        }
        Change::Fifo(at) if !is_full => {
            let (at, path) = free(tree, &entries, at)?;
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, place.on_disk(&path), kind, mode, 0).unwrap();
            tree.put(&at, Node::Fifo);
            Some(format!("fifo {}", shown(&path)))
        }
        Change::Link(at, target) if !is_full => {
            let (at, path) = free(tree, &entries, at)?;
            let target = target_text(place, &entries, &path, target);
            link(place, tree, &at, &path, target)
        }
        Change::HardLink(entry, at) if !is_full => {
            let entry = pick(*entry).filter(|entry| matches!(tree.node(entry.id), Node::File(_)))?;
            let (at, path) = free(tree, &entries, at)?;
            fs::hard_link(place.on_disk(&entry.path), place.on_disk(&path)).unwrap();
            tree.name(&at, entry.id);
            Some(format!("hard link {} to {}", shown(&path), shown(&entry.path)))
        }
        Change::Rename(entry, at) => {
            let entry = pick(*entry)?;
            let (at, path) = free(tree, &entries, at)?;
            if tree.is_below(at.folder, entry.id) || too_deep(&entries, entry, &path) {
                return None;
            }
            fs::rename(place.on_disk(&entry.path), place.on_disk(&path)).unwrap();
            tree.remove(&entry.place);
            tree.name(&at, entry.id);
            Some(format!("rename {} to {}", shown(&entry.path), shown(&path)))
        }
        Change::Swap(one, other) => {
            let (one, other) = (pick(*one)?, pick(*other)?);
            let nested = tree.is_below(one.id, other.id) || tree.is_below(other.id, one.id);
            if nested || too_deep(&entries, one, &other.path) || too_deep(&entries, other, &one.path) {
                return None;
            }
            // Not by one exchange, which gVisor does not have: nobody looks meanwhile.
            let aside = place.on_disk(b".aside");
            fs::rename(place.on_disk(&one.path), &aside).unwrap();
            fs::rename(place.on_disk(&other.path), place.on_disk(&one.path)).unwrap();
            fs::rename(&aside, place.on_disk(&other.path)).unwrap();
            tree.name(&one.place, other.id);
            tree.name(&other.place, one.id);
            Some(format!("swap {} and {}", shown(&one.path), shown(&other.path)))
        }
        Change::Replace(entry, target) => {
            let entry = pick(*entry)?;
            remove(place, tree, entry);
            let target = target_text(place, &entries, &entry.path, target);
            link(place, tree, &entry.place, &entry.path, target)
        }
        Change::Remove(entry) => {
            let entry = pick(*entry)?;
            remove(place, tree, entry);
            Some(format!("remove {}", shown(&entry.path)))
        }
        _ => None,
    }
}

fn link(place: &Place, tree: &mut Tree, at: &InTree, path: &[u8], target: String) -> Option<String> {
    symlink(&target, place.on_disk(path)).unwrap();
    let said = format!("link {} to {target:?}", shown(path));
    tree.put(at, Node::Link(target));
    Some(said)
}

fn remove(place: &Place, tree: &mut Tree, entry: &Entry) {
    let path = place.on_disk(&entry.path);
    if matches!(tree.node(entry.id), Node::Folder(_)) {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    tree.remove(&entry.place);
}

/// A name that is free, and its path.
fn free(tree: &Tree, entries: &[Entry], at: &At) -> Option<(InTree, Vec<u8>)> {
    let mut folders: Vec<(Id, &[u8])> = vec![(ROOT, b"")];
    let below = entries
        .iter()
        .filter(|entry| matches!(tree.node(entry.id), Node::Folder(_)));
    folders.extend(below.map(|entry| (entry.id, entry.path.as_slice())));
    let (folder, path) = folders[at.folder % folders.len()];
    let name = NAMES[at.name % NAMES.len()];
    let path = if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    };
    let is_free = tree.child(folder, name).is_none() && path.len() <= MAX_PATH;
    is_free.then(|| {
        let name = name.to_vec();
        (InTree { folder, name }, path)
    })
}

/// Whether what is below an entry would have too long a path at another place.
fn too_deep(entries: &[Entry], entry: &Entry, path: &[u8]) -> bool {
    let below = [&entry.path, b"/".as_slice()].concat();
    let lengths = entries.iter().filter(|entry| entry.path.starts_with(&below));
    lengths
        .map(|lower| lower.path.len() - entry.path.len() + path.len())
        .any(|length| length > MAX_PATH)
}

/// `path` is that of the link.
fn target_text(place: &Place, entries: &[Entry], path: &[u8], target: &Target) -> String {
    let depth = path.iter().filter(|byte| **byte == b'/').count();
    let known = |index: usize| match entries {
        [] => "a".to_owned(),
        entries => text(&entries[index % entries.len()].path),
    };
    let end = |slash: bool| if slash { "/" } else { "" };
    let target = match target {
        Target::Entry { entry, slash } => format!("{}{}{}", "../".repeat(depth), known(*entry), end(*slash)),
        Target::Parts { up, parts } => format!("{}{}", "../".repeat(*up), joined(parts)),
        Target::Absolute(entry) => format!("{}/{}", place.root(), known(*entry)),
        Target::Outside(index) => {
            let up = "../".repeat(depth + 1);
            let around = place.around();
            let targets = [
                up.clone(),
                format!("{up}{MARKER}-file"),
                format!("{up}{MARKER}-folder"),
                format!("{up}{MARKER}-link"),
                format!("{up}work space/a"),
                format!("{up}new"),
                format!("{around}/{MARKER}-file"),
                format!("{around}/{MARKER}-folder/"),
                format!("{around}/new"),
                place.root().to_owned(),
                "/".to_owned(),
                "/etc/passwd".to_owned(),
                "/proc/self/root".to_owned(),
                "/proc/self/cwd/a".to_owned(),
                "/proc/self/environ".to_owned(),
                "/dev/zero".to_owned(),
            ];
            targets[index % targets.len()].clone()
        }
    };
    // The kernel takes no link to nothing.
    if target.is_empty() { ".".to_owned() } else { target }
}

/// A path as it is given to a tool.
pub fn path_text(place: &Place, tree: &Tree, path: &Path) -> String {
    let (root, around) = (place.root(), place.around());
    match path {
        Path::Near {
            start,
            entry,
            parts,
            slash,
        } => {
            let entries = tree.entries();
            let known =
                entry.and_then(|index| (!entries.is_empty()).then(|| text(&entries[index % entries.len()].path)));
            let parts = known.into_iter().chain(parts.iter().map(part_text));
            let mut path = match start {
                Start::Relative => String::new(),
                Start::Dot => "./".to_owned(),
                Start::Absolute => format!("{root}/"),
                Start::AbsoluteOdd => format!("/.{}/./", root.replace('/', "//")),
            };
            path.push_str(&parts.collect::<Vec<_>>().join("/"));
            if *slash {
                path.push('/');
            }
            path
        }
        Path::Outside(index) => {
            let paths = [
                String::new(),
                "..".to_owned(),
                "/".to_owned(),
                "//".to_owned(),
                "/etc/passwd".to_owned(),
                "/workspace/a".to_owned(),
                "/proc/self/environ".to_owned(),
                format!("../{MARKER}-file"),
                format!("./.././{MARKER}-folder"),
                "../absent".to_owned(),
                "../work space/a".to_owned(),
                format!("a/../../{MARKER}-file"),
                format!("folder/../../{MARKER}-link/{MARKER}-below"),
                format!("{around}/{MARKER}-file"),
                format!("{root}-{MARKER}/{MARKER}-below"),
                format!("{root}/../{MARKER}-file"),
                format!("{root}/a/../../{MARKER}-folder"),
                format!("{around}/absent"),
                "a\0b".to_owned(),
                "\0".to_owned(),
                "y".repeat(256),
                format!("folder/{}/b", "y".repeat(300)),
                "long/".repeat(1000),
                "a/../".repeat(500),
                "file:///workspace/a".to_owned(),
                "~/a".to_owned(),
                "..%2f..%2fetc/passwd".to_owned(),
                "..\\..\\etc\\passwd".to_owned(),
            ];
            paths[index % paths.len()].clone()
        }
    }
}

fn joined(parts: &[Part]) -> String {
    parts.iter().map(part_text).collect::<Vec<_>>().join("/")
}

fn part_text(part: &Part) -> String {
    match part {
        Part::Name(index) => text(NAMES[index % NAMES.len()]),
        Part::Up => "..".to_owned(),
        Part::Here => ".".to_owned(),
        Part::Empty => String::new(),
    }
}

/// A name that is not Unicode has no form in a tool's input; what is left of it names nothing.
fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn shown(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}
