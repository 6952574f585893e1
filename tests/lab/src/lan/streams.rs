//! Long downloads.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{CLIENT, Lan, PORT, socket};
use crate::eventually;

#[derive(Debug, Default)]
struct One {
    /// How often the connection broke; it is made anew.
    breaks: AtomicUsize,
    /// When something came last.
    heard: AtomicU64,
}

/// Clients that each download one endless file, a line every 50 ms, and begin anew when the connection breaks.
#[derive(Debug)]
pub struct Streams {
    all: Vec<Arc<One>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// One connection to its end.
fn download(target: SocketAddr, one: &One, end: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.set_write_timeout(Some(Duration::from_secs(3)))?;
    write!(stream, "GET /slow?chunks=1000000&interval-ms=50 HTTP/1.1\r\nHost: {target}\r\n\r\n")?;
    let mut octets = [0; 4096];
    while !end.load(Ordering::Relaxed) {
        match stream.read(&mut octets) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => one.heard.store(socket::now(), Ordering::Relaxed),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // Whoever only listens is never told that the other end is gone.
                stream.write_all(b"\n")?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Streams {
    /// Starts `count` of them, spread over the addresses, and waits until each has begun to arrive.
    ///
    /// # Errors
    /// One does not begin.
    pub fn start(lan: &Lan, count: usize) -> anyhow::Result<Self> {
        let end: Arc<AtomicBool> = Arc::default();
        let mut streams = Self { all: Vec::new(), end, threads: Vec::new() };
        for address in lan.addresses.iter().cycle().take(count) {
            let one: Arc<One> = Arc::default();
            streams.all.push(Arc::clone(&one));
            let (end, target) = (Arc::clone(&streams.end), SocketAddr::new(*address, PORT));
            // A thread that is started from a host's thread is on that host, too.
            streams.threads.push(lan.lab.within(CLIENT, || {
                std::thread::spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        let before = one.heard.load(Ordering::Relaxed);
                        let broken = download(target, &one, &end).is_err();
                        // A connection that never came up did not break.
                        if broken && one.heard.load(Ordering::Relaxed) != before {
                            one.breaks.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })?);
        }
        streams.await_live()?;
        Ok(streams)
    }

    /// How often each connection broke so far.
    pub fn breaks(&self) -> Vec<usize> {
        self.all.iter().map(|one| one.breaks.load(Ordering::Relaxed)).collect()
    }

    /// Waits until each of them gets something, from now on.
    ///
    /// # Errors
    /// One does not within 20 s.
    pub fn await_live(&self) -> anyhow::Result<()> {
        let since = socket::now();
        eventually("something on every download", Duration::from_secs(20), || {
            let live = |one: &&Arc<One>| one.heard.load(Ordering::Relaxed) > since;
            let count = self.all.iter().filter(live).count();
            anyhow::ensure!(count == self.all.len(), "{count} of {} get something", self.all.len());
            Ok(Some(()))
        })
        .map(drop)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
