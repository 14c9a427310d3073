//! The double of an OpenTelemetry collector: it takes OTLP over HTTP as the real one does, and keeps what was told.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use serde_json::{Value, json};

use crate::loopback::Loopback;

/// Attributes by their names, as JSON.
pub type Attributes = BTreeMap<String, Value>;

/// A span as it was told. Ids are hexadecimal; `parent` is empty for one without.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// `SPAN_KIND_…` of the protocol, as a number: 1 internal, 3 client, 5 consumer.
    pub kind: i32,
    pub attributes: Attributes,
    pub failed: bool,
    /// From the epoch, in nanoseconds.
    pub from: u64,
    pub to: u64,
}

/// One data point of a histogram, or of a counter, whose `count` is 1.
#[derive(Clone, Debug)]
pub struct Point {
    pub metric: String,
    pub unit: String,
    pub attributes: Attributes,
    pub count: u64,
    pub sum: f64,
}

/// What came, in order.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    /// Of the last export that had any: they are sums from the start.
    pub points: Vec<Point>,
    /// The resource of the last export.
    pub resource: Attributes,
    pub requests: Vec<(String, HeaderMap, Bytes)>,
    pub problems: Vec<String>,
}

/// How the double answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything.
    Fine,
    /// This status, with `Retry-After` of a minute.
    Status(u16),
    /// `200`, and a body that is nothing.
    Garbage,
    /// Elsewhere, says it.
    Redirect,
    /// No answer at all.
    Silent,
}

struct Shared {
    received: Mutex<Received>,
    mood: Mood,
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Received> {
        self.received
            .lock()
            .expect("no handler panics while it holds the record")
    }
}

/// The running double.
pub struct Collector {
    shared: Arc<Shared>,
    server: Loopback,
}

impl Collector {
    pub async fn start() -> io::Result<Self> {
        Self::in_mood(Mood::Fine).await
    }

    pub async fn in_mood(mood: Mood) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            mood,
        });
        let router = Router::new()
            .route("/otlp/v1/traces", post(receive))
            .route("/otlp/v1/metrics", post(receive))
            .route("/elsewhere", post(receive))
            .with_state(Arc::clone(&shared));
        let server = Loopback::serve(router).await?;
        Ok(Self { shared, server })
    }

    /// The `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        self.server.url("/otlp")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What came so far.
    pub fn received(&self) -> Received {
        self.shared.received().clone()
    }
}

impl Received {
    /// The one span of this name.
    pub fn span(&self, name: &str) -> &Span {
        let mut found = self.spans.iter().filter(|span| span.name == name);
        match (found.next(), found.next()) {
            (Some(span), None) => span,
            (first, _) => panic!(
                "there {} span {name:?} among {:#?}",
                if first.is_some() { "is more than one" } else { "is no" },
                self.spans
            ),
        }
    }

    /// The spans of this name, in the order of their beginnings.
    pub fn spans_of(&self, name: &str) -> Vec<&Span> {
        let mut spans: Vec<&Span> = self.spans.iter().filter(|span| span.name == name).collect();
        spans.sort_by_key(|span| span.from);
        spans
    }

    /// The points of a metric.
    pub fn points_of(&self, metric: &str) -> Vec<&Point> {
        self.points.iter().filter(|point| point.metric == metric).collect()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    {
        let mut received = shared.received();
        if headers
            .get(header::CONTENT_TYPE)
            .is_none_or(|it| it != "application/x-protobuf")
        {
            received.problems.push(format!("{uri}: not protobuf: {headers:?}"));
        }
        let read = match uri.path() {
            "/otlp/v1/traces" => take_spans(&mut received, &body),
            "/otlp/v1/metrics" => take_points(&mut received, &body),
            path => Err(format!("a request for {path}")),
        };
        received.problems.extend(read.err());
        received.requests.push((uri.path().to_owned(), headers, body));
    }
    match shared.mood {
        Mood::Fine => Bytes::new().into_response(),
        Mood::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(header::RETRY_AFTER, "60")]).into_response()
        }
        Mood::Garbage => [0xff_u8; 100_000].into_response(),
        Mood::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        Mood::Silent => std::future::pending().await,
    }
}

fn take_spans(received: &mut Received, body: &Bytes) -> Result<(), String> {
    let request = ExportTraceServiceRequest::decode(body.clone()).map_err(|error| error.to_string())?;
    for of_resource in request.resource_spans {
        received.resource = of_resource
            .resource
            .map(|it| attributes(it.attributes))
            .unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            received.spans.push(Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                attributes: attributes(span.attributes),
                failed: span
                    .status
                    .is_some_and(|status| status.code == SpanStatus::Error as i32),
                from: span.start_time_unix_nano,
                to: span.end_time_unix_nano,
            });
        }
    }
    Ok(())
}

fn take_points(received: &mut Received, body: &Bytes) -> Result<(), String> {
    let request = ExportMetricsServiceRequest::decode(body.clone()).map_err(|error| error.to_string())?;
    received.points.clear();
    for metric in request
        .resource_metrics
        .into_iter()
        .flat_map(|of_resource| of_resource.scope_metrics)
        .flat_map(|scope| scope.metrics)
    {
        let point = |of: Vec<KeyValue>, count, sum| Point {
            metric: metric.name.clone(),
            unit: metric.unit.clone(),
            attributes: attributes(of),
            count,
            sum,
        };
        match metric.data {
            Some(Data::Histogram(histogram)) => {
                let points = histogram.data_points.into_iter();
                let points = points.map(|one| point(one.attributes, one.count, one.sum.unwrap_or_default()));
                received.points.extend(points);
            }
            Some(Data::Sum(sum)) if sum.is_monotonic => {
                for one in sum.data_points {
                    let Some(number_data_point::Value::AsInt(value)) = one.value else {
                        return Err(format!("{} does not count", metric.name));
                    };
                    received.points.push(point(one.attributes, 1, value as f64));
                }
            }
            _ => return Err(format!("{} is neither a histogram nor a counter", metric.name)),
        }
    }
    Ok(())
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, value(pair.value))).collect()
}

fn value(any: Option<AnyValue>) -> Value {
    match any.and_then(|any| any.value) {
        Some(any_value::Value::StringValue(text)) => json!(text),
        Some(any_value::Value::BoolValue(flag)) => json!(flag),
        Some(any_value::Value::IntValue(number)) => json!(number),
        Some(any_value::Value::DoubleValue(number)) => json!(number),
        Some(any_value::Value::ArrayValue(array)) => array.values.into_iter().map(|item| value(Some(item))).collect(),
        _ => Value::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
