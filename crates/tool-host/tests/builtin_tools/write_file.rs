//! `write_file`: replaces at once, keeps the mode, appends for real, and makes the folders on the way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use plue_tool_host::ToolErrorCode;
use serde_json::json;

use crate::fixture::Fixture;

#[test]
fn a_file_is_created_replaced_and_appended_to() {
    let fixture = Fixture::new();
    for (path, content, append, after) in [
        ("new", "one\n", false, "one\n"),
        ("new", "two", false, "two"),
        ("new", " three", true, "two three"),
        ("new", "", true, "two three"),
        ("new", "", false, ""),
        ("added", "x", true, "x"),
        ("deep/er/and deeper/file", "x", false, "x"),
        ("deep/other/file", "x", true, "x"),
        ("./a/../b/file", "x", false, "x"),
        ("ünï", "é\0😀", false, "é\0😀"),
    ] {
        let input = json!({"path": path, "content": content, "append": append});
        let said = fixture.text("write_file", input.clone());
        assert_eq!(said, format!("Successfully wrote {} bytes to {path}", content.len()));
        assert_eq!(fs::read_to_string(fixture.path(path)).unwrap(), after, "{input}");
    }
    let long = "0123456789".repeat(30_000);
    fixture.text("write_file", json!({"path": "long", "content": long, "append": true}));
    fixture.text("write_file", json!({"path": "long", "content": long, "append": true}));
    assert_eq!(fs::read_to_string(fixture.path("long")).unwrap(), long.repeat(2));
}

#[test]
fn the_mode_of_a_file_stays_whether_it_is_replaced_or_appended_to() {
    let fixture = Fixture::new();
    fixture.file("script.sh", "old");
    for mode in [0o755, 0o640, 0o600] {
        fixture.chmod("script.sh", mode);
        for append in [false, true] {
            fixture.text(
                "write_file",
                json!({"path": "script.sh", "content": "new", "append": append}),
            );
            assert_eq!(fixture.mode("script.sh"), mode, "append {append}");
        }
    }
    // Nobody becomes another user by running what a model wrote.
    fixture.chmod("script.sh", 0o4755);
    fixture.text("write_file", json!({"path": "script.sh", "content": "new"}));
    assert_eq!(fixture.mode("script.sh"), 0o755);
}

#[test]
fn a_reader_never_sees_half_a_file_and_nothing_is_left_beside_it() {
    let fixture = Fixture::new();
    let contents = ["a".repeat(300_000), "b".repeat(200_000)];
    fixture.file("file", &contents[0]);
    let path = fixture.path("file");
    // Held open, so that no later file can get its number.
    let before = fs::File::open(&path).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !over.load(Ordering::Relaxed) {
                let seen = fs::read_to_string(&path).unwrap();
                assert!(contents.contains(&seen), "half a file: {} bytes", seen.len());
                reads += 1;
            }
            reads
        });
        for round in 0..60 {
            fixture.text("write_file", json!({"path": "file", "content": contents[round % 2]}));
        }
        over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_ne!(fs::metadata(&path).unwrap().ino(), before.metadata().unwrap().ino());
    assert_eq!(fs::read_dir(fixture.path("")).unwrap().count(), 1);
}

#[test]
fn a_link_is_written_through_and_stays_a_link() {
    let fixture = Fixture::new();
    fixture.file("real/file", "old");
    fixture.link("link", "real/file");
    fixture.link("folder", "real");
    fixture.link("to-new", "real/new");
    fixture.chmod("real/file", 0o750);
    for append in [false, true] {
        fixture.text(
            "write_file",
            json!({"path": "link", "content": "new", "append": append}),
        );
        fixture.text(
            "write_file",
            json!({"path": "to-new", "content": "new", "append": append}),
        );
        fixture.text(
            "write_file",
            json!({"path": "folder/sub/file", "content": "new", "append": append}),
        );
    }
    assert!(fixture.path("link").is_symlink() && fixture.path("to-new").is_symlink());
    assert_eq!(fs::read_to_string(fixture.path("real/file")).unwrap(), "newnew");
    assert_eq!(fs::read_to_string(fixture.path("real/new")).unwrap(), "newnew");
    assert_eq!(fs::read_to_string(fixture.path("real/sub/file")).unwrap(), "newnew");
    assert_eq!(fixture.mode("real/file"), 0o750);
}

#[test]
fn a_call_that_is_refused_leaves_no_folder() {
    let fixture = Fixture::new();
    fixture.link("up", "..");
    fixture.link("dangling", "../new");
    fixture.file("folder/file", "x");
    fixture.link("nowhere", "absent");
    let long = format!("ws/deep/{}/x", "x".repeat(300));
    let before = fs::read_dir(fixture.path("")).unwrap().count();
    for (path, code) in [
        (long.as_str(), ToolErrorCode::InvalidInput),
        ("ws/../ws", ToolErrorCode::InvalidInput),
        ("ws/../nowhere/x", ToolErrorCode::NotFound),
        ("ws/../../out", ToolErrorCode::Denied),
        ("a/b/../../../work space/out", ToolErrorCode::Denied),
        ("ws/../up/out", ToolErrorCode::Denied),
        ("ws/../up/deep/out", ToolErrorCode::Denied),
        ("ws/../dangling", ToolErrorCode::Denied),
        ("ws/../folder/../../out", ToolErrorCode::Denied),
        ("ws/..", ToolErrorCode::InvalidInput),
        ("ws/deep/..", ToolErrorCode::InvalidInput),
        ("ws/../folder", ToolErrorCode::InvalidInput),
        ("ws/x/", ToolErrorCode::InvalidInput),
        ("ws/../folder/file/below", ToolErrorCode::NotFound),
    ] {
        for append in [false, true] {
            let input = json!({"path": path, "content": "y", "append": append});
            fixture.refused("write_file", input, code);
            let after = fs::read_dir(fixture.path("")).unwrap().count();
            assert_eq!(after, before, "{path} left something");
        }
    }
    // A path that comes back is no path that leaves.
    let input = json!({"path": "ws/../folder/../new/deep/file", "content": "y"});
    fixture.text("write_file", input);
    assert_eq!(fs::read_to_string(fixture.path("new/deep/file")).unwrap(), "y");
}

#[test]
fn a_link_that_asks_for_a_folder_is_not_written_through() {
    let fixture = Fixture::new();
    fixture.file("file", "old");
    fixture.link("plain", "file");
    for (link, target) in [
        ("to-file", "file/"),
        ("to-link", "plain/"),
        ("to-nothing", "new/"),
        ("to-nothing-dot", "new/."),
    ] {
        fixture.link(link, target);
        for append in [false, true] {
            let outcome = fixture.call("write_file", json!({"path": link, "content": "new", "append": append}));
            let refused = [Some(ToolErrorCode::NotFound), Some(ToolErrorCode::InvalidInput)];
            assert!(
                refused.contains(&outcome.error),
                "{link}: {} {:?}",
                outcome.text,
                outcome.error
            );
        }
    }
    assert_eq!(fs::read_to_string(fixture.path("file")).unwrap(), "old");
    assert!(!fixture.path("new").exists());
}

#[test]
fn a_path_that_ends_in_a_slash_is_said_to_name_a_folder() {
    let fixture = Fixture::new();
    fixture.file("file", "x");
    for path in ["x/", "file/", "new/x/"] {
        let input = json!({"path": path, "content": "y"});
        let said = fixture.refused("write_file", input, ToolErrorCode::InvalidInput);
        assert!(
            said.contains("leave out the /") && !said.contains("is a folder"),
            "{said}"
        );
    }
}

#[test]
fn a_file_in_the_way_of_a_folder_is_said() {
    let fixture = Fixture::new();
    fixture.file("file", "x");
    for append in [false, true] {
        let input = json!({"path": "file/below/deep", "content": "y", "append": append});
        fixture.refused("write_file", input, ToolErrorCode::NotFound);
        let input = json!({"path": "new/", "content": "y", "append": append});
        fixture.refused("write_file", input, ToolErrorCode::InvalidInput);
    }
    assert_eq!(fs::read_to_string(fixture.path("file")).unwrap(), "x");
    assert!(!fixture.path("new").exists());
}
