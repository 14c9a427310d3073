//! What the model reads of the bytes of a file.

use plue_tool::{Output, Unit};

/// Longest text, in characters.
const MAX_CHARACTERS: usize = 100_000;

/// How many bytes are looked at: a file that has as many holds more than [`MAX_CHARACTERS`], since none is longer than
/// four bytes.
pub const MAX_BYTES: u64 = MAX_CHARACTERS as u64 * 4 + 4;

/// The text, and a note in brackets for what is not as it is in the file: what was cut, and what is no text.
/// `is_all` says whether the bytes are all that was asked for; `first_line` is the number of their first line;
/// `size` is that of the file.
pub fn render(bytes: &[u8], is_all: bool, first_line: u64, size: u64) -> Output {
    // Nearly every file: short enough in bytes to be so in characters, and text. Looking at each character would cost
    // more than all the rest of a call.
    if bytes.len() <= MAX_CHARACTERS
        && memchr::memchr(0, bytes).is_none()
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return Output::from(text);
    }
    let mut text = String::with_capacity(bytes.len() + 200);
    let mut characters = 0;
    let mut replaced = 0;
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        characters += valid.chars().count();
        match memchr::memchr_iter(0, valid.as_bytes()).count() {
            0 => text.push_str(valid),
            // A result cannot carry a NUL: the events go into a database that takes none.
            nuls => {
                text.push_str(&valid.replace('\0', "\u{fffd}"));
                replaced += nuls;
            }
        }
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            characters += 1;
            replaced += 1;
        }
    }
    let cut = characters > MAX_CHARACTERS;
    if cut {
        let end = text.char_indices().nth(MAX_CHARACTERS).map_or(text.len(), |(at, _)| at);
        text.truncate(end);
        replaced = text.matches(char::REPLACEMENT_CHARACTER).count().min(replaced);
    }
    let last_line = first_line + text.matches('\n').count() as u64;
    if (cut || replaced > 0) && !text.ends_with('\n') {
        text.push('\n');
    }
    if cut {
        text.push_str(&format!(
            "[The text was cut after 100,000 characters, in line {last_line}; the file has {size} bytes. Read on with \
             start_line and end_line.]\n"
        ));
    }
    if replaced > 0 {
        text.push_str(&format!(
            "[The file is not UTF-8 text: {replaced} invalid bytes or NULs are shown as U+FFFD.]\n"
        ));
    }
    let output = Output::from(text);
    if cut {
        output.truncated(
            MAX_CHARACTERS as u64,
            is_all.then_some(characters as u64),
            Unit::Characters,
        )
    } else {
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_is_given_as_it_is() {
        for text in ["", "a", "a\r\n\tb\n", "\u{feff}x", "\u{fffd}"] {
            assert_eq!(render(text.as_bytes(), true, 1, 5), Output::from(text));
        }
        let longest = "😀".repeat(MAX_CHARACTERS);
        assert!((longest.len() as u64) < MAX_BYTES);
        assert_eq!(render(longest.as_bytes(), true, 1, 400_000), Output::from(longest));
    }

    #[test]
    fn a_longer_one_is_cut_between_characters_and_says_so() {
        let output = render(format!("1\n2\n{}", "é".repeat(100_000)).as_bytes(), true, 5, 200_004);
        let expected = format!(
            "1\n2\n{}\n[The text was cut after 100,000 characters, in line 7; the file has 200004 bytes. Read on with \
             start_line and end_line.]\n",
            "é".repeat(99_996)
        );
        assert_eq!(
            output,
            Output::from(expected).truncated(100_000, Some(100_004), Unit::Characters)
        );
        let some = render(&[b'x'; MAX_BYTES as usize], false, 1, 1 << 40);
        assert!(some.text.contains("the file has 1099511627776 bytes") && some.text.len() < 100_200);
        assert_eq!(some.truncated.map(|cut| cut.total), Some(None));
    }

    #[test]
    fn bytes_that_are_no_text_are_counted() {
        let output = render(b"caf\xe9 \xff\xfe\0", true, 1, 8);
        assert_eq!(
            output.text,
            "caf\u{fffd} \u{fffd}\u{fffd}\u{fffd}\n[The file is not UTF-8 text: 4 invalid bytes or NULs are shown as \
                U+FFFD.]\n"
        );
        assert_eq!(output.truncated, None);
    }
}
