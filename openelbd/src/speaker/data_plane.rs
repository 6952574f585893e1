//! Does this node forward? kube-proxy's health check says so.

use std::{str::FromStr, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

/// It is asked this often.
const EVERY: Duration = Duration::from_secs(2);
/// It is asked this often until it answers for the first time.
const EVERY_AT_START: Duration = Duration::from_millis(250);
/// An answer that takes longer is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// So long after the host's boot it is waited for: it may not have started yet.
const BOOT: Duration = Duration::from_secs(30);
/// The status line of an answer is within so many bytes.
const HEAD: usize = 64;

/// `--dataplane-health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nobody is asked: healthy.
    None,
    /// An HTTP URL.
    Url(Url),
}

/// An HTTP URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `HOST:PORT` to connect to.
    authority: String,
    /// From the slash.
    path: String,
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let expected =
            || format!("{text:?} is neither none nor a URL such as http://127.0.0.1:10256/healthz");
        let rest = text.strip_prefix("http://").ok_or_else(expected)?;
        let (authority, path) =
            rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, p.to_owned()));
        let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.ends_with(':') && port.parse::<u16>().is_ok()
        });
        if authority.is_empty()
            || authority.contains(['@', ' ', '\r', '\n'])
            || path.contains([' ', '\r', '\n'])
        {
            return Err(expected());
        }
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self::Url(Url { authority, path: format!("/{path}") }))
    }
}

/// What one question brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 2xx.
    Healthy,
    /// Another status.
    Unhealthy(u16),
    /// Nobody is there, or nobody answers.
    None(String),
}

/// Whether the data plane forwards, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It forwards, or is not asked.
    Healthy,
    /// It says that it does not.
    Unhealthy(String),
}

impl Health {
    pub(super) fn is_healthy(&self) -> bool {
        *self == Self::Healthy
    }
}

/// What follows from an answer: an answer rules; while there was none yet, the data plane is waited for within 30 s of
/// the host's boot, then taken for healthy; after an answer, silence changes nothing.
pub(super) fn judge(before: Option<&Health>, answer: &Answer, since_boot: Duration) -> Option<Health> {
    match answer {
        Answer::Healthy => Some(Health::Healthy),
        Answer::Unhealthy(code) => {
            Some(Health::Unhealthy(format!("the data plane's health check answers {code}")))
        }
        Answer::None(_) => before.cloned().or_else(|| (since_boot >= BOOT).then_some(Health::Healthy)),
    }
}

/// Asks again and again; `None` until something is known.
pub(super) fn watch(probe: Probe) -> watch::Receiver<Option<Health>> {
    let Probe::Url(url) = probe else { return watch::channel(Some(Health::Healthy)).1 };
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        while !sender.is_closed() {
            let answer = timeout(ANSWER_WITHIN, ask(&url)).await;
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => Answer::None(error.to_string()),
                Err(_) => Answer::None(format!("no answer within {ANSWER_WITHIN:?}")),
            };
            let before = sender.borrow().clone();
            let health = judge(before.as_ref(), &answer, since_boot());
            if let (None, Some(_), Answer::None(error)) = (&before, &health, &answer) {
                tracing::warn!(
                    url = format!("http://{}{}", url.authority, url.path),
                    error,
                    "the data plane's health check does not answer; the data plane counts as healthy \
                     (--dataplane-health says who is asked)"
                );
            }
            sender.send_if_modified(|current| {
                let changed = *current != health;
                current.clone_from(&health);
                changed
            });
            sleep(if health.is_some() { EVERY } else { EVERY_AT_START }).await;
        }
    });
    receiver
}

async fn ask(url: &Url) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(&url.authority).await?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: openelb-speaker\r\nConnection: close\r\n\r\n",
        url.path, url.authority
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(HEAD);
    while head.len() < HEAD && !head.contains(&b'\n') {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&head);
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split_ascii_whitespace().nth(1));
    Ok(match code.and_then(|code| code.parse::<u16>().ok()) {
        Some(200..=299) => Answer::Healthy,
        Some(code) => Answer::Unhealthy(code),
        None => Answer::None("the answer is not HTTP".to_owned()),
    })
}

/// Time since the host started.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::{Answer, Health, Probe, ask, judge};

    #[test]
    fn answers_rule_and_silence_changes_nothing() {
        let silent = Answer::None("connection refused".to_owned());
        let unhealthy = Health::Unhealthy("the data plane's health check answers 503".to_owned());
        let (early, late) = (Duration::from_secs(29), Duration::from_secs(30));
        assert_eq!(judge(None, &silent, early), None, "it is waited for after boot");
        assert_eq!(judge(None, &silent, late), Some(Health::Healthy), "then ignored");
        assert_eq!(judge(None, &Answer::Healthy, early), Some(Health::Healthy));
        assert_eq!(judge(Some(&Health::Healthy), &Answer::Unhealthy(503), late), Some(unhealthy.clone()));
        assert_eq!(judge(Some(&unhealthy), &silent, late), Some(unhealthy.clone()), "the last word stays");
        assert_eq!(judge(Some(&Health::Healthy), &silent, late), Some(Health::Healthy));
        assert_eq!(judge(Some(&unhealthy), &Answer::Healthy, late), Some(Health::Healthy));
    }

    #[test]
    fn probes_are_read() {
        assert_eq!("none".parse(), Ok(Probe::None));
        for url in
            ["http://127.0.0.1:10256/healthz", "http://[::1]:10256/healthz", "http://localhost", "http://h:1"]
        {
            assert!(matches!(url.parse(), Ok(Probe::Url(_))), "{url}");
        }
        for bad in ["", "127.0.0.1:10256", "https://127.0.0.1/", "http://", "http://a b/", "http://a/b c"] {
            assert!(bad.parse::<Probe>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_status_line_decides() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let Probe::Url(url) = url.parse().unwrap() else { unreachable!() };
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Answer::Healthy),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Answer::Unhealthy(503)),
            ("SSH-2.0-x\r\n", Answer::None("the answer is not HTTP".to_owned())),
            ("", Answer::None("the answer is not HTTP".to_owned())),
        ] {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let ((), got) = tokio::join!(serve, ask(&url));
            assert_eq!(got.unwrap(), expected);
        }
        drop(listener);
        assert!(ask(&url).await.is_err(), "nobody is there");
    }
}
