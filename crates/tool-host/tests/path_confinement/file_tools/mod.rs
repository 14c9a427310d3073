//! The file tools held against a model and against the kernel: a random file tree, random changes of it by the
//! repository, random calls of the real tools in between.
//!
//! After each call:
//! - the tool's answer is the one that the model gives ([`expected`]): the same text, or a refusal of the same kind;
//! - what the path leads to, by the model, is what a chroot onto the workspace finds there ([`reference`]), unless the
//!   path leaves: a chroot would go on at its root, and the tools have to refuse;
//! - the disk is what the model says, so nothing but what was asked for was written, and a refused call wrote nothing;
//! - nothing outside has changed, and no answer knows a word of it.
//!
//! [`Runs::check`] takes any bytes: the test `paths` gives it numbered ones, the fuzz target those that a
//! coverage-guided fuzzer finds.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use plue_tool_host::ToolErrorCode;
use rustix::io::Errno;
use serde_json::json;

use self::case::{Call, Case, Step};
use self::expected::Answer;
use self::place::{MARKER, Place};
use self::reference::{Reference, Way, What};
use self::tree::{Found, Node, Tree};

pub mod case;
pub mod changes;
pub mod expected;
pub mod place;
pub mod reference;
pub mod tree;

/// A workspace and its tools, for case after case.
pub struct Runs {
    place: Place,
    /// The kernel's other way to the same answer, when the reference is a chroot.
    second: Option<Reference>,
    /// How often a tool gave an answer of a kind, as in `read_file denied`: a run that never came to one shows nothing.
    pub seen: BTreeMap<String, usize>,
}

impl Runs {
    /// See [`Place::new`].
    pub fn new(plugins: &Path, before_tools: impl FnOnce()) -> Self {
        let mut second = None;
        let place = Place::new(plugins, before_tools);
        if place.reference.way == Way::Chroot {
            second = Reference::by(Way::InRoot, place.root().into()).ok();
        }
        Self {
            place,
            second,
            seen: BTreeMap::new(),
        }
    }

    /// Runs the case that these bytes stand for.
    ///
    /// # Errors
    /// What is wrong, and all that was done until then.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        // Bytes that are too few for a case are none.
        let Ok(case) = Case::generate(bytes) else { return Ok(()) };
        let mut log = String::new();
        self.place.empty();
        self.run(&case, &mut log).map_err(|wrong| format!("{log}{wrong}"))
    }

    fn run(&mut self, case: &Case, log: &mut String) -> Result<(), String> {
        let mut tree = Tree::new();
        for change in &case.tree {
            if let Some(done) = changes::change(&self.place, &mut tree, change) {
                let _ = writeln!(log, "{done}");
            }
        }
        for step in &case.steps {
            match step {
                Step::Repository(change) => {
                    if let Some(done) = changes::change(&self.place, &mut tree, change) {
                        let _ = writeln!(log, "meanwhile: {done}");
                    }
                }
                Step::Tool(call) => self.call(&mut tree, call, log)?,
            }
        }
        if !self.place.canary_lives() {
            return Err("something outside of the workspace has changed".to_owned());
        }
        Ok(())
    }

    fn call(&mut self, tree: &mut Tree, call: &Call, log: &mut String) -> Result<(), String> {
        let (tool, path) = match call {
            Call::Read(path) => ("read_file", path),
            Call::Write { path, .. } => ("write_file", path),
            Call::List { path, .. } => ("list_files", path),
            Call::Grep(path) => ("grep", path),
        };
        let path = changes::path_text(&self.place, tree, path);
        let input = match call {
            Call::Read(_) => json!({"path": path}),
            Call::Write { content, append, .. } => json!({"path": path, "content": content, "append": append}),
            Call::List { recursive, hidden, .. } => {
                json!({"path": path, "recursive": recursive, "include_hidden": hidden, "max_results": 1000})
            }
            Call::Grep(_) => json!({"path": path, "pattern": "inside", "max_results": 1000}),
        };
        let _ = writeln!(log, "{tool} {input}");
        let relative = expected::relative(&path, self.place.root());
        if let Ok(relative) = &relative {
            self.same_as_the_kernel(tree, relative)?;
        }
        let also = match (call, &relative) {
            (Call::Write { .. }, Ok(relative)) => also_right(&tree.resolve(relative)),
            _ => &[],
        };
        let expected = relative.clone().and_then(|relative| match call {
            Call::Read(_) => expected::read(tree, &relative),
            Call::Write { content, append, .. } => expected::write(tree, &path, &relative, content, *append),
            Call::List { recursive, hidden, .. } => expected::list(tree, &relative, *recursive, *hidden),
            Call::Grep(_) => expected::grep(tree, &relative),
        });
        let outcome = self.place.call(tool, &input.to_string());
        let answer = match outcome.error {
            None => Ok(outcome.text.clone()),
            Some(code) => Err(code),
        };
        if answer != expected && !(expected.is_err() && also.iter().any(|code| answer == Err(*code))) {
            return Err(format!(
                "  should be {expected:?},\n  and is {:?} {:?}",
                outcome.error, outcome.text
            ));
        }
        self.tells_nothing(&path, relative.as_deref().unwrap_or(&path), &outcome.text)?;
        if let Some(difference) = self.place.difference(tree) {
            return Err(format!("  {difference}"));
        }
        if let (Call::Write { .. }, Ok(_), Ok(relative)) = (call, &answer, &relative) {
            self.was_written(tree, relative)?;
        }
        self.count(tool, &answer);
        Ok(())
    }

    /// The model and the kernel agree about a path.
    fn same_as_the_kernel(&self, tree: &Tree, path: &str) -> Result<(), String> {
        let found = tree.resolve(path);
        if found == Found::Leaves {
            return Ok(());
        }
        let looked = self.place.reference.look(path);
        if let Some(second) = &self.second
            && second.look(path) != looked
        {
            return Err(format!(
                "  a chroot finds {looked:?}, and RESOLVE_IN_ROOT {:?}",
                second.look(path)
            ));
        }
        let is_same = match &found {
            Found::At { id, .. } => looked.as_ref().is_ok_and(|seen| is_node(seen, tree.node(*id))),
            Found::Missing { .. } | Found::NoFolder { is_there: false } | Found::NoEntry => looked == Err(Errno::NOENT),
            Found::NotFolder | Found::NoFolder { is_there: true } => looked == Err(Errno::NOTDIR),
            Found::Loop => looked == Err(Errno::LOOP),
            Found::TooLong => looked == Err(Errno::NAMETOOLONG),
            Found::Leaves => true,
        };
        if is_same {
            return Ok(());
        }
        Err(format!("  the model finds {found:?}, and a chroot {looked:?}"))
    }

    /// What was written is there for a chroot too.
    fn was_written(&self, tree: &Tree, path: &str) -> Result<(), String> {
        let looked = self.place.reference.look(path);
        match (expected::written(tree, path), &looked) {
            (Some(content), Ok(seen)) if *seen == What::File(content.clone()) => Ok(()),
            (content, _) => Err(format!("  {content:?} was written, and a chroot finds {looked:?}")),
        }
    }

    /// No answer says anything of what is outside, but what the model had written itself.
    fn tells_nothing(&self, path: &str, relative: &str, text: &str) -> Result<(), String> {
        let mut rest = text.to_owned();
        for known in [path, relative.trim_end_matches('/'), self.place.root()] {
            if !known.is_empty() {
                rest = rest.replace(known, "").replace(&expected::quote(known), "");
            }
        }
        if rest.contains(MARKER) || rest.contains(self.place.around()) {
            return Err(format!("  tells of what is outside: {text:?}"));
        }
        Ok(())
    }

    fn count(&mut self, tool: &str, answer: &Answer) {
        let kind = answer
            .as_ref()
            .map_or_else(|code| ToolErrorCode::as_str(*code), |_| "succeeds");
        *self.seen.entry(format!("{tool} {kind}")).or_default() += 1;
    }
}

/// Where a file that may not be written can be refused for another reason as well.
fn also_right(found: &Found) -> &'static [ToolErrorCode] {
    use ToolErrorCode::{Denied, InvalidInput, NotFound};
    match found {
        // Through a link that asks for a folder, as `link -> new/` does: there is none, and a file cannot be one.
        Found::NoFolder { .. } => &[NotFound, InvalidInput],
        // The same, farther off; or the path goes on behind a link that dangles, and would leave if there were
        // something.
        Found::NoEntry => &[NotFound, InvalidInput, Denied],
        _ => &[],
    }
}

fn is_node(seen: &What, node: &Node) -> bool {
    match (seen, node) {
        (What::File(content), Node::File(expected)) => content == expected,
        (What::Folder(names), Node::Folder(children)) => names.iter().eq(children.keys()),
        (What::Other, Node::Fifo) => true,
        _ => false,
    }
}
