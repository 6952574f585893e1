//! Holds the Lease, or waits for it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use openelb_k8s::{
    election::{Election, RETRY_PERIOD, Step},
    names,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// One request about the Lease may take so long.
const REQUEST: Duration = Duration::from_secs(3);

/// Runs for leader until `stopped` says true; then gives the Lease up, if it is held.
pub(super) async fn run(
    client: Client,
    namespace: String,
    identity: String,
    leading: watch::Sender<bool>,
    mut stopped: watch::Receiver<bool>,
) {
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let mut election = Election::new(namespace, names::LEASE, identity);
    let mut told = None;
    loop {
        // What runs is ended by a stop only between requests, so that nothing is left half done.
        if let Err(error) = turn(&api, &mut election).await {
            let text = error.to_string();
            if told.as_ref() != Some(&text) {
                tracing::warn!(
                    error = text,
                    "the Lease {} cannot be read or written; it is tried again",
                    names::LEASE
                );
            }
            told = Some(text);
        } else {
            told = None;
        }
        set(&leading, &election);
        if *stopped.borrow() {
            break;
        }
        let pause =
            RETRY_PERIOD.mul_f64(0.9 + 0.2 * f64::from(Timestamp::now().subsec_nanosecond() % 100) / 100.0);
        // A leader that cannot renew stops in time, whatever the request does.
        let until = election.leads_until().map(|at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = sleep(until.map_or(pause, |until| until.min(pause))) => {}
            _ = stopped.changed() => {}
        }
        set(&leading, &election);
        if *stopped.borrow() {
            break;
        }
    }
    leading.send_replace(false);
    let released = timeout(REQUEST, async {
        let lease = api.get(names::LEASE).await?;
        if let Some(released) = election.release(&lease, Timestamp::now()) {
            api.replace(names::LEASE, &PostParams::default(), &released).await?;
            tracing::info!("the Lease is given up");
        }
        Ok::<(), kube::Error>(())
    });
    if let Ok(Err(error)) = released.await {
        tracing::warn!(%error, "the Lease cannot be given up; another replica takes it when it is over");
    }
}

fn set(leading: &watch::Sender<bool>, election: &Election) {
    let leads = election.leads(Instant::now());
    leading.send_if_modified(|before| {
        if *before == leads {
            return false;
        }
        if leads {
            tracing::info!("this replica leads");
        } else {
            tracing::info!(holder = election.holder(), "this replica does not lead any more");
        }
        *before = leads;
        true
    });
}

/// Looks at the Lease and does what is due.
async fn turn(api: &Api<Lease>, election: &mut Election) -> Result<(), kube::Error> {
    let within = |result: Result<_, _>| result.unwrap_or_else(|_| Err(unanswered()));
    let begun = Instant::now();
    let lease = within(timeout(REQUEST, api.get_opt(names::LEASE)).await)?;
    let step = election.observe(lease.as_ref(), Instant::now(), Timestamp::now());
    let result = match &step {
        Step::Wait => return Ok(()),
        Step::Create(lease) => timeout(REQUEST, api.create(&PostParams::default(), lease)).await,
        Step::Replace(lease) => {
            timeout(REQUEST, api.replace(names::LEASE, &PostParams::default(), lease)).await
        }
    };
    match result.unwrap_or_else(|_| Err(unanswered())) {
        Ok(lease) => election.succeeded(&lease, begun),
        // Another candidate was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn unanswered() -> kube::Error {
    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {REQUEST:?}"));
    kube::Error::Service(Box::new(error))
}
