//! A component's standard output and error: nobody reads them but the log, and the log gets the beginning.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// How much a component may write at once before it asks again.
const PERMIT: usize = 64 << 10;

/// Keeps the first bytes that a component writes to one of its outputs, and counts the rest. Unlike a pipe it never
/// fills up: a tool that prints too much loses the print, not the call.
#[derive(Clone)]
pub(crate) struct GuestLog {
    kept: Arc<Mutex<Kept>>,
    most: usize,
}

#[derive(Default)]
struct Kept {
    bytes: BytesMut,
    dropped: usize,
}

impl GuestLog {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            kept: Arc::default(),
            most,
        }
    }

    /// Writes what was kept to the log, for people who debug a tool.
    pub(crate) fn report(&self, tool: &str, stream: &'static str) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.bytes.is_empty() {
            let text = String::from_utf8_lossy(&kept.bytes);
            tracing::debug!(tool, stream, dropped_bytes = kept.dropped, "{}", text.trim_end());
        }
    }
}

impl OutputStream for GuestLog {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.most.saturating_sub(kept.bytes.len()).min(bytes.len());
        kept.bytes.extend_from_slice(&bytes[..room]);
        kept.dropped = kept.dropped.saturating_add(bytes.len() - room);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestLog {
    async fn ready(&mut self) {}
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this one, and no component of 0.3 is linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}
