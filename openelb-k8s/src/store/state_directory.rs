//! x
use super::*;
use crate::source::Pass;
use jiff::Timestamp;
use std::path::Path;
use std::time::Duration;

/// A directory.
#[derive(Clone, Debug)]
pub struct StateDirectory {}

impl StateDirectory {
    /// Opens it.
    pub fn open(path: &Path) -> Result<(Self, Vec<Problem>), StoreError> {
        let _ = path;
        Ok((Self {}, Vec::new()))
    }
    /// Takes in a pass of manifests, as `kubectl apply` and `kubectl delete` would: spec, labels and annotations of
    /// the manifests, status of the store. `first` is the first pass after start: objects of the store that no
    /// manifest holds are deleted.
    pub fn take_in(&self, pass: &Pass, first: bool, now: Timestamp) -> Result<Vec<StoreChange>, StoreError> {
        let _ = (pass, first, now);
        Ok(Vec::new())
    }
    /// Changes by other processes (noticed by events and every `poll`). The thread ends with the receiver.
    pub fn watch(&self, poll: Duration) -> Result<tokio::sync::mpsc::Receiver<Vec<StoreChange>>, StoreError> {
        let _ = poll;
        Ok(tokio::sync::mpsc::channel(16).1)
    }
}
#[async_trait::async_trait]
impl Store for StateDirectory {
    async fn list(&self) -> Result<Vec<Object>, StoreError> {
        Ok(Vec::new())
    }
    async fn write(&self, write: &Write) -> Result<Option<Object>, StoreError> {
        Err(StoreError::NotFound(write.target.clone()))
    }
}
