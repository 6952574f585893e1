//! The table of RFC 7606: what is done about each malformed attribute.

use super::AttributeFlags;

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
    /// Well-known, but not known here.
    UnknownWellKnown,
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

/// A row of the table.
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
    /// What is done about any from an external neighbour, where that differs.
    pub external: Option<Treatment>,
    /// Where that is written.
    pub section: &'static str,
}
