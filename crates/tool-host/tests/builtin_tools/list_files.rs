//! `list_files`: everything that is there, in order, and a note for what is not shown.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, Mode, OFlags};
use serde_json::json;

use crate::fixture::Fixture;

fn tree() -> Fixture {
    let fixture = Fixture::new();
    for path in [
        "b.txt",
        "a/inner.txt",
        "a/.hidden",
        "a/deep/file",
        "a-b",
        ".git/config",
        ".gitignore",
        "Z",
        "with space/file",
    ] {
        fixture.file(path, "ignored*\n");
    }
    fixture.file("ignored.txt", "");
    std::fs::create_dir(fixture.path("empty")).unwrap();
    fixture
}

#[test]
fn a_folder_is_listed_in_order_with_its_folders_marked() {
    let fixture = tree();
    for (input, listed) in [
        (json!({}), "Z\na/\na-b\nb.txt\nempty/\nignored.txt\nwith space/"),
        (
            json!({"include_hidden": true}),
            ".git/\n.gitignore\nZ\na/\na-b\nb.txt\nempty/\nignored.txt\nwith space/",
        ),
        (
            json!({"recursive": true}),
            "Z\na/\na/deep/\na/deep/file\na/inner.txt\na-b\nb.txt\nempty/\nignored.txt\nwith space/\nwith space/file",
        ),
        (
            json!({"path": "a", "recursive": true, "include_hidden": true}),
            ".hidden\ndeep/\ndeep/file\ninner.txt",
        ),
        (json!({"path": "with space/"}), "file"),
        (json!({"path": ".git"}), "config"),
        (json!({"path": "empty", "include_hidden": true}), "[No entries.]"),
        (json!({"path": "empty"}), "[No entries that are not hidden.]"),
    ] {
        assert_eq!(fixture.text("list_files", input.clone()), listed, "{input}");
    }
}

#[test]
fn a_list_that_is_cut_says_so_and_one_that_just_fits_does_not() {
    let fixture = Fixture::new();
    for number in 0..250 {
        fixture.file(&format!("{number:03}"), "");
    }
    let cut = fixture.call("list_files", json!({}));
    assert!(cut.truncated);
    let (list, note) = cut.text.split_once("\n[").unwrap();
    assert_eq!(list.lines().count(), 200);
    assert_eq!(
        note,
        "The list was cut after 200 entries; there are 250. List a folder below, or raise max_results.]"
    );
    let cut = fixture.call("list_files", json!({"recursive": true, "max_results": 1}));
    assert_eq!(
        cut.text,
        "000\n[The list was cut after 1 entries; there are more. List a folder below, or raise max_results.]"
    );
    for input in [
        json!({"max_results": 250}),
        json!({"max_results": 1000, "recursive": true}),
    ] {
        let whole = fixture.call("list_files", input);
        assert_eq!((whole.text.lines().count(), whole.truncated), (250, false));
    }
}

#[test]
fn links_are_shown_and_not_followed() {
    let fixture = Fixture::new();
    fixture.file("real/file", "");
    fixture.link("real/circle", "..");
    fixture.link("to-file", "real/file");
    fixture.link("to-folder", "real");
    fixture.link("to-nothing", "missing");
    fixture.link("outside", "..");
    assert_eq!(
        fixture.text("list_files", json!({"recursive": true})),
        "outside\nreal/\nreal/circle/\nreal/file\nto-file\nto-folder/\nto-nothing"
    );
    assert_eq!(
        fixture.text("list_files", json!({"path": "to-folder"})),
        "circle/\nfile"
    );
}

#[test]
fn odd_names_cannot_be_taken_for_others() {
    let fixture = Fixture::new();
    for name in [
        "two\nlines",
        "\"quoted\"",
        "esc\x1b[31m",
        "\u{202e}txt.exe",
        "back\\slash",
    ] {
        fixture.file(name, "");
    }
    std::fs::write(fixture.path("").join(OsStr::from_bytes(b"latin\xe9")), "").unwrap();
    assert_eq!(
        fixture.text("list_files", json!({})),
        "\"\\\"quoted\\\"\"\nback\\slash\n\"esc\\u001b[31m\"\n\"two\\nlines\"\n\"\\u202etxt.exe\"\n\
         [1 entries have names that are not UTF-8 and were left out.]"
    );
    // What is shown in quotes is what the next call takes.
    assert_eq!(fixture.text("read_file", json!({"path": "two\nlines"})), "");
}

#[test]
fn no_depth_is_too_deep() {
    let fixture = Fixture::new();
    let deep = Deep::new(&fixture.path("top"), 1500);
    fixture.file("z", "after");
    let listed = fixture.text("list_files", json!({"recursive": true, "max_results": 5000}));
    // The text ends before the folders do: their paths alone are megabytes.
    assert!(listed.lines().count() > 100, "{}", listed.len());
    assert!(listed.contains("[The list was cut after"));
    let found = fixture.text("grep", json!({"pattern": "^(deepest|level 10|after)$"}));
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 3, "{found}");
    // A file beside each deeper folder is reached on the way back, when its folder was long closed.
    assert!(lines[0].ends_with("/deepest:1:deepest") && lines[0].len() > 15_000);
    assert_eq!(lines[1].matches('/').count(), 11);
    assert_eq!(lines[2], "z:1:after");
    drop(deep);
}

/// Folders within folders, deeper than a path can say; each holds a file that comes after the folder.
struct Deep(std::path::PathBuf);

impl Deep {
    fn new(top: &Path, depth: usize) -> Self {
        std::fs::create_dir(top).unwrap();
        let mode = Mode::from_raw_mode(0o755);
        let folder = OFlags::DIRECTORY | OFlags::RDONLY;
        let mut here = rustix::fs::open(top, folder, mode).unwrap();
        for level in 0..depth {
            rustix::fs::mkdirat(&here, "deep-level", mode).unwrap();
            let below = rustix::fs::openat(&here, "deep-level", folder, mode).unwrap();
            write_at(&here, "file", &format!("level {level}"));
            here = below;
        }
        write_at(&here, "deepest", "deepest");
        assert!(rustix::fs::statat(&here, "deepest", AtFlags::empty()).is_ok());
        Self(top.to_owned())
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        // The standard library would hold every one of the folders open on its way down.
        let removed = Command::new("rm").arg("-rf").arg(&self.0).status();
        assert!(removed.is_ok_and(|status| status.success()));
    }
}

fn write_at(folder: &impl std::os::fd::AsFd, name: &str, content: &str) {
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(file, content.as_bytes()).unwrap();
}
