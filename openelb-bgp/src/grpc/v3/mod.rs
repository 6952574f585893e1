//! GoBGP 3.x: its messages and the speaker's own values.

mod any;
mod attributes;
mod calls;
mod capability;
mod family;
mod new_peer;
mod path;
mod peer;
mod service;
#[cfg(test)]
mod tests;
mod time;
mod unserved;
mod watch;

use std::sync::Arc;

use tonic::{Code, Status};

use super::core::{Access, Core, Error, ErrorKind};

/// The service `apipb.GobgpApi`, for one listener.
#[derive(Clone, Debug)]
pub struct Api {
    core: Arc<Core>,
    access: Access,
}

impl Api {
    /// The service, whose clients may do this.
    #[must_use]
    pub const fn new(core: Arc<Core>, access: Access) -> Self {
        Self { core, access }
    }
}

/// An error in gRPC's words.
fn status(error: Error) -> Status {
    let code = match error.kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Unavailable => Code::Unavailable,
    };
    Status::new(code, error.message)
}
