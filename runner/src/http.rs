//! What the runner's two HTTP clients (the Messages API, the callback) have in common.

use std::error::Error;
use std::sync::Once;
use std::time::Duration;

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how much silence the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A client as the threat model wants it: TLS by rustls, and no proxy from the environment, since the runner talks to
/// the origins of its configuration and to nothing else.
pub fn client_builder() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Only fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
        .tcp_nodelay(true)
        .user_agent(concat!("plue-runner/", env!("CARGO_PKG_VERSION")))
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

/// A number in `0.0..1.0`, for the jitter of waits.
pub fn random_fraction() -> f64 {
    const STEPS: f64 = (u32::MAX as f64) + 1.0;
    getrandom::u32().map_or(0.5, |random| f64::from(random) / STEPS)
}
