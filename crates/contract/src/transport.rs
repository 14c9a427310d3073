//! How an HTTP client gets to its server: directly or by a proxy, and whose certificates it trusts besides the
//! system's.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

/// What the operator says of the network. By default: directly, and the system's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// `None`: no proxy, whatever the environment says.
    pub proxies: Option<Arc<Proxies>>,
    /// Trusted besides the system's.
    pub certificates: ExtraCertificates,
}

impl Transport {
    /// How this URL is reached.
    pub fn route(&self, url: &Url) -> Route<'_> {
        let Some(proxies) = &self.proxies else {
            return Route::Direct(Direct::NotAsked);
        };
        let proxy = match url.scheme() {
            "https" => &proxies.https,
            _ => &proxies.http,
        };
        let Some(proxy) = proxy else {
            return Route::Direct(Direct::NoProxy);
        };
        match proxies.except.entry_for(url) {
            Some(entry) => Route::Direct(Direct::Excepted(entry)),
            None => Route::Proxy(proxy),
        }
    }
}

/// See [`Transport::route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Without a proxy.
    Direct(Direct<'a>),
    /// By this one.
    Proxy(&'a Proxy),
}

/// Why there is no proxy on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direct<'a> {
    /// Nobody wants any.
    NotAsked,
    /// There is none for URLs of this scheme.
    NoProxy,
    /// The list of exceptions has this entry.
    Excepted(&'a str),
}

/// The proxies of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http` URLs. It sees each request.
    pub http: Option<Proxy>,
    /// For `https` URLs. It sees host and port, and passes bytes on (CONNECT).
    pub https: Option<Proxy>,
    /// What is reached without.
    pub except: Exceptions,
}

/// An HTTP proxy. Its `Debug` shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Url,
    variable: String,
}

/// Why a text is no proxy. Nothing of the text is in it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It cannot be parsed.
    #[error("it is no URL of a proxy")]
    Malformed,
    /// Of another kind.
    #[error("only proxies of the schemes http and https are supported, not SOCKS or others")]
    Scheme,
    /// Nobody to connect to.
    #[error("the URL of the proxy has no host")]
    NoHost,
}

impl Proxy {
    /// Reads the URL of a proxy, which may have a user and a password. Without a scheme it is `http`, as in curl.
    /// `variable` is where it stands, for people.
    ///
    /// # Errors
    /// When it is none that can be used.
    pub fn parse(text: &str, variable: &str) -> Result<Self, ProxyError> {
        let url = parse(text)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ProxyError::Scheme);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(ProxyError::NoHost);
        }
        Ok(Self {
            url,
            variable: variable.to_owned(),
        })
    }

    /// The variable that names it.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// Where it is, without credentials.
    pub fn place(&self) -> String {
        let (scheme, host) = (self.url.scheme(), self.url.host_str().unwrap_or_default());
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{scheme}://{host}:{port}")
    }

    /// With credentials, for the client alone.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.place(), self.variable)
    }
}

fn parse(text: &str) -> Result<Url, ProxyError> {
    let text = text.trim();
    let url = match text.contains("://") {
        true => Url::parse(text),
        // `proxy:3128` alone would be a URL of the scheme `proxy`.
        false => Url::parse(&format!("http://{text}")),
    };
    url.map_err(|_| ProxyError::Malformed)
}

/// What must not be told of a text that should be the URL of a proxy: user and password, alone and together, as they
/// stand there and as they are meant. Short ones only together.
pub fn proxy_secrets(text: &str) -> Vec<String> {
    /// As for all secrets: what is shorter is found in half of all words.
    const MIN_ALONE: usize = 8;
    let (_, rest) = text.split_once("://").unwrap_or(("", text));
    // What is no URL may hold a password all the same.
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((credentials, _)) = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@')) else {
        return Vec::new();
    };
    let decoded = percent_decode_str(credentials).decode_utf8_lossy();
    let mut secrets = Vec::new();
    for form in [credentials, &*decoded] {
        let (user, password) = form.split_once(':').unwrap_or((form, ""));
        secrets.extend([user, password].into_iter().filter(|one| one.len() >= MIN_ALONE));
        secrets.extend((!password.is_empty()).then_some(form));
    }
    let mut secrets: Vec<String> = secrets.into_iter().map(str::to_owned).collect();
    secrets.sort();
    secrets.dedup();
    secrets
}

/// The hosts that are reached without a proxy, as curl and reqwest read `NO_PROXY`: separated by commas; `*` is all; an
/// address, or a network as `10.0.0.0/8`; a name is that host and all below it, with a leading dot or `*.` or without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Exception>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    /// As it stands there.
    text: String,
    means: Meaning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    All,
    /// In lower case, without a leading dot.
    Name(String),
    Network(IpAddr, u8),
}

impl Exceptions {
    /// # Errors
    /// The first entry that has no meaning: one that is overlooked would send to the proxy what is to go past it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let entries = entries.map(|entry| {
            let means = meaning(entry).map_err(|problem| format!("its entry {entry:?} {problem}"))?;
            Ok(Exception {
                text: entry.to_owned(),
                means,
            })
        });
        entries.collect::<Result<_, String>>().map(Self)
    }

    /// The entry that this URL falls under.
    fn entry_for(&self, url: &Url) -> Option<&str> {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let address = host.parse::<IpAddr>().ok();
        let host = host.to_ascii_lowercase();
        let covers = |entry: &&Exception| match &entry.means {
            Meaning::All => true,
            Meaning::Network(network, bits) => address.is_some_and(|address| is_in(address, *network, *bits)),
            // `co.uk` is no name for `notco.uk`.
            Meaning::Name(name) => {
                address.is_none()
                    && host
                        .strip_suffix(&**name)
                        .is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
        };
        self.0.iter().find(covers).map(|entry| &*entry.text)
    }
}

fn meaning(entry: &str) -> Result<Meaning, &'static str> {
    if entry == "*" {
        return Ok(Meaning::All);
    }
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Meaning::Network(address, width(address)));
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let network = network.parse::<IpAddr>().ok();
        let bits = bits.parse::<u8>().ok();
        return match (network, bits) {
            (Some(network), Some(bits)) if bits <= width(network) => Ok(Meaning::Network(network, bits)),
            _ => Err("is no network, as 10.0.0.0/8 is one"),
        };
    }
    if entry.contains(':') {
        return Err("has a port or a scheme: a host, an address or a network stands alone");
    }
    let name = entry.strip_prefix("*.").or(entry.strip_prefix('.')).unwrap_or(entry);
    if name.is_empty() || name.contains(['*', ' ', '@', '?', ';']) {
        return Err("is no host, no address and no network; of wildcards only `*` alone is known");
    }
    Ok(Meaning::Name(name.trim_end_matches('.').to_ascii_lowercase()))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether an address is in a network of so many leading bits.
fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let shift = width - u32::from(bits);
    address.checked_shr(shift).unwrap_or(0) == network.checked_shr(shift).unwrap_or(0)
}

/// Certificates of authorities that are trusted besides the system's.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExtraCertificates(Arc<Vec<CertificateDer<'static>>>);

impl ExtraCertificates {
    /// Reads them from a text in PEM form. What else is in it (a key, a comment) is left out.
    ///
    /// # Errors
    /// When there is none, or one that no TLS library takes.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let number = certificates.len() + 1;
            let certificate = certificate.map_err(|error| format!("holds no whole PEM document: {error:?}"))?;
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|error| format!("has a certificate, number {number}, that cannot be used: {error}"))?;
            certificates.push(certificate);
        }
        match certificates.is_empty() {
            true => Err("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned()),
            false => Ok(Self(Arc::new(certificates))),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// For a client.
    pub(crate) fn for_client(&self) -> reqwest::Result<Vec<reqwest::Certificate>> {
        let certificates = self.0.iter();
        certificates.map(|one| reqwest::Certificate::from_der(one)).collect()
    }
}

impl fmt::Debug for ExtraCertificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} certificates", self.count())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_proxy_is_read_as_curl_does_and_shows_no_credentials() {
        for (text, place) in [
            ("http://proxy.internal:3128", "http://proxy.internal:3128"),
            ("https://proxy.internal", "https://proxy.internal:443"),
            ("proxy.internal:3128", "http://proxy.internal:3128"),
            ("10.0.0.1", "http://10.0.0.1:80"),
            ("http://user:hunter2%40x@proxy:1/", "http://proxy:1"),
            ("user:hunter2@proxy:1", "http://proxy:1"),
        ] {
            let proxy = Proxy::parse(text, "HTTPS_PROXY").unwrap();
            assert_eq!(proxy.place(), place, "{text}");
            assert!(!format!("{proxy:?}").contains("hunter2"), "{proxy:?}");
        }
        for (text, error) in [
            ("socks5://proxy:1080", ProxyError::Scheme),
            ("socks5h://user:hunter2@proxy", ProxyError::Scheme),
            ("ftp://proxy", ProxyError::Scheme),
            ("http://", ProxyError::Malformed),
            ("http://user:hunter2@:80", ProxyError::Malformed),
            ("http://proxy:port", ProxyError::Malformed),
            ("", ProxyError::Malformed),
        ] {
            assert_eq!(Proxy::parse(text, "HTTPS_PROXY"), Err(error), "{text}");
        }
    }

    #[test]
    fn user_and_password_of_a_proxy_are_secrets_in_every_form() {
        let secrets = proxy_secrets("http://operator:hunter2%2Fhunter2@proxy:3128/x@y");
        let expected = [
            "hunter2%2Fhunter2",
            "hunter2/hunter2",
            "operator",
            "operator:hunter2%2Fhunter2",
            "operator:hunter2/hunter2",
        ];
        assert_eq!(secrets, expected);
        // Alone they are found in half of all words.
        assert_eq!(proxy_secrets("me:pass@proxy"), ["me:pass"]);
        // A password with a slash that nobody has escaped: no URL, and still no word to tell.
        assert!(proxy_secrets("http://me:pass/word@proxy:1").contains(&"pass/word".to_owned()));
        for none in ["http://proxy:3128", "proxy", "http://me@proxy", ""] {
            assert_eq!(proxy_secrets(none), Vec::<String>::new(), "{none}");
        }
    }

    #[test]
    fn exceptions_are_hosts_with_all_below_them_addresses_and_networks() {
        let list = ".svc.cluster.local, API.internal,*.corp.example ,10.0.0.0/8,127.0.0.1,fd00::/8,[::1],,";
        let list = Exceptions::parse(list).unwrap();
        for (url, entry) in [
            ("http://plue-api.plue.svc.cluster.local/x", Some(".svc.cluster.local")),
            ("http://svc.cluster.local", Some(".svc.cluster.local")),
            ("https://api.internal.:8443", Some("API.internal")),
            ("https://a.b.api.internal", Some("API.internal")),
            ("https://myapi.internal", None),
            ("https://corp.example", Some("*.corp.example")),
            ("http://10.255.0.1", Some("10.0.0.0/8")),
            ("http://11.0.0.1", None),
            ("http://127.0.0.1:9", Some("127.0.0.1")),
            ("http://127.0.0.2:9", None),
            ("http://[fd12::1]/", Some("fd00::/8")),
            ("http://[::1]/", Some("[::1]")),
            ("http://[::2]/", None),
            ("https://api.anthropic.com", None),
        ] {
            assert_eq!(list.entry_for(&url.parse().unwrap()), entry, "{url}");
        }
        let all = Exceptions::parse("*").unwrap();
        assert_eq!(all.entry_for(&"http://[::2]/".parse().unwrap()), Some("*"));
        for wrong in [
            "10.0.0.0/33",
            "10.0.0/8",
            "a/b",
            "host:8080",
            "http://host",
            "a.*.b",
            "a b",
            ".",
        ] {
            let error = Exceptions::parse(&format!("good,{wrong}")).unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }

    #[test]
    fn a_url_goes_by_the_proxy_of_its_scheme_unless_it_is_an_exception() {
        let proxies = Proxies {
            http: None,
            https: Some(Proxy::parse("proxy:1", "https_proxy").unwrap()),
            except: Exceptions::parse("inside").unwrap(),
        };
        let by_proxy = Transport {
            proxies: Some(Arc::new(proxies)),
            ..Transport::default()
        };
        let route = |transport: &Transport, url: &str| format!("{:?}", transport.route(&url.parse().unwrap()));
        let asked = |url| route(&by_proxy, url);
        assert_eq!(asked("https://outside"), "Proxy(http://proxy:1 (https_proxy))");
        assert_eq!(asked("https://inside"), "Direct(Excepted(\"inside\"))");
        assert_eq!(asked("http://outside"), "Direct(NoProxy)");
        assert_eq!(route(&Transport::default(), "https://outside"), "Direct(NotAsked)");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for wrong in [
            "",
            "garbage",
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(ExtraCertificates::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
