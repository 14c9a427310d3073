//! Proxies, and certificates besides the system's. Nothing of it counts unless the operator asks for it: a proxy that
//! an image or a cluster sets for everybody gets neither the key nor the events.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::reader::Reader;
use super::variables::*;
use plue_contract::transport::{Exceptions, ExtraCertificates, Proxies, Proxy, Transport, proxy_secrets};

/// All certificates of the web's authorities are a quarter of a mebibyte.
const MAX_CERTIFICATES: u64 = 4 << 20;

/// The user and the password of each proxy in the environment, whether or not it is used.
pub fn environment_proxy_secrets(lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    const NAMES: [&str; 6] = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let values = NAMES.iter().filter_map(|name| lookup(name));
    values.flat_map(|value| proxy_secrets(&value)).collect()
}

impl Reader<'_> {
    /// By which way servers are reached.
    pub(super) fn transport(&mut self) -> Transport {
        let problems = self.problems.len();
        let proxies = match self.flag(USE_PROXY) {
            true => Some(Arc::new(self.proxies())),
            false => None,
        };
        self.way_unknown = self.problems.len() > problems;
        Transport {
            proxies,
            certificates: self.certificates().unwrap_or_default(),
        }
    }

    fn proxies(&mut self) -> Proxies {
        let problems = self.problems.len();
        let http = self.proxy(HTTP_PROXY, HTTP_PROXY_FILE);
        let https = self.proxy(HTTPS_PROXY, HTTPS_PROXY_FILE);
        if http.is_none() && https.is_none() && self.problems.len() == problems {
            self.wrong(
                USE_PROXY,
                "it is 1, and neither HTTPS_PROXY nor HTTP_PROXY is set (ALL_PROXY is not read)",
            );
        }
        let variable = self.spelled(NO_PROXY);
        let except = Exceptions::parse(&self.get(variable).unwrap_or_default());
        let except = except.unwrap_or_else(|problem| {
            self.wrong(variable, &problem);
            Exceptions::default()
        });
        Proxies { http, https, except }
    }

    /// The value is not repeated in a message: it may have a password.
    fn proxy(&mut self, variable: Variable<Unset>, file: Variable<Unset>) -> Option<Proxy> {
        let variable = self.spelled(variable);
        let (text, named) = self.secret(variable, file)?;
        self.learn(proxy_secrets(&text));
        match Proxy::parse(&text, named.name) {
            Ok(proxy) => Some(proxy),
            Err(problem) => {
                self.wrong(named, &problem.to_string());
                None
            }
        }
    }

    /// The spelling that is set: as in curl the lower case comes first.
    fn spelled(&self, variable: Variable<Unset>) -> Variable<Unset> {
        let name = match variable.name {
            "HTTP_PROXY" => "http_proxy",
            "HTTPS_PROXY" => "https_proxy",
            _ => "no_proxy",
        };
        let lower = Variable { name, ..variable };
        match self.get(lower) {
            Some(_) => lower,
            None => variable,
        }
    }

    fn certificates(&mut self) -> Option<ExtraCertificates> {
        let path = self.get(EXTRA_CA_CERTS)?;
        let certificates = read_certificates(Path::new(&path));
        certificates
            .map_err(|problem| self.wrong(EXTRA_CA_CERTS, &problem))
            .ok()
    }
}

fn read_certificates(path: &Path) -> Result<ExtraCertificates, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("the file {shown} cannot be read: {error}");
    let found = path.metadata().map_err(cannot)?;
    if !found.is_file() {
        let what = if found.is_dir() {
            "a folder"
        } else {
            "a pipe or a device"
        };
        return Err(format!("{shown} is {what}: all certificates belong into one file"));
    }
    let mut pem = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_CERTIFICATES + 1).read_to_end(&mut pem).map_err(cannot)?;
    if pem.len() as u64 > MAX_CERTIFICATES {
        return Err(format!("the file {shown} has more than {} MiB", MAX_CERTIFICATES >> 20));
    }
    if pem.is_empty() {
        return Err(format!("the file {shown} is empty"));
    }
    ExtraCertificates::parse(&pem).map_err(|problem| format!("the file {shown} {problem}"))
}
