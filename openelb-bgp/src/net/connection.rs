//! One TCP connection: a task that reads, a task that writes, and how they tell the driver.
//!
//! Memory is bounded: a reader that has [`READ_AHEAD`] chunks with the driver waits, so TCP pushes back on the
//! neighbour; a writer holds what the speaker handed out, and the speaker hands out no more UPDATEs than fit its window.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::socket_options;
use crate::speaker::{ConnectionId, PeerConfig};

/// Octets that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks of one connection that may wait for the driver.
const READ_AHEAD: usize = 2;
/// How long a closing connection may take to send what it has, and then to see the other side close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long the kernel may then go on with what the other side does not take.
const LEFT_BEHIND: Duration = Duration::from_secs(30);

/// What the tasks of connections and listeners tell the driver.
pub(super) enum IoEvent {
    /// The TCP connection is up.
    Connected { connection: ConnectionId, stream: TcpStream },
    /// It did not come up.
    ConnectFailed { connection: ConnectionId, error: io::Error },
    /// Bytes; dropping the permit lets the reader go on.
    Received { connection: ConnectionId, bytes: BytesMut, permit: OwnedSemaphorePermit },
    /// So many octets left for the kernel.
    Written { connection: ConnectionId, octets: usize },
    /// The connection ended.
    Closed { connection: ConnectionId },
    /// Somebody connected.
    Accepted { stream: TcpStream },
    /// A listener opened, or could not.
    /// With what could not be protected.
    Listener { id: u64, result: Result<(SocketAddr, Vec<String>), String> },
    /// A listener checks what is to be checked from now on, but for this.
    Protected { id: u64, failures: Vec<String> },
    /// A listener has refused somebody whom no neighbour's configuration knows; not told of each.
    Stranger { source: SocketAddr },
}

/// Reports a connection's end if its task panics, so that the peer's place is free again. The ordinary end is an
/// event, in order with the bytes before it.
struct Ended {
    connection: ConnectionId,
    channel: Option<mpsc::UnboundedSender<ConnectionId>>,
}

impl Ended {
    fn new(connection: ConnectionId, channel: mpsc::UnboundedSender<ConnectionId>) -> Self {
        Self { connection, channel: Some(channel) }
    }

    /// Says nothing after all.
    fn disarm(mut self) {
        self.channel = None;
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            // Without a driver nobody needs to know.
            let _ = channel.send(self.connection);
        }
    }
}

/// The driver's side of a connection that is up or being opened. Dropping it closes the connection.
pub(super) struct Connection {
    writer: mpsc::UnboundedSender<Bytes>,
    reader_closing: Arc<Notify>,
    writer_closing: Arc<Notify>,
}

impl Connection {
    /// Hands bytes to the writer. What cannot be written any more is dropped: its end is already reported.
    pub(super) fn send(&self, bytes: Bytes) {
        let _ = self.writer.send(bytes);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader_closing.notify_one();
        self.writer_closing.notify_one();
    }
}

/// Opens a connection; the outcome is an event.
pub(super) async fn connect(
    connection: ConnectionId,
    config: Arc<PeerConfig>,
    ttl: u8,
    events: mpsc::Sender<IoEvent>,
    ended: mpsc::UnboundedSender<ConnectionId>,
) {
    let guard = Ended::new(connection, ended);
    let attempt = async {
        let (socket, remote) = socket_options::connecting(&config, ttl)?;
        match timeout(config.connect_timeout, socket.connect(remote)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, silence(&config))),
        }
    };
    let event = match attempt.await {
        Ok(stream) => IoEvent::Connected { connection, stream },
        Err(error) => IoEvent::ConnectFailed { connection, error },
    };
    if events.send(event).await.is_ok() {
        guard.disarm(); // the event is the report
    }
}

/// What it may mean that nothing comes back: the kernel drops what is not protected as it should be, and so does the
/// neighbour's.
fn silence(config: &PeerConfig) -> String {
    let mut text = format!("no answer within {:?}", config.connect_timeout);
    if config.password.is_some() {
        text += "; it may have another TCP MD5 password, or none";
    }
    if let Some(hops) = config.ttl_security {
        text += &format!("; it may be more than {hops} hops away, or not send with TTL 255");
    }
    text
}

/// Starts the tasks of a connection that is up.
pub(super) fn start(
    connection: ConnectionId,
    stream: TcpStream,
    events: mpsc::Sender<IoEvent>,
    ended: &mpsc::UnboundedSender<ConnectionId>,
) -> Connection {
    let (read_half, write_half) = stream.into_split();
    let (writer, queue) = mpsc::unbounded_channel();
    let (reader_closing, writer_closing) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let guard = || Ended::new(connection, ended.clone());
    tokio::spawn(read(guard(), read_half, events.clone(), Arc::clone(&reader_closing)));
    tokio::spawn(write(guard(), write_half, queue, events, Arc::clone(&writer_closing)));
    Connection { writer, reader_closing, writer_closing }
}

async fn read(ended: Ended, half: OwnedReadHalf, events: mpsc::Sender<IoEvent>, closing: Arc<Notify>) {
    tokio::select! {
        biased;
        () = closing.notified() => {}
        () = read_all(ended.connection, &half, &events) => {
            let _ = events.send(IoEvent::Closed { connection: ended.connection }).await;
            return ended.disarm();
        }
    }
    // Closing with unread bytes resets the connection, and the reset may overtake our last NOTIFICATION: read on.
    let _ = timeout(CLOSE_WITHIN, discard(&half)).await;
    ended.disarm();
}

async fn read_all(connection: ConnectionId, half: &OwnedReadHalf, events: &mpsc::Sender<IoEvent>) {
    let permits = Arc::new(Semaphore::new(READ_AHEAD));
    let mut heard = false;
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        if half.readable().await.is_err() {
            return;
        }
        // Taken only now: an idle connection holds no buffer.
        let mut bytes = BytesMut::with_capacity(CHUNK);
        match half.try_read_buf(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {
                if !std::mem::replace(&mut heard, true) {
                    // The timers of BGP decide from now on: with a hold time of 0 silence ends no session, and one whose
                    // neighbour does not read ends with a NOTIFICATION (RFC 9687).
                    let _ = socket_options::give_up_after(half.as_ref(), None);
                }
                if events.send(IoEvent::Received { connection, bytes, permit }).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn discard(half: &OwnedReadHalf) {
    let mut scratch = [0; 4096];
    while half.readable().await.is_ok() {
        match half.try_read(&mut scratch) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

async fn write(
    ended: Ended,
    mut half: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    events: mpsc::Sender<IoEvent>,
    closing: Arc<Notify>,
) {
    let mut current = Bytes::new();
    let connection = ended.connection;
    tokio::select! {
        biased;
        () = closing.notified() => {
            // What is queued goes out, the NOTIFICATION last, but a neighbour that does not read cannot hold us.
            let rest = write_all(connection, &mut current, &mut queue, &mut half, &events);
            if matches!(timeout(CLOSE_WITHIN, rest).await, Ok(Ok(()))) {
                let _ = timeout(CLOSE_WITHIN, half.shutdown()).await;
            }
        }
        result = write_all(connection, &mut current, &mut queue, &mut half, &events) => match result {
            Ok(()) => drop(timeout(CLOSE_WITHIN, half.shutdown()).await),
            Err(_) => drop(events.send(IoEvent::Closed { connection }).await),
        },
    }
    let _ = socket_options::give_up_after(half.as_ref(), Some(LEFT_BEHIND));
    ended.disarm();
}

/// Writes until the queue is closed and empty.
async fn write_all(
    connection: ConnectionId,
    current: &mut Bytes,
    queue: &mut mpsc::UnboundedReceiver<Bytes>,
    half: &mut OwnedWriteHalf,
    events: &mpsc::Sender<IoEvent>,
) -> io::Result<()> {
    loop {
        while current.is_empty() {
            match queue.recv().await {
                Some(bytes) => *current = bytes,
                None => return Ok(()),
            }
        }
        let octets = half.write_buf(current).await?;
        if octets == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        // Without a driver the queue is closed, too: the rest still goes out.
        let _ = events.send(IoEvent::Written { connection, octets }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{fsm::Direction, speaker::PeerId};

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_gives_up_only_before_the_neighbour_has_said_something_and_after_the_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = PeerConfig::new("router", listener.local_addr().unwrap().ip(), 65001);
        config.port = listener.local_addr().unwrap().port();
        let (socket, remote) = socket_options::connecting(&config, 1).unwrap();
        let ours = socket.connect(remote).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        socket_options::accepted(&theirs, &config, 1).unwrap();
        let descriptor = ours.as_fd().try_clone_to_owned().unwrap();
        let gives_up_after = |of: &dyn AsFd| SockRef::from(&of.as_fd()).tcp_user_timeout().unwrap();
        let offered = Some(config.hold_time);
        assert_eq!((gives_up_after(&descriptor), gives_up_after(&theirs)), (offered, offered));

        let connection = ConnectionId { peer: PeerId(7), direction: Direction::Outgoing, generation: 1 };
        let (sender, mut events) = mpsc::channel(8);
        let (ended, _ended) = mpsc::unbounded_channel();
        let up = start(connection, ours, sender, &ended);
        up.send(Bytes::from_static(b"OPEN"));
        assert!(matches!(events.recv().await, Some(IoEvent::Written { octets: 4, .. })));
        assert_eq!(gives_up_after(&descriptor), offered);
        theirs.write_all(b"OPEN").await.unwrap();
        assert!(matches!(events.recv().await, Some(IoEvent::Received { .. })));
        assert_eq!(gives_up_after(&descriptor), None, "the hold time and the send hold time decide");
        drop(up);
        let closed = async {
            while gives_up_after(&descriptor).is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), closed).await.unwrap();
        assert_eq!(gives_up_after(&descriptor), Some(LEFT_BEHIND), "nothing is left behind for long");
    }

    #[tokio::test]
    async fn a_task_that_panics_reports_its_connection_as_ended() {
        let connection = ConnectionId { peer: PeerId(7), direction: Direction::Incoming, generation: 3 };
        let (sender, mut ended) = mpsc::unbounded_channel();
        let guard = Ended::new(connection, sender.clone());
        let task = tokio::spawn(async move {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(ended.recv().await, Some(connection), "so its place is free again");
        Ended::new(connection, sender).disarm();
        assert_eq!(ended.recv().await, None, "an ordinary end is told once, by its event");
    }
}
