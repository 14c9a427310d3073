//! Why a task did not succeed.

use crate::events::TaskErrorCode;

/// Why a task did not succeed, as its `error` event says it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: TaskErrorCode,
    pub message: String,
}

/// The task was told to stop; who told it knows why.
#[derive(Clone, Copy, Debug)]
pub struct Cancelled;

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Failure {
            code: TaskErrorCode::Cancelled,
            message: "the task was cancelled".into(),
        }
    }
}
