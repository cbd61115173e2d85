//! Where a source is known to have been silent, so that what others received is not read twice.
//!
//! A cursor stays at the last change of its source, whatever others receive meanwhile: it would tell of
//! them otherwise. So each question of a silent source begins at the same line of history, and would
//! pass over all that came since of others, again and again. What was found out by one question, that
//! nothing of the source stands from here to there, is noted here for the next.
//!
//! Lines of history are neither added between others nor changed, so a note is right for ever; it is one
//! of the file it was read from, and counts in its epoch only. Losing one costs time and nothing else.
//! Never more than [`NOTES_MAX`] of them, the newest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::state::epoch::Key;
use crate::state::feed::{Point, Position};

/// Notes that are kept: some for each of the sources a receiver has.
const NOTES_MAX: usize = 256;

/// What is followed, by whom: each has silences of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// In this epoch.
    pub(super) epoch: Key,
    /// Of this source.
    pub(super) source: Arc<str>,
    /// Events of every kind; else notifications alone.
    pub(super) is_of_events: bool,
}

/// Nothing of the line stands behind the point, up to and including the position.
struct Note {
    line: Line,
    after: Point,
    through: Position,
}

/// What is known of silences.
#[derive(Default)]
pub(super) struct Silences(Mutex<VecDeque<Note>>);

impl Silences {
    /// From where on there may be something behind that point.
    pub(super) fn end(&self, line: &Line, after: Point) -> Position {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let note = notes.iter().find(|note| note.after == after && note.line == *line);
        note.map_or(after.position, |note| note.through.max(after.position))
    }

    /// The latest point behind which there is known to be nothing for a while, and for how long; without
    /// one, the beginning.
    pub(super) fn latest(&self, line: &Line) -> (Point, Position) {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = notes.iter().filter(|note| note.line == *line);
        let latest = notes.max_by_key(|note| (note.after.position, note.through));
        latest.map_or_else(Default::default, |note| (note.after, note.through))
    }

    /// Nothing of the line stands behind `after` up to and including `through`.
    pub(super) fn note(&self, line: Line, after: Point, through: Position) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = notes.iter().position(|note| note.after == after && note.line == line);
        let known = known.and_then(|at| notes.remove(at));
        let through = known.map_or(through, |known| known.through.max(through));
        notes.push_back(Note { line, after, through });
        if notes.len() > NOTES_MAX {
            notes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(number: u64) -> Point {
        Point::from_bytes((u128::from(number) << 64).to_be_bytes())
    }

    fn line(source: &str) -> Line {
        Line { epoch: [7; 32], source: source.into(), is_of_events: false }
    }

    #[test]
    fn a_silence_counts_for_its_source_its_point_and_its_epoch_alone() {
        let silences = Silences::default();
        silences.note(line("a"), point(5), point(90).position);
        assert_eq!(silences.end(&line("a"), point(5)), point(90).position);
        assert_eq!(silences.latest(&line("b")).0, Point::default());
        let other_epoch = Line { epoch: [8; 32], ..line("a") };
        let events = Line { is_of_events: true, ..line("a") };
        for (line, at) in [(line("a"), 6), (line("b"), 5), (other_epoch, 5), (events, 5)] {
            assert_eq!(silences.end(&line, point(at)), point(at).position, "{line:?}");
        }
    }

    #[test]
    fn a_silence_grows_and_never_shrinks_and_the_oldest_note_goes_first() {
        let silences = Silences::default();
        for through in [90, 100, 95] {
            silences.note(line("a"), point(5), point(through).position);
        }
        assert_eq!(silences.latest(&line("a")), (point(5), point(100).position));
        silences.note(line("a"), point(3), point(4).position);
        assert_eq!(silences.latest(&line("a")).0, point(5));
        for number in 0..u64::try_from(NOTES_MAX).unwrap() - 1 {
            silences.note(line("b"), point(number), point(number).position);
        }
        assert_eq!(silences.end(&line("a"), point(5)), point(5).position, "forgotten");
        assert_eq!(silences.end(&line("a"), point(3)), point(4).position);
    }
}
