//! A task that goes on in another process: wherever the first one was killed, the model is asked for the same, byte for
//! byte, and gets the same task done.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::scripted_model::{ScriptedModel, ScriptedTurn, turn};
use super::scripted_toolbox::{ScriptedCall, ScriptedToolbox, answers, fails};
use super::{MODEL, case};
use crate::agent::memory::Entry;
use crate::agent::{Agent, Memory, TaskUsage};
use crate::events::recording::Recording;
use crate::failure::Failure;
use crate::state::{Begun, Files, Journal};
use crate::task::AgentTask;
use crate::telemetry::Telemetry;
use plue_contract::ToolErrorCode;
use plue_messages::{ModelError, StopReason};

/// What a task may have to remember: calls, an answer that is cut off, one that breaks off, room that is made, and a
/// turn without text.
fn all_turns() -> Vec<ScriptedTurn> {
    vec![
        turn()
            .text("One")
            .call("t1", "grep", r#"{"a":"é"}"#)
            .call("t2", "grep", "{}")
            .stops(StopReason::ToolUse),
        turn().text("Two ").stops(StopReason::MaxTokens),
        turn()
            .text("Thr")
            .wastes(7, 3)
            .restarted()
            .call("t3", "grep", "{}")
            .uses(800_000, 0)
            .stops(StopReason::ToolUse),
        turn().fails(ModelError::Refused("unknown field: compaction".into())),
        turn().text("sum").done(),
        turn().done(),
        turn().text("Bye").done(),
    ]
}

fn all_calls() -> Vec<ScriptedCall> {
    vec![answers("a"), fails(ToolErrorCode::NotFound, "b"), answers("c")]
}

struct Ran {
    result: Result<Box<RawValue>, Failure>,
    bodies: Vec<Bytes>,
    events: Vec<String>,
    called: usize,
    spent: TaskUsage,
}

async fn run(task: &AgentTask, turns: Vec<ScriptedTurn>, calls: Vec<ScriptedCall>, memory: &Memory) -> Ran {
    let cancel = CancellationToken::new();
    let recording = Recording::default();
    let model = ScriptedModel::new(turns, &cancel);
    let tools = ScriptedToolbox::new(calls, &cancel);
    let mut spent = TaskUsage::new();
    let agent = Agent {
        task,
        model_name: MODEL,
        model: &model,
        tools: &tools,
        events: &recording.sink(&[]),
        telemetry: &Telemetry::default(),
        extra_events: true,
        cancel: &cancel,
        deadline: None,
        memory,
    };
    let result = agent.run(&mut spent).await;
    Ran {
        result,
        bodies: model.bodies(),
        events: recording.lines(),
        called: tools.called().len(),
        spent,
    }
}

fn journal(folder: &tempfile::TempDir) -> Arc<Journal> {
    let files = Arc::new(Files::open(folder.path(), "task-7").unwrap());
    let begun = Begun {
        task_id: "task-7".into(),
        document: String::new(),
        started_ms: 0,
    };
    Arc::new(Journal::begin(&files, begun).unwrap())
}

/// A run from the beginning, and what it notes.
async fn noted(task: &AgentTask) -> (Ran, VecDeque<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let kept = journal(&folder);
    let memory = Memory::new(&kept, VecDeque::new(), BTreeSet::new(), false);
    let ran = run(task, all_turns(), all_calls(), &memory).await;
    drop((memory, kept));
    let files = Arc::new(Files::open(folder.path(), "task-7").unwrap());
    let (_, past) = Journal::open(&files).unwrap().unwrap();
    (ran, past.task)
}

#[tokio::test]
async fn wherever_a_task_was_killed_the_model_is_asked_for_the_same_byte_for_byte() {
    let task = case("resumed", []).task;
    let (whole, entries) = noted(&task).await;
    assert_eq!(whole.result.as_ref().unwrap().get(), r#""Bye""#);
    assert!(entries.len() > 12, "{}", entries.len());
    let known: Vec<Entry> = entries
        .iter()
        .map(|entry| postcard::from_bytes(entry).unwrap())
        .collect();
    for count in 0..=entries.len() {
        let before = &known[..count];
        let asked = before
            .iter()
            .filter(|entry| matches!(entry, Entry::Answer { .. } | Entry::Aside(_)))
            .count();
        let begun = before
            .iter()
            .filter(|entry| matches!(entry, Entry::CallBegins(_)))
            .count();
        // In the middle of a call, or with an id that was opened already, what the model reads is another thing.
        let settled = before
            .iter()
            .rposition(|entry| matches!(entry, Entry::Answer { .. } | Entry::Aside(_) | Entry::CallEnds(..)))
            .map_or(0, |last| last + 1);
        let is_clean = !before[settled..]
            .iter()
            .any(|entry| matches!(entry, Entry::Opened(_) | Entry::CallBegins(_)));
        let folder = tempfile::tempdir().unwrap();
        let past = entries.iter().take(count).cloned().collect();
        let memory = Memory::new(&journal(&folder), past, BTreeSet::new(), true);
        let turns = all_turns().into_iter().skip(asked).collect();
        let calls = all_calls().into_iter().skip(begun).collect();
        let ran = run(&task, turns, calls, &memory).await;
        assert_eq!(ran.result.unwrap().get(), r#""Bye""#, "after {count} entries");
        assert_eq!(ran.spent.turns, whole.spent.turns, "after {count} entries");
        assert_eq!(ran.called, 3 - begun, "after {count} entries");
        assert_eq!(ran.bodies.len(), whole.bodies.len() - asked, "after {count} entries");
        if is_clean {
            assert!(ran.bodies == whole.bodies[asked..], "after {count} entries");
        }
        let restarts = ran
            .events
            .iter()
            .filter(|event| event.contains("the runner was restarted"));
        let broken = usize::from(matches!(before[settled..].last(), Some(Entry::Shown(id)) if !id.is_empty()));
        assert!((1..=1 + broken + 1).contains(&restarts.count()), "{:#?}", ran.events);
    }
}

#[tokio::test]
async fn what_does_not_fit_the_task_is_forgotten_and_it_can_begin_anew() {
    let mut task = case("resumed", []).task;
    let (_, entries) = noted(&task).await;
    task.system_prompt = Some("Another one.".into());
    let folder = tempfile::tempdir().unwrap();
    let kept = journal(&folder);
    let memory = Memory::new(&kept, entries, BTreeSet::from(["t9".to_owned()]), true);
    let ran = run(&task, Vec::new(), Vec::new(), &memory).await;
    assert!(ran.result.is_err() && ran.bodies.is_empty());
    assert_eq!(ran.events.len(), 1, "{:#?}", ran.events);
    assert!(ran.events[0].starts_with("tool_end t9 error"), "{:#?}", ran.events);
    assert!(memory.forgets() && !memory.forgets());
    let ran = run(&task, all_turns(), all_calls(), &memory).await;
    assert_eq!(ran.result.unwrap().get(), r#""Bye""#);
}

#[tokio::test]
async fn a_call_that_had_begun_is_closed_and_one_whose_end_was_not_told_is_told() {
    let task = case("resumed", []).task;
    let (_, entries) = noted(&task).await;
    let known: Vec<Entry> = entries
        .iter()
        .map(|entry| postcard::from_bytes(entry).unwrap())
        .collect();
    let second = known
        .iter()
        .position(|entry| matches!(entry, Entry::CallBegins(id) if id == "t2"))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let past = entries.iter().take(second + 1).cloned().collect();
    let open = BTreeSet::from(["t1".to_owned(), "t2".to_owned()]);
    let memory = Memory::new(&journal(&folder), past, open, true);
    let turns = all_turns().into_iter().skip(1).collect();
    let ran = run(&task, turns, all_calls().into_iter().skip(2).collect(), &memory).await;
    ran.result.unwrap();
    let ends: Vec<&String> = ran
        .events
        .iter()
        .filter(|event| event.starts_with("tool_end t2"))
        .collect();
    assert_eq!(ends.len(), 1, "{:#?}", ran.events);
    assert!(
        ends[0].contains("it may have been made in part") && ends[0].contains("error"),
        "{ends:?}"
    );
    assert!(String::from_utf8_lossy(&ran.bodies[0]).contains("it may have been made in part"));
}
