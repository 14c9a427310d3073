//! The forms that programs write a secret in.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What may stay in a URL's component as it is (RFC 3986, unreserved).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same and what a path may have besides: some programs leave those.
const PATH: &AsciiSet = &COMPONENT
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

/// A part of a base64 text that is shorter would be found in half of all others.
const MIN_PART: usize = 8;

/// The base64 forms alone, which may be broken into lines.
pub(super) fn in_base64(secret: &str) -> Vec<Vec<u8>> {
    let parts = (0..3).flat_map(|offset| base64_at(secret, offset));
    parts.map(String::into_bytes).collect()
}

/// A secret as it is, in JSON, in a URL, and in base64. None of an empty one.
pub(super) fn of(secret: &str) -> Vec<Vec<u8>> {
    if secret.is_empty() {
        return Vec::new();
    }
    let mut forms = vec![secret.to_owned(), json(secret), ascii_json(secret)];
    for set in [COMPONENT, PATH, NON_ALPHANUMERIC] {
        let encoded = utf8_percent_encode(secret, set).to_string();
        // In forms (application/x-www-form-urlencoded) a space is a plus.
        forms.push(encoded.replace("%20", "+"));
        forms.push(lower_hex(&encoded));
        forms.push(encoded);
    }
    let mut forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
    forms.extend(in_base64(secret));
    forms.sort();
    forms.dedup();
    forms
}

/// In a JSON string.
fn json(secret: &str) -> String {
    let quoted = serde_json::to_string(secret).unwrap_or_default();
    let inside = quoted.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"'));
    inside.unwrap_or_default().to_owned()
}

/// The same as writers do it that write ASCII only, and escape `/` and what HTML knows.
fn ascii_json(secret: &str) -> String {
    let mut text = String::new();
    for unit in json(secret).encode_utf16() {
        match char::from_u32(unit.into()) {
            Some('/') => text.push_str("\\/"),
            Some(c) if c.is_ascii() => text.push(c),
            _ => {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// `%2F` as `%2f`.
fn lower_hex(encoded: &str) -> String {
    let mut text = String::with_capacity(encoded.len());
    let mut left = 0;
    for c in encoded.chars() {
        if c == '%' {
            left = 3;
        }
        text.push(if left > 0 { c.to_ascii_lowercase() } else { c });
        left = u32::saturating_sub(left, 1);
    }
    text
}

/// What a secret becomes in the base64 of a longer text in which so many bytes (modulo 3) stand before it: the
/// characters that depend on nothing else. Both alphabets.
fn base64_at(secret: &str, offset: usize) -> Vec<String> {
    let mut bytes = vec![0; offset];
    bytes.extend_from_slice(secret.as_bytes());
    let first = (offset * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    [STANDARD_NO_PAD, URL_SAFE_NO_PAD]
        .iter()
        .filter_map(|alphabet| alphabet.encode(&bytes).get(first..end).map(str::to_owned))
        .filter(|part| part.len() >= MIN_PART)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(secret: &str, form: &str) -> bool {
        of(secret).iter().any(|known| known == form.as_bytes())
    }

    #[test]
    fn the_forms_of_a_secret_with_everything_that_is_escaped_somewhere() {
        let secret = "p@ss/w\"rd é\n+1";
        for form in [
            secret,
            r#"p@ss/w\"rd é\n+1"#,
            r#"p@ss\/w\"rd \u00e9\n+1"#,
            "p%40ss%2Fw%22rd%20%C3%A9%0A%2B1",
            "p%40ss%2fw%22rd%20%c3%a9%0a%2b1",
            "p%40ss%2Fw%22rd+%C3%A9%0A%2B1",
            "p@ss/w%22rd%20%C3%A9%0A+1",
        ] {
            assert!(has(secret, form), "{form}");
        }
        assert_eq!(of(""), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_secret_is_found_in_the_base64_of_a_longer_text_wherever_it_stands() {
        let secret = "sk-ant-??>>0123456789";
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "x", "xy", "xyz"] {
                for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let text = alphabet.encode(format!("{before}{secret}{after}"));
                    let found = of(secret)
                        .iter()
                        .any(|form| text.as_bytes().windows(form.len()).any(|window| window == form));
                    assert!(found, "{before:?} {after:?} {text}");
                }
            }
        }
    }
}
