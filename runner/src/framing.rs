//! Values as frames: a length of four bytes, little-endian, and the value in postcard's format. For what only the
//! binary that wrote it ever reads: the spool, and the socket between a supervisor and its worker.

use std::io::{self, Read};

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes of a length.
const PREFIX: usize = 4;

/// Appends a value as a frame. What cannot be written is none of ours: nothing is appended then.
pub fn append(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let written = postcard::to_extend(value, Written(out)).is_ok();
    let length = u32::try_from(out.len() - start - PREFIX);
    match length {
        Ok(length) if written => out[start..start + PREFIX].copy_from_slice(&length.to_le_bytes()),
        _ => out.truncate(start),
    }
}

/// A value as a frame.
pub fn frame(value: &impl Serialize) -> Vec<u8> {
    let mut frame = Vec::new();
    append(value, &mut frame);
    frame
}

/// Takes the first value out of a slice: it, and what is behind it. `None` when the slice ends before it does.
///
/// # Errors
/// When it is no value of this type.
pub fn first<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Option<(T, &[u8])>> {
    let Some((length, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let Some((body, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else {
        return Ok(None);
    };
    Ok(Some((decode(body)?, rest)))
}

/// How long the first frame of a slice is, with its length.
pub fn length(bytes: [u8; PREFIX]) -> u64 {
    PREFIX as u64 + u64::from(u32::from_le_bytes(bytes))
}

/// Takes the next value out of what was read, when all of it is there.
///
/// # Errors
/// When it is longer than `most`, or no value of this type.
pub fn take<T: DeserializeOwned>(buffer: &mut BytesMut, most: usize) -> io::Result<Option<T>> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = checked(*prefix, most)?;
    if buffer.len() < PREFIX + length {
        buffer.reserve(PREFIX + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(PREFIX);
    decode(&buffer.split_to(length)).map(Some)
}

/// Reads the next value; `None` when there is none any more.
///
/// # Errors
/// When it cannot be read, is longer than `most`, or no value of this type.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, most: usize) -> io::Result<Option<T>> {
    let mut prefix = [0; PREFIX];
    match from.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; checked(prefix, most)?];
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// A whole value: nothing may be left behind it.
fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(malformed()),
    }
}

fn checked(length: [u8; PREFIX], most: usize) -> io::Result<usize> {
    let length = u32::from_le_bytes(length) as usize;
    if length > most { Err(malformed()) } else { Ok(length) }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame that is none of ours")
}

/// Where postcard writes to: the end of a buffer that is not its own.
struct Written<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Written<'_> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.0.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_come_back_however_they_are_cut_and_garbage_is_an_error() {
        let values = ["a".to_owned(), String::new(), "é".repeat(1000)];
        let mut bytes = Vec::new();
        values.iter().for_each(|value| append(value, &mut bytes));
        let mut buffer = BytesMut::new();
        let mut taken: Vec<String> = Vec::new();
        for byte in &bytes {
            buffer.extend_from_slice(&[*byte]);
            taken.extend(take(&mut buffer, 4096).unwrap());
        }
        assert_eq!(taken, values);
        let mut source = &bytes[..];
        for value in &values {
            assert_eq!(read::<String>(&mut source, 4096).unwrap().as_ref(), Some(value));
        }
        assert_eq!(read::<String>(&mut source, 4096).unwrap(), None);
        let (value, rest) = first::<String>(&bytes).unwrap().unwrap();
        assert_eq!((value, rest.len()), (values[0].clone(), bytes.len() - PREFIX - 2));
        assert!(first::<String>(&bytes[..3]).unwrap().is_none() && first::<String>(&bytes[..5]).unwrap().is_none());
        // Too long, of another type, and with something behind it.
        assert!(take::<String>(&mut BytesMut::from(&bytes[..]), 1).is_err());
        assert!(read::<String>(&mut &[0xff; 64][..], 4096).is_err());
        assert!(first::<bool>(&[1, 0, 0, 0, 9]).is_err());
        assert!(first::<bool>(&[2, 0, 0, 0, 1, 1]).is_err());
    }
}
