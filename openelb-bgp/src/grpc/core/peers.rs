//! Neighbours: what they are, and what is done to them.

use std::net::IpAddr;

use super::{Core, Error, ErrorKind, SOURCE, added::AddedPeer, by_address};
use crate::speaker::{
    CommandError, PeerCommand, PeerConfig, PeerDetails, PeerName, PeerSource, PeerStatus, Speaker,
};

/// A neighbour that a client wants. Its name is made of its address.
#[derive(Clone, Debug)]
pub struct NewPeer {
    /// The configuration.
    pub config: PeerConfig,
    /// The client's words for it.
    pub description: String,
}

/// A neighbour as it is.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// What the speaker says.
    pub details: PeerDetails,
    /// The client's words for it, or the owner's.
    pub description: String,
}

impl NewPeer {
    /// A neighbour with this address and AS number, with the defaults else.
    #[must_use]
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self { config: PeerConfig::new(name(address), address, asn), description: String::new() }
    }
}

/// The name of a neighbour that clients add.
fn name(address: IpAddr) -> PeerName {
    PeerName::new(format!("{SOURCE}/{}", address.to_canonical()))
}

impl Core {
    /// The neighbours, or the one with this address; none without a speaker.
    pub async fn peers(&self, address: Option<IpAddr>) -> Vec<PeerView> {
        let Ok(speaker) = self.speaker() else { return Vec::new() };
        let all = speaker.query(Speaker::peer_details).await.unwrap_or_default();
        let wanted = |known: &PeerDetails| {
            address.is_none_or(|address| known.status.address.to_canonical() == address.to_canonical())
        };
        all.into_iter().filter(wanted).map(|details| self.view(details)).collect()
    }

    fn view(&self, details: PeerDetails) -> PeerView {
        let status = &details.status;
        let description = if self.is_clients(status) {
            let added = self.added();
            let known = added.peers.get(&status.address.to_canonical());
            known.map_or_else(String::new, |known| known.description.clone())
        } else {
            self.owner.peer_owner(status.name.as_str())
        };
        PeerView { details, description }
    }

    fn is_clients(&self, status: &PeerStatus) -> bool {
        matches!(&status.source, PeerSource::Configured(source) if &**source == SOURCE)
    }

    fn not_clients(&self, address: IpAddr, peer: &PeerStatus, what: &str) -> Error {
        Error::precondition(format!(
            "neighbour {address} belongs to {}, and clients cannot {what} it: do that there",
            self.owner.peer_owner(peer.name.as_str())
        ))
    }

    /// Adds a neighbour.
    ///
    /// # Errors
    /// If there is one with this address, or the configuration is not valid.
    pub fn add_peer(&self, new: NewPeer) -> Result<(), Error> {
        let address = new.config.address.to_canonical();
        new.config.validate().map_err(|error| Error::invalid(error.to_string()))?;
        let exists = |whose: String| {
            Error::new(ErrorKind::AlreadyExists, format!("neighbour {address} exists already: {whose}"))
        };
        let (mut added, speaker) = self.changing()?;
        let snapshot = self.snapshot();
        if let Some(peer) = by_address(&snapshot, address)
            && !self.is_clients(peer)
        {
            return Err(exists(format!("it belongs to {}", self.owner.peer_owner(peer.name.as_str()))));
        }
        if added.peers.contains_key(&address) {
            return Err(exists("update it, or delete it first".to_owned()));
        }
        added.room_for_peer()?;
        added.peers.insert(address, AddedPeer { config: new.config, description: new.description });
        let peers = added.peers.values().map(|known| known.config.clone()).collect();
        speaker.set_peers_of(SOURCE, peers).map_err(|error| {
            added.peers.remove(&address);
            Error::invalid(error.to_string())
        })
    }

    /// Changes a neighbour that clients have added. Without a password the one before stays: it is never shown, so that
    /// who changes what was shown does not know it.
    ///
    /// # Errors
    /// If there is none, it is not the clients', or the configuration is not valid.
    pub fn update_peer(&self, mut new: NewPeer) -> Result<(), Error> {
        let address = new.config.address.to_canonical();
        new.config.validate().map_err(|error| Error::invalid(error.to_string()))?;
        let (mut added, speaker) = self.changing()?;
        let Some(known) = added.peers.get_mut(&address) else {
            drop(added);
            return Err(self.missing(address, "change"));
        };
        if new.config.password.is_none() {
            new.config.password.clone_from(&known.config.password);
        }
        let before = std::mem::replace(known, AddedPeer { config: new.config, description: new.description });
        let peers = added.peers.values().map(|known| known.config.clone()).collect();
        speaker.set_peers_of(SOURCE, peers).map_err(|error| {
            added.peers.insert(address, before);
            Error::invalid(error.to_string())
        })
    }

    /// Deletes a neighbour that clients have added.
    ///
    /// # Errors
    /// If there is none, or it is not the clients'.
    pub fn delete_peer(&self, address: IpAddr) -> Result<(), Error> {
        let (mut added, speaker) = self.changing()?;
        if added.peers.remove(&address.to_canonical()).is_none() {
            drop(added);
            return Err(self.missing(address, "delete"));
        }
        let peers = added.peers.values().map(|known| known.config.clone()).collect();
        speaker.set_peers_of(SOURCE, peers).map_err(|error| Error::invalid(error.to_string()))
    }

    fn missing(&self, address: IpAddr, what: &str) -> Error {
        match by_address(&self.snapshot(), address) {
            Some(peer) => self.not_clients(address, peer, what),
            None => Error::not_found(format!("there is no neighbour {address}")),
        }
    }

    /// The names of the neighbours that a command is for.
    fn targets(&self, address: Option<IpAddr>) -> Result<Vec<PeerName>, Error> {
        let snapshot = self.snapshot();
        match address {
            None => Ok(snapshot.peers.keys().cloned().collect()),
            Some(address) => by_address(&snapshot, address)
                .map(|peer| vec![peer.name.clone()])
                .ok_or_else(|| Error::not_found(format!("there is no neighbour {address}"))),
        }
    }

    /// Does something to the neighbour with this address, or to all.
    ///
    /// # Errors
    /// If there is no such neighbour, or its session cannot do that. Of all neighbours those that can do it.
    pub async fn command(&self, address: Option<IpAddr>, command: PeerCommand) -> Result<(), Error> {
        let speaker = self.speaker()?;
        for name in self.targets(address)? {
            match speaker.command(&name, command.clone()).await {
                Ok(()) => {}
                // Gone meanwhile, or not up: the others go on.
                Err(_) if address.is_none() => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(())
    }

    /// Lets a neighbour come up again.
    ///
    /// # Errors
    /// If there is none, or it is down by the configuration of somebody else.
    pub async fn enable(&self, address: IpAddr) -> Result<(), Error> {
        let known = self.peers(Some(address)).await;
        let Some(PeerView { details, .. }) = known.first() else {
            return Err(Error::not_found(format!("there is no neighbour {address}")));
        };
        if details.config.admin_down {
            if !self.is_clients(&details.status) {
                return Err(self.not_clients(address, &details.status, "enable"));
            }
            self.set_up(address)?;
        }
        self.command(Some(address), PeerCommand::Enable).await
    }
}

impl Core {
    pub(super) fn set_up(&self, address: IpAddr) -> Result<(), Error> {
        let (mut added, speaker) = self.changing()?;
        if let Some(known) = added.peers.get_mut(&address.to_canonical()) {
            known.config.admin_down = false;
        }
        let peers = added.peers.values().map(|known| known.config.clone()).collect();
        speaker.set_peers_of(SOURCE, peers).map_err(|error| Error::invalid(error.to_string()))
    }
}

fn refused(error: &CommandError) -> Error {
    match error {
        CommandError::Stopped => Error::stopped(),
        CommandError::UnknownPeer { .. } => Error::not_found(error.to_string()),
        _ => Error::precondition(error.to_string()),
    }
}
