//! Text that is safe and short enough for a terminal.

use serde_json::Value;

/// The text without control characters: what a tool or a model writes must not move somebody's cursor. Newlines stay,
/// tabs become spaces.
pub fn printable(text: &str) -> String {
    text.replace('\t', "    ")
        .chars()
        .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
        .collect()
}

/// [`printable`] text without line breaks.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', "⏎")
}

/// At most `room` characters, with an ellipsis where something was cut.
pub fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
    if room > 0 {
        short.push('…');
    }
    short
}

/// A duration in milliseconds, as people write it.
pub fn milliseconds(value: &Value) -> String {
    match value.as_u64().unwrap_or(0) {
        short @ 0..1000 => format!("{short} ms"),
        long => format!("{}.{} s", long / 1000, long % 1000 / 100),
    }
}

/// A number with its thousands set apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_the_room_and_freed_of_control_characters() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(printable("a\tb\x1b[2Jc\r\n"), "a    b\u{fffd}[2Jc\u{fffd}\n");
        assert_eq!(one_line("a\nb"), "a⏎b");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
        assert_eq!(milliseconds(&999.into()), "999 ms");
        assert_eq!(milliseconds(&61_250.into()), "61.2 s");
    }
}
