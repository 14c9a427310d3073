//! The log on standard output: one JSON object a line (protocol, §4).

use std::fmt;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::filter::{LogFilter, LogLevel};
use super::writer;
use plue_redaction::Redactor;

/// The field that makes an ERROR a CRITICAL one: tracing has no such level.
const CRITICAL_FIELD: &str = "critical";

/// What every log line carries once it is known.
#[derive(Clone, Debug, Default)]
struct Identity {
    task_id: Option<Value>,
    request_id: Option<String>,
}

static IDENTITY: Mutex<Identity> = Mutex::new(Identity {
    task_id: None,
    request_id: None,
});

/// Says whose log it is from now on.
pub fn set_identity(task_id: Option<Value>, request_id: Option<String>) {
    *IDENTITY.lock().unwrap_or_else(PoisonError::into_inner) = Identity { task_id, request_id };
}

/// Starts logging, once per process; a panic becomes a log line too. `redactor` takes secrets out of every line.
pub fn init(filter: LogFilter, redactor: &'static Redactor) {
    let most = filter.most();
    let lines = JsonLines {
        filter: filter.clone(),
        redactor,
    };
    // Asked once for each place in the code that logs: its target and level never change.
    let passes = FilterFn::new(move |metadata| *metadata.level() <= filter.level_of(metadata.target()).least())
        .with_max_level_hint(most);
    let subscriber = Registry::default().with(lines.with_filter(passes));
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let stack = std::backtrace::Backtrace::force_capture().to_string();
        let error = info.to_string();
        tracing::error!(critical = true, error, stack, "a thread panicked");
    }));
}

/// A time as all our documents write it: RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

struct JsonLines {
    filter: LogFilter,
    redactor: &'static Redactor,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        if !fields.critical && self.filter.level_of(metadata.target()) == LogLevel::Critical {
            return;
        }
        let line = line(Timestamp::now(), *metadata.level(), metadata.target(), fields);
        let (line, _) = self.redactor.redact(line);
        writer::write(line);
    }
}

fn line(time: Timestamp, level: Level, target: &str, fields: Fields) -> String {
    let level = match level {
        Level::ERROR if fields.critical => "CRITICAL",
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    };
    let mut line = json!({
        "timestamp": rfc3339(time),
        "level": level,
        "service": "runner",
        "logger": target,
        "message": fields.message,
    });
    let identity = IDENTITY.lock().unwrap_or_else(PoisonError::into_inner).clone();
    line["task_id"] = identity.task_id.unwrap_or_default();
    line["request_id"] = identity.request_id.map(Value::from).unwrap_or_default();
    line["error"] = fields.error.map(Value::from).unwrap_or_default();
    line["stack"] = fields.stack.map(Value::from).unwrap_or_default();
    if !fields.context.is_empty() {
        line["context"] = Value::Object(fields.context);
    }
    if let Value::Object(map) = &mut line {
        map.retain(|_, value| !value.is_null());
    }
    format!("{line}\n")
}

/// The fields of one log event, sorted into their places.
#[derive(Default)]
struct Fields {
    message: String,
    error: Option<String>,
    stack: Option<String>,
    critical: bool,
    context: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match field.name() {
            "message" => self.message = text(value),
            "error" => self.error = Some(text(value)),
            "stack" => self.stack = Some(text(value)),
            CRITICAL_FIELD => self.critical = value == Value::Bool(true),
            name => {
                self.context.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_is_one_json_object_with_the_fields_of_the_protocol_and_no_nulls() {
        let mut fields = Fields {
            message: "two\nlines".into(),
            ..Fields::default()
        };
        fields.context.insert("attempt".into(), 2.into());
        let line = line(
            "2026-11-23T10:00:00.5Z".parse().unwrap(),
            Level::WARN,
            "plue_runner::events",
            fields,
        );
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(
            serde_json::from_str::<Value>(&line).unwrap(),
            json!({
                "timestamp": "2026-11-23T10:00:00.500Z",
                "level": "WARNING",
                "service": "runner",
                "logger": "plue_runner::events",
                "message": "two\nlines",
                "context": {"attempt": 2},
            })
        );
    }
}
