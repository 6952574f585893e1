//! What each call does: reads its request, asks the core, makes the answer.

use std::{net::SocketAddr, pin::Pin};

use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{
    Api,
    any::shown,
    family::{address, family_or_ipv4},
    new_peer, path, peer, status, watch,
};
use crate::{
    grpc::{
        apipb,
        core::{Error, RouteName, Table},
    },
    speaker::{PeerCommand, SpeakerConfig},
};

/// BGP's port (RFC 4271 §4.2).
const PORT: u16 = 179;
/// Octets of a shutdown communication (RFC 9003).
const MAX_COMMUNICATION: usize = 255;
/// Addresses that a client may let a speaker listen on.
const MAX_LISTENERS: usize = 64;

/// A stream of answers.
pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// An empty one.
pub(super) fn empty<T: Send + 'static>() -> Boxed<T> {
    Box::pin(tokio_stream::empty())
}

fn all<T: Send + 'static>(answers: impl Iterator<Item = T> + Send + 'static) -> Boxed<T> {
    Box::pin(tokio_stream::iter(answers.map(Ok)))
}

fn communication(text: String) -> Result<String, Error> {
    if text.len() <= MAX_COMMUNICATION {
        return Ok(text);
    }
    Err(Error::invalid(format!(
        "a communication of {} octets: at most {MAX_COMMUNICATION} (RFC 9003)",
        text.len()
    )))
}

/// What a client wants of a speaker.
fn speaker_config(global: Option<apipb::Global>) -> Result<SpeakerConfig, Error> {
    let global = global.ok_or_else(|| Error::invalid("no global in the request"))?;
    let found = [
        ("bind_to_device", !global.bind_to_device.is_empty()),
        ("use_multiple_paths", global.use_multiple_paths),
        ("graceful_restart", global.graceful_restart.as_ref().is_some_and(|restart| restart.enabled)),
    ];
    if let Some((field, _)) = found.iter().find(|(_, set)| *set) {
        return Err(Error::unimplemented(format!(
            "global.{field}: this speaker has no such setting for all neighbours"
        )));
    }
    let router_id = global.router_id.parse().map_err(|_| {
        Error::invalid(format!("router_id {}: use an IPv4 address", shown(&global.router_id)))
    })?;
    let mut config = SpeakerConfig::new(global.asn, router_id);
    if global.listen_port == -1 {
        return Ok(config);
    }
    let port = match global.listen_port {
        0 => PORT,
        port => u16::try_from(port)
            .map_err(|_| Error::invalid(format!("listen_port {port}: use 1 to 65535, or -1 for none")))?,
    };
    if global.listen_addresses.len() > MAX_LISTENERS {
        return Err(Error::invalid(format!(
            "{} listen_addresses: at most {MAX_LISTENERS}",
            global.listen_addresses.len()
        )));
    }
    let everywhere = ["0.0.0.0".to_owned(), "::".to_owned()];
    let texts =
        if global.listen_addresses.is_empty() { &everywhere[..] } else { &global.listen_addresses[..] };
    let listen =
        |text: &String| address("listen_addresses", text).map(|address| SocketAddr::new(address, port));
    config.listen = texts.iter().map(listen).collect::<Result<_, _>>()?;
    Ok(config)
}

/// A speaker as it is.
fn global(config: &SpeakerConfig) -> apipb::Global {
    apipb::Global {
        asn: config.asn,
        router_id: config.router_id.to_string(),
        listen_port: config.listen.first().map_or(-1, |address| i32::from(address.port())),
        listen_addresses: config.listen.iter().map(|address| address.ip().to_string()).collect(),
        ..apipb::Global::default()
    }
}

impl Api {
    fn write(&self) -> Result<(), Status> {
        self.access.write().map_err(status)
    }

    pub(super) async fn start(&self, request: apipb::StartBgpRequest) -> Result<(), Status> {
        self.write()?;
        let config = speaker_config(request.global).map_err(status)?;
        self.core.start(config).await.map_err(status)
    }

    pub(super) async fn stop(&self) -> Result<(), Status> {
        self.write()?;
        self.core.stop().await.map_err(status)
    }

    /// Without a speaker all is zero, as in GoBGP.
    pub(super) async fn global(&self) -> Result<apipb::GetBgpResponse, Status> {
        let config = self.core.global().await;
        let global = config.as_ref().map_or_else(apipb::Global::default, global);
        Ok(apipb::GetBgpResponse { global: Some(global) })
    }

    pub(super) async fn watch(
        &self,
        request: apipb::WatchEventRequest,
    ) -> Result<Boxed<apipb::WatchEventResponse>, Status> {
        let watched = watch::watch(self.core.clone(), &request).await.map_err(status)?;
        Ok(Box::pin(watched))
    }

    pub(super) async fn add_peer(&self, request: apipb::AddPeerRequest) -> Result<(), Status> {
        self.write()?;
        let new = new_peer::parse(request.peer).map_err(status)?;
        self.core.add_peer(new).map_err(status)
    }

    pub(super) async fn update_peer(
        &self,
        request: apipb::UpdatePeerRequest,
    ) -> Result<apipb::UpdatePeerResponse, Status> {
        self.write()?;
        let new = new_peer::parse(request.peer).map_err(status)?;
        self.core.update_peer(new).map_err(status)?;
        // There are no policies that a change could have to be applied with.
        Ok(apipb::UpdatePeerResponse { needs_soft_reset_in: false })
    }

    pub(super) async fn delete_peer(&self, request: apipb::DeletePeerRequest) -> Result<(), Status> {
        self.write()?;
        if !request.interface.is_empty() {
            return Err(status(Error::unimplemented(
                "interface: this speaker knows neighbours by their address",
            )));
        }
        let address = address("the neighbour", &request.address).map_err(status)?;
        self.core.delete_peer(address).map_err(status)
    }

    pub(super) async fn list_peers(
        &self,
        request: apipb::ListPeerRequest,
    ) -> Result<Boxed<apipb::ListPeerResponse>, Status> {
        let address = peer::named(&request.address).map_err(status)?;
        let peers = self.core.peers(address).await;
        Ok(all(peers.into_iter().map(|view| apipb::ListPeerResponse { peer: Some(peer::peer(&view)) })))
    }

    pub(super) async fn reset_peer(&self, request: apipb::ResetPeerRequest) -> Result<(), Status> {
        use apipb::reset_peer_request::SoftResetDirection;
        self.write()?;
        let address = peer::named(&request.address).map_err(status)?;
        let direction = SoftResetDirection::try_from(request.direction)
            .map_err(|_| status(Error::invalid(format!("direction {}: use 0 to 2", request.direction))))?;
        let command = match (request.soft, direction) {
            (false, _) => PeerCommand::Reset { text: communication(request.communication).map_err(status)? },
            (true, SoftResetDirection::In) => PeerCommand::SoftResetIn,
            (true, SoftResetDirection::Out) => PeerCommand::SoftResetOut,
            (true, SoftResetDirection::Both) => PeerCommand::SoftReset,
        };
        self.core.command(address, command).await.map_err(status)
    }

    async fn keep_down(&self, address: &str, text: String) -> Result<(), Status> {
        self.write()?;
        let address = peer::named(address).map_err(status)?;
        let text = communication(text).map_err(status)?;
        self.core.command(address, PeerCommand::Shutdown { text }).await.map_err(status)
    }

    /// In GoBGP the older word for the same: a neighbour that was shut down stays down until it is enabled.
    pub(super) async fn shut_down(&self, request: apipb::ShutdownPeerRequest) -> Result<(), Status> {
        self.keep_down(&request.address, request.communication).await
    }

    pub(super) async fn disable_peer(&self, request: apipb::DisablePeerRequest) -> Result<(), Status> {
        self.keep_down(&request.address, request.communication).await
    }

    pub(super) async fn enable_peer(&self, request: apipb::EnablePeerRequest) -> Result<(), Status> {
        self.write()?;
        let address = address("the neighbour", &request.address).map_err(status)?;
        self.core.enable(address).await.map_err(status)
    }

    pub(super) async fn add_path(
        &self,
        request: apipb::AddPathRequest,
    ) -> Result<apipb::AddPathResponse, Status> {
        self.write()?;
        path::into_global(request.table_type, &request.vrf_id).map_err(status)?;
        let path = request.path.ok_or_else(|| status(Error::invalid("no path in the request")))?;
        if path.is_withdraw {
            let (key, _) = path::change(&path).map_err(status)?;
            self.core.delete_routes(RouteName::Key(key)).map_err(status)?;
            return Ok(apipb::AddPathResponse::default());
        }
        let new = path::parse(&path).map_err(status)?;
        let id = self.core.add_route(new).map_err(status)?;
        Ok(apipb::AddPathResponse { uuid: id.to_vec() })
    }

    /// Each message is taken as a whole, or not at all; those before one that is refused stay.
    pub(super) async fn add_paths(
        &self,
        mut requests: Streaming<apipb::AddPathStreamRequest>,
    ) -> Result<(), Status> {
        self.write()?;
        while let Some(request) = requests.message().await? {
            self.change_paths(&request).map_err(status)?;
        }
        Ok(())
    }

    /// Takes one message of an AddPathStream, without a look at what clients may do.
    ///
    /// # Errors
    /// If a path of it cannot be read: then nothing was changed; or if there is no speaker, or no room.
    pub fn change_paths(&self, request: &apipb::AddPathStreamRequest) -> Result<(), Error> {
        path::into_global(request.table_type, &request.vrf_id)?;
        let changes = request.paths.iter().map(path::change).collect::<Result<_, _>>()?;
        self.core.change_routes(changes)
    }

    pub(super) async fn delete_path(&self, request: apipb::DeletePathRequest) -> Result<(), Status> {
        self.write()?;
        let name = path::deleted(&request).map_err(status)?;
        self.core.delete_routes(name).map_err(status)
    }

    pub(super) async fn list_paths(
        &self,
        request: apipb::ListPathRequest,
    ) -> Result<Boxed<apipb::ListPathResponse>, Status> {
        if request.enable_only_binary || request.enable_nlri_binary || request.enable_attribute_binary {
            return Err(status(Error::unimplemented("paths are given as nlri and pattrs, not as binary")));
        }
        let table = path::table(request.table_type, &request.name).map_err(status)?;
        let family = family_or_ipv4(request.family).map_err(status)?;
        let lookups = path::lookups(&request.prefixes).map_err(status)?;
        // Sorted by prefix in any case.
        let (listing, permit) = self.core.list(table, family, &lookups).await.map_err(status)?;
        let destinations = path::destinations(self.core.clone(), listing);
        Ok(all(destinations.map(move |destination| {
            let _held = &permit;
            apipb::ListPathResponse { destination: Some(destination) }
        })))
    }

    pub(super) async fn table_size(
        &self,
        request: apipb::GetTableRequest,
    ) -> Result<apipb::GetTableResponse, Status> {
        let table = path::table(request.table_type, &request.name).map_err(status)?;
        let family = family_or_ipv4(request.family).map_err(status)?;
        let size = self.core.size(table, family).await.map_err(status)?;
        let accepted = matches!(table, Table::AdjIn(_));
        Ok(apipb::GetTableResponse {
            num_destination: size.destinations,
            num_path: size.paths,
            num_accepted: if accepted { size.paths } else { 0 },
        })
    }

    /// There are no policies, and what there is not is accepted.
    pub(super) async fn policy_assignments(
        &self,
        request: apipb::ListPolicyAssignmentRequest,
    ) -> Result<Boxed<apipb::ListPolicyAssignmentResponse>, Status> {
        let assignment = apipb::PolicyAssignment {
            name: request.name,
            direction: request.direction,
            default_action: i32::from(apipb::RouteAction::Accept),
        };
        Ok(all(std::iter::once(apipb::ListPolicyAssignmentResponse { assignment: Some(assignment) })))
    }
}
