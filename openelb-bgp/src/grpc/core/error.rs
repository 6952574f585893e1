//! Why a call fails.

/// Whose fault it is, in the words of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong, whatever the state.
    InvalidArgument,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already.
    AlreadyExists,
    /// Not with this listener.
    PermissionDenied,
    /// Not in this state.
    FailedPrecondition,
    /// A bound is reached.
    ResourceExhausted,
    /// This speaker does not do that.
    Unimplemented,
    /// The speaker has gone meanwhile.
    Unavailable,
}

/// A call that failed: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// Cause and remedy.
    pub message: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Not in this state.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition, message)
    }

    /// This speaker does not do that.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unimplemented, message)
    }

    /// No speaker is running.
    pub(crate) fn not_started() -> Self {
        Self::precondition(
            "no BGP speaker is running: start one with \"gobgp global as NUMBER router-id ADDRESS\"",
        )
    }

    /// The speaker stopped while it was asked.
    pub(crate) fn stopped() -> Self {
        Self::new(ErrorKind::Unavailable, "the BGP speaker has stopped: try again")
    }
}
