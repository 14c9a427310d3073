//! Tools that answer what a test has written down, and keep how they were called.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use plue_contract::{LiveOutput, ToolDefinition, ToolErrorCode, ToolOutcome, Toolbox};

/// What one call does, as it is written down.
pub struct ScriptedCall {
    live: &'static [&'static str],
    /// Cancels the task while it runs.
    cancels: bool,
    /// Answers only when it is cancelled.
    waits: bool,
    error: Option<ToolErrorCode>,
    text: String,
    truncated: bool,
}

/// A call with this result.
pub fn answers(text: &str) -> ScriptedCall {
    ScriptedCall {
        live: &[],
        cancels: false,
        waits: false,
        error: None,
        text: text.into(),
        truncated: false,
    }
}

/// A call that fails.
pub fn fails(code: ToolErrorCode, text: &str) -> ScriptedCall {
    ScriptedCall {
        error: Some(code),
        ..answers(text)
    }
}

/// A call that does not end by itself, and in which the task is cancelled.
pub fn hangs_until_cancelled() -> ScriptedCall {
    ScriptedCall {
        cancels: true,
        waits: true,
        ..fails(ToolErrorCode::Cancelled, "stopped")
    }
}

impl ScriptedCall {
    /// Writes this while it runs.
    pub fn live(self, live: &'static [&'static str]) -> Self {
        Self { live, ..self }
    }

    /// The task is cancelled while it runs, and it ends as if it had not noticed.
    pub fn cancels(self) -> Self {
        Self { cancels: true, ..self }
    }

    pub fn truncated(self) -> Self {
        Self {
            truncated: true,
            ..self
        }
    }
}

/// The tools. A call that is not written down is a panic.
pub struct ScriptedToolbox {
    definitions: Vec<ToolDefinition>,
    calls: Mutex<VecDeque<ScriptedCall>>,
    called: Mutex<Vec<String>>,
    cancel: CancellationToken,
}

impl ScriptedToolbox {
    /// `cancel` is the task's own token.
    pub fn new(calls: Vec<ScriptedCall>, cancel: &CancellationToken) -> Self {
        let schema = serde_json::value::RawValue::from_string(r#"{"type":"object"}"#.into()).unwrap();
        Self {
            definitions: vec![ToolDefinition {
                name: "grep".into(),
                description: "finds text".into(),
                input_schema: schema.into(),
            }],
            calls: Mutex::new(calls.into()),
            called: Mutex::default(),
            cancel: cancel.clone(),
        }
    }

    /// The calls that were made: `name input`.
    pub fn called(&self) -> Vec<String> {
        self.called.lock().unwrap().clone()
    }

    /// How many calls were not made.
    pub fn left(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

impl Toolbox for ScriptedToolbox {
    fn definitions(&self) -> &[ToolDefinition] {
        &self.definitions
    }

    fn call<'a>(
        &'a self,
        name: &'a str,
        input: &'a str,
        live: LiveOutput,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, ToolOutcome> {
        self.called.lock().unwrap().push(format!("{name} {input}"));
        let call = self.calls.lock().unwrap().pop_front();
        let call = call.expect("a tool was called in a way that is not written down");
        async move {
            call.live.iter().for_each(|text| live(text));
            if call.cancels {
                self.cancel.cancel();
            }
            if call.waits {
                cancel.cancelled().await;
            }
            ToolOutcome {
                error: call.error,
                text: call.text,
                truncated: call.truncated,
                duration: Duration::from_millis(1),
                notes: Vec::new(),
            }
        }
        .boxed()
    }
}
