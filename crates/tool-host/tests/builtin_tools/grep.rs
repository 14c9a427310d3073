//! `grep`: what is found, how it is shown, and that nothing is skipped silently.

use plue_tool_host::ToolErrorCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

fn tree() -> Fixture {
    let fixture = Fixture::new();
    fixture.file("src/main.rs", "fn main() {\n    run(-x);\n}\n");
    fixture.file("src/my lib.rs", "pub fn Run() {}\r\n");
    fixture.file("src-old", "fn old\n");
    fixture.file("README", "Run it with -x.\n");
    fixture.file(".env", "RUN=1\n");
    fixture.file(".git/config", "[run]\n");
    fixture.file(".gitignore", "target/\n");
    fixture.file("target/out.txt", "run\n");
    fixture.file("binary", b"run\0run\n");
    fixture
}

#[test]
fn the_lines_that_match_are_shown_sorted_by_path() {
    let fixture = tree();
    for (input, found) in [
        (
            json!({"pattern": "fn "}),
            "src/main.rs:1:fn main() {\nsrc/my lib.rs:1:pub fn Run() {}\nsrc-old:1:fn old",
        ),
        (
            json!({"pattern": "run", "ignore_case": true}),
            ".env:1:RUN=1\n.git/config:1:[run]\nREADME:1:Run it with -x.\nBinary file binary matches\n\
             src/main.rs:2:    run(-x);\nsrc/my lib.rs:1:pub fn Run() {}\ntarget/out.txt:1:run",
        ),
        (
            json!({"pattern": "-x"}),
            "README:1:Run it with -x.\nsrc/main.rs:2:    run(-x);",
        ),
        (json!({"pattern": "--"}), "[No matches.]"),
        (json!({"pattern": r"run\(.*\)"}), "src/main.rs:2:    run(-x);"),
        (json!({"pattern": "^run$"}), "target/out.txt:1:run"),
        (json!({"pattern": r"Run\(\)$"}), "[No matches.]"),
        (json!({"pattern": r"Run\(\) \{\}$"}), "src/my lib.rs:1:pub fn Run() {}"),
        (
            json!({"pattern": "", "path": "src"}),
            "src/main.rs:1:fn main() {\nsrc/main.rs:2:    run(-x);\nsrc/main.rs:3:}\nsrc/my lib.rs:1:pub fn Run() {}",
        ),
        (
            json!({"pattern": "Run", "path": "src/my lib.rs"}),
            "src/my lib.rs:1:pub fn Run() {}",
        ),
        (
            json!({"pattern": "fn", "include": "*.rs"}),
            "src/main.rs:1:fn main() {\nsrc/my lib.rs:1:pub fn Run() {}",
        ),
        (
            json!({"pattern": "fn", "include": "src/m?in.*"}),
            "src/main.rs:1:fn main() {",
        ),
        (
            json!({"pattern": "fn", "include": "m?in.*", "path": "src/"}),
            "src/main.rs:1:fn main() {",
        ),
        (json!({"pattern": "RUN", "include": ".*"}), ".env:1:RUN=1"),
        (json!({"pattern": "fn", "include": "*.py"}), "[No matches.]"),
    ] {
        assert_eq!(fixture.text("grep", input.clone()), found, "{input}");
    }
}

#[test]
fn a_pattern_or_glob_that_is_not_valid_is_explained() {
    let fixture = tree();
    for (input, reason) in [
        (json!({"pattern": "("}), "unclosed group"),
        (json!({"pattern": "*"}), "repetition operator missing expression"),
        (json!({"pattern": "(?=a)"}), "look-around"),
        (json!({"pattern": "a\nb"}), "not allowed in a regex"),
        (json!({"pattern": "a", "include": "[z"}), "include"),
    ] {
        let said = fixture.refused("grep", input, ToolErrorCode::InvalidInput);
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_result_that_is_cut_says_so_and_one_that_just_fits_does_not() {
    let fixture = Fixture::new();
    fixture.file("a", "x\n".repeat(60));
    fixture.file("b", "x\n".repeat(60));
    let cut = fixture.call("grep", json!({"pattern": "x"}));
    assert!(cut.truncated);
    let (found, note) = cut.text.split_once("\n[").unwrap();
    assert_eq!(found.lines().count(), 100);
    assert_eq!(
        note,
        "The result was cut after 100 matches; there are more. Narrow the pattern or the path, or raise max_results.]"
    );
    let whole = fixture.call("grep", json!({"pattern": "x", "max_results": 120}));
    assert_eq!((whole.text.lines().count(), whole.truncated), (120, false));
}

#[test]
fn long_lines_are_cut_around_the_match() {
    let fixture = Fixture::new();
    fixture.file(
        "app.min.js",
        format!("{}needle{}", "a".repeat(100_000), "b".repeat(100_000)),
    );
    let found = fixture.text("grep", json!({"pattern": "needle"}));
    assert_eq!(
        found,
        format!(
            "app.min.js:1:…{}needle{}… [line of 200006 bytes]",
            "a".repeat(200),
            "b".repeat(294)
        )
    );
}

#[test]
fn large_files_are_searched_to_their_end() {
    let fixture = Fixture::new();
    let mut content = "some line of text\n".repeat(1_000_000);
    content.push_str("needle\n");
    fixture.file("large", &content);
    content.push('\0');
    fixture.file("large-binary", &content);
    let mut long_line = "x".repeat(9 << 20);
    long_line.push_str("\nneedle\n");
    fixture.file("one-line", &long_line);
    let found = fixture.text("grep", json!({"pattern": "^needle$"}));
    let (lines, note) = found.split_once("\n[").unwrap();
    // GNU grep as well shows what comes before the first NUL that it meets in a later piece of a file.
    assert_eq!(lines.lines().next(), Some("large:1000001:needle"));
    assert!(lines.contains("large-binary"), "{lines}");
    // The line that is too long is passed over, and what follows it is found.
    assert!(lines.ends_with("one-line:2:needle"), "{lines}");
    assert!(
        note.starts_with("1 files have a line longer than 8 MiB and were searched only in part"),
        "{note}"
    );
}

#[test]
fn a_line_that_is_too_long_is_searched_in_its_beginning_and_said() {
    let fixture = Fixture::new();
    let mut content = "first\nneedle ".to_owned();
    content.push_str(&"x".repeat(30 << 20));
    content.push_str(" hidden\nlast needle");
    fixture.file("longline", &content);
    let outcome = fixture.call("grep", json!({"pattern": "needle|hidden", "path": "longline"}));
    assert_eq!(outcome.error, None, "{}", outcome.text);
    let lines: Vec<&str> = outcome.text.lines().collect();
    let [first, last, note] = lines[..] else {
        panic!("{} lines: {lines:?}", lines.len())
    };
    assert!(first.starts_with("longline:2:needle xxx"), "{first}");
    assert_eq!(last, "longline:3:last needle");
    assert!(
        note.contains("longer than 8 MiB") && note.contains("the first is longline"),
        "{note}"
    );
    // UTF-16 has no cut that is sure to be between two characters: such a file is left at the line.
    let wide: Vec<u8> = format!("\u{feff}needle\n{}", "x".repeat(9 << 20))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    fixture.file("longline", wide);
    let outcome = fixture.call("grep", json!({"pattern": "needle", "path": "longline"}));
    assert_eq!(outcome.error, None, "{}", outcome.text);
    assert!(
        outcome
            .text
            .starts_with("longline:1:needle\n[1 files have a line longer than 8 MiB"),
        "{}",
        outcome.text
    );
}

#[test]
fn a_sparse_file_of_a_terabyte_does_not_hold_the_search_up() {
    let fixture = Fixture::new();
    fixture.file("huge", "needle\n");
    let file = std::fs::File::options().write(true).open(fixture.path("huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    fixture.file("later", "needle\n");
    let outcome = fixture.call("grep", json!({"pattern": "needle"}));
    assert_eq!(outcome.error, None);
    assert!(
        outcome.text.contains("Binary file huge matches\nlater:1:needle"),
        "{}",
        outcome.text
    );
    let outcome = fixture.call("grep", json!({"pattern": "absent"}));
    assert!(
        outcome
            .text
            .contains("1 files have a line longer than 8 MiB and were searched only in part"),
        "{}",
        outcome.text
    );
    assert!(outcome.duration.as_secs() < 10);
}

#[test]
fn text_in_other_encodings_is_found_where_it_can_be() {
    let fixture = Fixture::new();
    fixture.file("latin1", b"caf\xe9 au lait\n");
    let utf16: Vec<u8> = "\u{feff}caf\u{e9} au lait\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    fixture.file("utf16", utf16);
    assert_eq!(
        fixture.text("grep", json!({"pattern": "au lait"})),
        "latin1:1:caf\u{fffd} au lait\nutf16:1:café au lait"
    );
}

#[test]
fn links_below_the_folder_are_not_followed_and_odd_names_are_quoted() {
    let fixture = Fixture::new();
    fixture.file("real/file", "x\n");
    fixture.file("two\nlines", "x\n");
    fixture.link("circle", ".");
    fixture.link("again", "real/file");
    assert_eq!(
        fixture.text("grep", json!({"pattern": "x"})),
        "real/file:1:x\n\"two\\nlines\":1:x"
    );
    assert_eq!(
        fixture.text("grep", json!({"pattern": "x", "path": "again"})),
        "again:1:x"
    );
}

#[test]
fn a_search_that_is_cancelled_ends() {
    let fixture = Fixture::new();
    for number in 0..200 {
        fixture.file(&format!("{number}"), "x\n");
    }
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (outcome, _) = fixture.call_with("grep", r#"{"pattern": "x"}"#, &cancel);
    assert_eq!(outcome.error, Some(ToolErrorCode::Cancelled));
}
