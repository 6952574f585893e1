//! Flags of GoBGP's gRPC interface, the same for the speaker and for standalone.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::Failure;
use crate::adapter::bgp::{ApiOptions, TlsFiles};

/// How GoBGP's gRPC interface is served.
#[derive(Debug, Args)]
pub(super) struct ApiArguments {
    /// Where to serve GoBGP's gRPC interface (apipb.GobgpApi of GoBGP 3, for gobgp and its like): ADDRESS:PORT, :PORT or
    /// unix:PATH, several with commas between; 0 for nowhere. A port that is taken is tried again.
    #[arg(long, env = "OPENELB_API_HOSTS", default_value = "127.0.0.1:50051", value_name = "ADDRESS,...")]
    api_hosts: String,
    /// Clients of that interface may change things: add neighbours and routes, reset sessions. On an address that others
    /// reach only with --api-tls-client-ca.
    #[arg(long, env = "OPENELB_API_WRITABLE", default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    api_writable: bool,
    /// PEM file with the certificate of that interface, and those that lead to its root: TLS on all but Unix sockets.
    /// It is read again when it changes.
    #[arg(long, env = "OPENELB_API_TLS_CERT", requires = "api_tls_key", value_name = "FILE")]
    api_tls_cert: Option<PathBuf>,
    /// PEM file with the key of --api-tls-cert.
    #[arg(long, env = "OPENELB_API_TLS_KEY", requires = "api_tls_cert", value_name = "FILE")]
    api_tls_key: Option<PathBuf>,
    /// PEM file with certificates: clients must have one that was issued by one of these.
    #[arg(long, env = "OPENELB_API_TLS_CLIENT_CA", requires = "api_tls_cert", value_name = "FILE")]
    api_tls_client_ca: Option<PathBuf>,
}

impl ApiArguments {
    pub(super) fn options(&self) -> Result<ApiOptions, Failure> {
        let hosts = self.api_hosts.split(',').map(str::trim).filter(|host| !host.is_empty() && *host != "0");
        let hosts = hosts
            .map(|host| host.parse().map_err(|error| Failure::Usage(format!("--api-hosts: {error}"))))
            .collect::<Result<_, _>>()?;
        let files = self.api_tls_cert.clone().zip(self.api_tls_key.clone());
        let tls = files.map(|(certificate, key)| TlsFiles {
            certificate,
            key,
            client_ca: self.api_tls_client_ca.clone(),
        });
        Ok(ApiOptions { hosts, writable: self.api_writable, tls })
    }
}
