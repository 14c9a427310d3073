//! What the commands say to a person.

use std::io::{self, ErrorKind, Write};

use crate::run::Exit;

/// Writes a text to standard output, and answers how the process is to exit.
///
/// A reader that has gone (`… | head -1`) had what it wanted. Any other failure, such as a full disk, is told on
/// standard error: the result did not reach anybody.
pub(super) fn print(text: &str, exit: Exit) -> Exit {
    print_to(&mut io::stdout().lock(), &mut io::stderr().lock(), text, exit)
}

fn print_to(out: &mut impl Write, err: &mut impl Write, text: &str, exit: Exit) -> Exit {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit,
        Err(error) => {
            // When that fails too, the exit code is all that is left to say it.
            let _ = writeln!(err, "standard output cannot be written: {error}");
            Exit::Undelivered
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one() {
        for (kind, exit, told) in [
            (ErrorKind::BrokenPipe, Exit::Invalid, false),
            (ErrorKind::StorageFull, Exit::Undelivered, true),
        ] {
            let mut err = Vec::new();
            assert_eq!(print_to(&mut Failing(kind), &mut err, "text", Exit::Invalid), exit);
            assert_eq!(!err.is_empty(), told, "{kind:?}");
        }
        let kind = ErrorKind::StorageFull;
        assert_eq!(
            print_to(&mut Failing(kind), &mut Failing(kind), "text", Exit::Success),
            Exit::Undelivered
        );
    }
}
