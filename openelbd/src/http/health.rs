//! Is the program alive, and is it ready?

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// The owner task must answer within this time to count as alive. Its longest step, an allocation of many Services at
/// once, takes far less.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One thing that must hold before the program is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The configuration was read.
    Configuration,
    /// The first complete lists of all objects were seen.
    Lists,
    /// Every configured port accepts connections.
    Listeners,
    /// The first round of membership is over, where Layer 2 is spoken: it is known what the other nodes hold.
    Membership,
    /// The first decisions were carried out.
    Decisions,
}

impl Check {
    /// All of them, in the order in which they come true.
    pub const ALL: [Self; 5] =
        [Self::Configuration, Self::Lists, Self::Listeners, Self::Membership, Self::Decisions];

    /// The name in the answer of `/readyz`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Lists => "lists",
            Self::Listeners => "listeners",
            Self::Membership => "membership",
            Self::Decisions => "decisions",
        }
    }
}

/// Which checks hold; a check of which nothing was said does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    checks: BTreeMap<Check, Result<(), String>>,
}

impl Readiness {
    /// Says that a check holds, or why it does not.
    pub fn set(&mut self, check: Check, result: Result<(), String>) {
        self.checks.insert(check, result);
    }

    /// Whether all checks hold.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        Check::ALL.iter().all(|check| matches!(self.checks.get(check), Some(Ok(()))))
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in Check::ALL {
            match self.checks.get(&check) {
                Some(Ok(())) => writeln!(f, "[+] {}: ok", check.as_str())?,
                Some(Err(reason)) => writeln!(f, "[-] {}: {reason}", check.as_str())?,
                None => writeln!(f, "[-] {}: not yet", check.as_str())?,
            }
        }
        Ok(())
    }
}

/// What `/healthz` and `/readyz` look at.
#[derive(Clone, Debug)]
pub struct Health {
    readiness: watch::Receiver<Readiness>,
    owner: mpsc::Sender<oneshot::Sender<()>>,
}

impl Health {
    /// `owner` receives questions that the task answers which decides everything: while it does, the program is alive.
    #[must_use]
    pub fn new(readiness: watch::Receiver<Readiness>, owner: mpsc::Sender<oneshot::Sender<()>>) -> Arc<Self> {
        Arc::new(Self { readiness, owner })
    }

    /// Whether the owner task answers.
    pub async fn is_alive(&self) -> bool {
        let answered = async {
            let (answer, answered) = oneshot::channel();
            self.owner.send(answer).await.is_ok() && answered.await.is_ok()
        };
        timeout(ANSWER_WITHIN, answered).await.unwrap_or(false)
    }

    /// Which checks hold.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};

    use super::{Check, Health, Readiness};

    #[test]
    fn ready_means_that_every_check_holds() {
        let mut readiness = Readiness::default();
        for check in Check::ALL {
            assert!(!readiness.is_ready());
            readiness.set(check, Ok(()));
        }
        assert!(readiness.is_ready());
        readiness.set(Check::Listeners, Err("0.0.0.0:179: address in use".to_owned()));
        assert!(!readiness.is_ready());
        assert!(
            readiness.to_string().contains("[-] listeners: 0.0.0.0:179: address in use\n"),
            "{readiness}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_does_not_answer_is_not_alive() {
        let (_sender, readiness) = watch::channel(Readiness::default());
        let (owner, mut questions) = mpsc::channel(1);
        let health = Health::new(readiness, owner);
        assert!(!health.is_alive().await, "the question lies unanswered");
        let answering = tokio::spawn(async move {
            while let Some(answer) = questions.recv().await {
                let _: Result<(), ()> = tokio::sync::oneshot::Sender::send(answer, ());
            }
        });
        assert!(health.is_alive().await);
        answering.abort();
        let _ = answering.await;
        assert!(!health.is_alive().await, "the owner is gone");
    }
}
