//! Calls that change what this speaker does not have.

use tonic::{Response, Status};

use super::{Api, status};
use crate::grpc::core::Error;

pub(super) const GROUPS: &str = "peer groups and dynamic neighbours are configured by the program that this speaker is \
    part of, not by clients: add each neighbour with AddPeer";
pub(super) const VRF: &str = "this speaker has no VRFs: its routes are all in the global table";
pub(super) const POLICY: &str = "this speaker has no policies: it announces its own routes, keeps what it receives to \
    itself, and passes nothing on";
pub(super) const RPKI: &str = "this speaker does not validate origins: it uses no received route";
pub(super) const ZEBRA: &str = "this speaker installs no routes, so it has no use for zebra";
pub(super) const MRT: &str = "this speaker writes no MRT files";
pub(super) const BMP: &str = "this speaker does not speak BMP";
pub(super) const LOG_LEVEL: &str = "the log level is set where the program is started";

impl Api {
    /// May not, else cannot.
    pub(super) fn unserved<T>(&self, reason: &str) -> Result<Response<T>, Status> {
        self.access.write().map_err(status)?;
        Err(status(Error::unimplemented(reason)))
    }
}
