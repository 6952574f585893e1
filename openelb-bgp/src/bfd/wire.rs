//! The control packet: bytes and values (RFC 5880 §4.1), and which bytes are none (§6.8.6).

use std::{fmt, time::Duration};

/// Octets of a packet without authentication.
pub const PACKET_LEN: usize = 24;
/// Octets of the shortest packet with an authentication section.
const AUTHENTICATED_LEN: usize = 26;
/// The protocol version (RFC 5880 §4.1).
const VERSION: u8 = 1;

/// The state of a session (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by the operator; says nothing about the path.
    AdminDown,
    /// Nothing is heard of the neighbour, or it does not hear us.
    #[default]
    Down,
    /// The neighbour is heard; it has not said that it hears us.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// Why a session was last not Up (RFC 5880 §4.1), as sent. Codes that are not known are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// 0.
    pub const NONE: Self = Self(0);
    /// 1: nothing was heard for the detection time.
    pub const TIME_EXPIRED: Self = Self(1);
    /// 3: the neighbour said that it is down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// 5: the path is known to be down, for example by a lost link.
    pub const PATH_DOWN: Self = Self(5);
    /// 7: the operator holds the session down.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);

    /// A code; only its lower five bits are used.
    pub const fn new(code: u8) -> Self {
        Self(code & 0x1f)
    }

    /// The code, 0 to 31.
    pub const fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            code => return write!(f, "diagnostic {code}"),
        })
    }
}

/// A control packet (RFC 5880 §4.1). Intervals are microseconds on the wire: finer parts are cut off, longer ones end at
/// 4294 s.
///
/// ```
/// use std::time::Duration;
/// use openelb_bgp::bfd::{ControlPacket, State};
///
/// let packet = ControlPacket {
///     state: State::Down,
///     detect_multiplier: 3,
///     my_discriminator: 7,
///     desired_min_tx: Duration::from_secs(1),
///     required_min_rx: Duration::from_millis(300),
///     ..ControlPacket::default()
/// };
/// assert_eq!(ControlPacket::decode(&packet.encode())?, packet);
/// # Ok::<(), openelb_bgp::bfd::Discard>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlPacket {
    /// Why the sender's session was last not Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: an answer with F is wanted.
    pub poll: bool,
    /// F: the answer to a P.
    pub final_: bool,
    /// C: the sender's BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// D: the sender wants no periodic packets while both are Up.
    pub demand: bool,
    /// How many missing packets are a lost session; not 0.
    pub detect_multiplier: u8,
    /// The sender's number for the session; not 0.
    pub my_discriminator: u32,
    /// What the sender has received as ours, or 0.
    pub your_discriminator: u32,
    /// No shorter does the sender want to send.
    pub desired_min_tx: Duration,
    /// No shorter can the sender receive; zero: send nothing periodically.
    pub required_min_rx: Duration,
    /// The same for echo packets; zero: none are looped back.
    pub required_min_echo_rx: Duration,
}

/// Why a packet is discarded (RFC 5880 §6.8.6, RFC 5881 §5, RFC 5883 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Discard {
    /// Fewer octets than a packet has.
    #[error("the packet has {len} octets, fewer than a control packet")]
    Short {
        /// Octets received.
        len: usize,
    },
    /// Not version 1.
    #[error("BFD version {0}, not 1")]
    Version(u8),
    /// The Length field is smaller than a packet is.
    #[error("the length field says {0} octets, fewer than a control packet has")]
    Length(u8),
    /// The Length field is larger than what was received.
    #[error("the length field says {length} octets, and {received} were received")]
    Truncated {
        /// The field.
        length: u8,
        /// Octets received.
        received: usize,
    },
    /// Detect Mult is 0.
    #[error("the detection multiplier is 0")]
    DetectMultiplierZero,
    /// The M bit is set.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// My Discriminator is 0.
    #[error("the sender's discriminator is 0")]
    MyDiscriminatorZero,
    /// Your Discriminator is 0 in a state in which the sender must know it.
    #[error("our discriminator is missing in state {0}")]
    YourDiscriminatorZero(State),
    /// The A bit is set; sessions have no authentication.
    #[error("the packet is authenticated, and authentication is not used: remove it at the neighbour")]
    Authenticated,
    /// No session has this discriminator.
    #[error("no session has the discriminator {0}")]
    UnknownDiscriminator(u32),
    /// The session is down, and waits before it may come up.
    #[error("the session waits before it comes up")]
    Waiting,
    /// No session is with this sender.
    #[error("no session is with this sender")]
    UnknownSender,
    /// The packet has crossed more routers than allowed (RFC 5881 §5, RFC 5883 §5).
    #[error("received with TTL {ttl}, lower than {minimum}: not from a neighbour that near")]
    Ttl {
        /// The received TTL or hop limit.
        ttl: u8,
        /// The lowest that is accepted.
        minimum: u8,
    },
    /// The session is held down here.
    #[error("the session is administratively down here")]
    AdminDown,
}

impl ControlPacket {
    /// Reads a packet. Octets after its length are ignored.
    ///
    /// # Errors
    /// Which of the checks of RFC 5880 §6.8.6 that need no session it fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, Discard> {
        let len = bytes.len();
        let Some((&[first, second, detect_multiplier, length], rest)) = bytes.split_first_chunk::<4>() else {
            return Err(Discard::Short { len });
        };
        if first >> 5 != VERSION {
            return Err(Discard::Version(first >> 5));
        }
        let authenticated = second & 0x04 != 0;
        let least = if authenticated { AUTHENTICATED_LEN } else { PACKET_LEN };
        if usize::from(length) < least {
            return Err(Discard::Length(length));
        }
        if usize::from(length) > len {
            return Err(Discard::Truncated { length, received: len });
        }
        let mut words = rest.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_be_bytes));
        let mut word = || words.next().unwrap_or_default();
        let interval = |micros: u32| Duration::from_micros(micros.into());
        let packet = Self {
            diagnostic: Diagnostic::new(first),
            state: State::from_bits(second >> 6),
            poll: second & 0x20 != 0,
            final_: second & 0x10 != 0,
            control_plane_independent: second & 0x08 != 0,
            demand: second & 0x02 != 0,
            detect_multiplier,
            my_discriminator: word(),
            your_discriminator: word(),
            desired_min_tx: interval(word()),
            required_min_rx: interval(word()),
            required_min_echo_rx: interval(word()),
        };
        if detect_multiplier == 0 {
            return Err(Discard::DetectMultiplierZero);
        }
        if second & 0x01 != 0 {
            return Err(Discard::Multipoint);
        }
        if packet.my_discriminator == 0 {
            return Err(Discard::MyDiscriminatorZero);
        }
        if packet.your_discriminator == 0 && !matches!(packet.state, State::Down | State::AdminDown) {
            return Err(Discard::YourDiscriminatorZero(packet.state));
        }
        if authenticated {
            return Err(Discard::Authenticated);
        }
        Ok(packet)
    }

    /// Writes a packet.
    #[must_use]
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let bit = |set: bool, mask: u8| if set { mask } else { 0 };
        let micros = |interval: Duration| u32::try_from(interval.as_micros()).unwrap_or(u32::MAX);
        let second = (self.state as u8) << 6
            | bit(self.poll, 0x20)
            | bit(self.final_, 0x10)
            | bit(self.control_plane_independent, 0x08)
            | bit(self.demand, 0x02);
        let head = [VERSION << 5 | self.diagnostic.code(), second, self.detect_multiplier, 24];
        let words = [
            u32::from_be_bytes(head),
            self.my_discriminator,
            self.your_discriminator,
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            micros(self.required_min_echo_rx),
        ];
        let mut bytes = [0; PACKET_LEN];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}
