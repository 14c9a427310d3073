//! What came of a run: the promises that hold for every attack, and what this attack was to end with.

use serde::Serialize;
use serde_json::Value;

use crate::attack::{Action, Attack, Expect, STILL_HERE, Surface};
use crate::canary::Digest;
use crate::drive::Seen;
use crate::scene::Scene;
use crate::target::{self, Outcome};

/// One attack on one surface, with what was there before.
pub struct Trial<'a> {
    pub attack: &'a Attack,
    pub surface: Surface,
    pub scene: &'a Scene,
    pub before: &'a [Digest],
    /// Where the links of the workspace lead outside.
    pub targets: &'a [String],
    /// Whether a protection was switched off. Then only what the attack itself has reached counts: a run that merely
    /// ends in disorder shows that something is missing, and not that this attack needs it.
    pub mutated: bool,
    /// What every ending is to say of the sandbox.
    pub sandbox: &'a str,
}

/// More memory than any attack may make the runner take. An ordinary run stays below a fifth of it.
const MAX_KIB: u64 = 512 * 1024;

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
pub fn judge(trial: &Trial, seen: &Seen, left: &[String]) -> Verdict {
    let reached = reached(trial, seen, left);
    if !reached.is_empty() {
        return Verdict::GotThrough(reached.join("; "));
    }
    let disorder = disorder(trial, seen);
    if !disorder.is_empty() {
        return trial.disorder(disorder.join("; "));
    }
    let Trial { attack, surface, .. } = *trial;
    if surface.is_file_tool() || matches!(attack.action, Action::Call(_)) {
        tool(trial, seen)
    } else if surface.is_command() {
        command(trial, seen)
    } else {
        input(trial, seen)
    }
}

impl Trial<'_> {
    /// The runner did not keep its order: an escape when all protections are on, and no evidence when one is off.
    pub fn disorder(&self, what: String) -> Verdict {
        if self.mutated {
            Verdict::Broken(format!("the run ended in disorder, which is not what it tries: {what}"))
        } else {
            Verdict::GotThrough(what)
        }
    }
}

/// What an attack may have reached, whatever it was.
fn reached(trial: &Trial, seen: &Seen, left: &[String]) -> Vec<String> {
    let scene = trial.scene;
    let mut reached = Vec::new();
    match scene.digest() {
        Ok(after) => {
            for (before, after) in trial.before.iter().zip(&after) {
                reached.extend(before.changes(after));
            }
        }
        Err(error) => reached.push(format!("the canaries cannot be read any more: {error:#}")),
    }
    let places = [
        ("the events", &*seen.sent),
        ("what the model was asked", &*seen.asked),
        ("the log", seen.finished.stdout.as_bytes()),
        ("standard error", seen.finished.stderr.as_bytes()),
    ];
    for (place, bytes) in places {
        for secret in scene.secrets.found_in(bytes) {
            reached.push(format!("{secret} is in {place}"));
        }
    }
    reached.extend(left.iter().map(|process| format!("{process} is left")));
    for which in scene.listeners.reached() {
        reached.push(format!("{which} outside was reached"));
    }
    reached.extend(
        scene
            .bystander
            .noticed()
            .into_iter()
            .map(|what| format!("the bystander outside: {what}")),
    );
    // What hostile tasks and models would have run leaves this file.
    if scene.workspace.join(HOSTILE).symlink_metadata().is_ok() {
        reached.push("what must not be run was run: it has made its file".to_owned());
    }
    reached
}

/// The file that `touch hostile` makes.
const HOSTILE: &str = "hostile";

/// Where the runner did not do what it does after every attack.
fn disorder(trial: &Trial, seen: &Seen) -> Vec<String> {
    let mut broken: Vec<String> = seen
        .violations
        .iter()
        .map(|violation| format!("the protocol was broken: {violation}"))
        .collect();
    broken.extend(seen.finished.log_errors.iter().cloned());
    let expected = match seen.terminal() {
        // A callback that refuses an event, or sends it elsewhere: whatever came of the task, not all of it is known.
        Some(event) if event.get("lost_events").is_some() => &[3][..],
        Some(event) if event["type"] == "done" => &[0][..],
        _ => &[1, 2],
    };
    if !expected.contains(&seen.finished.code) {
        let (code, log) = (seen.finished.code, seen.log());
        broken.push(format!(
            "the runner ended with {code}, not {expected:?}; it said: {log}"
        ));
    }
    if let Some(terminal) = seen.terminal()
        && terminal["sandbox"] != trial.sandbox
    {
        broken.push(format!(
            "it ended in the sandbox {}, and not {}",
            terminal["sandbox"], trial.sandbox
        ));
    }
    if seen.finished.stderr.contains("panicked") || seen.finished.stdout.contains("panicked") {
        broken.push(format!("the runner panicked: {}", seen.log()));
    }
    if seen.peak_kib > MAX_KIB {
        broken.push(format!("the runner took {} MiB of memory", seen.peak_kib / 1024));
    }
    broken
}

/// How a command ended.
struct Ended {
    text: String,
    code: Option<String>,
    /// Whatever says why.
    reason: String,
    /// What the next command printed.
    next: String,
}

/// None when the run was not what the attack needs; then the error says why.
fn ended(surface: Surface, seen: &Seen) -> Result<Ended, Verdict> {
    let code = |value: &Value| value["code"].as_str().map(str::to_owned);
    if surface == Surface::Shell {
        let end = seen.events_of("tool_end").next();
        let end = end.ok_or_else(|| broken("no tool call ended", seen))?;
        let text = |index: usize| seen.results.get(index).map_or("", |result| &result.text).to_owned();
        return Ok(Ended {
            text: text(0),
            code: code(end),
            reason: text(0),
            next: text(1),
        });
    }
    let terminal = seen.terminal().ok_or_else(|| broken("no terminal event came", seen))?;
    let code = code(terminal);
    Ok(Ended {
        text: lines(seen, 0),
        reason: terminal.to_string(),
        // A step that fails is the end of its workflow, so that there is no next one.
        next: if code.is_some() {
            STILL_HERE.to_owned()
        } else {
            lines(seen, 1)
        },
        code,
    })
}

/// A command: what it printed, how its call ended, and whether the next one works.
fn command(trial: &Trial, seen: &Seen) -> Verdict {
    let attack = trial.attack;
    let ended = match ended(trial.surface, seen) {
        Ok(ended) => ended,
        Err(verdict) => return verdict,
    };
    let shown = || cut(&ended.text);
    let outcomes = target::outcomes(&ended.text);
    if let Some(Outcome::GotThrough(evidence)) = outcomes
        .iter()
        .find(|outcome| matches!(outcome, Outcome::GotThrough(_)))
    {
        return Verdict::GotThrough(evidence.clone());
    }
    if !ended.next.lines().any(|line| line.trim() == STILL_HERE) {
        let evidence = format!("the next command does not work: {}", cut(&ended.next));
        // Some attacks have the next command look for what they left.
        return if attack.looks_afterwards() {
            Verdict::GotThrough(evidence)
        } else {
            trial.disorder(evidence)
        };
    }
    if let Expect::Killed(limit) = attack.expect {
        return match ended.code.as_deref() {
            Some(code) if code == limit => Verdict::Held(format!("ended: {code}")),
            None => Verdict::GotThrough(format!(
                "it was not ended with {limit}, but ran to its end: {}",
                shown()
            )),
            Some(other) => trial.disorder(format!("it was not ended with {limit}, but with {other}: {}", shown())),
        };
    }
    if matches!(attack.expect, Expect::Harmless | Expect::LosesItsKeeper) {
        return harmed_nobody(trial, outcomes, &ended);
    }
    if let Some(code) = &ended.code {
        return Verdict::Broken(format!(
            "the command failed with {code}: {} {}",
            shown(),
            cut(&ended.reason)
        ));
    }
    if matches!(attack.action, Action::Path(_)) {
        return if !ended.text.contains("tried") {
            Verdict::Broken(format!("the command was not run to its end: {}", shown()))
        } else if let Some(name) = CANARY_NAMES.iter().find(|name| lists(&ended.text, name)) {
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

/// What the runner says when it cannot have a keeper for a command.
const KEEPERS_KILLED: &str = "the sandbox's processes are killed again and again";

/// A command that may be ended in any way. Either it says itself what held it, or it is known that it began and that
/// something ended it: the limit that it runs into, when there is one.
fn harmed_nobody(trial: &Trial, outcomes: Vec<Outcome>, ended: &Ended) -> Verdict {
    let attack = trial.attack;
    let code = ended.code.as_deref().unwrap_or("success");
    if let Some(outcome) = outcomes.into_iter().next() {
        return match outcome {
            Outcome::Held { how, .. } => Verdict::Held(format!("{code}: {how}")),
            Outcome::Broken(why) => Verdict::Broken(why),
            Outcome::GotThrough(evidence) => Verdict::GotThrough(evidence),
        };
    }
    let is_killed = ended.text.contains("EXIT CODE: 137") || ended.reason.contains("exit code 137");
    if matches!(attack.expect, Expect::LosesItsKeeper) && is_killed && target::has_begun(&ended.text) {
        return Verdict::Held(format!("{code}: it was ended with its keeper"));
    }
    if ended.reason.contains(KEEPERS_KILLED) && trial.scene.has_begun() {
        return Verdict::Held(format!(
            "{code}: it was ended with its keepers, before they had told of it"
        ));
    }
    let limits = [
        ("COMMAND_MEMORY", "used more memory than a command may"),
        ("COMMAND_PROCESSES", "had more processes than a command may"),
        ("COMMAND_TMP_SIZE", "(COMMAND_TMP_SIZE)"),
    ];
    let is_set = |(name, _): &(&str, &str)| attack.env.iter().any(|(set, _)| set == name);
    let set = || limits.into_iter().filter(is_set);
    // Where an attack has several, the one that ended it.
    let limit = set().find(|(_, words)| ended.reason.contains(words)).or(set().next());
    match limit {
        Some((name, words)) if ended.code.is_some() && ended.reason.contains(words) => {
            Verdict::Held(format!("{code}: ended by {name}"))
        }
        // Threads are not counted as processes are; where the kernel does not bound them (gVisor), the deadline does.
        Some(("COMMAND_PROCESSES", _))
            if ended.code.as_deref() == Some("timeout") && target::has_begun(&ended.text) =>
        {
            Verdict::Held(format!("{code}: ended by its deadline"))
        }
        // The shell tool tells of a command that was killed by its exit code.
        None if target::has_begun(&ended.text) && (ended.code.is_some() || ended.text.contains("EXIT CODE: 137")) => {
            Verdict::Held(format!("{code}: it was ended"))
        }
        _ => Verdict::Broken(format!(
            "nothing shows that the attack was made ({code}): {} {}",
            cut(&ended.text),
            cut(&ended.reason)
        )),
    }
}

/// Names that stand in a canary folder and nowhere else.
const CANARY_NAMES: [&str; 4] = ["inner.txt", "deep.txt", "read-only.txt", "listener.socket"];

/// Whether a listing has this name: a line that ends with it and is no error.
fn lists(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.trim_end().ends_with(name))
}

/// A call of a tool, which has a code of its own.
fn tool(trial: &Trial, seen: &Seen) -> Verdict {
    let Trial { attack, scene, .. } = *trial;
    let ends: Vec<&Value> = seen.events_of("tool_end").collect();
    let (Some(end), Some(result)) = (ends.first(), seen.results.first()) else {
        return broken("no tool call ended", seen);
    };
    // A race takes as many turns as it needs.
    let is_race = matches!(attack.expect, Expect::Raced(_));
    let made = ends.len() - 1;
    let all_made = if is_race {
        made > 0 && made.is_multiple_of(attack.calls())
    } else {
        made == attack.calls()
    };
    if !all_made || !ends.last().is_some_and(|end| end["tool_state"] == "success") {
        return trial.disorder(format!("the next call does not work: {:?}", ends.last()));
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
    if let Some(target) = trial
        .targets
        .iter()
        .find(|target| said.contains(&***target) && !asked.contains(&***target))
    {
        return Verdict::GotThrough(format!("the target {target} of a link is named: {}", cut(text)));
    }
    if let Action::Alike(calls) = attack.action {
        let mut answers = calls(scene, trial.surface)
            .into_iter()
            .zip(&seen.results)
            .map(|(call, result)| {
                // What was asked may be said back; all else is to be the same.
                result.text.replace(call["path"].as_str().unwrap_or_default(), "PATH")
            });
        if let (Some(one), Some(other)) = (answers.next(), answers.next())
            && one != other
        {
            return Verdict::GotThrough(format!("the answers differ: {} and {}", cut(&one), cut(&other)));
        }
    }
    let code = end["code"].as_str();
    match attack.expect {
        Expect::Contained | Expect::Harmless => Verdict::Held(format!("{}: {}", code.unwrap_or("success"), cut(text))),
        Expect::Raced(codes) => raced(codes, &ends[..ends.len() - 1], seen, scene.steps()),
        Expect::Plain(forged) => plain(forged, code, text),
        Expect::Denied(codes) => coded(codes, code, text),
        Expect::Killed(limit) => coded(&[limit], code, text),
        Expect::Refused(_) | Expect::Answers(_) | Expect::LosesItsKeeper => {
            Verdict::Broken("a file tool cannot be expected to do that".to_owned())
        }
    }
}

/// Many calls, beside which something changes. Calls that all end alike have met nothing of that.
fn raced(codes: &[&str], ends: &[&Value], seen: &Seen, steps: u64) -> Verdict {
    let count = |of: &dyn Fn(Option<&str>) -> bool| ends.iter().filter(|end| of(end["code"].as_str())).count();
    let succeeded = count(&|code| code.is_none());
    let refused = count(&|code| code.is_some_and(|code| codes.contains(&code)));
    let mut texts: Vec<&str> = seen.results[..ends.len()].iter().map(|result| &*result.text).collect();
    texts.sort_unstable();
    texts.dedup();
    let told = format!(
        "{} calls beside {steps} rounds of changes: {succeeded} succeeded, {refused} ended with {codes:?}, {} answers",
        ends.len(),
        texts.len()
    );
    if texts.len() < 2 || !codes.is_empty() && (succeeded == 0 || refused == 0) {
        return Verdict::Broken(format!("the race was not met: {told}"));
    }
    Verdict::Held(told)
}

/// A success whose text can be shown anywhere.
fn plain(forged: &str, code: Option<&str>, text: &str) -> Verdict {
    let shapes = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match (code, text.chars().find(|c| c.is_control() && *c != '\n' || shapes(*c))) {
        (Some(code), _) => Verdict::Broken(format!("it failed with {code}: {}", cut(text))),
        (None, Some(found)) => Verdict::GotThrough(format!("{found:?} is in the output: {}", text.escape_debug())),
        (None, None) if text.lines().any(|line| line == forged) => {
            Verdict::GotThrough(format!("a name made a line of its own: {}", cut(text)))
        }
        (None, None) => Verdict::Held(format!("nothing but plain text: {}", cut(text))),
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
fn input(trial: &Trial, seen: &Seen) -> Verdict {
    let Trial { attack, surface, .. } = *trial;
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
        return trial.disorder(format!("the next call does not work: {:?}", ends.last()));
    }
    let (code, text) = match call {
        Some(end) => (end["code"].as_str(), end["output"].to_string()),
        None => (terminal["code"].as_str(), terminal.to_string()),
    };
    match attack.expect {
        Expect::Raced(_) | Expect::Plain(_) => {
            Verdict::Broken("only a file tool can be expected to do that".to_owned())
        }
        // What ends for a reason of its own has not tried anything.
        Expect::Contained | Expect::Harmless if terminal["type"] != "done" => {
            Verdict::Broken(format!("the task failed: {}", cut(&terminal.to_string())))
        }
        Expect::Contained | Expect::Harmless => Verdict::Held(format!("{}: {}", code.unwrap_or("success"), cut(&text))),
        Expect::Denied(codes) => coded(codes, code, &text),
        Expect::Killed(limit) => coded(&[limit], code, &text),
        Expect::Refused(says) => refused(trial, says, terminal, seen),
        Expect::LosesItsKeeper => Verdict::Broken("only a command can be expected to do that".to_owned()),
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
fn refused(trial: &Trial, says: &str, terminal: &Value, seen: &Seen) -> Verdict {
    let message = terminal["message"].as_str().unwrap_or_default();
    match (seen.finished.code, terminal["type"] == "error") {
        (2, true) if message.contains(says) => Verdict::Held(cut(message)),
        (2, true) => Verdict::Broken(format!("refused, and not because {says:?}: {}", cut(message))),
        (0, false) => Verdict::GotThrough(format!("it was run to its end: {}", cut(&terminal.to_string()))),
        (code, _) => trial.disorder(format!(
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
