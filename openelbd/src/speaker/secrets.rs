//! The Secrets that BgpPeers name, and no others.

use std::collections::{BTreeMap, BTreeSet};

use kube::Client;
use openelb_k8s::{
    object::Kind,
    source::kube::{Change, Selection, watch},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Watches of single Secrets of one namespace.
pub(super) struct Secrets {
    client: Client,
    namespace: String,
    sender: mpsc::Sender<Vec<Change>>,
    watched: BTreeMap<String, JoinHandle<()>>,
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.watched.values().for_each(JoinHandle::abort);
    }
}

impl Secrets {
    /// None yet. Changes come from the receiver.
    pub(super) fn new(client: Client, namespace: &str) -> (Self, mpsc::Receiver<Vec<Change>>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self { client, namespace: namespace.to_owned(), sender, watched: BTreeMap::new() }, receiver)
    }

    /// Watches these and no others. Says which are not watched any more.
    pub(super) fn set(&mut self, wanted: &BTreeSet<String>) -> Vec<String> {
        let gone: Vec<String> = self.watched.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in &gone {
            if let Some(task) = self.watched.remove(name) {
                task.abort();
            }
        }
        for name in wanted {
            if self.watched.contains_key(name) {
                continue;
            }
            let selection = Selection::all(Kind::Secret)
                .in_namespace(&self.namespace)
                .fields(format!("metadata.name={name}"));
            let (client, sender) = (self.client.clone(), self.sender.clone());
            let task = tokio::spawn(async move {
                let (_watch, mut changes) = watch(client, [selection]);
                while let Some(batch) = changes.recv().await {
                    if sender.send(batch).await.is_err() {
                        return;
                    }
                }
            });
            self.watched.insert(name.clone(), task);
        }
        gone
    }
}
