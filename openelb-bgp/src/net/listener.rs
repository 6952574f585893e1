//! Accepting connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{connection::IoEvent, protection::Protection, socket_options};

/// Pause before an address that could not be listened on is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Pause after a failed accept: mostly the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the listeners of a speaker have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// What to check.
    pub(super) protection: watch::Receiver<Arc<Protection>>,
    /// Connections from addresses that no neighbour has, refused without the driver.
    pub(super) strangers: Arc<AtomicU64>,
    pub(super) events: mpsc::Sender<IoEvent>,
}

/// Listens on one address for ever. An address in use is reported, and tried again.
pub(super) async fn listen(id: u64, address: SocketAddr, mut common: Common) {
    loop {
        let mut applied = Arc::clone(&common.protection.borrow_and_update());
        let opened = socket_options::listening(address, &applied)
            .and_then(|(listener, failures)| Ok((listener.local_addr()?, listener, failures)));
        let (result, listener) = match opened {
            Ok((bound, listener, failures)) => (Ok((bound, failures)), Some(listener)),
            Err(error) => (Err(explain(&error)), None),
        };
        if common.events.send(IoEvent::Listener { id, result }).await.is_err() {
            return;
        }
        let Some(listener) = listener else {
            sleep(RETRY).await;
            continue;
        };
        loop {
            let accepted = tokio::select! {
                biased;
                changed = common.protection.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = Arc::clone(&common.protection.borrow_and_update());
                    let failures = wanted.apply(&listener, address.is_ipv4(), &applied);
                    applied = wanted;
                    if common.events.send(IoEvent::Protected { id, failures }).await.is_err() {
                        return;
                    }
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, source)) if applied.admits(source.ip()) => {
                    if common.events.send(IoEvent::Accepted { stream }).await.is_err() {
                        return;
                    }
                }
                Ok((stream, source)) => {
                    socket_options::refuse(stream);
                    common.strangers.fetch_add(1, Ordering::Relaxed);
                    // Only to wake the driver up: if its queue is full it is awake.
                    let _ = common.events.try_send(IoEvent::Stranger { source });
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn explain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{error}: another program listens there; only outgoing connections until it stops")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "{error}: ports below 1024 need CAP_NET_BIND_SERVICE; only outgoing connections until then"
            )
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{error}: no interface has this address; only outgoing connections until one does")
        }
        _ => format!("{error}; only outgoing connections until it works"),
    }
}
