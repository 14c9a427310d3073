//! The secrets of one scene: random, alike in their beginning so that an attack can look for them without knowing one.

use anyhow::{Result, anyhow};

use crate::sys;

/// What must never leave the runner, nor the folders outside of the workspace.
#[derive(Clone, Debug)]
pub struct Secrets {
    pub prefix: String,
    pub api_key: String,
    pub callback_token: String,
    /// Something of the operator's that the runner does not know as a secret.
    pub operator: String,
    /// The same, under a name that does not say that it is secret: nobody can know to cover it up in what is sent.
    pub plain: String,
    /// The content of the canary files.
    pub file: String,
}

impl Secrets {
    pub fn new(scene: &str) -> Result<Self> {
        let prefix = format!("plue-canary-{scene}-");
        let secret = || Ok::<_, anyhow::Error>(format!("{prefix}{}{}", random()?, random()?));
        Ok(Self {
            api_key: secret()?,
            callback_token: secret()?,
            operator: secret()?,
            plain: secret()?,
            file: secret()?,
            prefix,
        })
    }

    /// Every form of every secret that is in these bytes, by the name of the secret.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let all = [
            ("the API key", &self.api_key),
            ("the callback token", &self.callback_token),
            ("the operator's secret", &self.operator),
            ("the operator's setting", &self.plain),
            ("the content of a canary", &self.file),
        ];
        let mut found = Vec::new();
        for (name, secret) in all {
            for (form, text) in forms(secret) {
                if contains(bytes, text.as_bytes()) {
                    found.push(format!("{name} ({form})"));
                }
            }
        }
        found
    }
}

/// 16 hexadecimal digits.
pub fn random() -> Result<String> {
    let number = getrandom::u64().map_err(|error| anyhow!("no random number: {error}"))?;
    Ok(format!("{number:016x}"))
}

/// The forms in which a secret may leave: as it is, backwards, hexadecimal, and in the three alignments of base64.
fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        ("plain", secret.to_owned()),
        ("backwards", secret.chars().rev().collect()),
        ("hex", hex.clone()),
        ("HEX", hex.to_uppercase()),
    ];
    for skip in 0..3 {
        let aligned = &secret.as_bytes()[skip..];
        let whole = &aligned[..aligned.len() / 3 * 3];
        forms.push(("base64", base64(whole)));
    }
    forms
}

/// Base64 of bytes whose number is a multiple of three.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let number = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[(number >> shift & 63) as usize]));
        }
    }
    text
}

/// A secret in these bytes: the prefix with hexadecimal digits behind it.
pub fn secret_in<'a>(bytes: &'a [u8], prefix: &str) -> Option<&'a str> {
    let mut rest = bytes;
    while let Some(at) = sys::find(rest, prefix.as_bytes()) {
        let digits = &rest[at + prefix.len()..];
        let count = digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if count >= 16 {
            return std::str::from_utf8(&rest[at..at + prefix.len() + count]).ok();
        }
        rest = &rest[at + 1..];
    }
    None
}

pub fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    sys::find(bytes, wanted).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secrets = Secrets::new("0011").unwrap();
        let encoded = base64(
            format!("x{}zz", secrets.file)
                .as_bytes()
                .chunks_exact(3)
                .flatten()
                .copied()
                .collect::<Vec<_>>()
                .as_slice(),
        );
        assert_eq!(
            secrets.found_in(encoded.as_bytes()),
            ["the content of a canary (base64)"]
        );
        assert_eq!(
            secrets.found_in(format!("key={}.", secrets.api_key).as_bytes()),
            ["the API key (plain)"]
        );
        assert!(secrets.found_in(secrets.prefix.as_bytes()).is_empty());
    }

    #[test]
    fn an_attack_finds_a_secret_by_its_prefix_and_not_the_prefix_alone() {
        let secrets = Secrets::new("0011").unwrap();
        let bytes = format!("{} and {}", secrets.prefix, secrets.operator);
        assert_eq!(secret_in(bytes.as_bytes(), &secrets.prefix), Some(&*secrets.operator));
        assert_eq!(secret_in(secrets.prefix.as_bytes(), &secrets.prefix), None);
    }
}
