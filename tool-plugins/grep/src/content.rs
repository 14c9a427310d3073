//! What the searcher, the pieces that it reads and the report agree on about a file's content.

/// As much of a line of a larger file is searched, in bytes.
pub const MAX_SEARCHED_LINE: u64 = 8 * 1024 * 1024;

/// UTF-16 with a byte order mark is text, and the searcher reads it as such, though it is full of NULs.
pub fn is_utf16(content: &[u8]) -> bool {
    content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff")
}
