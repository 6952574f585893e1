//! The table of RFC 7606: what is done about each malformed attribute.

use std::fmt;

use super::{AttributeFlags, SessionKind};

/// What is done about a malformed attribute (RFC 7606 §2), from the mildest to the harshest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Treatment {
    /// The attribute is left out, the routes stay.
    Discard,
    /// The routes of the message are withdrawn, the session stays.
    Withdraw,
    /// The session ends.
    Reset,
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discard => "attribute discarded",
            Self::Withdraw => "routes treated as withdrawn",
            Self::Reset => "session reset",
        })
    }
}

/// What is wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeFault {
    /// Flags that its code cannot have.
    Flags,
    /// A length that its code cannot have.
    Length,
    /// A value that its code cannot have.
    Value,
    /// It occurs again.
    Repeated,
    /// It is missing.
    Missing,
    /// The attributes end within it.
    Truncated,
    /// Its sender must not send it on this session.
    Unexpected,
    /// Not optional, but not known here.
    UnknownWellKnown,
}

impl fmt::Display for AttributeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flags => "wrong flags",
            Self::Length => "wrong length",
            Self::Value => "invalid value",
            Self::Repeated => "repeated",
            Self::Missing => "missing",
            Self::Truncated => "cut off",
            Self::Unexpected => "not expected on this session",
            Self::UnknownWellKnown => "well-known, but unknown here",
        })
    }
}

/// An error that the session survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeError {
    /// The attribute's type code.
    pub code: u8,
    /// What is wrong with it.
    pub fault: AttributeFault,
    /// What is done about it.
    pub treatment: Treatment,
    /// Where that is written.
    pub section: &'static str,
}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, fault, treatment, section } = self;
        match AttributeRule::of(*code) {
            Some(rule) => write!(f, "{}", rule.name)?,
            None => write!(f, "attribute {code}")?,
        }
        write!(f, ": {fault}: {treatment} ({section})")
    }
}

/// A row of the table: what an attribute must look like, and what is done if it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeRule {
    /// The attribute's type code.
    pub code: u8,
    /// Its name.
    pub name: &'static str,
    /// The optional and transitive flags that it must have.
    pub flags: AttributeFlags,
    /// What is done about a malformed one.
    pub malformed: Treatment,
    /// Where that is written.
    pub section: &'static str,
    /// Who may send it. From all others it is discarded, well-formed or not.
    pub from: Senders,
}

/// Who may send an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Senders {
    /// Everybody.
    Any,
    /// Neighbours in our AS.
    Internal,
    /// Neighbours on a session of two-octet AS numbers.
    TwoOctetAs,
}

const WELL_KNOWN: AttributeFlags = AttributeFlags::TRANSITIVE;
const OPTIONAL: AttributeFlags = AttributeFlags::OPTIONAL;
const TRANSITIVE: AttributeFlags = AttributeFlags::OPTIONAL.union(AttributeFlags::TRANSITIVE);

use Senders::{Any, Internal, TwoOctetAs};
use Treatment::{Discard, Reset, Withdraw};

/// One row per attribute that is decoded, in ascending order of the code.
#[rustfmt::skip]
static RULES: [AttributeRule; 17] = [
    row(codes::ORIGIN,               "ORIGIN",               WELL_KNOWN, Withdraw, "RFC 7606 §7.1",  Any),
    row(codes::AS_PATH,              "AS_PATH",              WELL_KNOWN, Withdraw, "RFC 7606 §7.2",  Any),
    row(codes::NEXT_HOP,             "NEXT_HOP",             WELL_KNOWN, Withdraw, "RFC 7606 §7.3",  Any),
    row(codes::MED,                  "MULTI_EXIT_DISC",      OPTIONAL,   Withdraw, "RFC 7606 §7.4",  Any),
    row(codes::LOCAL_PREF,           "LOCAL_PREF",           WELL_KNOWN, Withdraw, "RFC 7606 §7.5",  Internal),
    row(codes::ATOMIC_AGGREGATE,     "ATOMIC_AGGREGATE",     WELL_KNOWN, Discard,  "RFC 7606 §7.6",  Any),
    row(codes::AGGREGATOR,           "AGGREGATOR",           TRANSITIVE, Discard,  "RFC 7606 §7.7",  Any),
    row(codes::COMMUNITIES,          "COMMUNITIES",          TRANSITIVE, Withdraw, "RFC 7606 §7.8",  Any),
    row(codes::ORIGINATOR_ID,        "ORIGINATOR_ID",        OPTIONAL,   Withdraw, "RFC 7606 §7.9",  Internal),
    row(codes::CLUSTER_LIST,         "CLUSTER_LIST",         OPTIONAL,   Withdraw, "RFC 7606 §7.10", Internal),
    row(codes::MP_REACH_NLRI,        "MP_REACH_NLRI",        OPTIONAL,   Reset,    "RFC 7606 §7.11", Any),
    row(codes::MP_UNREACH_NLRI,      "MP_UNREACH_NLRI",      OPTIONAL,   Reset,    "RFC 7606 §7.12", Any),
    row(codes::EXTENDED_COMMUNITIES, "EXTENDED_COMMUNITIES", TRANSITIVE, Withdraw, "RFC 7606 §7.14", Any),
    row(codes::AS4_PATH,             "AS4_PATH",             TRANSITIVE, Discard,  "RFC 6793 §6",    TwoOctetAs),
    row(codes::AS4_AGGREGATOR,       "AS4_AGGREGATOR",       TRANSITIVE, Discard,  "RFC 6793 §6",    TwoOctetAs),
    row(codes::LARGE_COMMUNITY,      "LARGE_COMMUNITY",      TRANSITIVE, Withdraw, "RFC 8092 §6",    Any),
    row(codes::ONLY_TO_CUSTOMER,     "ONLY_TO_CUSTOMER",     TRANSITIVE, Withdraw, "RFC 9234 §5",    Any),
];

const fn row(
    code: u8,
    name: &'static str,
    flags: AttributeFlags,
    malformed: Treatment,
    section: &'static str,
    from: Senders,
) -> AttributeRule {
    AttributeRule { code, name, flags, malformed, section, from }
}

impl AttributeRule {
    /// The whole table, in ascending order of the code.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &RULES
    }

    /// The row of an attribute, if it is decoded here. All others are kept as they are.
    #[must_use]
    pub fn of(code: u8) -> Option<&'static Self> {
        // Codes 1 to 10 have the first ten rows.
        match RULES.get(usize::from(code).wrapping_sub(1)) {
            Some(rule) if rule.code == code => Some(rule),
            _ => RULES.iter().find(|rule| rule.code == code),
        }
    }

    /// Whether these flags are right: the partial and the extended-length bit never matter (RFC 7606 §3c).
    pub(crate) const fn accepts(&self, flags: AttributeFlags) -> bool {
        flags.0 & TRANSITIVE.0 == self.flags.0
    }

    /// Whether the attribute may come on such a session.
    pub(crate) fn expected(&self, kind: SessionKind, four_octet_as: bool) -> bool {
        match self.from {
            Any => true,
            Internal => kind == SessionKind::Internal,
            TwoOctetAs => !four_octet_as,
        }
    }

    /// An error of this attribute, treated as its row says.
    pub(crate) const fn error(&self, fault: AttributeFault) -> AttributeError {
        AttributeError { code: self.code, fault, treatment: self.malformed, section: self.section }
    }
}

/// Type codes (IANA, BGP Path Attributes).
pub(crate) mod codes {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH_NLRI: u8 = 14;
    pub(crate) const MP_UNREACH_NLRI: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITY: u8 = 32;
    pub(crate) const ONLY_TO_CUSTOMER: u8 = 35;
}
