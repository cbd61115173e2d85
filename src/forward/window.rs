//! What a dispatcher has in hand, and the rules by which changes of one subject stay in order.
//!
//! Rows are taken from the outbox in the order of commit. Of one subject only one row is ever under
//! way. What is taken behind it waits here in memory; if the first fails, all behind it are held, in
//! the file, until it has gone through or was parked. So the memory is bounded ([`Window::room`]), and
//! a change that fails for days holds up nothing but its own subject.
//!
//! A row stays in hand until what became of it is recorded: only then does the outbox tell the truth
//! about it. Pure: no I/O, no time.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::state::outbox::{Outcome, Owed};

/// What became of rows, in the order in which it must be recorded.
pub type Record = Vec<(i64, Outcome)>;

/// The rows in hand.
#[derive(Debug)]
pub struct Window {
    rows_max: usize,
    bytes_max: usize,
    /// Of the rows in lines.
    bytes: usize,
    /// Rows that are under way or wait behind one, by subject.
    lines: HashMap<i64, VecDeque<Owed>>,
    /// Keys of all rows in hand.
    in_hand: HashSet<i64>,
    /// What became of rows and is not recorded yet.
    unrecorded: Record,
    /// What is being recorded.
    recording: Vec<i64>,
    /// Subjects with a failed row that the outbox may not know of yet; how many such rows.
    failed: HashMap<i64, usize>,
    /// The subject of each row that is counted there.
    failed_rows: HashMap<i64, i64>,
    under_way: usize,
}

impl Window {
    /// Holds at most so many rows, and takes no more once they are this large together.
    pub fn new(rows_max: usize, bytes_max: usize) -> Self {
        Self {
            rows_max,
            bytes_max,
            bytes: 0,
            lines: HashMap::new(),
            in_hand: HashSet::new(),
            unrecorded: Vec::new(),
            recording: Vec::new(),
            failed: HashMap::new(),
            failed_rows: HashMap::new(),
            under_way: 0,
        }
    }

    /// How many more rows may be taken.
    pub fn room(&self) -> usize {
        if self.bytes >= self.bytes_max {
            return 0;
        }
        self.rows_max.saturating_sub(self.in_hand.len())
    }

    /// How many rows are in hand.
    pub fn rows(&self) -> usize {
        self.in_hand.len()
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether this row is in hand already.
    pub fn has(&self, key: i64) -> bool {
        self.in_hand.contains(&key)
    }

    /// Takes a fresh row. `is_blocked`: the outbox has a waiting or held row of the subject before it.
    /// Returns the row if it is to be sent now.
    pub fn take_fresh(&mut self, owed: Owed, is_blocked: bool) -> Option<Owed> {
        let (key, subject) = (owed.change.key, owed.change.subject);
        if !self.in_hand.insert(key) {
            return None;
        }
        if is_blocked || self.failed.contains_key(&subject) {
            self.note(key, subject, Outcome::Held);
            return None;
        }
        self.stand_in_line(owed)
    }

    /// Takes a waiting row that is due. Returns it if it is to be sent now.
    pub fn take_due(&mut self, owed: Owed) -> Option<Owed> {
        if self.lines.contains_key(&owed.change.subject) || !self.in_hand.insert(owed.change.key) {
            return None;
        }
        self.stand_in_line(owed)
    }

    fn stand_in_line(&mut self, owed: Owed) -> Option<Owed> {
        self.bytes += owed.bytes();
        let line = self.lines.entry(owed.change.subject).or_default();
        line.push_back(owed);
        let is_first = line.len() == 1;
        self.under_way += usize::from(is_first);
        line.front().filter(|_| is_first).cloned()
    }

    /// What became of the row that was under way for this subject. Returns the next row to be sent.
    pub fn done(&mut self, subject: i64, outcome: Outcome) -> Option<Owed> {
        self.under_way -= 1;
        let mut line = self.lines.remove(&subject).unwrap_or_default();
        let first = line.pop_front()?;
        let key = first.change.key;
        self.bytes -= first.bytes();
        match outcome {
            outcome @ Outcome::Waits { .. } => {
                self.note(key, subject, outcome);
                for owed in line {
                    self.bytes -= owed.bytes();
                    self.note(owed.change.key, subject, Outcome::Held);
                }
                None
            }
            outcome => {
                self.note(key, subject, outcome);
                let next = line.front().cloned();
                if !line.is_empty() {
                    self.lines.insert(subject, line);
                    self.under_way += 1;
                }
                next
            }
        }
    }

    fn note(&mut self, key: i64, subject: i64, outcome: Outcome) {
        if matches!(outcome, Outcome::Waits { .. } | Outcome::Held) {
            *self.failed.entry(subject).or_default() += 1;
            self.failed_rows.insert(key, subject);
        }
        self.unrecorded.push((key, outcome));
    }

    /// What is to be recorded, unless something is being recorded.
    pub fn to_record(&mut self) -> Option<Record> {
        if self.unrecorded.is_empty() || !self.recording.is_empty() {
            return None;
        }
        let record = std::mem::take(&mut self.unrecorded);
        self.recording = record.iter().map(|(key, _)| *key).collect();
        Some(record)
    }

    /// What was to be recorded is: from now on the outbox tells the truth about those rows.
    pub fn recorded(&mut self) {
        for key in std::mem::take(&mut self.recording) {
            self.in_hand.remove(&key);
            let Some(subject) = self.failed_rows.remove(&key) else { continue };
            if let Some(count) = self.failed.get_mut(&subject) {
                *count -= 1;
                if *count == 0 {
                    self.failed.remove(&subject);
                }
            }
        }
    }

    /// What was to be recorded could not be, and has to be again, before anything that came since.
    pub fn not_recorded(&mut self, mut record: Record) {
        self.recording.clear();
        record.append(&mut self.unrecorded);
        self.unrecorded = record;
    }

    /// Whether everything that became of rows is recorded.
    pub fn is_recorded(&self) -> bool {
        self.unrecorded.is_empty() && self.recording.is_empty()
    }
}
