//! Objects that went while requests were under way, whose answers may still show them.

use std::collections::HashMap;

use openelb_k8s::{
    object::{Object, ObjectRef},
    source::kube::version,
};

/// The version at which each object went. An answer that was made before then and comes after it (a write, a read, a
/// list) must not bring the object back: the watch says only once that it is gone.
#[derive(Debug, Default)]
pub(super) struct Departed {
    gone: HashMap<ObjectRef, u64>,
}

impl Departed {
    /// The watch said that the object is gone as of this version.
    pub(super) fn went(&mut self, object: ObjectRef, at: u64) {
        self.gone.insert(object, at);
    }

    /// Is what an answer shows older than the object's end?
    pub(super) fn covers(&self, object: &Object) -> bool {
        !self.gone.is_empty()
            && self.gone.get(&object.reference()).is_some_and(|gone| version(object) <= *gone)
    }

    /// No answer is awaited any more.
    pub(super) fn clear(&mut self) {
        self.gone.clear();
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(version: u64) -> Object {
        let metadata = json!({"name": "web", "namespace": "shop", "resourceVersion": version.to_string()});
        serde_json::from_value::<Service>(json!({"metadata": metadata})).unwrap().into()
    }

    #[test]
    fn an_answer_that_comes_late_does_not_bring_back_what_is_gone() {
        let mut departed = Departed::default();
        assert!(!departed.covers(&service(5)));
        departed.went(service(5).reference(), 7);
        assert!(departed.covers(&service(5)) && departed.covers(&service(7)));
        assert!(!departed.covers(&service(8)), "another of the same name was made since");
        departed.clear();
        assert!(!departed.covers(&service(5)));
    }
}
