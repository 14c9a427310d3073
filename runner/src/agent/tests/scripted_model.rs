//! A model that says what a test has written down, and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::agent::{GO_ON, SAY_SOMETHING, STUCK};
use plue_messages::{INVALID_INPUT_KEY, Model, ModelError, StopReason, ToolCall, Turn, TurnEvent, TurnRequest, Usage};

/// What the model does next in a turn.
enum Step {
    Gives(Box<Result<TurnEvent, ModelError>>),
    /// The task is cancelled; the turn goes on.
    Cancel,
    /// Nothing comes any more, and the stream does not end.
    Hang,
}

/// One turn as it is written down. A turn without an ending is a stream that ends without a result.
pub struct ScriptedTurn {
    steps: Vec<Step>,
    content: Vec<Value>,
    tool_calls: Vec<ToolCall>,
    has_text: bool,
    usage: Usage,
    served_by: &'static str,
}

/// A turn with nothing in it yet, of 10 tokens in and 5 out.
pub fn turn() -> ScriptedTurn {
    ScriptedTurn {
        steps: Vec::new(),
        content: Vec::new(),
        tool_calls: Vec::new(),
        has_text: false,
        usage: used(10, 5),
        served_by: super::MODEL,
    }
}

fn used(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage {
        input_tokens: Some(input_tokens),
        output_tokens: Some(output_tokens),
        ..Usage::NOTHING
    }
}

impl ScriptedTurn {
    fn gives(mut self, event: TurnEvent) -> Self {
        self.steps.push(Step::Gives(Box::new(Ok(event))));
        self
    }

    /// Says a text, as one delta.
    pub fn text(mut self, text: &str) -> Self {
        self.has_text |= !text.trim().is_empty();
        match self.content.last_mut() {
            Some(block) if block["type"] == "text" => {
                block["text"] = format!("{}{text}", block["text"].as_str().unwrap()).into();
            }
            _ => self.content.push(json!({"type": "text", "text": text})),
        }
        self.gives(TurnEvent::Text(text.into()))
    }

    /// The summary that was asked for.
    pub fn compaction(mut self, summary: &str) -> Self {
        self.content
            .push(json!({"type": "compaction", "content": summary, "signature": "S"}));
        self.stops(StopReason::Compaction)
    }

    pub fn thinking(mut self, text: &str) -> Self {
        self.content.push(json!({"type": "thinking", "thinking": text}));
        self.gives(TurnEvent::Thinking(text.into()))
    }

    /// Opens a call, and writes these arguments.
    pub fn call(mut self, id: &str, name: &str, input: &str) -> Self {
        let parsed = serde_json::from_str::<Value>(input).ok().filter(Value::is_object);
        let block_input = parsed.unwrap_or_else(|| json!({ INVALID_INPUT_KEY: input }));
        self.content
            .push(json!({"type": "tool_use", "id": id, "name": name, "input": block_input}));
        self.tool_calls.push(ToolCall {
            id: id.into(),
            name: name.into(),
            input: input.into(),
            is_complete: serde_json::from_str::<Value>(input).is_ok_and(|input| input.is_object()),
            block: self.content.len() - 1,
        });
        let (id, name) = (id.into(), name.into());
        self.gives(TurnEvent::ToolStarted { id, name })
    }

    /// The answer begins, and these tokens of it are paid.
    pub fn begins(self, input_tokens: u64, output_tokens: u64) -> Self {
        let (usage, model) = (used(input_tokens, output_tokens), self.served_by.to_owned());
        self.gives(TurnEvent::Began { usage, model })
    }

    /// The turn broke off after these tokens.
    pub fn wastes(self, input_tokens: u64, output_tokens: u64) -> Self {
        let (usage, model) = (used(input_tokens, output_tokens), self.served_by.to_owned());
        self.gives(TurnEvent::Wasted { usage, model })
    }

    /// There is a wait before it comes.
    pub fn waits(self) -> Self {
        let (reason, patience) = ("it is busy".into(), std::time::Duration::from_secs(600));
        self.gives(TurnEvent::Waiting { reason, patience })
    }

    /// The turn is asked for again: what came before is no part of it.
    pub fn restarted(mut self) -> Self {
        self.content.clear();
        self.tool_calls.clear();
        self.has_text = false;
        let reason = "it broke".into();
        self.gives(TurnEvent::Restarted { reason })
    }

    pub fn uses(mut self, input_tokens: u64, output_tokens: u64) -> Self {
        self.usage = used(input_tokens, output_tokens);
        self
    }

    pub fn served_by(mut self, model: &'static str) -> Self {
        self.served_by = model;
        self
    }

    /// Here the task is cancelled, and the turn goes on.
    pub fn cancels(mut self) -> Self {
        self.steps.push(Step::Cancel);
        self
    }

    pub fn hangs(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }

    pub fn fails(mut self, error: ModelError) -> Self {
        self.steps.push(Step::Gives(Box::new(Err(error))));
        self
    }

    pub fn stops(mut self, stop: StopReason) -> Self {
        let raw = |block: &Value| RawValue::from_string(block.to_string()).unwrap();
        let turn = Turn {
            content: self.content.iter().map(raw).collect(),
            tool_calls: std::mem::take(&mut self.tool_calls),
            has_text: self.has_text,
            stop,
            usage: self.usage,
            model: self.served_by.into(),
            id: Some("msg_of_the_api".into()),
            request_id: None,
        };
        self.gives(TurnEvent::Finished(turn))
    }

    /// A gateway that does not count: the turn that has ended says nothing of its tokens.
    pub fn uncounted(mut self) -> Self {
        for step in &mut self.steps {
            if let Step::Gives(event) = step
                && let Ok(TurnEvent::Finished(turn)) = event.as_mut()
            {
                turn.usage = Usage::default();
            }
        }
        self
    }

    /// Ends as a model does that has nothing more to say.
    pub fn done(self) -> Self {
        self.stops(StopReason::EndTurn)
    }
}

/// The model. A turn that is not written down is a panic.
pub struct ScriptedModel {
    turns: Mutex<VecDeque<ScriptedTurn>>,
    bodies: Mutex<Vec<Value>>,
    raw: Mutex<Vec<Bytes>>,
    cancel: CancellationToken,
    /// Each stream that is not dropped has one.
    streams: Arc<()>,
}

impl ScriptedModel {
    /// `cancel` is the task's own token.
    pub fn new(turns: Vec<ScriptedTurn>, cancel: &CancellationToken) -> Self {
        Self {
            turns: Mutex::new(turns.into()),
            bodies: Mutex::default(),
            raw: Mutex::default(),
            cancel: cancel.clone(),
            streams: Arc::default(),
        }
    }

    /// How many turns were not asked for, and how many requests were not dropped.
    pub fn left(&self) -> (usize, usize) {
        (self.turns.lock().unwrap().len(), Arc::strong_count(&self.streams) - 1)
    }

    /// The bodies of all requests.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.raw.lock().unwrap().clone()
    }

    /// What each turn was asked with: `max_tokens: ` and the messages that are new since the turn before.
    pub fn asked(&self) -> Vec<String> {
        let bodies = self.bodies.lock().unwrap();
        let mut before = Vec::new();
        let mut asked = Vec::new();
        for body in bodies.iter() {
            let messages: Vec<String> = body["messages"].as_array().unwrap().iter().map(message).collect();
            if messages.len() < before.len() || messages[..before.len()] != before {
                // A summary takes the place of what was said.
                let anew = messages.join(", ");
                asked.push(format!("{} anew: {anew}", body["max_tokens"]));
                before = messages;
                continue;
            }
            let compaction = if body.get("compaction").is_some() {
                " compaction"
            } else {
                ""
            };
            asked.push(format!(
                "{}{compaction}: {}",
                body["max_tokens"],
                messages[before.len()..].join(", ")
            ));
            before = messages;
        }
        asked
    }
}

/// `role text`, or `role [block; block]`.
fn message(message: &Value) -> String {
    let content = match &message["content"] {
        Value::String(text) if text == GO_ON => "GO_ON".to_owned(),
        Value::String(text) if text == SAY_SOMETHING => "SAY_SOMETHING".to_owned(),
        Value::String(text) if text == STUCK => "STUCK".to_owned(),
        Value::String(text) => format!("{text:?}"),
        blocks => {
            let blocks: Vec<String> = blocks.as_array().unwrap().iter().map(block).collect();
            format!("[{}]", blocks.join("; "))
        }
    };
    format!("{} {content}", message["role"].as_str().unwrap())
}

fn block(block: &Value) -> String {
    let text = |name: &str| block[name].as_str().unwrap().to_owned();
    match block["type"].as_str().unwrap() {
        "text" => format!("{:?}", text("text")),
        "thinking" => format!("thinking {:?}", text("thinking")),
        "tool_use" => format!("{} {} {}", text("id"), text("name"), block["input"]),
        "tool_result" => {
            let error = if block["is_error"] == true { " error" } else { "" };
            format!("{}{error} {:?}", text("tool_use_id"), text("content"))
        }
        "compaction" => format!("compaction {:?}", text("content")),
        other => other.to_owned(),
    }
}

impl Model for ScriptedModel {
    fn turn<'a>(&'a self, request: TurnRequest) -> BoxStream<'a, Result<TurnEvent, ModelError>> {
        let body = serde_json::from_slice(&request.body).unwrap();
        self.bodies.lock().unwrap().push(body);
        self.raw.lock().unwrap().push(request.body);
        let turn = self.turns.lock().unwrap().pop_front();
        let turn = turn.expect("the model was asked for a turn that is not written down");
        let open = Arc::clone(&self.streams);
        let steps = stream::iter(turn.steps).filter_map(move |step| {
            let _open = &open;
            match step {
                Step::Gives(event) => std::future::ready(Some(*event)).left_future(),
                Step::Cancel => {
                    self.cancel.cancel();
                    std::future::ready(None).left_future()
                }
                Step::Hang => std::future::pending().right_future(),
            }
        });
        steps.boxed()
    }
}
