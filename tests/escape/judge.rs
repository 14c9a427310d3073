//! What came of a run: the promises that hold for every attack, and what this attack was to end with.

use serde::Serialize;
use serde_json::Value;

use crate::attack::{Action, Attack, Expect, STILL_HERE, Surface};
use crate::canary::Digest;
use crate::drive::Seen;
use crate::scene::Scene;
use crate::target::{self, Outcome};

/// More memory than any attack may make the runner take. An ordinary run stays below a fifth of it.
const MOST_KIB: u64 = 512 * 1024;

/// How one attack ended on one surface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "evidence", rename_all = "snake_case")]
pub enum Verdict {
    /// With what held it.
    Held(String),
    GotThrough(String),
    /// The attack does not work outside of the sandbox either, so that its failure says nothing.
    BaselineFailed(String),
    /// This machine refuses it to everybody; counted apart.
    NotApplicable(String),
    /// The run was not what the attack needs: it says nothing, and is a failure.
    Broken(String),
}

/// Judges a run that came to an end. `left` is what was found running afterwards.
pub fn judge(
    attack: &Attack,
    surface: Surface,
    scene: &Scene,
    before: &[Digest],
    seen: &Seen,
    left: &[String],
) -> Verdict {
    let broken = promises(scene, before, seen, left);
    if !broken.is_empty() {
        return Verdict::GotThrough(broken.join("; "));
    }
    if surface.is_file_tool() || matches!(attack.action, Action::Call(_)) {
        tool(attack, scene, seen)
    } else if surface.is_command() {
        command(attack, surface, seen)
    } else {
        input(attack, surface, seen)
    }
}

/// What holds after every attack, whatever it was.
fn promises(scene: &Scene, before: &[Digest], seen: &Seen, left: &[String]) -> Vec<String> {
    let mut broken = Vec::new();
    match scene.digest() {
        Ok(after) => {
            for (before, after) in before.iter().zip(&after) {
                broken.extend(before.changes(after));
            }
        }
        Err(error) => broken.push(format!("the canaries cannot be read any more: {error:#}")),
    }
    let places = [
        ("the events", &*seen.sent),
        ("what the model was asked", &*seen.asked),
        ("the log", seen.finished.stdout.as_bytes()),
        ("standard error", seen.finished.stderr.as_bytes()),
    ];
    for (place, bytes) in places {
        for secret in scene.secrets.found_in(bytes) {
            broken.push(format!("{secret} is in {place}"));
        }
    }
    broken.extend(left.iter().map(|process| format!("{process} is left")));
    for which in scene.listeners.reached() {
        broken.push(format!("{which} outside was reached"));
    }
    broken.extend(
        scene
            .bystander
            .noticed()
            .into_iter()
            .map(|what| format!("the bystander outside: {what}")),
    );
    broken.extend(
        seen.violations
            .iter()
            .map(|violation| format!("the protocol was broken: {violation}")),
    );
    broken.extend(seen.finished.log_errors.iter().cloned());
    let expected = match seen.terminal() {
        Some(event) if event["type"] == "done" => &[0][..],
        _ => &[1, 2],
    };
    if !expected.contains(&seen.finished.code) {
        let (code, log) = (seen.finished.code, seen.log());
        broken.push(format!(
            "the runner ended with {code}, not {expected:?}; it said: {log}"
        ));
    }
    if seen.finished.stderr.contains("panicked") || seen.finished.stdout.contains("panicked") {
        broken.push(format!("the runner panicked: {}", seen.log()));
    }
    if seen.peak_kib > MOST_KIB {
        broken.push(format!("the runner took {} MiB of memory", seen.peak_kib / 1024));
    }
    broken
}

/// A command: what it printed, how its call ended, and whether the next one works.
fn command(attack: &Attack, surface: Surface, seen: &Seen) -> Verdict {
    let (text, code, next) = match surface {
        Surface::Shell => {
            let Some(end) = seen.events_of("tool_end").next() else {
                return broken("no tool call ended", seen);
            };
            let text = |index: usize| {
                seen.results
                    .get(index)
                    .map_or(String::new(), |result| result.text.clone())
            };
            (text(0), end["code"].as_str().map(str::to_owned), text(1))
        }
        _ => {
            let Some(terminal) = seen.terminal() else {
                return broken("no terminal event came", seen);
            };
            let code = terminal["code"].as_str().map(str::to_owned);
            // A step that fails is the end of its workflow, so that there is no next one.
            let next = if code.is_some() {
                STILL_HERE.to_owned()
            } else {
                lines(seen, 1)
            };
            (lines(seen, 0), code, next)
        }
    };
    let shown = || cut(&text);
    let outcomes = target::outcomes(&text);
    if let Some(Outcome::GotThrough(evidence)) = outcomes
        .iter()
        .find(|outcome| matches!(outcome, Outcome::GotThrough(_)))
    {
        return Verdict::GotThrough(evidence.clone());
    }
    if !next.lines().any(|line| line.trim() == STILL_HERE) {
        return Verdict::GotThrough(format!("the next command does not work: {}", cut(&next)));
    }
    if let Expect::Killed(limit) = attack.expect {
        return match code.as_deref() {
            Some(code) if code == limit => Verdict::Held(format!("ended: {code}")),
            other => Verdict::GotThrough(format!("it was not ended with {limit}, but: {other:?} {}", shown())),
        };
    }
    if matches!(attack.expect, Expect::Harmless) {
        let how = outcomes
            .into_iter()
            .next()
            .map_or_else(shown, |outcome| format!("{outcome:?}"));
        return Verdict::Held(format!("{}: {how}", code.as_deref().unwrap_or("success")));
    }
    if let Some(code) = code {
        return Verdict::Broken(format!("the command failed with {code}: {}", shown()));
    }
    if matches!(attack.action, Action::Path(_)) {
        return if !text.contains("tried") {
            Verdict::Broken(format!("the command was not run to its end: {}", shown()))
        } else if let Some(name) = CANARY_NAMES.iter().find(|name| lists(&text, name)) {
            Verdict::GotThrough(format!("{name}, which is outside, was listed: {}", shown()))
        } else {
            Verdict::Held("nothing of the outside was read, listed or changed".to_owned())
        };
    }
    match outcomes.into_iter().next() {
        Some(Outcome::Held { how, .. }) => Verdict::Held(how),
        Some(Outcome::Broken(why)) => Verdict::Broken(why),
        _ => Verdict::Broken(format!("the attack did not say how it ended: {}", shown())),
    }
}

/// Names that stand in a canary folder and nowhere else.
const CANARY_NAMES: [&str; 4] = ["inner.txt", "deep.txt", "read-only.txt", "listener.socket"];

/// Whether a listing has this name: a line that ends with it and is no error.
fn lists(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.trim_end().ends_with(name))
}

/// A call of a tool, which has a code of its own.
fn tool(attack: &Attack, scene: &Scene, seen: &Seen) -> Verdict {
    let ends: Vec<&Value> = seen.events_of("tool_end").collect();
    let (Some(end), Some(result)) = (ends.first(), seen.results.first()) else {
        return broken("no tool call ended", seen);
    };
    if ends.len() != attack.repeat + 1 || !ends.last().is_some_and(|end| end["tool_state"] == "success") {
        return Verdict::GotThrough(format!("the next call does not work: {:?}", ends.last()));
    }
    let text = &result.text;
    let all: String = seen.results.iter().map(|result| result.text.as_str()).collect();
    // What the model wrote itself may be said back to it.
    let asked = seen
        .events_of("tool_start")
        .map(|start| start["args"].to_string())
        .collect::<String>();
    if let Some(name) = CANARY_NAMES
        .iter()
        .find(|name| all.contains(**name) && !asked.contains(**name))
    {
        return Verdict::GotThrough(format!("{name}, which is outside, is named: {}", cut(text)));
    }
    let outside = scene.hidden.display().to_string();
    let said = all.replace(&*scene.workspace.to_string_lossy(), "");
    if said.contains(&outside) && !asked.contains(&outside) {
        return Verdict::GotThrough(format!("a place outside is named: {}", cut(text)));
    }
    let code = end["code"].as_str();
    match attack.expect {
        Expect::Contained | Expect::Harmless => Verdict::Held(format!("{}: {}", code.unwrap_or("success"), cut(text))),
        Expect::Denied(codes) => coded(codes, code, text),
        Expect::Killed(limit) => coded(&[limit], code, text),
        Expect::Refused(_) | Expect::Answers(_) => {
            Verdict::Broken("a file tool cannot be expected to do that".to_owned())
        }
    }
}

fn coded(wanted: &[&str], code: Option<&str>, text: &str) -> Verdict {
    match code {
        Some(code) if wanted.contains(&code) => Verdict::Held(format!("{code}: {}", cut(text))),
        Some(code) => Verdict::Broken(format!("refused with {code} instead of {wanted:?}: {}", cut(text))),
        None => Verdict::GotThrough(format!("the call succeeded: {}", cut(text))),
    }
}

/// A hostile component, task or model: the call's end when there is one, else the task's.
fn input(attack: &Attack, surface: Surface, seen: &Seen) -> Verdict {
    let Some(terminal) = seen.terminal() else {
        return broken("no terminal event came", seen);
    };
    let ends: Vec<&Value> = seen.events_of("tool_end").collect();
    let has_calls = matches!(surface, Surface::Component | Surface::Model);
    let call = match attack.expect {
        // The very last is the good call.
        Expect::Answers(_) => ends.len().checked_sub(2).and_then(|last| ends.get(last)),
        _ => ends.first(),
    };
    // A model that breaks the rules ends its task; then there is no next call.
    let ended = surface == Surface::Model && terminal["type"] == "error";
    let call = call.filter(|_| has_calls && !ended);
    let has_next = surface == Surface::Component || ends.len() > 1;
    if call.is_some() && has_next && !ends.last().is_some_and(|end| end["tool_state"] == "success") {
        return Verdict::GotThrough(format!("the next call does not work: {:?}", ends.last()));
    }
    let (code, text) = match call {
        Some(end) => (end["code"].as_str(), end["output"].to_string()),
        None => (terminal["code"].as_str(), terminal.to_string()),
    };
    match attack.expect {
        Expect::Contained | Expect::Harmless => Verdict::Held(format!("{}: {}", code.unwrap_or("success"), cut(&text))),
        Expect::Denied(codes) => coded(codes, code, &text),
        Expect::Killed(limit) => coded(&[limit], code, &text),
        Expect::Refused(says) => refused(says, terminal, seen),
        Expect::Answers(wanted) => match (code, call) {
            (Some(code), _) => Verdict::Broken(format!("it failed with {code}: {}", cut(&text))),
            (None, Some(end)) if end["output"] != wanted => {
                Verdict::GotThrough(format!("it got {} instead of {wanted:?}", cut(&text)))
            }
            (None, _) => Verdict::Held(format!("it got what everybody gets: {}", cut(&text))),
        },
    }
}

/// A plugin or a task that must not even begin.
fn refused(says: &str, terminal: &Value, seen: &Seen) -> Verdict {
    let message = terminal["message"].as_str().unwrap_or_default();
    match (seen.finished.code, terminal["type"] == "error") {
        (2, true) if message.contains(says) => Verdict::Held(cut(message)),
        (2, true) => Verdict::Broken(format!("refused, and not because {says:?}: {}", cut(message))),
        (code, _) => Verdict::GotThrough(format!(
            "it was run, and ended with {code}: {}",
            cut(&terminal.to_string())
        )),
    }
}

/// What a run in a form that does no harm has shown.
pub fn harmless(seen: &Seen) -> Outcome {
    let failed = seen.events_of("tool_end").find(|end| end["tool_state"] != "success");
    match (seen.terminal(), failed) {
        (Some(terminal), None) if terminal["type"] == "done" && seen.violations.is_empty() => {
            Outcome::GotThrough("without the harm it succeeds".to_owned())
        }
        (terminal, failed) => Outcome::Broken(format!(
            "the form that does no harm does not succeed: {failed:?} {terminal:?} {:?}; the runner said: {}",
            seen.violations,
            seen.log()
        )),
    }
}

/// What a step printed.
fn lines(seen: &Seen, step: usize) -> String {
    let mine = seen.events_of("log").filter(|log| log["step_index"] == step);
    let texts: Vec<&str> = mine.filter_map(|log| log["message"].as_str()).collect();
    texts.join("\n")
}

fn broken(why: &str, seen: &Seen) -> Verdict {
    Verdict::Broken(format!("{why}; the runner said: {}", seen.log()))
}

/// A text for a line of the report.
pub fn cut(text: &str) -> String {
    let text = text.trim().replace('\n', " | ");
    match text.char_indices().nth(300) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
