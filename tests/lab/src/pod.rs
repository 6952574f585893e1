//! A pod: an HTTP server that says who it is and who asks.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::Context;

/// Serves for ever on `address` (`[::]:8080` takes both families).
///
/// `/` answers `pod=NAME remote=IP:PORT`. `/slow?chunks=N&interval-ms=M` sends N lines, one every M ms, for tests of
/// established connections. What comes by UDP to the same port goes back.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(name: &str, address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let datagrams = UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    std::thread::spawn(move || {
        let mut octets = [0; 2048];
        loop {
            if let Ok((length, from)) = datagrams.recv_from(&mut octets) {
                let _ = datagrams.send_to(octets.get(..length).unwrap_or_default(), from);
            }
        }
    });
    for connection in listener.incoming().flatten() {
        let name = name.to_owned();
        std::thread::spawn(move || {
            let _ = answer(&name, &connection);
        });
    }
    Ok(())
}

fn answer(name: &str, connection: &TcpStream) -> anyhow::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let remote = connection.peer_addr()?;
    let remote = format!("{}:{}", remote.ip().to_canonical(), remote.port());
    let mut reader = BufReader::new(connection);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::from("-");
    while !header.trim().is_empty() {
        header.clear();
        reader.read_line(&mut header)?;
    }
    let target = request.split(' ').nth(1).unwrap_or("/");
    let mut writer = connection;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
    let Some(query) = target.strip_prefix("/slow") else {
        let body = format!("pod={name} remote={remote}\n");
        write!(writer, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
        return Ok(());
    };
    let number = |key: &str, otherwise: u64| {
        query
            .trim_start_matches('?')
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(otherwise)
    };
    let (chunks, interval) = (number("chunks", 100), number("interval-ms", 100));
    write!(writer, "{head}\r\n")?;
    for chunk in 0..chunks {
        writeln!(writer, "pod={name} chunk={chunk}")?;
        std::thread::sleep(Duration::from_millis(interval));
    }
    Ok(())
}
