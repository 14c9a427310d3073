//! What a component imports is compared with what its manifest grants.

use std::os::unix::ffi::OsStrExt;

use crate::fixture::{Fixture, call};
use support::guest::{
    CLOCK, FILES, Guest, Import, PROCESS, PROGRESS, RESULT, SCRATCH, SOCKETS, answers, unknown_import,
};

const LOG: usize = SCRATCH + 256;

fn importing(import: Import) -> Guest {
    Guest::good("tool").importing(import)
}

#[test]
fn an_import_that_is_not_granted_is_refused_by_its_name() {
    for (interface, manifest, says) in [
        ("wasi:http/outgoing-handler@0.2.6", "", "no grant gives it"),
        (
            "wasi:http/types@0.2.6",
            "workspace = \"read-write\"\nprocess = true",
            "no grant gives it",
        ),
        ("wasi:sockets/tcp@0.2.6", "", "no tool gets a network"),
        (
            "wasi:sockets/udp@0.2.6",
            "inert = [\"wasi:sockets/tcp\"]",
            "no tool gets a network",
        ),
        ("wasi:clocks/monotonic-clock@0.3.0", "", "no grant gives it"),
        ("wasi:io/poll@0.1.0", "", "no grant gives it"),
        ("wasi:keyvalue/store@0.2.0", "", "no grant gives it"),
        ("plue:tool/process@1.0.0", "", "needs process = true"),
        (
            "plue:tool/workspace@1.0.0",
            "workspace = \"read\"",
            "needs workspace = \"read-write\"",
        ),
        ("plue:tool/secrets@1.0.0", "", "no grant gives it"),
        ("evil:host/escape", "", "no grant gives it"),
    ] {
        let fixture = Fixture::with(&importing(unknown_import(interface)), manifest);
        let refusal = fixture.refusal();
        for part in ["tool.wasm", interface, says] {
            assert!(refusal.contains(part), "{interface}: {refusal}");
        }
    }
}

#[test]
fn every_import_that_is_not_granted_is_named() {
    let guest = importing(unknown_import("wasi:http/types@0.2.6")).importing(unknown_import("evil:host/escape"));
    let refusal = Fixture::with(&guest, "").refusal();
    assert!(
        refusal.contains("wasi:http/types@0.2.6") && refusal.contains("evil:host/escape"),
        "{refusal}"
    );
}

#[test]
fn an_interface_of_the_right_name_and_another_type_is_refused() {
    let guest = importing(unknown_import("wasi:cli/environment@0.2.6"));
    let refusal = Fixture::with(&guest, "").refusal();
    assert!(refusal.contains("does not fit the interfaces"), "{refusal}");
}

#[test]
fn what_is_granted_is_linked_in_every_patch_of_wasi() {
    for (import, manifest) in [
        (CLOCK, ""),
        (FILES, "workspace = \"none\""),
        (FILES, "workspace = \"read\""),
        (PROGRESS, ""),
        (PROCESS, "process = true"),
        (SOCKETS, "inert = [\"wasi:sockets\"]"),
    ] {
        Fixture::with(&importing(import), manifest).toolbox();
    }
    for patch in ["0.2.0", "0.2.3", "0.2.6", "0.2.12", "0.2.99"] {
        let text = CLOCK.text.replace("0.2.3", patch).leak();
        Fixture::with(&importing(Import { text, ..CLOCK }), "").toolbox();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inert_socket_answers_access_denied() {
    // Answers with the two bytes of the result: 1 for an error, and the number of the code.
    let asks = format!("(call $socket (i32.const 0) (i32.const {SCRATCH}))");
    let shows = format!(
        "(i32.store8 (i32.const {SCRATCH}) (i32.add (i32.const 48) (i32.load8_u (i32.const {SCRATCH}))))
         (i32.store8 (i32.const {next}) (i32.add (i32.const 48) (i32.load8_u (i32.const {next}))))",
        next = SCRATCH + 4,
    );
    let answer = answers(&format!("(i32.const {SCRATCH})"), "(i32.const 5)");
    let guest = Guest::on_call("tool", &(asks + &shows + &answer)).importing(SOCKETS);
    let fixture = Fixture::with(&guest, "inert = [\"wasi:sockets\"]");
    let outcome = call(&fixture.toolbox(), "tool", "{}").await;
    assert_eq!(outcome.error, None, "{}", outcome.text);
    assert!(
        outcome.text.starts_with('1') && outcome.text.ends_with('1'),
        "{:?}",
        outcome.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workspace_is_the_only_directory_and_only_there_when_it_is_granted() {
    // Answers with the number of preopened directories and the name of the first.
    let counts = format!(
        "(call $directories (i32.const {SCRATCH}))
         (local.set $a (i32.load (i32.const {SCRATCH})))
         (i32.store8 (i32.const {RESULT}) (i32.const 0))
         (i32.store8 (i32.const {at}) (i32.add (i32.const 48) (i32.load (i32.const {count}))))
         (if (i32.load (i32.const {count})) (then
           (i32.store8 (i32.const {name}) (i32.load8_u (i32.load offset=4 (local.get $a))))
           (i32.store8 (i32.const {length}) (i32.add (i32.const 48) (i32.load offset=8 (local.get $a))))))",
        count = SCRATCH + 4,
        at = SCRATCH + 16,
        name = SCRATCH + 17,
        length = SCRATCH + 18,
    ) + &answers(&format!("(i32.const {})", SCRATCH + 16), "(i32.const 3)");
    let guest = Guest::on_call("tool", &counts).importing(FILES);
    for (grant, expected) in [("none", "0\u{FFFD}\u{FFFD}"), ("read", "1.1"), ("read-write", "1.1")] {
        let fixture = Fixture::with(&guest, &format!("workspace = \"{grant}\""));
        let outcome = call(&fixture.toolbox(), "tool", "{}").await;
        assert_eq!(outcome.text, expected, "{grant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_may_read_cannot_write() {
    // Creates the file `f`; answers with the tag of the result.
    let creates = format!(
        "(call $directories (i32.const {SCRATCH}))
         (i32.store8 (i32.const {path}) (i32.const 0x66))
         (call $open (i32.load (i32.load (i32.const {SCRATCH}))) (i32.const 0) (i32.const {path}) (i32.const 1)
           (i32.const 1) (i32.const 2) (i32.const {SCRATCH}))
         (i32.store8 (i32.const {SCRATCH}) (i32.add (i32.const 48) (i32.load8_u (i32.const {SCRATCH}))))",
        path = SCRATCH + 64,
    ) + &answers(&format!("(i32.const {SCRATCH})"), "(i32.const 1)");
    let guest = Guest::on_call("tool", &creates).importing(FILES);
    for (grant, expected) in [("read", "1"), ("read-write", "0")] {
        let fixture = Fixture::with(&guest, &format!("workspace = \"{grant}\""));
        let outcome = call(&fixture.toolbox(), "tool", "{}").await;
        assert_eq!(outcome.text, expected, "{grant}");
        assert_eq!(fixture.workspace().join("f").exists(), grant == "read-write");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_gives_each_entry_with_its_type_and_says_which_it_cannot_name() {
    // Answers with a letter for the type and the first letter of the name of each entry, and with E and a letter for
    // the code of an error.
    let note = |value: &str| {
        format!(
            "(i32.store8 (i32.add (local.get $b) (i32.const {LOG})) {value})
             (local.set $b (i32.add (local.get $b) (i32.const 1)))"
        )
    };
    let letter = |at: usize| note(&format!("(i32.add (i32.const 97) (i32.load8_u (i32.const {at})))"));
    let lists = format!(
        "(call $directories (i32.const {SCRATCH}))
         (call $read (i32.load (i32.load (i32.const {SCRATCH}))) (i32.const {SCRATCH}))
         (if (i32.load8_u (i32.const {SCRATCH})) (then unreachable))
         (local.set $a (i32.load (i32.const {found})))
         (block $end (loop $again
           (call $entry (local.get $a) (i32.const {SCRATCH}))
           (if (i32.load8_u (i32.const {SCRATCH}))
             (then {error} {code})
             (else
               (br_if $end (i32.eqz (i32.load8_u (i32.const {found}))))
               {kind} {name}))
           (br $again)))",
        found = SCRATCH + 4,
        error = note("(i32.const 69)"),
        code = letter(SCRATCH + 4),
        kind = letter(SCRATCH + 8),
        name = note(&format!("(i32.load8_u (i32.load (i32.const {})))", SCRATCH + 12)),
    ) + &answers(&format!("(i32.const {LOG})"), "(local.get $b)");
    let fixture = Fixture::with(&Guest::on_call("tool", &lists).importing(FILES), "workspace = \"read\"");
    let at = |name: &str| fixture.workspace().join(name);
    std::fs::write(at("regular"), "").unwrap();
    std::fs::write(fixture.workspace().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let outcome = call(&fixture.toolbox(), "tool", "{}").await;
    assert_eq!(outcome.error, None, "{}", outcome.text);
    let mut pairs: Vec<&str> = outcome
        .text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap())
        .collect();
    pairs.sort_unstable();
    assert_eq!(pairs, ["Ej", "dd", "ef", "fl", "gr", "hs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_calls_the_file_system_itself_does_what_it_may() {
    use support::guest::filesystem::{CREATE, Calls, DIRECTORY, FOLLOW, MUTATE, NO_FOLLOW, READ, ROOT, WRITE};
    let all = Calls::new()
        .make_folder("made")
        .open(ROOT, "made", NO_FOLLOW, DIRECTORY, READ | MUTATE)
        .open(1, "file", NO_FOLLOW, CREATE, READ | WRITE)
        .write(2, "content")
        .set_times(2)
        .set_size(2, 4)
        .write_stream(2)
        .append_stream(2)
        .symlink("made/file", "link")
        .read_link("link")
        .set_times_at("link", FOLLOW)
        .link("made/file", NO_FOLLOW, "hard")
        .rename("hard", "harder")
        .stat("harder", NO_FOLLOW)
        .hash("harder", NO_FOLLOW)
        .unlink("harder")
        .make_folder("gone")
        .remove_folder("gone")
        .read_at("link", FOLLOW);
    let fixture = Fixture::with(&all.guest("tool"), "workspace = \"read-write\"");
    let outcome = call(&fixture.toolbox(), "tool", "{}").await;
    assert_eq!((outcome.error, outcome.text.as_str()), (None, "cont"));
}
