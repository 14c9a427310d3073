//! The variables of OpenTelemetry: where traces and metrics go. The names are those of its specification; its libraries
//! would read them by themselves, and are given what stands here in place of that.

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use super::reader::{Reader, items};
use super::variables::*;
use crate::telemetry::OtlpConfig;
use plue_contract::secret::Secret;
use plue_contract::transport::Transport;
use plue_redaction::MIN_SECRET;

/// Names of headers whose values are secrets, by what is in them.
const SECRET_NAMES: [&str; 5] = ["auth", "key", "token", "secret", "password"];

/// The values in `OTEL_EXPORTER_OTLP_HEADERS` that must not be told: those of headers that carry a key or a token.
pub fn header_secrets(lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let headers = lookup(OTEL_EXPORTER_OTLP_HEADERS.name).unwrap_or_default();
    secret_values(pairs(&headers).unwrap_or_default())
}

fn secret_values(pairs: Vec<(String, String)>) -> Vec<String> {
    let secret = pairs.into_iter().filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        SECRET_NAMES.iter().any(|part| name.contains(part))
    });
    secret
        .flat_map(|(_, value)| {
            // Of `Bearer abc`, `abc` alone is the secret.
            let bare = value.split_once(' ').map(|(_, bare)| bare.to_owned());
            [Some(value), bare]
        })
        .flatten()
        .filter(|value| value.len() >= MIN_SECRET)
        .collect()
}

impl Reader<'_> {
    /// `None` when no endpoint is set, or when something is wrong with it. Malformed variables beside it are told even
    /// when nothing is exported.
    pub(super) fn telemetry(&mut self, transport: &Transport) -> Option<OtlpConfig> {
        let endpoint = self.collector();
        let headers = self.collector_headers();
        let resource = self.get(OTEL_RESOURCE_ATTRIBUTES).unwrap_or_default();
        let resource = pairs(&resource).unwrap_or_else(|| {
            self.wrong(OTEL_RESOURCE_ATTRIBUTES, "it is not of the form name=value,…");
            Vec::new()
        });
        let named = |(name, value): &(String, String)| (name == "service.name").then(|| value.clone());
        let service_name = self
            .get(OTEL_SERVICE_NAME)
            .or_else(|| resource.iter().find_map(named))
            .unwrap_or_else(|| OTEL_SERVICE_NAME.default.into());
        Some(OtlpConfig {
            endpoint: endpoint?,
            headers,
            transport: transport.clone(),
            service_name,
            resource,
        })
    }

    pub(super) fn collector(&mut self) -> Option<Url> {
        let variable = OTEL_EXPORTER_OTLP_ENDPOINT;
        let text = self.get(variable)?;
        let url = self.url(variable, &text)?;
        if !url.username().is_empty() || url.password().is_some() {
            self.wrong(
                variable,
                "it must have no user name and no password: they belong into OTEL_EXPORTER_OTLP_HEADERS",
            );
            return None;
        }
        Some(url)
    }

    /// No value is repeated in a message: it may be a secret.
    fn collector_headers(&mut self) -> Vec<(HeaderName, Secret)> {
        let variable = OTEL_EXPORTER_OTLP_HEADERS;
        let text = self.secret(variable, OTEL_EXPORTER_OTLP_HEADERS_FILE);
        let (text, variable) = text.unwrap_or((String::new(), variable));
        let headers = pairs(&text).and_then(|pairs| {
            self.learn(secret_values(pairs.clone()));
            let headers = pairs.into_iter().map(|(name, value)| {
                let name = HeaderName::try_from(name).ok()?;
                HeaderValue::try_from(&value).ok()?;
                Some((name, Secret::new(value)))
            });
            headers.collect::<Option<Vec<_>>>()
        });
        headers.unwrap_or_else(|| {
            self.wrong(
                variable,
                "it is not of the form name=value,… with names and values that headers may have",
            );
            Vec::new()
        })
    }
}

/// `name=value` pairs, separated by commas, values URL-encoded. `None` when one is malformed.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = items(text).into_iter().map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        (!name.trim().is_empty()).then(|| (name.trim().to_owned(), value.into_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    fn lookup(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        move |name| map.get(name).cloned()
    }

    fn read(pairs: &[(&str, &str)]) -> Option<OtlpConfig> {
        let lookup = lookup(pairs);
        let mut reader = Reader::new(&lookup);
        let config = reader.telemetry(&Transport::default());
        assert!(reader.problems.is_empty(), "{:?}", reader.problems);
        config
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert!(read(&[("OTEL_SERVICE_NAME", "x")]).is_none());
        let config = read(&[ENDPOINT]).unwrap();
        assert_eq!(config.service_name, "plue-runner");
        assert!(config.headers.is_empty() && config.resource.is_empty());
    }

    #[test]
    fn headers_and_attributes_are_decoded_and_the_services_name_may_stand_in_either_place() {
        let config = read(&[
            ENDPOINT,
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "Authorization=Bearer%20abcdefgh, x-tenant = blue",
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,note=a%2Cb"),
        ]);
        let config = config.unwrap();
        let headers: Vec<_> = config.headers.iter().map(|(n, v)| (n.as_str(), v.expose())).collect();
        assert_eq!(headers, [("authorization", "Bearer abcdefgh"), ("x-tenant", "blue")]);
        assert_eq!(config.service_name, "other");
        assert_eq!(config.resource[1], ("note".to_owned(), "a,b".to_owned()));
        let both = [
            ENDPOINT,
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"),
            ("OTEL_SERVICE_NAME", "b"),
        ];
        assert_eq!(read(&both).unwrap().service_name, "b");
    }

    #[test]
    fn the_keys_among_the_headers_are_secrets() {
        let headers = "authorization=Bearer%20abcdefgh,x-tenant=somebody-else,x-api-key=0123456789,key=short";
        let secrets = header_secrets(&lookup(&[("OTEL_EXPORTER_OTLP_HEADERS", headers)]));
        assert_eq!(secrets, ["Bearer abcdefgh", "abcdefgh", "0123456789"]);
    }
}
