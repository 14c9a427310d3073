//! Halves of surrogate pairs in JSON text. JSON may hold one alone (`"\ud83d"`), and servers that cut a text between
//! the two halves of a character send them so; a Rust string cannot hold it, and the API refuses it back. A half that
//! finds its other half in the next piece is joined with it; any other becomes U+FFFD.

use std::borrow::Cow;

/// Whether a JSON text may have half a pair in it: a quick look that is sure only of a no.
pub(super) fn may_have_halves(json: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', json).any(|at| matches!(json.get(at + 1..at + 3), Some([b'u', b'd' | b'D'])))
}

/// A JSON text in which each escape that is half a pair is an escaped U+FFFD: as long as before.
pub fn without_halves(json: &str) -> Cow<'_, str> {
    let mut mended: Option<String> = None;
    for (at, unit) in Escapes::of(json) {
        let is_half = match unit {
            0xd800..=0xdbff => !matches!(escape_at(json, at + ESCAPE), Some(0xdc00..=0xdfff)),
            0xdc00..=0xdfff => !at.checked_sub(ESCAPE).is_some_and(|before| {
                matches!(escape_at(json, before), Some(0xd800..=0xdbff)) && is_escape(json, before)
            }),
            _ => false,
        };
        if is_half {
            mended
                .get_or_insert_with(|| json.to_owned())
                .replace_range(at..at + ESCAPE, "\\ufffd");
        }
    }
    mended.map_or(Cow::Borrowed(json), Cow::Owned)
}

/// The text of a JSON string, literal quotes and all, with the first half of a pair that the piece before it ended
/// with; and the half that this one ends with. `None` when it is no JSON string.
pub(super) fn text_of(literal: &str, carried: Option<u16>) -> Option<(String, Option<u16>)> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut before = None;
    let joined = match carried {
        // Written as an escape before the text, it is joined, mended or carried on with it.
        Some(half) => Cow::Owned(format!("\\u{half:04x}{inner}")),
        None => Cow::Borrowed(inner),
    };
    let mut kept: &str = &joined;
    if let Some(start) = kept.len().checked_sub(ESCAPE)
        && let Some(half @ 0xd800..=0xdbff) = escape_at(kept, start)
        && is_escape(kept, start)
    {
        before = Some(half);
        kept = kept.get(..start)?;
    }
    let text = serde_json::from_str(&format!("\"{}\"", without_halves(kept))).ok()?;
    Some((text, before))
}

/// The length of `\uXXXX`.
const ESCAPE: usize = 6;

/// The unit of the escape that begins here.
fn escape_at(json: &str, at: usize) -> Option<u16> {
    let escape = json.get(at..at + ESCAPE)?;
    let digits = escape.strip_prefix("\\u")?;
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Whether the backslash here begins an escape, and is not itself escaped.
fn is_escape(json: &str, at: usize) -> bool {
    let backslashes = json.as_bytes().get(..at).unwrap_or_default().iter().rev();
    backslashes.take_while(|byte| **byte == b'\\').count() % 2 == 0
}

/// Where each `\uXXXX` of a JSON text begins, and its unit.
struct Escapes<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Escapes<'a> {
    fn of(json: &'a str) -> Self {
        Self { json, at: 0 }
    }
}

impl Iterator for Escapes<'_> {
    type Item = (usize, u16);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.json.as_bytes().get(self.at..)?;
            let at = self.at + memchr::memchr(b'\\', rest)?;
            match escape_at(self.json, at) {
                Some(unit) => {
                    self.at = at + ESCAPE;
                    return Some((at, unit));
                }
                None => self.at = at + 2,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whole_pairs_stay_and_halves_are_replaced() {
        for (json, expected) in [
            (r#""a""#, r#""a""#),
            (r#""\ud83e\udd80""#, r#""\ud83e\udd80""#),
            (r#""\uD83E\uDD80\ud83e""#, r#""\uD83E\uDD80\ufffd""#),
            (r#""\udd80x""#, r#""\ufffdx""#),
            (r#""\ud83e\ud83e\udd80""#, r#""\ufffd\ud83e\udd80""#),
            (r#""\ud83e\udd80\udd80""#, r#""\ud83e\udd80\ufffd""#),
            (r#""\ud83ex""#, r#""\ufffdx""#),
            // The backslash is escaped: this is the text \ud83e.
            (r#""\\ud83e""#, r#""\\ud83e""#),
            (r#""\\\ud83e""#, r#""\\\ufffd""#),
            (r#""\u00e9\n\ud800\"""#, r#""\u00e9\n\ufffd\"""#),
        ] {
            assert_eq!(without_halves(json), expected, "{json}");
            assert!(serde_json::from_str::<String>(&without_halves(json)).is_ok(), "{json}");
        }
    }

    #[test]
    fn a_pair_that_was_cut_in_two_is_joined() {
        let (text, half) = text_of(r#""a\ud83e""#, None).unwrap();
        assert_eq!((text.as_str(), half), ("a", Some(0xd83e)));
        assert_eq!(text_of(r#""\udd80b""#, half).unwrap(), ("\u{1f980}b".to_owned(), None));
        assert_eq!(text_of(r#""b""#, half).unwrap(), ("\u{fffd}b".to_owned(), None));
        assert_eq!(text_of(r#""""#, half).unwrap(), (String::new(), half));
        assert_eq!(
            text_of(r#""\ud83e""#, half).unwrap(),
            ("\u{fffd}".to_owned(), Some(0xd83e))
        );
        assert_eq!(text_of(r#""\\ud83e""#, None).unwrap(), ("\\ud83e".to_owned(), None));
        assert_eq!(text_of("12", None), None);
    }

    #[test]
    fn the_quick_look_misses_none() {
        assert!(may_have_halves(br#"{"a":"\uD83E"}"#) && may_have_halves(br#""\\\ud800""#));
        assert!(!may_have_halves(br#"{"a":"\u00e9\n\\"}"#));
    }
}
