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
    time::{sleep, sleep_until, timeout},
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
        if let Err(error) = turn_in_time(&api, &mut election, &leading).await {
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
        let until = election.leads_until().map(|at| at.saturating_duration_since(now()));
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

/// This clock stands still in tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn set(leading: &watch::Sender<bool>, election: &Election) {
    tell(leading, election.leads(now()), election.holder());
}

fn tell(leading: &watch::Sender<bool>, leads: bool, holder: Option<&str>) {
    leading.send_if_modified(|before| {
        if *before == leads {
            return false;
        }
        if leads {
            tracing::info!("this replica leads");
        } else {
            tracing::info!(holder, "this replica does not lead any more");
        }
        *before = leads;
        true
    });
}

/// A turn. Requests may take longer than the Lease is sure to be ours: then this replica stops to lead while they run.
async fn turn_in_time(
    api: &Api<Lease>,
    election: &mut Election,
    leading: &watch::Sender<bool>,
) -> Result<(), kube::Error> {
    let (until, holder) = (election.leads_until(), election.holder().map(str::to_owned));
    let mut turn = std::pin::pin!(turn(api, election));
    if let Some(until) = until {
        tokio::select! {
            result = &mut turn => return result,
            () = sleep_until(until.into()) => tell(leading, false, holder.as_deref()),
        }
    }
    turn.await
}

/// Looks at the Lease and does what is due.
async fn turn(api: &Api<Lease>, election: &mut Election) -> Result<(), kube::Error> {
    let within = |result: Result<_, _>| result.unwrap_or_else(|_| Err(unanswered()));
    let begun = now();
    let lease = within(timeout(REQUEST, api.get_opt(names::LEASE)).await)?;
    let step = election.observe(lease.as_ref(), now(), Timestamp::now());
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

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use kube::{Client, client::Body};
    use serde_json::{Value, json};
    use tokio::{
        sync::watch,
        time::{Instant, sleep, timeout},
    };

    const NAMESPACE: &str = "openelb-system";

    /// Takes every write, and so long for each request; those that follow are answered at once.
    fn server(delays: impl IntoIterator<Item = f64>) -> Client {
        let delays = Arc::new(Mutex::new(delays.into_iter().collect::<VecDeque<_>>()));
        let stored = Arc::new(Mutex::new(None::<Value>));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (delays, stored) = (Arc::clone(&delays), Arc::clone(&stored));
            async move {
                let delay = delays.lock().unwrap().pop_front().unwrap_or_default();
                sleep(Duration::from_secs_f64(delay)).await;
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let mut stored = stored.lock().unwrap();
                if parts.method != http::Method::GET {
                    let mut lease: Value = serde_json::from_slice(&body).unwrap();
                    let version = stored.as_ref().map_or(0, |lease: &Value| {
                        lease["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
                    });
                    lease["metadata"]["resourceVersion"] = json!((version + 1).to_string());
                    *stored = Some(lease);
                }
                let absent = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                                    "message": "no", "reason": "NotFound", "code": 404});
                let status = if stored.is_some() { 200 } else { 404 };
                let body = serde_json::to_vec(stored.as_ref().unwrap_or(&absent)).unwrap();
                Ok::<_, Infallible>(http::Response::builder().status(status).body(Body::from(body)).unwrap())
            }
        });
        Client::new(service, NAMESPACE)
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_stops_at_its_deadline_while_the_server_takes_its_time() {
        let begun = Instant::now();
        // Seized at once; the next look is not answered, the one after that and its renewal hardly in time.
        let client = server([0.0, 0.0, 60.0, 2.9, 2.9]);
        let (leading, mut leads) = watch::channel(false);
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(super::run(client, NAMESPACE.to_owned(), "a".to_owned(), leading, stopped));
        leads.wait_for(|leads| *leads).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        timeout(Duration::from_secs(60), leads.wait_for(|leads| !leads)).await.unwrap().unwrap();
        // Others may lead after eight seconds.
        let stopped_after = begun.elapsed();
        assert!((5.9..6.1).contains(&stopped_after.as_secs_f64()), "stopped to lead after {stopped_after:?}");
        // The renewal arrives, and what follows is in time again.
        leads.wait_for(|leads| *leads).await.unwrap();
        assert!(begun.elapsed() > Duration::from_secs(9));
    }
}
