//! The listeners: a host that cannot be had is a warning and a retry, never the end of the program.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use openelb_bgp::grpc::{
    core::{Access, Core},
    server::{self, Address, Listener, Tls},
    v3,
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{ApiOptions, Failures, TlsFiles};

/// How long to wait before a host that could not be had is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often certificates are looked at.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(60);

/// Serves this speaker on all hosts until the set is dropped; says which hosts cannot be had.
pub(in crate::adapter::bgp) fn spawn(
    core: &Arc<Core>,
    options: &ApiOptions,
) -> (JoinSet<()>, watch::Receiver<Failures>) {
    let (failures, shown) = watch::channel(Failures::default());
    let mut tasks = JoinSet::new();
    if !options.hosts.is_empty() {
        let follower = Arc::clone(core);
        tasks.spawn(async move { follower.follow().await });
    }
    for host in &options.hosts {
        let access = access(host, options);
        if !host.is_local() && !asks_for_certificates(options) {
            tracing::warn!(
                %host,
                "GoBGP's gRPC interface is served to whoever reaches this address, read-only: give --api-tls-client-ca, \
                 or a loopback address or unix:PATH in --api-hosts"
            );
        }
        let host = Host { address: host.clone(), tls: options.tls.clone(), failures: failures.clone() };
        tasks.spawn(host.serve(v3::Api::new(Arc::clone(core), access)));
    }
    (tasks, shown)
}

fn asks_for_certificates(options: &ApiOptions) -> bool {
    options.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
}

/// What the clients of a host may do.
fn access(host: &Address, options: &ApiOptions) -> Access {
    let remedy = if !options.writable {
        "start the program with --api-writable to allow changes"
    } else if !host.is_local() && !asks_for_certificates(options) {
        "it can be reached from other hosts and asks for no client certificates: give --api-tls-client-ca, or use a \
         loopback address or a Unix socket"
    } else {
        return Access::Write;
    };
    Access::Read { remedy: remedy.to_owned() }
}

struct Host {
    address: Address,
    tls: Option<TlsFiles>,
    failures: watch::Sender<Failures>,
}

impl Host {
    async fn serve(self, api: v3::Api) {
        loop {
            if let Err(error) = self.try_serve(api.clone()).await {
                self.failed(&error);
                sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Until the certificates change, or something fails.
    async fn try_serve(&self, api: v3::Api) -> Result<(), String> {
        let files = match &self.address {
            Address::Unix(_) => None,
            Address::Tcp(_) => self.tls.as_ref(),
        };
        let tls = files.map(read).transpose().map_err(|error| error.to_string())?;
        let listener = Listener::bind(&self.address).await.map_err(|error| error.to_string())?;
        let address = listener.address().unwrap_or_else(|| self.address.clone());
        tracing::info!(%address, tls = tls.is_some(), "GoBGP's gRPC interface served");
        self.failures.send_if_modified(|failures| failures.remove(&self.address.to_string()).is_some());
        tokio::select! {
            served = server::serve(api, listener, tls.clone()) => served.map_err(|error| error.to_string()),
            () = changed(files, tls.as_ref()) => {
                tracing::info!(%address, "the certificates have changed: the interface is opened again");
                Ok(())
            }
        }
    }

    fn failed(&self, error: &str) {
        let (key, text) = (self.address.to_string(), error.to_owned());
        let news = self
            .failures
            .send_if_modified(|failures| failures.insert(key, text).is_none_or(|before| before != error));
        if news {
            tracing::warn!(
                host = %self.address, error, retry_seconds = RETRY_AFTER.as_secs(),
                "GoBGP's gRPC interface cannot be served; correct this or set --api-hosts; it is tried again"
            );
        }
    }
}

fn read(files: &TlsFiles) -> io::Result<Tls> {
    let text = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    Ok(Tls {
        certificate: text(&files.certificate)?,
        key: text(&files.key)?,
        client_ca: files.client_ca.as_deref().map(text).transpose()?,
    })
}

/// Waits until the files say something else than what is in use. While they cannot be read that stays.
async fn changed(files: Option<&TlsFiles>, in_use: Option<&Tls>) {
    let (Some(files), Some(in_use)) = (files, in_use) else { return std::future::pending().await };
    loop {
        sleep(LOOK_AT_FILES_EVERY).await;
        match read(files) {
            Ok(now) if now != *in_use => return,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a certificate or key cannot be read; those in use stay"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write() {
        let tls = |client_ca: bool| TlsFiles {
            certificate: "c".into(),
            key: "k".into(),
            client_ca: client_ca.then(|| "ca".into()),
        };
        for (host, writable, client_ca, expected) in [
            ("127.0.0.1:50051", false, true, false),
            ("127.0.0.1:50051", true, false, true),
            ("[::1]:50051", true, false, true),
            ("unix:/run/x", true, false, true),
            (":50051", true, false, false),
            ("192.0.2.1:50051", true, false, false),
            ("192.0.2.1:50051", true, true, true),
            ("192.0.2.1:50051", false, true, false),
        ] {
            let options = ApiOptions { hosts: Vec::new(), writable, tls: Some(tls(client_ca)) };
            let access = access(&host.parse().unwrap(), &options);
            assert_eq!(access == Access::Write, expected, "{host} {writable} {client_ca}: {access:?}");
        }
    }
}
