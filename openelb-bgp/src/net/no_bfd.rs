//! In the place of BFD where the feature `bfd` is off: nothing runs, and the status says so.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    bfd::SessionConfig,
    speaker::{BfdStatus, PathState},
};

/// A session that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) session: SessionConfig,
    pub(super) bind_interface: Option<String>,
}

/// All sessions at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) sessions: BTreeMap<Arc<str>, BfdStatus>,
    pub(super) discarded: u64,
}

/// Nobody.
#[derive(Default)]
pub(super) struct Bfd {
    snapshot: Arc<Snapshot>,
}

impl Bfd {
    pub(super) fn set(&mut self, wanted: Vec<Wanted>) {
        let sessions = wanted.into_iter().map(|Wanted { session, bind_interface: _ }| {
            let error = Some("this program was built without BFD (feature `bfd`)".to_owned());
            (session.name, BfdStatus { session: None, multihop: session.multihop, error })
        });
        self.snapshot = Arc::new(Snapshot { sessions: sessions.collect(), discarded: 0 });
    }

    pub(super) async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }

    pub(super) fn take(&self) -> impl Iterator<Item = (Arc<str>, PathState)> + use<> {
        std::iter::empty()
    }

    pub(super) fn status(&self) -> Option<Arc<Snapshot>> {
        Some(Arc::clone(&self.snapshot))
    }

    pub(super) async fn stop(&mut self) {}
}
