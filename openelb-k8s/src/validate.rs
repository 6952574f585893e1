//! Every error of a set of objects.
use crate::problem::Problem;
use crate::source::manifests::Loaded;

/// Everything that is wrong with what was loaded, in the order of files; empty if nothing is.
#[must_use]
pub fn validate(loaded: &Loaded) -> Vec<Problem> {
    loaded.problems.clone()
}
