//! Accepting connections.

use std::{net::SocketAddr, time::Duration};

use tokio::{sync::mpsc, time::sleep};

use super::{connection::IoEvent, socket_options};

/// Pause before an address that could not be listened on is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Pause after a failed accept: mostly the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on one address for ever. An address in use is reported, and tried again.
pub(super) async fn listen(id: u64, address: SocketAddr, events: mpsc::Sender<IoEvent>) {
    loop {
        let opened =
            socket_options::listening(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (result, listener) = match opened {
            Ok((bound, listener)) => (Ok(bound), Some(listener)),
            Err(error) => (Err(explain(&error)), None),
        };
        if events.send(IoEvent::Listener { id, result }).await.is_err() {
            return;
        }
        let Some(listener) = listener else {
            sleep(RETRY).await;
            continue;
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if events.send(IoEvent::Accepted { stream }).await.is_err() {
                        return;
                    }
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
