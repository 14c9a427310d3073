//! What the API server answers to a registration (protocol, §1.2): a runner's id and, when there is one, a task.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use url::Url;

use crate::task::{DocumentError, MAX_DOCUMENT_BYTES};

/// A task, and where its events go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) id: i64,
    pub(super) callback_url: Url,
    pub(super) session_id: Option<String>,
    /// What the task is taken for when it does not say itself.
    pub(super) kind: Option<String>,
    /// The document as it came, or why there is none.
    pub(super) document: Result<String, String>,
}

/// An answer that can be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) runner_id: i64,
    /// A task that came without a way to say that it is wrong: why.
    pub(super) assignment: Result<Option<Assignment>, String>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    runner_id: i64,
    #[serde(borrow, default)]
    task: Option<&'a RawValue>,
    #[serde(borrow, default)]
    callback_url: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    callback_path: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Task<'a> {
    id: i64,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    config: Option<&'a RawValue>,
    #[serde(borrow, default)]
    session_id: Option<&'a RawValue>,
}

/// A config, as far as it has to be known whether it is wrapped in another.
#[derive(Deserialize)]
struct Config<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    config: Option<&'a RawValue>,
    messages: Option<IgnoredAny>,
    steps: Option<IgnoredAny>,
    jobs: Option<IgnoredAny>,
}

impl Registered {
    /// Reads an answer. `asked` is the URL that gave it.
    ///
    /// # Errors
    /// What makes it none, for the log.
    pub(super) fn parse(answer: &[u8], asked: &Url) -> Result<Self, String> {
        // A byte that is no text costs that character, and not the task.
        let answer = String::from_utf8_lossy(answer);
        let reply: Reply = serde_json::from_str(&answer).map_err(|error| brief(&error))?;
        let assignment = match reply.task {
            // `null` is no task: serde reads it as `None`.
            None => Ok(None),
            Some(task) => assignment(
                task,
                reply.callback_url.as_deref(),
                reply.callback_path.as_deref(),
                asked,
            )
            .map(Some),
        };
        Ok(Self {
            runner_id: reply.runner_id,
            assignment,
        })
    }
}

fn assignment(task: &RawValue, url: Option<&str>, path: Option<&str>, asked: &Url) -> Result<Assignment, String> {
    let task: Task =
        serde_json::from_str(task.get()).map_err(|error| format!("the task of the reply: {}", brief(&error)))?;
    let callback_url = callback(url, path, asked)?;
    // Of any other form it is none, and the document has to say what it is.
    let kind = task.kind.and_then(|kind| serde_json::from_str(kind.get()).ok());
    let (document, inner_kind) = match task.config {
        Some(config) if config.get().len() > MAX_DOCUMENT_BYTES => (Err(DocumentError::TooLarge.to_string()), None),
        Some(config) => unwrap(config),
        None => (Err("the API server sent a task without a config".to_owned()), None),
    };
    let text = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
    Ok(Assignment {
        id: task.id,
        callback_url,
        session_id: task.session_id.map(text),
        kind: inner_kind.or(kind),
        document,
    })
}

/// An error that may repeat what the server wrote, as long as a log line may be.
fn brief(error: &serde_json::Error) -> String {
    const MAX_BYTES: usize = 300;
    let mut text = error.to_string();
    if text.len() > MAX_BYTES {
        text.truncate(text.floor_char_boundary(MAX_BYTES));
        text.push('…');
    }
    text
}

/// The document, and the type of what it was wrapped in.
fn unwrap(config: &RawValue) -> (Result<String, String>, Option<String>) {
    let whole = || (Ok(config.get().to_owned()), None);
    // What is no object, or repeats a key, is for the validation to say.
    let Ok(outer) = serde_json::from_str::<Config>(config.get()) else {
        return whole();
    };
    let is_a_task = outer.messages.is_some() || outer.steps.is_some() || outer.jobs.is_some();
    match outer.config.filter(|inner| !is_a_task && inner.get().starts_with('{')) {
        Some(inner) => {
            let kind = outer.kind.and_then(|kind| serde_json::from_str(kind.get()).ok());
            (Ok(inner.get().to_owned()), kind)
        }
        None => whole(),
    }
}

/// Where the events of the task go: what the server names, or a path at the server that was asked.
fn callback(url: Option<&str>, path: Option<&str>, asked: &Url) -> Result<Url, String> {
    match (url.filter(|url| !url.is_empty()), path) {
        (Some(url), _) => {
            // The URL is not repeated: it may carry credentials.
            let url = Url::parse(url).map_err(|error| format!("callback_url is no URL: {error}"))?;
            let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
            usable
                .then_some(url)
                .ok_or_else(|| "callback_url is no http or https URL".to_owned())
        }
        (None, Some(path)) => asked
            .join(path)
            .ok()
            .filter(|url| path.starts_with('/') && url.origin() == asked.origin())
            .ok_or_else(|| "callback_path is no path of the API server".to_owned()),
        (None, None) => Err("the task has neither callback_url nor callback_path".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn parse(reply: &Value) -> Result<Registered, String> {
        let asked = Url::parse("http://api:8080/internal/runners/register").unwrap();
        Registered::parse(reply.to_string().as_bytes(), &asked)
    }

    fn assigned(reply: &Value) -> Assignment {
        parse(reply).unwrap().assignment.unwrap().unwrap()
    }

    fn document(assignment: &Assignment) -> Value {
        serde_json::from_str(assignment.document.as_ref().unwrap()).unwrap()
    }

    const CALLBACK: &str = "https://api.example/internal/tasks/7/stream";

    #[test]
    fn a_reply_without_a_task_has_a_runners_id() {
        for reply in [
            json!({"runner_id": 3, "task": null}),
            json!({"runner_id": 3, "new": [1]}),
        ] {
            let registered = parse(&reply).unwrap();
            assert_eq!((registered.runner_id, registered.assignment), (3, Ok(None)));
        }
        for reply in [
            json!({}),
            json!({"runner_id": "3", "task": null}),
            json!([]),
            json!(null),
        ] {
            parse(&reply).unwrap_err();
        }
    }

    #[test]
    fn a_task_comes_with_its_document_as_it_was_written() {
        let config = json!({"type": "workflow", "steps": [{"run": "a\u{e9}"}]});
        let task = json!({"id": 7, "type": "workflow", "config": config, "session_id": "s-1"});
        let assignment = assigned(&json!({"runner_id": 3, "task": task, "callback_url": CALLBACK}));
        assert_eq!((assignment.id, assignment.callback_url.as_str()), (7, CALLBACK));
        assert_eq!(assignment.session_id.as_deref(), Some("s-1"));
        assert_eq!(assignment.kind.as_deref(), Some("workflow"));
        assert_eq!(document(&assignment), config);
    }

    #[test]
    fn a_config_may_be_wrapped_and_may_lack_its_type() {
        let steps = json!({"steps": [{"run": "true"}]});
        let wrapped = |config: Value| json!({"runner_id": 3, "task": {"id": 7, "type": "agent", "config": config}, "callback_url": CALLBACK});
        let assignment = assigned(&wrapped(json!({"type": "workflow", "config": steps})));
        assert_eq!(
            (document(&assignment), assignment.kind.as_deref()),
            (steps.clone(), Some("workflow"))
        );
        let assignment = assigned(&wrapped(steps.clone()));
        assert_eq!(
            (document(&assignment), assignment.kind.as_deref()),
            (steps.clone(), Some("agent"))
        );
        // A task with a key of that name is no wrapper.
        let odd = json!({"steps": [], "config": {}});
        assert_eq!(document(&assigned(&wrapped(odd.clone()))), odd);
    }

    #[test]
    fn a_reply_is_read_whatever_bytes_are_in_it_and_an_error_about_it_is_short() {
        let asked = Url::parse("http://api:8080/internal/runners/register").unwrap();
        let reply = b"{\"runner_id\":3,\"task\":{\"id\":7,\"config\":{\"a\":\"\xff\"}},\"callback_url\":\"\",\"callback_path\":\"/x\"}";
        let assignment = Registered::parse(reply, &asked).unwrap().assignment.unwrap().unwrap();
        assert_eq!(assignment.document.as_deref(), Ok("{\"a\":\"\u{fffd}\"}"));
        assert_eq!(assignment.callback_url.as_str(), "http://api:8080/x");
        let error = parse(&json!({"runner_id": "x".repeat(100_000)})).unwrap_err();
        assert!(error.len() < 400, "{}", error.len());
    }

    #[test]
    fn a_callback_path_is_one_of_the_server_that_was_asked_and_nobody_elses() {
        let with = |path: &str| {
            let task = json!({"id": 7, "config": {}});
            parse(&json!({"runner_id": 3, "task": task, "callback_path": path}))
                .unwrap()
                .assignment
        };
        let assignment = with("/internal/tasks/7/stream").unwrap().unwrap();
        assert_eq!(
            assignment.callback_url.as_str(),
            "http://api:8080/internal/tasks/7/stream"
        );
        for path in ["//evil/x", "http://evil/x", "relative", "", "/\\evil/x"] {
            with(path).unwrap_err();
        }
    }

    #[test]
    fn what_is_wrong_with_a_task_is_told_where_there_is_a_way() {
        let reply = |task: Value, url: Value| json!({"runner_id": 3, "task": task, "callback_url": url});
        for (task, url) in [
            (json!({"id": "7", "config": {}}), json!(CALLBACK)),
            (json!({"config": {}}), json!(CALLBACK)),
            (json!(5), json!(CALLBACK)),
            (json!({"id": 7, "config": {}}), json!("ftp://x/")),
            (json!({"id": 7, "config": {}}), json!("nowhere")),
            (json!({"id": 7, "config": {}}), json!(null)),
        ] {
            let registered = parse(&reply(task.clone(), url)).unwrap();
            assert!(registered.assignment.is_err(), "{task}");
        }
        let odd = assigned(&reply(
            json!({"id": 7, "type": 5, "config": {"steps": []}}),
            json!(CALLBACK),
        ));
        assert_eq!(odd.kind, None);
        let long = json!({"steps": [{"run": "x".repeat(MAX_DOCUMENT_BYTES)}]});
        let long = assigned(&reply(json!({"id": 7, "config": long}), json!(CALLBACK)));
        assert!(long.document.unwrap_err().contains("longer than"));
        let assignment = assigned(&reply(json!({"id": 7}), json!(CALLBACK)));
        assert!(assignment.document.unwrap_err().contains("without a config"));
    }
}
