#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Mode};
use crate::events::event::{Event, StepState, Summary};
use crate::events::queue::Numbered;
use crate::events::record::Record;

const REGISTER_URL: &str = "http://user:pass@127.0.0.1:1/internal/runners/register";

fn standby() -> StandbyConfig {
    let lookup = |name: &str| match name {
        "MODE" => Some("standby".to_owned()),
        "REGISTER_URL" => Some(REGISTER_URL.to_owned()),
        "POD_NAME" => Some("pod-1".to_owned()),
        _ => None,
    };
    match Config::read(&lookup).unwrap().mode {
        Mode::Standby(standby) => standby,
        Mode::Active { .. } => unreachable!(),
    }
}

fn assignment(callback_url: &str) -> Assignment {
    Assignment {
        id: 7,
        callback_url: Url::parse(callback_url).unwrap(),
        session_id: None,
        kind: None,
        document: Ok("{}".into()),
    }
}

fn open(folder: &Path) -> (Journal, Left) {
    open_without(folder, Redactor::default())
}

/// For a runner that has these secrets.
fn open_without(folder: &Path, secrets: Redactor) -> (Journal, Left) {
    Journal::open(folder, &standby(), Box::leak(Box::new(secrets)))
}

/// What the next process of the runner finds.
fn after(folder: &TempDir, journal: Journal) -> Left {
    drop(journal);
    open(folder.path()).1
}

fn task(left: Left) -> LeftTask {
    match left {
        Left::Task(task) => *task,
        other => unreachable!("{other:?}"),
    }
}

fn request<'a>(events: &'a [Numbered], body: &'a Bytes) -> EventRequest<'a> {
    EventRequest {
        events,
        lost: 1,
        body,
        key: "7-1",
    }
}

fn numbered(seq: u64, event: Event) -> [Numbered; 1] {
    let record = Record::from(event);
    [Numbered { seq, record }]
}

fn done() -> Event {
    let summary = Summary {
        usage: None,
        cost_usd: None,
        turns: None,
        duration_ms: 1,
        sandbox: "strict",
    };
    Event::Done { result: None, summary }
}

#[test]
fn the_next_process_finds_what_this_one_did() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, left) = open(folder.path());
    assert_eq!(left, Left::Nothing);
    assert!(journal.named("pod-1-x") && journal.asking());
    let left = after(&folder, journal);
    assert_eq!(left, Left::Asking { name: "pod-1-x".into() });
    let (journal, _) = open(folder.path());
    journal.waiting(Some(5));
    let left = after(&folder, journal);
    assert_eq!(left, Left::Waiting { name: "pod-1-x".into() });
}

#[test]
fn a_callback_url_with_a_secret_of_the_runners_is_not_written_down() {
    const SECRET: &str = "k3y-in-a-path";
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:1/{SECRET}/7");
    for (secret, expected) in [("another-secret", Some(&*url)), (SECRET, None)] {
        let (journal, _) = open_without(folder.path(), Redactor::new([secret]));
        journal.named("pod-1");
        journal.has_task(&assignment(&url), 5);
        let left = task(after(&folder, journal));
        assert_eq!(left.callback_url.as_ref().map(Url::as_str), expected);
    }
}

#[test]
fn a_task_is_found_with_its_numbers_and_what_is_open_until_its_ending_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.named("pod-1");
    journal.has_task(&assignment("http://127.0.0.1:1/internal/tasks/7/stream"), 5);
    // As long as a step's name may be in an event.
    let start = numbered(
        1,
        Event::StepStart {
            step_name: "é".repeat(2000),
            step_index: 0,
        },
    );
    let body = Bytes::from_static(b"{}");
    journal.sending(&request(&start, &body));
    let page = |left: &LeftTask| (left.id, left.beat_ms, left.past.last_seq, left.past.lost);
    let left = task(after(&folder, journal));
    assert_eq!(page(&left), (7, 5, 1, 1));
    assert_ne!(left.past.open, Unfinished::default());

    let (journal, _) = open(folder.path());
    journal.arrived(0, false);
    let end = Event::StepEnd {
        step_name: "é".repeat(2000),
        step_index: 0,
        step_state: StepState::Success,
        output: None,
        exit_code: Some(0),
        duration_ms: 1,
    };
    journal.sending(&request(&numbered(2, end), &body));
    journal.beat(9);
    let left = task(after(&folder, journal));
    assert_eq!((page(&left), left.ending), ((7, 9, 2, 1), None));
    assert_eq!(left.past.open, Unfinished::default());

    let (journal, _) = open(folder.path());
    let body = Bytes::from("x".repeat(900_000));
    journal.sending(&request(&numbered(3, done()), &body));
    let ending = task(after(&folder, journal)).ending.unwrap();
    assert_eq!((ending.seq, &*ending.key, ending.body), (3, "7-1", body));

    // The server knows: nobody has to tell it again, whatever the runner still does.
    let (journal, _) = open(folder.path());
    journal.arrived(0, true);
    let left = after(&folder, journal);
    assert_eq!(left, Left::Waiting { name: "pod-1".into() });
}

#[test]
fn no_secret_of_a_callback_is_written_and_one_that_is_the_servers_own_is_known_again() {
    for (url, found) in [
        ("http://127.0.0.1:1/x", Some("http://127.0.0.1:1/x")),
        ("http://user:pass@127.0.0.1:1/x", Some("http://user:pass@127.0.0.1:1/x")),
        ("http://other:s3cr3t@127.0.0.1:1/x", None),
        ("http://user:pass@127.0.0.1:2/x", None),
        ("http://127.0.0.1:1/x?signature=s3cr3t", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path());
        journal.named("pod-1");
        journal.has_task(&assignment(url), 5);
        let written = fs::read_to_string(&journal.path).unwrap();
        assert!(!written.contains("pass") && !written.contains("s3cr3t"), "{written}");
        let left = task(after(&folder, journal));
        assert_eq!(left.callback_url.as_ref().map(Url::as_str), found, "{url}");
    }
}

#[test]
fn what_cannot_be_written_down_is_said_so_that_another_name_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file_name(&standby()));
    let left = || open(folder.path());
    for put in [
        (|path: &Path| fs::create_dir(path).unwrap()) as fn(&Path),
        |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        |path| rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap(),
        |path| {
            let other = path.with_extension("other");
            let _ = fs::remove_file(&other);
            fs::write(&other, "").unwrap();
            fs::hard_link(other, path).unwrap();
        },
    ] {
        put(&path);
        let (journal, left) = left();
        assert!(matches!(left, Left::Unusable(_)), "{left:?}");
        assert!(!journal.named("pod-1"), "the name would be used again");
        assert!(!journal.asking());
        // No later process uses this one.
        journal.named("pod-1-x");
        assert!(journal.asking());
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    let nowhere = open(&folder.path().join("missing")).1;
    assert!(matches!(nowhere, Left::Unusable(_)));
}

#[test]
fn a_file_that_others_could_write_to_is_replaced_and_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.named("pod-1");
    fs::set_permissions(&journal.path, fs::Permissions::from_mode(0o660)).unwrap();
    let path = journal.path.clone();
    let left = after(&folder, journal);
    assert!(matches!(left, Left::Unreadable(_)), "{left:?}");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_is_removed_under_a_runner_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.named("pod-1");
    fs::remove_file(&journal.path).unwrap();
    assert!(journal.asking());
    let left = after(&folder, journal);
    assert_eq!(left, Left::Asking { name: "pod-1".into() });
}

#[test]
fn a_living_runner_keeps_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.named("pod-1");
    let (other, left) = open(folder.path());
    assert_eq!(left, Left::Alive);
    other.named("pod-1-x");
    other.close();
    let left = after(&folder, journal);
    assert_eq!(left, Left::Waiting { name: "pod-1".into() });
}

#[test]
fn a_fresh_name_has_the_pods_name_in_it_and_never_more_characters_than_the_server_takes() {
    for (pod, length) in [("pod-1", 14), (&*"p".repeat(255), 255), (&*"é".repeat(300), 255)] {
        let (one, other) = (fresh_name(pod), fresh_name(pod));
        assert_eq!(one.chars().count(), length, "{one}");
        assert_ne!(one, other);
        assert!(one.starts_with(&pod.chars().take(5).collect::<String>()));
    }
}
