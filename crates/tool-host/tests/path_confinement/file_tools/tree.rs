//! A file tree in memory, with the kernel's rules for paths (path_resolution(7)) as far as the tools need them.

use std::collections::BTreeMap;

/// A node's number. A file with two names has one.
pub type Id = usize;

/// The workspace itself.
pub const ROOT: Id = 0;

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;
/// The longest name, in bytes.
const MAX_NAME: usize = 255;
/// The longest path with its end, in bytes.
const MAX_PATH: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Folder(BTreeMap<Vec<u8>, Id>),
    File(Vec<u8>),
    Link(String),
    Fifo,
}

/// Where a node has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub folder: Id,
    pub name: Vec<u8>,
}

/// One name in the tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// From the root, without links.
    pub path: Vec<u8>,
    pub place: Place,
    pub id: Id,
}

/// What a path leads to, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// `place` is `None` for a folder that was reached by `..` or `.`, or is the root.
    At {
        id: Id,
        place: Option<Place>,
    },
    /// All but the last part is there. `dangling`: the last part is the target of a link.
    Missing {
        place: Place,
        dangling: bool,
    },
    /// A `/` behind the last part, in the path or in a link, says that it is a folder: and it is none, or not there.
    NoFolder {
        is_there: bool,
    },
    /// A part before the last is not there.
    NoEntry,
    /// A part before the last is no folder.
    NotFolder,
    /// It goes above the root, or through an absolute link. A chroot would go on at its root; the tools refuse it.
    Leaves,
    /// More links than are followed.
    Loop,
    TooLong,
}

#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::Folder(BTreeMap::new())],
        }
    }

    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id]
    }

    /// What is in a folder; nothing in what is none.
    pub fn children(&self, id: Id) -> impl Iterator<Item = (&Vec<u8>, Id)> {
        let children = match &self.nodes[id] {
            Node::Folder(children) => Some(children),
            _ => None,
        };
        children.into_iter().flatten().map(|(name, id)| (name, *id))
    }

    pub fn child(&self, folder: Id, name: &[u8]) -> Option<Id> {
        self.children(folder)
            .find(|(known, _)| *known == name)
            .map(|(_, id)| id)
    }

    /// Adds a node under a name; what had the name loses it.
    pub fn put(&mut self, place: &Place, node: Node) -> Id {
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.name(place, id);
        id
    }

    /// Gives a node one more name.
    pub fn name(&mut self, place: &Place, id: Id) {
        match &mut self.nodes[place.folder] {
            Node::Folder(children) => children.insert(place.name.clone(), id),
            other => panic!("a name in {other:?}"),
        };
    }

    pub fn remove(&mut self, place: &Place) {
        if let Node::Folder(children) = &mut self.nodes[place.folder] {
            children.remove(&place.name);
        }
    }

    /// Every name, a folder before what is in it.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.collect(ROOT, &[], &mut entries);
        entries
    }

    fn collect(&self, folder: Id, prefix: &[u8], entries: &mut Vec<Entry>) {
        for (name, id) in self.children(folder) {
            let mut path = prefix.to_vec();
            path.extend_from_slice(name);
            let place = Place {
                folder,
                name: name.clone(),
            };
            entries.push(Entry {
                path: path.clone(),
                place,
                id,
            });
            path.push(b'/');
            self.collect(id, &path, entries);
        }
    }

    /// Whether a folder is this one, or lies below it.
    pub fn is_below(&self, folder: Id, above: Id) -> bool {
        folder == above || self.children(above).any(|(_, child)| self.is_below(folder, child))
    }

    /// Follows a path from the root. A `/` at its end asks for a folder.
    pub fn resolve(&self, path: &str) -> Found {
        if path.trim_end_matches('/').len() >= MAX_PATH {
            return Found::TooLong;
        }
        // The folders from the root to here, by the way that was taken, which `..` goes back.
        let mut way = vec![ROOT];
        let mut place = None;
        let mut rest: Vec<(String, bool)> = Vec::new();
        push_parts(&mut rest, path, false);
        let mut links = 0;
        while let Some((part, from_link)) = rest.pop() {
            let here = way[way.len() - 1];
            if !matches!(self.nodes[here], Node::Folder(_)) {
                let is_end = part.is_empty() && rest.iter().all(|(part, _)| part.is_empty());
                return if is_end {
                    Found::NoFolder { is_there: true }
                } else {
                    Found::NotFolder
                };
            }
            match part.as_str() {
                "" | "." => continue,
                ".." if way.len() == 1 => return Found::Leaves,
                ".." => {
                    way.pop();
                    place = None;
                    continue;
                }
                name if name.len() > MAX_NAME => return Found::TooLong,
                _ => {}
            }
            let here = Place {
                folder: here,
                name: part.into_bytes(),
            };
            match self.child(here.folder, &here.name) {
                None if rest.is_empty() => {
                    return Found::Missing {
                        place: here,
                        dangling: from_link,
                    };
                }
                None if rest.iter().all(|(part, _)| part.is_empty()) => return Found::NoFolder { is_there: false },
                None => return Found::NoEntry,
                Some(id) => match &self.nodes[id] {
                    Node::Link(target) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Found::Loop;
                        }
                        if target.starts_with('/') {
                            return Found::Leaves;
                        }
                        push_parts(&mut rest, target, true);
                    }
                    _ => {
                        way.push(id);
                        place = Some(here);
                    }
                },
            }
        }
        Found::At {
            id: way[way.len() - 1],
            place,
        }
    }
}

/// Puts the parts of a path before the rest. A `/` at the end leaves an empty one: what is before it must be a folder.
fn push_parts(rest: &mut Vec<(String, bool)>, path: &str, from_link: bool) {
    if path.ends_with('/') {
        rest.push((String::new(), from_link));
    }
    let parts = path.split('/').filter(|part| !part.is_empty());
    rest.extend(parts.rev().map(|part| (part.to_owned(), from_link)));
}
