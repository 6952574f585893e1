//! Downloads that take a while: do established connections live?

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::Lab;

/// Lines are so far apart.
const INTERVAL: Duration = Duration::from_millis(50);
/// A download in which nothing comes for so long is broken.
const SILENCE: Duration = Duration::from_secs(5);

/// Downloads that are under way.
#[derive(Debug)]
pub struct Downloads {
    running: Vec<JoinHandle<anyhow::Result<String>>>,
    lines: u64,
}

impl Downloads {
    /// Starts `count` of them at once, from ports of their own, that take about `length`. Each has begun to come when
    /// this returns.
    ///
    /// # Errors
    /// One does not begin.
    pub fn start(
        lab: &Lab,
        host: &str,
        target: SocketAddr,
        count: usize,
        length: Duration,
    ) -> anyhow::Result<Self> {
        let lines = u64::try_from(length.as_millis() / INTERVAL.as_millis())?.max(1);
        // A socket stays in the namespace in which it was made.
        let streams = lab.within(host, || {
            (0..count).map(|_| begin(target, lines)).collect::<anyhow::Result<Vec<TcpStream>>>()
        })??;
        let running = streams
            .into_iter()
            .map(|mut stream| {
                std::thread::spawn(move || {
                    let mut text = String::new();
                    stream
                        .read_to_string(&mut text)
                        .with_context(|| format!("after {} lines of {lines}", text.lines().count()))?;
                    Ok(text)
                })
            })
            .collect();
        Ok(Self { running, lines })
    }

    /// Waits for their ends. What became of those that broke, in words.
    #[must_use]
    pub fn finish(self) -> Vec<String> {
        let lines = self.lines;
        let outcomes = self.running.into_iter().map(|download| {
            let text = download.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the reader panicked")))?;
            let last = format!("chunk={}", lines - 1);
            ensure!(text.trim_end().ends_with(&last), "it ended early: {:?}", text.lines().last());
            Ok(())
        });
        outcomes.filter_map(|outcome| outcome.err().map(|error| format!("{error:#}"))).collect()
    }
}

fn begin(target: SocketAddr, lines: u64) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let path = format!("/slow?chunks={lines}&interval-ms={}", INTERVAL.as_millis());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n")?;
    let mut first = [0; 1];
    stream.read_exact(&mut first).context("nothing came")?;
    Ok(stream)
}
