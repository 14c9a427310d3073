//! What the file system's refusals mean to a model.

use std::fmt::Display;

use wasip2::filesystem::types::ErrorCode;

use crate::ToolError;

/// The message for an operation that failed: `doing` is what was being done, as in "read".
pub(crate) fn refused(code: ErrorCode, doing: &str, path: &impl Display) -> ToolError {
    match code {
        ErrorCode::NoEntry => ToolError::NotFound(format!("{path} does not exist in the workspace.")),
        ErrorCode::NotDirectory => ToolError::NotFound(format!(
            "{path} does not exist: a part of the path is a file, not a folder."
        )),
        // The host's word for a path that leads out, and only rarely the kernel's for a file nobody may touch.
        ErrorCode::NotPermitted => ToolError::Denied(format!(
            "{path} was refused: it leads out of the workspace, through `..` or a symbolic link (a link must be \
             relative and stay inside), or may not be touched."
        )),
        ErrorCode::Access => ToolError::Denied(format!("Cannot {doing} {path}: the file's permissions forbid it.")),
        ErrorCode::ReadOnly => ToolError::Denied(format!("Cannot {doing} {path}: it is read-only.")),
        ErrorCode::Loop => ToolError::Denied(format!(
            "{path} was refused: its symbolic links lead in a circle, or nowhere that may be followed."
        )),
        ErrorCode::IsDirectory => is_folder(path),
        ErrorCode::NameTooLong => ToolError::InvalidInput(format!("The path {path} is too long.")),
        // A name that this file system cannot have, or a link to the name of a folder that a file cannot have.
        ErrorCode::Invalid => {
            ToolError::InvalidInput(format!("Cannot {doing} {path}: the file system takes no such name."))
        }
        ErrorCode::InsufficientSpace | ErrorCode::Quota => {
            ToolError::Failed(format!("Cannot {doing} {path}: there is no space left."))
        }
        ErrorCode::FileTooLarge => ToolError::TooLarge(format!("Cannot {doing} {path}: the file would be too large.")),
        other => ToolError::Failed(format!("Cannot {doing} {path}: {}.", other.message())),
    }
}

/// A folder where a file was asked for.
pub(crate) fn is_folder(path: &impl Display) -> ToolError {
    ToolError::InvalidInput(format!("{path} is a folder, not a file."))
}

/// A FIFO, socket or device: opening it could block for ever, or do something.
pub(crate) fn is_special(path: &impl Display) -> ToolError {
    ToolError::Denied(format!(
        "{path} was refused: it is not a regular file but a pipe, a socket or a device."
    ))
}
