//! How a name from the file system is shown.

use std::borrow::Cow;

/// A path as the model should see it: as it is, when it is plain; else in double quotes with JSON's escapes, so that a
/// name that holds a newline cannot pass for two names, and one that turns the direction of the text cannot hide its
/// end. What stands between the quotes is what a JSON string in the next call must hold.
pub fn quote(path: &str) -> Cow<'_, str> {
    if !path.starts_with('"') && !path.chars().any(is_odd) {
        return Cow::Borrowed(path);
    }
    let mut quoted = String::with_capacity(path.len() + 8);
    quoted.push('"');
    for c in path.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Every odd character is in the first plane but the tags, which JSON would write as two halves.
            c if is_odd(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    quoted.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// Control characters, and those that are invisible or change how their neighbours are shown (Unicode's bidirectional
/// controls, joiners, separators, tags: UTR 36).
fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn names_are_shown_without_doubt() {
        for (name, shown) in [
            ("src/main.rs", "src/main.rs"),
            ("with space", "with space"),
            ("back\\slash", "back\\slash"),
            ("ünï", "ünï"),
            ("it's \"quoted\"", "it's \"quoted\""),
            ("\"quoted\"", r#""\"quoted\"""#),
            ("two\nlines", r#""two\nlines""#),
            ("back\\slash\n", r#""back\\slash\n""#),
            ("esc\x1b[31m", r#""esc\u001b[31m""#),
            ("rtl\u{202e}gpj.exe", r#""rtl\u202egpj.exe""#),
            ("tag\u{e0041}", r#""tag\udb40\udc41""#),
        ] {
            assert_eq!(quote(name), shown);
        }
    }
}
