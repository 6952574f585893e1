//! Conditions of Services, small: there are two of ours on each of thousands of them.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::names::{condition, reason};

/// Words that most conditions consist of: they are not copied.
const COMMON: [&str; 10] = [
    condition::ADDRESS_ASSIGNED,
    condition::REQUEST_HONOURED,
    "True",
    "False",
    "Unknown",
    reason::ASSIGNED,
    reason::PARTIALLY_ASSIGNED,
    reason::NO_MATCHING_POOL,
    reason::POOL_EXHAUSTED,
    reason::ADDRESS_OUTSIDE_POOLS,
];

/// A condition of a Service, as `metav1.Condition` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCondition {
    /// The type.
    pub type_: Cow<'static, str>,
    /// `True`, `False` or `Unknown`.
    pub status: Cow<'static, str>,
    /// The reason, in CamelCase.
    pub reason: Cow<'static, str>,
    /// In words.
    pub message: Box<str>,
    /// When the status changed.
    pub last_transition_time: Time,
    /// Of which generation of the object it is.
    pub observed_generation: Option<i64>,
}

fn word(text: &str) -> Cow<'static, str> {
    match COMMON.into_iter().find(|common| *common == text) {
        Some(common) => Cow::Borrowed(common),
        None => Cow::Owned(text.to_owned()),
    }
}

impl From<&Condition> for ServiceCondition {
    fn from(condition: &Condition) -> Self {
        Self {
            type_: word(&condition.type_),
            status: word(&condition.status),
            reason: word(&condition.reason),
            message: condition.message.as_str().into(),
            last_transition_time: condition.last_transition_time.clone(),
            observed_generation: condition.observed_generation,
        }
    }
}

impl From<&ServiceCondition> for Condition {
    fn from(condition: &ServiceCondition) -> Self {
        Self {
            type_: condition.type_.clone().into_owned(),
            status: condition.status.clone().into_owned(),
            reason: condition.reason.clone().into_owned(),
            message: condition.message.to_string(),
            last_transition_time: condition.last_transition_time.clone(),
            observed_generation: condition.observed_generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::ServiceCondition;
    use crate::names::{condition, reason};

    #[test]
    fn nothing_is_lost_and_common_words_are_not_copied() {
        let ours = Condition {
            type_: condition::ADDRESS_ASSIGNED.to_owned(),
            status: "True".to_owned(),
            reason: reason::ASSIGNED.to_owned(),
            message: "192.0.2.1".to_owned(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        };
        let small = ServiceCondition::from(&ours);
        assert_eq!(Condition::from(&small), ours);
        assert!(
            [&small.type_, &small.status, &small.reason].iter().all(|word| matches!(word, Cow::Borrowed(_)))
        );
        let foreign = Condition { type_: "example.com/Odd".to_owned(), observed_generation: Some(7), ..ours };
        assert_eq!(Condition::from(&ServiceCondition::from(&foreign)), foreign);
    }
}
