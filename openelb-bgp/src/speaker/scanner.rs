//! Counts the messages of a stream without keeping them.

use super::stats::MessageCounters;

const HEADER: u8 = 19;

/// Where in a stream of messages we are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scanner {
    /// Octets of the current message that were seen, while that is less than a header.
    seen: u8,
    length: u16,
    /// Octets of the current message after its header that are still to come.
    rest: usize,
}

impl Scanner {
    /// Counts the messages whose headers end in `bytes`, and all octets.
    pub(super) fn count(&mut self, mut bytes: &[u8], counters: &mut MessageCounters) {
        counters.bytes += bytes.len() as u64;
        loop {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((octet, more)) = bytes.split_first() else { return };
            bytes = more;
            self.seen += 1;
            match self.seen {
                17 => self.length = u16::from(*octet) << 8,
                18 => self.length |= u16::from(*octet),
                HEADER => {
                    match octet {
                        1 => counters.open += 1,
                        2 => counters.update += 1,
                        3 => counters.notification += 1,
                        4 => counters.keepalive += 1,
                        5 => counters.route_refresh += 1,
                        _ => {} // ends the session
                    }
                    self.rest = usize::from(self.length.saturating_sub(HEADER.into()));
                    self.seen = 0;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_stream_is_cut() {
        let message = |kind: u8, body: usize| {
            let mut bytes = vec![0xff; 16];
            bytes.extend_from_slice(&u16::try_from(19 + body).unwrap().to_be_bytes());
            bytes.push(kind);
            bytes.resize(19 + body, 1);
            bytes
        };
        let stream = [message(1, 10), message(4, 0), message(2, 300), message(5, 4), message(3, 2)].concat();
        for size in 1..=stream.len() {
            let (mut scanner, mut counters) = (Scanner::default(), MessageCounters::default());
            stream.chunks(size).for_each(|chunk| scanner.count(chunk, &mut counters));
            let bytes = stream.len() as u64;
            let all = MessageCounters {
                open: 1,
                update: 1,
                notification: 1,
                keepalive: 1,
                route_refresh: 1,
                bytes,
            };
            assert_eq!(counters, all, "in chunks of {size}");
        }
    }
}
