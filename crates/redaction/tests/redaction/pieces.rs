//! One case of the redaction, made of any bytes: secrets, a text that may hold them in any of their forms, and how it
//! is cut. The fuzzer and the random tests share it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use plue_redaction::Redactor;

/// Takes numbers and texts off the front of the bytes; from the end on, everything is empty.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn text(&mut self, most: u8) -> String {
        let length = usize::from(self.byte() % (most + 1)).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }
}

/// Checks a case: however the text is cut, the same comes out, and no secret that stood in it.
///
/// # Errors
/// What is wrong.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut source = Source(bytes);
    let secrets: Vec<String> = (0..1 + source.byte() % 3)
        .map(|_| source.text(24))
        // What the runner takes for one.
        .filter(|secret| secret.trim().len() >= 8)
        .map(|secret| secret.trim().to_owned())
        .collect();
    let mut text = Vec::new();
    while !source.0.is_empty() {
        let secret = secrets.get(usize::from(source.byte()) % secrets.len().max(1));
        match (source.byte() % 8, secret) {
            (0, Some(secret)) => text.extend_from_slice(secret.as_bytes()),
            (1, Some(secret)) => {
                text.extend_from_slice(&secret.as_bytes()[..usize::from(source.byte()) % secret.len()])
            }
            (2, Some(secret)) => text.extend_from_slice(STANDARD.encode(source.text(2) + secret).as_bytes()),
            (3, Some(secret)) => text.extend_from_slice(URL_SAFE_NO_PAD.encode(source.text(2) + secret).as_bytes()),
            (5, Some(secret)) => {
                let (before, width) = (source.text(4), 2 + usize::from(source.byte() % 30));
                let broken = [&b"\n"[..], b"\r\n", b"\n  "][usize::from(source.byte() % 3)];
                let encoded = STANDARD.encode(before + secret);
                text.extend_from_slice(&encoded.as_bytes().chunks(width).collect::<Vec<_>>().join(broken));
            }
            (6, _) => text.push(b'\n'),
            (4, Some(secret)) => text.extend(serde_json::to_vec(secret).unwrap_or_default()),
            _ => text.extend_from_slice(source.text(12).as_bytes()),
        }
    }
    let redactor = Redactor::new(&secrets);
    let whole = {
        let mut stream = redactor.stream();
        let mut out = stream.push(&text);
        out.extend(stream.finish());
        out
    };
    if let Ok(text) = String::from_utf8(text.clone()) {
        let (redacted, _) = redactor.redact(text);
        if redacted.as_bytes() != whole {
            return Err(format!(
                "as a text {redacted:?}, as a stream {:?}",
                String::from_utf8_lossy(&whole)
            ));
        }
    }
    let seed = bytes.iter().fold(7_usize, |mixed, byte| {
        mixed.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    let mut cut = Vec::new();
    let mut stream = redactor.stream();
    let (mut rest, mut size) = (&text[..], seed);
    while !rest.is_empty() {
        size = size.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let (piece, behind) = rest.split_at((1 + size / 65_536 % 9).min(rest.len()));
        cut.extend(stream.push(piece));
        rest = behind;
    }
    cut.extend(stream.finish());
    if cut != whole {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        return Err(format!(
            "whole {:?}, cut {:?}, secrets {secrets:?}",
            shown(&whole),
            shown(&cut)
        ));
    }
    for secret in &secrets {
        // A secret of asterisks would be found in the mask itself.
        let found = whole.windows(secret.len()).any(|window| window == secret.as_bytes());
        if found && !secret.contains('*') {
            return Err(format!("{secret:?} is left in {:?}", String::from_utf8_lossy(&whole)));
        }
    }
    // What is broken into lines is found, too, when it is long enough not to be there by chance.
    let unbroken: Vec<u8> = whole
        .iter()
        .copied()
        .filter(|byte| !b"\r\n \t".contains(byte))
        .collect();
    for secret in secrets.iter().filter(|secret| secret.len() >= 14) {
        for before in 0..3 {
            let encoded = STANDARD.encode([&[0; 2][..before], secret.as_bytes()].concat());
            let certain = &encoded.as_bytes()[(before * 8).div_ceil(6)..(before + secret.len()) * 8 / 6];
            if unbroken.windows(certain.len()).any(|window| window == certain) {
                return Err(format!("{secret:?} is left in {:?}", String::from_utf8_lossy(&whole)));
            }
        }
    }
    Ok(())
}
