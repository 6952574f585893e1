//! AS paths.

use std::fmt;

/// The kind of an AS_PATH segment (RFC 4271 §4.3, RFC 5065 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// AS_SET, 1: unordered, counts as one hop.
    Set,
    /// AS_SEQUENCE, 2: ordered, the nearest AS first.
    Sequence,
    /// AS_CONFED_SEQUENCE, 3: within a confederation, counts nothing.
    ConfederationSequence,
    /// AS_CONFED_SET, 4: within a confederation, counts nothing.
    ConfederationSet,
}

impl SegmentKind {
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Set,
            2 => Self::Sequence,
            3 => Self::ConfederationSequence,
            4 => Self::ConfederationSet,
            _ => return None,
        })
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Sequence => 2,
            Self::ConfederationSequence => 3,
            Self::ConfederationSet => 4,
        }
    }

    /// Whether RFC 5065 defines it: such a segment never leaves a confederation.
    #[must_use]
    pub const fn is_confederation(self) -> bool {
        matches!(self, Self::ConfederationSequence | Self::ConfederationSet)
    }
}

/// A segment of an AS path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPathSegment {
    /// What the numbers mean.
    pub kind: SegmentKind,
    /// AS numbers, 1 to 4294967295. More than 255 are written as several segments.
    pub asns: Vec<u32>,
}

/// An AS path (RFC 4271 §5.1.2). An empty one belongs to a route that began in the neighbour's AS, which is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    /// The segments, the nearest first.
    pub segments: Vec<AsPathSegment>,
}

impl AsPath {
    /// The empty path.
    #[must_use]
    pub const fn empty() -> Self {
        Self { segments: Vec::new() }
    }

    /// A path of one AS_SEQUENCE, the nearest AS first; the empty path if there are no numbers.
    #[must_use]
    pub fn sequence(asns: impl IntoIterator<Item = u32>) -> Self {
        let asns: Vec<u32> = asns.into_iter().collect();
        if asns.is_empty() {
            return Self::empty();
        }
        Self { segments: vec![AsPathSegment { kind: SegmentKind::Sequence, asns }] }
    }

    /// Every AS number in it, sets and confederation segments included.
    pub fn asns(&self) -> impl Iterator<Item = u32> {
        self.segments.iter().flat_map(|segment| segment.asns.iter().copied())
    }

    /// Whether an AS is in it: a loop, if the AS is ours (RFC 4271 §9.1.2).
    #[must_use]
    pub fn contains(&self, asn: u32) -> bool {
        self.asns().any(|member| member == asn)
    }

    /// The length by which routes are compared: a set counts 1, confederation segments 0 (RFC 4271 §9.1.2.2, RFC 5065
    /// §5.3).
    #[must_use]
    pub fn hops(&self) -> usize {
        self.segments.iter().map(AsPathSegment::hops).sum()
    }

    /// The AS of the neighbour that sent it: the first number, if the path begins with a sequence.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        let segment = self.segments.iter().find(|segment| !segment.kind.is_confederation())?;
        if segment.kind == SegmentKind::Sequence { segment.asns.first().copied() } else { None }
    }

    /// The AS in which the route began: the last number, if the path ends with a sequence.
    #[must_use]
    pub fn origin(&self) -> Option<u32> {
        let segment = self.segments.last()?;
        if segment.kind == SegmentKind::Sequence { segment.asns.last().copied() } else { None }
    }

    /// Puts an AS in front, `times` times (RFC 4271 §5.1.2).
    pub fn prepend(&mut self, asn: u32, times: usize) {
        if times == 0 {
            return;
        }
        let added = std::iter::repeat_n(asn, times);
        match self.segments.first_mut() {
            Some(segment) if segment.kind == SegmentKind::Sequence => {
                segment.asns.splice(0..0, added);
            }
            _ => {
                let asns = added.collect();
                self.segments.insert(0, AsPathSegment { kind: SegmentKind::Sequence, asns });
            }
        }
    }

    /// Replaces the numbers that AS4_PATH knows better: as many hops of this path as it has more stay in front of it,
    /// with confederation segments beside them (RFC 6793 §4.2.3). A longer AS4_PATH is ignored.
    pub(crate) fn merge_as4(&mut self, as4: Self) {
        let Some(mut missing) = self.hops().checked_sub(as4.hops()) else { return };
        let mut merged = Vec::new();
        for mut segment in std::mem::take(&mut self.segments) {
            match segment.kind {
                SegmentKind::ConfederationSequence | SegmentKind::ConfederationSet => merged.push(segment),
                _ if missing == 0 => break,
                SegmentKind::Set => {
                    missing -= 1;
                    merged.push(segment);
                }
                SegmentKind::Sequence => {
                    segment.asns.truncate(missing);
                    missing -= segment.asns.len();
                    merged.push(segment);
                }
            }
        }
        merged.extend(as4.segments);
        self.segments = merged;
    }
}

impl AsPathSegment {
    fn hops(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.asns.len(),
            SegmentKind::Set => usize::from(!self.asns.is_empty()),
            SegmentKind::ConfederationSequence | SegmentKind::ConfederationSet => 0,
        }
    }
}

/// Sequences as `64512 64513`, sets as `{1,2}`, confederation segments as `(1 2)` and `[1,2]` (as routers show them).
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let (open, separator, close) = match segment.kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
                SegmentKind::ConfederationSequence => ("(", " ", ")"),
                SegmentKind::ConfederationSet => ("[", ",", "]"),
            };
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(open)?;
            for (index, asn) in segment.asns.iter().enumerate() {
                if index > 0 {
                    f.write_str(separator)?;
                }
                write!(f, "{asn}")?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}
