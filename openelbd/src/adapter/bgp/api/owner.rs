//! Whose speaker it is: the BgpConf's where there is one, else the clients'.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use openelb_bgp::{
    grpc::core::{Error, ErrorKind, Owner, SOURCE},
    net::SpeakerHandle,
    speaker::SpeakerConfig,
};
use tokio::sync::{mpsc, oneshot, watch};

/// The answer to an order.
pub(in crate::adapter::bgp) type Reply = oneshot::Sender<Result<(), Error>>;

/// What clients want of the task that runs the speaker.
#[derive(Debug)]
pub(in crate::adapter::bgp) enum Order {
    /// A speaker, although no BgpConf asks for one.
    Start(Box<SpeakerConfig>, Reply),
    /// That one no more.
    Stop(Reply),
}

/// What that task shows.
#[derive(Clone, Debug, Default)]
pub(in crate::adapter::bgp) struct Shown {
    /// The speaker, while it runs.
    pub(in crate::adapter::bgp) speaker: watch::Sender<Option<SpeakerHandle>>,
    /// A BgpConf decides about it.
    pub(in crate::adapter::bgp) ruled: Arc<AtomicBool>,
}

impl Shown {
    pub(in crate::adapter::bgp) fn set_ruled(&self, ruled: bool) {
        self.ruled.store(ruled, Ordering::Relaxed);
    }
}

/// What clients see of it.
#[derive(Debug)]
pub(in crate::adapter::bgp) struct ApiOwner {
    shown: Shown,
    orders: mpsc::Sender<Order>,
}

impl ApiOwner {
    pub(in crate::adapter::bgp) fn new(shown: Shown) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(1);
        (Self { shown, orders }, receiver)
    }

    async fn order(&self, order: impl FnOnce(Reply) -> Order) -> Result<(), Error> {
        let gone = || Error::new(ErrorKind::Unavailable, "the program is stopping");
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// What the messages call a BgpConf.
pub(in crate::adapter::bgp) const BGP_CONF: &str = "the BgpConf";

#[openelb_bgp::grpc::async_trait]
impl Owner for ApiOwner {
    fn speaker(&self) -> watch::Receiver<Option<SpeakerHandle>> {
        self.shown.speaker.subscribe()
    }

    fn ruled_by(&self) -> Option<String> {
        self.shown.ruled.load(Ordering::Relaxed).then(|| BGP_CONF.to_owned())
    }

    fn peer_owner(&self, peer: &str) -> String {
        format!("BgpPeer {peer}")
    }

    async fn start(&self, mut config: SpeakerConfig) -> Result<(), Error> {
        config.sources = [SOURCE.to_owned()].into();
        self.order(|reply| Order::Start(Box::new(config), reply)).await
    }

    async fn stop(&self) -> Result<(), Error> {
        self.order(Order::Stop).await
    }
}
