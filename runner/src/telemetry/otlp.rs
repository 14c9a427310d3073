//! The way to the collector: OTLP over HTTP, sent by the runner's own client to the configured endpoint and nowhere
//! else.
//!
//! The task never waits for it. Spans go into a bounded queue, and what does not fit is dropped; two threads of the SDK
//! export, and at the end they get [`FLUSH_LIMIT`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanLimits,
};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;
use url::Url;

use super::metrics::Metrics;
use super::span::text;
use plue_contract::http;
use plue_contract::secret::Secret;
use plue_contract::transport::Transport;
use plue_redaction::Redactor;

/// How long the end of the process may wait for the last of them.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// The same when the process was told to stop.
const HURRIED_LIMIT: Duration = Duration::from_millis(300);
/// How long one export may take, its retries included.
const EXPORT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How often spans are sent, and metrics.
const SPAN_INTERVAL: Duration = Duration::from_secs(2);
const METRIC_INTERVAL: Duration = Duration::from_secs(30);
/// How many spans wait at most.
const SPAN_QUEUE: usize = 2048;
/// How much of the collector's answer is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Where traces and metrics go, and what they say of the service.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// `/v1/traces` and `/v1/metrics` are added to its path.
    pub endpoint: Url,
    pub headers: Vec<(HeaderName, Secret)>,
    /// By which way it is reached.
    pub transport: Transport,
    pub service_name: String,
    pub resource: Vec<(String, String)>,
}

/// What is exported.
pub(super) struct Exports {
    pub(super) tracer: SdkTracer,
    pub(super) metrics: Metrics,
    traces: SdkTracerProvider,
    meters: SdkMeterProvider,
    failures: Arc<Failures>,
    client: Arc<Client>,
    /// What must not be told.
    pub(super) redactor: &'static Redactor,
}

impl Exports {
    pub(super) fn set_up(
        config: &OtlpConfig,
        request_id: Option<&str>,
        redactor: &'static Redactor,
    ) -> Result<Self, ExporterBuildError> {
        let failures = Arc::<Failures>::default();
        let client = Arc::new(Client {
            way: Mutex::new(Way::of(config, request_id)),
            runtime: Handle::current(),
            failures: Arc::clone(&failures),
        });
        let retries = RetryPolicy::recommended().with_max_retries(2);
        // Everything that the libraries would take from the environment is set: the configuration alone decides.
        let spans = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(&client) as Arc<dyn HttpClient>)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint(&config.endpoint, "v1/traces"))
            .with_timeout(EXPORT_TIMEOUT)
            .with_headers(HashMap::new())
            .with_retry_policy(retries.clone())
            .build()?;
        let metrics = opentelemetry_otlp::MetricExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(&client) as Arc<dyn HttpClient>)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint(&config.endpoint, "v1/metrics"))
            .with_temporality(Temporality::Cumulative)
            .with_timeout(EXPORT_TIMEOUT)
            .with_headers(HashMap::new())
            .with_retry_policy(retries)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPAN_QUEUE)
            .with_max_export_batch_size(SPAN_QUEUE / 4)
            .with_scheduled_delay(SPAN_INTERVAL)
            .build();
        let resource = resource(config, redactor);
        let traces = SdkTracerProvider::builder()
            // Whoever gave us the task decides whether it is traced.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_span_limits(SpanLimits::default())
            .with_span_processor(BatchSpanProcessor::builder(spans).with_batch_config(batches).build())
            .with_resource(resource.clone())
            .build();
        let meters = SdkMeterProvider::builder()
            .with_reader(PeriodicReader::builder(metrics).with_interval(METRIC_INTERVAL).build())
            .with_resource(resource)
            .build();
        Ok(Self {
            tracer: traces.tracer(env!("CARGO_PKG_NAME")),
            metrics: Metrics::new(&meters.meter(env!("CARGO_PKG_NAME"))),
            traces,
            meters,
            failures,
            client,
            redactor,
        })
    }

    /// Exports with these headers and by this way from now on; the endpoint stays.
    pub(super) fn renew(&self, config: &OtlpConfig, request_id: Option<&str>) {
        let way = Way::of(config, request_id);
        let mut now = self.client.way.lock().unwrap_or_else(PoisonError::into_inner);
        if (&now.headers, &now.transport) != (&way.headers, &way.transport) {
            *now = way;
        }
    }

    /// Sends what is left, within [`FLUSH_LIMIT`], or in a hurry [`HURRIED_LIMIT`].
    pub(super) async fn shutdown(&'static self, in_a_hurry: bool) {
        let limit = if in_a_hurry { HURRIED_LIMIT } else { FLUSH_LIMIT };
        // The SDK waits for its threads by blocking.
        let traces = tokio::task::spawn_blocking(move || self.traces.shutdown_with_timeout(limit).is_ok());
        let meters = tokio::task::spawn_blocking(|| self.meters.shutdown().is_ok());
        let flushed = tokio::time::timeout(limit, async { tokio::join!(traces, meters) }).await;
        let in_time = flushed.is_ok();
        let failed = self.failures.count.load(Ordering::Relaxed);
        if failed > 0 || !in_time {
            let reason = self.failures.last();
            tracing::warn!(
                failed_requests = failed,
                reason,
                in_time,
                "the collector did not take all traces and metrics"
            );
        }
    }
}

fn endpoint(base: &Url, signal: &str) -> String {
    let mut url = base.clone();
    url.set_path(&format!("{}/{signal}", base.path().trim_end_matches('/')));
    url.into()
}

fn headers(config: &OtlpConfig, request_id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        // Checked when the configuration was read.
        if let Ok(mut value) = HeaderValue::try_from(value.expose()) {
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
    }
    if let Some(id) = request_id.and_then(|id| HeaderValue::try_from(id).ok()) {
        headers.insert("x-request-id", id);
    }
    headers
}

fn resource(config: &OtlpConfig, redactor: &Redactor) -> Resource {
    // Two runners that count the same thing must not be taken for one.
    let instance = format!("{:016x}", getrandom::u64().unwrap_or_default());
    let named = config.resource.iter().filter(|(name, _)| name != "service.name");
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .with_attribute(KeyValue::new("telemetry.sdk.name", "opentelemetry"))
        .with_attribute(KeyValue::new("telemetry.sdk.language", "rust"))
        .with_attributes(named.map(|(name, value)| KeyValue::new(name.clone(), text(value, redactor))))
        .with_service_name(text(&config.service_name, redactor))
        .build()
}

/// What went wrong on the way to the collector.
#[derive(Debug, Default)]
struct Failures {
    count: AtomicU64,
    last: Mutex<Option<String>>,
}

impl Failures {
    fn add(&self, reason: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The runner's HTTP client, for the threads of the SDK: they are no part of the runtime, so the request is a task of
/// its own there.
struct Client {
    way: Mutex<Way>,
    runtime: Handle,
    failures: Arc<Failures>,
}

/// How the collector is reached, as far as that may change while the process lives.
struct Way {
    headers: HeaderMap,
    transport: Transport,
    /// Made for the first export, on the thread that exports: for `https` it reads the system's certificates, and no
    /// task is to start later for that.
    http: Option<Result<reqwest::Client, String>>,
}

impl Way {
    fn of(config: &OtlpConfig, request_id: Option<&str>) -> Self {
        Self {
            headers: headers(config, request_id),
            transport: config.transport.clone(),
            http: None,
        }
    }

    fn client(&self, url: &Url) -> Result<reqwest::Client, String> {
        let headers = self.headers.clone();
        let client = http::client_builder(url, &self.transport)
            .and_then(|builder| builder.default_headers(headers).timeout(EXPORT_TIMEOUT).build());
        client.map_err(|error| http::describe(&error))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

impl Client {
    fn http(&self, url: &Url) -> Result<reqwest::Client, String> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &way.http {
            return made.clone();
        }
        let _within = self.runtime.enter();
        let made = way.client(url);
        way.http = Some(made.clone());
        made
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let url = Url::parse(&request.uri().to_string()).map_err(|error| error.to_string())?;
        // Of the library's headers this one is the body's; all others are those of the configuration.
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let mut post = self.http(&url)?.post(url).body(request.into_body());
        if let Some(content_type) = content_type {
            post = post.header(CONTENT_TYPE, content_type);
        }
        let exchange = self.runtime.spawn(async move {
            let mut response = post
                .send()
                .await
                .map_err(|error| http::describe(&error.without_url()))?;
            let mut answer = Response::new(Bytes::new());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = std::mem::take(response.headers_mut());
            let mut body = Vec::new();
            while let Ok(Some(chunk)) = response.chunk().await {
                if body.len() + chunk.len() > MAX_ANSWER {
                    break;
                }
                body.extend_from_slice(&chunk);
            }
            *answer.body_mut() = body.into();
            Ok(answer)
        });
        exchange.await.unwrap_or_else(|_| Err("the runner ended".into()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request).await;
        match &answer {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.failures.add(format!("status {}", response.status())),
            Err(reason) => self.failures.add(reason.clone()),
        }
        answer.map_err(HttpError::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_signals_stand_below_the_endpoints_own_path() {
        for (base, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://host/otlp/", "https://host/otlp/v1/traces"),
            ("https://host/a/b", "https://host/a/b/v1/traces"),
        ] {
            assert_eq!(endpoint(&base.parse().unwrap(), "v1/traces"), expected);
        }
    }
}
