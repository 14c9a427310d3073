//! What the runner's HTTP clients (the Messages API, the callback, the collector of traces) have in common.

use std::error::Error;
use std::ops::Range;
use std::sync::Once;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::redirect;
use url::Url;

use crate::transport::{Route, Transport};

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how much silence the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The longest wait that the API server may ask of us.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A client for one origin, as the threat model wants it: TLS by rustls, and by no proxy but the operator's, since the
/// runner talks to the origins of its configuration and to nothing else.
///
/// Redirects are not followed: they lead to another place than the one that was configured.
///
/// # Errors
/// When the proxy or a certificate cannot be used.
pub fn client_builder(url: &Url, transport: &Transport) -> reqwest::Result<reqwest::ClientBuilder> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Only fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
        .tcp_nodelay(true)
        .user_agent(concat!("plue-runner/", env!("CARGO_PKG_VERSION")));
    let mut is_plain = url.scheme() == "http";
    if let Route::Proxy(proxy) = transport.route(url) {
        is_plain &= proxy.url().scheme() == "http";
        builder = builder.proxy(reqwest::Proxy::all(proxy.url().clone())?);
    }
    if is_plain {
        // Reading the CA certificates costs milliseconds of the start, and fails where none are installed. A client
        // for http that follows no redirects never needs them.
        return Ok(builder.tls_certs_only([]));
    }
    Ok(builder.tls_certs_merge(transport.certificates.for_client()?))
}

/// An error with its causes on one line: the outermost of reqwest's says little.
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The wait before a request is tried again: twice as long for each attempt that failed, at most `max`, and spread, so
/// that many runners do not come back at the same moment. `attempt` counts from 0.
pub fn backoff(base: Duration, max: Duration, attempt: u32, factors: Range<f64>) -> Duration {
    let wait = base.saturating_mul(2_u32.saturating_pow(attempt)).min(max);
    spread(wait, factors)
}

/// A wait times a random number of this range.
pub fn spread(wait: Duration, factors: Range<f64>) -> Duration {
    const STEPS: f64 = (u32::MAX as f64) + 1.0;
    let fraction = getrandom::u32().map_or(0.5, |random| f64::from(random) / STEPS);
    wait.mul_f64(factors.start + (factors.end - factors.start) * fraction)
}

/// Whether a connection failed since the peer's certificate is not one to trust: no repetition changes that.
pub fn is_certificate_error(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if matches!(
            error.downcast_ref::<rustls::Error>(),
            Some(rustls::Error::InvalidCertificate(_))
        ) {
            return true;
        }
        // An error of input and output does not give its content as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| is_certificate_error(inner)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How long a response asks us to wait: `retry-after-ms`, or `retry-after` in seconds or as a date; at most so long.
/// `None` when it does not ask.
pub fn retry_after(headers: &HeaderMap, now: jiff::Timestamp, at_most: Duration) -> Option<Duration> {
    const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = match text(RETRY_AFTER_MS).and_then(|value| value.parse::<f64>().ok()) {
        Some(milliseconds) => milliseconds / 1000.0,
        None => {
            let value = text(RETRY_AFTER)?;
            match value.parse::<f64>() {
                Ok(seconds) => seconds,
                Err(_) => {
                    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
                    at.duration_since(now).as_secs_f64()
                }
            }
        }
    };
    // Zero, the past and what is no number ask for nothing.
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(at_most.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_its_bound_and_is_spread() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(8));
        for (attempt, full) in [(0, 100), (1, 200), (6, 6400), (7, 8000), (200, 8000)] {
            let full = Duration::from_millis(full);
            let waits: Vec<Duration> = (0..100).map(|_| backoff(base, max, attempt, 0.75..1.0)).collect();
            assert!(
                waits.iter().all(|wait| (full.mul_f64(0.75)..=full).contains(wait)),
                "{attempt}: {waits:?}"
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]), "all are {:?}", waits[0]);
        }
        assert_eq!(backoff(base, max, 3, 1.0..1.0), Duration::from_millis(800));
    }
}
