//! `replace-file`: a file is old or new, never a part, keeps its permission bits, and stays inside the workspace.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use plue_tool_host::ToolErrorCode as Code;

use crate::fixture::{Fixture, call};
use support::guest::{Guest, RESULT, SCRATCH, WORKSPACE};

/// Replaces the file that the property `p` names, the first of the input, by the whole input; answers with the input,
/// or with the error.
fn replaces() -> Guest {
    let call = format!(
        "(local.set $a (i32.const 6))
         (block $found (loop $again
           (br_if $found (i32.eq (i32.load8_u (i32.add (local.get $input) (local.get $a))) (i32.const 0x22)))
           (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (br $again)))
         (call $replace (i32.add (local.get $input) (i32.const 6)) (i32.sub (local.get $a) (i32.const 6))
           (local.get $input) (local.get $length) (i32.const {SCRATCH}))
         (if (i32.load8_u (i32.const {SCRATCH})) (then
           (i32.store8 (i32.const {RESULT}) (i32.const 1))
           (i32.store8 (i32.const {case}) (i32.load8_u (i32.const {error})))
           (i32.store (i32.const {pointer}) (i32.load (i32.const {error_pointer})))
           (i32.store (i32.const {length}) (i32.load (i32.const {error_length})))))",
        case = RESULT + 8,
        pointer = RESULT + 12,
        length = RESULT + 16,
        error = SCRATCH + 4,
        error_pointer = SCRATCH + 8,
        error_length = SCRATCH + 12,
    );
    Guest::on_call("tool", &call).importing(WORKSPACE)
}

fn input(path: &str) -> String {
    format!(r#"{{"p":"{path}"}}"#)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A workspace with something of every kind, beside a file that is not in it.
fn fixture() -> Fixture {
    let fixture = Fixture::with(&replaces(), "workspace = \"read-write\"");
    let workspace = fixture.workspace();
    fs::create_dir_all(workspace.join("folder/deeper")).unwrap();
    for file in [
        workspace.join("file"),
        workspace.join("folder/file"),
        workspace.join("../outside"),
    ] {
        fs::write(file, "old").unwrap();
    }
    for (target, link) in [
        ("file", "to-file"),
        ("to-file", "to-link"),
        ("folder/file", "to-folder-file"),
        ("../file", "folder/up"),
        ("new", "to-new"),
        ("folder", "to-folder"),
        ("loop", "loop"),
        ("../outside", "to-outside"),
        ("/etc/passwd", "to-etc"),
        ("..", "to-parent"),
        ("../workspace-evil", "to-nothing-outside"),
    ] {
        symlink(target, workspace.join(link)).unwrap();
    }
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        workspace.join("fifo"),
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_leads_to_the_file_that_is_replaced_and_links_stay_links() {
    for (path, file) in [
        ("file", "file"),
        ("./folder//../file", "file"),
        ("new", "new"),
        ("folder/new", "folder/new"),
        ("to-file", "file"),
        ("to-link", "file"),
        ("to-folder-file", "folder/file"),
        ("to-folder/file", "folder/file"),
        ("folder/up", "file"),
        ("to-new", "new"),
        ("to-folder/new", "folder/new"),
    ] {
        let fixture = fixture();
        let workspace = fixture.workspace();
        let before = names(&workspace);
        let outcome = call(&fixture.toolbox(), "tool", &input(path)).await;
        assert_eq!((outcome.error, outcome.text), (None, input(path)));
        assert_eq!(fs::read_to_string(workspace.join(file)).unwrap(), input(path), "{path}");
        assert!(!workspace.join(file).is_symlink(), "{path}");
        let link = ["to-file", "to-link", "to-folder-file", "to-new"].contains(&path);
        assert_eq!(workspace.join(path).is_symlink(), link || path == "folder/up", "{path}");
        // Nothing is left beside it.
        let mut expected = before;
        if file == "new" {
            expected.push("new".to_owned());
            expected.sort();
        }
        assert_eq!(names(&workspace), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_the_workspace_is_refused_in_terms_of_the_workspace() {
    let fixture = fixture();
    let before = names(&fixture.workspace());
    let toolbox = fixture.toolbox();
    for (path, code) in [
        ("", Code::Denied),
        (".", Code::Denied),
        ("folder", Code::Denied),
        ("folder/", Code::Denied),
        ("folder/..", Code::Denied),
        ("to-folder", Code::Denied),
        ("fifo", Code::Denied),
        ("../outside", Code::Denied),
        ("folder/../../outside", Code::Denied),
        ("/etc/passwd", Code::Denied),
        ("to-outside", Code::Denied),
        ("to-etc", Code::Denied),
        ("to-parent", Code::Denied),
        ("to-parent/outside", Code::Denied),
        ("to-nothing-outside", Code::Denied),
        ("loop", Code::Failed),
        ("nowhere/file", Code::NotFound),
        ("file/file", Code::NotFound),
    ] {
        let outcome = call(&toolbox, "tool", &input(path)).await;
        assert_eq!(outcome.error, Some(code), "{path}: {}", outcome.text);
        for secret in [fixture.workspace().to_str().unwrap(), "os error"] {
            assert!(!outcome.text.contains(secret), "{path}: {}", outcome.text);
        }
    }
    assert_eq!(
        fs::read_to_string(fixture.workspace().join("../outside")).unwrap(),
        "old"
    );
    assert_eq!(fs::read_to_string(fixture.workspace().join("file")).unwrap(), "old");
    assert_eq!(names(&fixture.workspace()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_bits_are_kept_and_special_bits_are_not() {
    let fixture = fixture();
    let file = fixture.workspace().join("file");
    let toolbox = fixture.toolbox();
    for (before, after) in [
        (0o755, 0o755),
        (0o600, 0o600),
        (0o4755, 0o755),
        (0o640, 0o640),
        (0o444, 0o444),
    ] {
        fs::set_permissions(&file, fs::Permissions::from_mode(before)).unwrap();
        assert_eq!(call(&toolbox, "tool", &input("file")).await.error, None);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            after,
            "{before:o}"
        );
    }
}
