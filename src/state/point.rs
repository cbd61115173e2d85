//! Where somebody who follows what changes has got to.

use super::tables::{key, seq_of};

/// A place in the history: that of an event, in the order of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(super) i64);

impl Position {
    pub(super) fn of(seq: i64, event: i64) -> Self {
        Self(key(seq, usize::try_from(event).unwrap_or_default()))
    }

    pub(super) fn seq(self) -> i64 {
        seq_of(self.0)
    }

    pub(super) fn event(self) -> i64 {
        self.0 - key(self.seq(), 0)
    }

    /// The last one before it, whether anything stands there or not.
    pub(super) fn before(self) -> Self {
        Self(self.0 - 1)
    }
}

/// A line of history that was told: where it stands, and a mark of what does. By default that of
/// somebody who has been told nothing, before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Where it stands.
    pub position: Position,
    pub(super) mark: [u8; 8],
}

impl Point {
    /// It, in as many bytes whichever it is.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.position.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.mark);
        bytes
    }

    /// The one of these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let (mut position, mut mark) = ([0; 8], [0; 8]);
        position.copy_from_slice(&bytes[..8]);
        mark.copy_from_slice(&bytes[8..]);
        Self { position: Position(i64::from_be_bytes(position)), mark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_that_of_an_event_in_the_order_of_the_journal() {
        let position = Position::of(7, 3);
        assert_eq!((position.seq(), position.event()), (7, 3));
        assert!(Position::of(7, 3) < Position::of(8, 0) && Position::default() < position);
    }

    #[test]
    fn a_point_survives_its_bytes() {
        let point = Point { position: Position::of(7, 3), mark: *b"a mark 8" };
        assert_eq!(Point::from_bytes(point.to_bytes()), point);
        assert_eq!(Point::default().to_bytes(), [0; 16]);
    }
}
