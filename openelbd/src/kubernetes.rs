//! The client of the API server: where it is and who we are.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// A connection that is not made by then is given up; the next try may reach another API server.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Flags that say where the API server is.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArguments {
    /// Kubeconfig file [default: the KUBECONFIG environment variable, else the Pod's ServiceAccount, else
    /// ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// A client by `--kubeconfig`, else `KUBECONFIG`, else the Pod's ServiceAccount, else `~/.kube/config`.
///
/// # Errors
/// If there is no configuration, or it cannot be used. Nothing is sent yet.
pub async fn client(arguments: &ClusterArguments) -> anyhow::Result<Client> {
    let mut config = config(arguments).await?;
    config.connect_timeout = Some(CONNECT_WITHIN);
    // Whoever asks decides whether and when to ask again.
    config.default_retry = false;
    Client::try_from(config).context("no client can be made of the configuration")
}

async fn config(arguments: &ClusterArguments) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
    if let Some(file) = &arguments.kubeconfig {
        return from_file(file, &options).await;
    }
    if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
        return Config::from_kubeconfig(&options)
            .await
            .context("the file that KUBECONFIG names cannot be used");
    }
    if arguments.context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().context(
            "the Pod's ServiceAccount cannot be used; is automountServiceAccountToken off? Or give --kubeconfig",
        );
    }
    Config::from_kubeconfig(&options).await.context(
        "no cluster is configured: give --kubeconfig, set KUBECONFIG, or run in a Pod with a ServiceAccount",
    )
}

async fn from_file(file: &Path, options: &KubeConfigOptions) -> anyhow::Result<Config> {
    let unusable = || format!("the kubeconfig {} cannot be used", file.display());
    let kubeconfig = Kubeconfig::read_from(file).with_context(unusable)?;
    Config::from_custom_kubeconfig(kubeconfig, options).await.with_context(unusable)
}

#[cfg(test)]
mod tests {
    use super::{ClusterArguments, client};

    #[tokio::test]
    async fn a_file_that_is_not_there_is_named() {
        let arguments =
            ClusterArguments { kubeconfig: Some("/nonexistent/kubeconfig".into()), context: None };
        let error = client(&arguments).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("/nonexistent/kubeconfig"), "{error}");
    }
}
