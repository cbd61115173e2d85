//! What an answer would add to what is known.
//!
//! Decided by [`merge`](crate::merge) alone: an answer is joined to the facts of its notification, and
//! is news if its status group is another then: a status, or its version, or what belongs to it. What
//! callbacks leave out (those of GC Notify name no template) comes along with that and is no news by
//! itself, or everything would be appended once more. It reads the state through a connection of its own that is
//! opened anew for each look, so a state file that was set aside meanwhile is noticed.
//!
//! What was [pruned](crate::settle::prune) is not known any more, and is no news all the same: what was
//! created before the time that the journal notes is news only if it is known, or if the app says that
//! it sent it. An answer that was on its way while somebody pruned is judged by that too.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::callback::{Event, Fingerprint, News, Standing};
use crate::clock::Timestamp;
use crate::ends::Ends;
use crate::journal::{self, AskedThrough, PerList, Rounds, pruned_before};
use crate::merge::Facts;
use crate::provider::polled::Said;
use crate::sqlite::{self, Access, OpenError};
use crate::state::expected::{self, Overdue, Question, overdue};
use crate::state::outstanding::{self, Outstanding};
use crate::state::tables::SCHEMA;
use crate::state::write::{find_message, find_notification};

/// What an answer heals; the words are those of the metrics and of the command.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Heals {
    /// A notification has another status than we knew.
    Status,
    /// A notification that we had never heard of.
    Notification,
    /// A text message from the public that we had never heard of.
    Message,
    /// The status we knew, of a later version, or with other words about it.
    Version,
}

impl Heals {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Status, Self::Notification, Self::Message, Self::Version];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Notification => "notification",
            Self::Message => "message",
            Self::Version => "version",
        }
    }

    fn is_of_what_is_unknown(self) -> bool {
        matches!(self, Self::Notification | Self::Message)
    }
}

/// Why it cannot be told what is known.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite says why.
    #[error("failed to read what is known: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What the state file knows, and the journal beside it.
#[derive(Clone, Debug)]
pub struct Known {
    journal: PathBuf,
    state: PathBuf,
    ends: Ends,
}

impl Known {
    /// Of the state at that path; with what is an end in the sources that it is asked about.
    pub fn new(state: &Path, ends: Ends) -> Self {
        Self { journal: journal::path_beside(state), state: state.to_owned(), ends }
    }

    /// Whether an answer tells of a notification that has not come to an end.
    pub fn is_open(&self, source: &str, said: &Said) -> bool {
        match &said.event.news {
            News::Message(_) => false,
            News::Notification(report) => {
                let status = report.standing.as_ref().map(|standing| standing.status.as_str());
                let kind = report.identity.notification_type.as_deref();
                !self.ends.is_end(source, status, kind)
            }
        }
    }

    /// What each of these would heal; `None` where it says nothing new. `expected` is the key of what
    /// the app said it sent, where that is why it was asked for.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn look(
        &self,
        source: &str,
        said: &[Said],
        expected: Option<i64>,
    ) -> Result<Vec<Option<Heals>>, Unknown> {
        let state = self.open()?;
        let heals = said.iter().map(|said| heals(&state, source, &said.event));
        let mut heals = heals.collect::<rusqlite::Result<Vec<_>>>()?;
        if expected.map_or(Ok(false), |key| expected::has(&state, key))? {
            return Ok(heals);
        }
        // After the state was read: whoever prunes makes the note before anything is removed.
        let Some(pruned) = self.pruned_before()? else { return Ok(heals) };
        for (heals, said) in heals.iter_mut().zip(said) {
            let is_pruned = said.created_at.is_some_and(|at| at < pruned);
            heals.take_if(|heals| is_pruned && heals.is_of_what_is_unknown());
        }
        Ok(heals)
    }

    /// What is noted of asking that source's platform. What cannot be read is as good as no note.
    pub fn noted(&self, source: &str) -> (PerList<Option<AskedThrough>>, Rounds) {
        let Ok(journal) = sqlite::open(&self.journal, &journal::SCHEMA, Access::Read) else {
            return Default::default();
        };
        let through = AskedThrough::of(&journal, source).unwrap_or_default();
        (through, Rounds::of(&journal, source).unwrap_or_default())
    }

    /// Makes sure that the state can be asked, before anybody is.
    ///
    /// # Errors
    /// If it cannot, or is of an older version.
    pub fn check(&self) -> Result<(), Unknown> {
        self.open()?;
        Ok(())
    }

    /// What was created before this was pruned, if anything was.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn pruned_before(&self) -> Result<Option<Timestamp>, Unknown> {
        let journal = sqlite::open(&self.journal, &journal::SCHEMA, Access::Read)?;
        sqlite::check_is_current(&journal, &self.journal, &journal::SCHEMA)?;
        Ok(pruned_before(&journal)?)
    }

    /// The notifications of that source that have not come to an end, first heard of at or after
    /// `since`, behind `key`, longest ago first; at most `rows_max`, and fewer only if there are no more.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn outstanding(
        &self,
        source: &str,
        (since, key): (Timestamp, i64),
        rows_max: usize,
    ) -> Result<Vec<Outstanding>, Unknown> {
        let state = self.open()?;
        Ok(outstanding::outstanding(&state, source, &self.ends, (since, key), rows_max)?)
    }

    /// What the app said it sent through that source, at or after `said_since`, and has not come to an
    /// end in time; behind `behind`, longest ago first, at most `rows_max`.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn overdue(
        &self,
        source: &str,
        (now, said_since): (Timestamp, Timestamp),
        behind: i64,
        rows_max: usize,
    ) -> Result<Vec<Overdue>, Unknown> {
        let (source, said_since) = (Some(source), Some(said_since));
        // Without a deadline it is asked for by id only once it is known, like any other.
        let said_before = Timestamp::from_unix_micros(i64::MIN);
        let ends = &self.ends;
        let is_new = false;
        let question =
            Question { source, ends, now, said_before, said_since, behind, rows_max, is_new };
        Ok(overdue(&self.open()?, &question)?)
    }

    /// One that an older version wrote, and that nobody has opened to write since, is said to be that.
    fn open(&self) -> Result<Connection, OpenError> {
        let state = sqlite::open(&self.state, &SCHEMA, Access::Read)?;
        sqlite::check_is_current(&state, &self.state, &SCHEMA)?;
        Ok(state)
    }
}

fn heals(state: &Connection, source: &str, event: &Event) -> rusqlite::Result<Option<Heals>> {
    match &event.news {
        News::Message(message) => {
            let known = find_message(state, source, &message.id)?;
            Ok(known.is_none().then_some(Heals::Message))
        }
        News::Notification(report) => {
            let Some((_, known)) = find_notification(state, source, &report.id)? else {
                return Ok(Some(Heals::Notification));
            };
            // No answer tells of a complaint or a letter that came back, for which the time counts.
            let said = Facts::of((**report).clone(), known.first_received_at);
            let joined = known.facts.clone().join(said);
            Ok(difference(known.facts.standing, joined.standing))
        }
    }
}

/// What is different about the joined status group but for the bytes that it was told in.
fn difference(known: Option<Standing>, joined: Option<Standing>) -> Option<Heals> {
    let without_bytes = |mut standing: Standing| {
        standing.precedence.fingerprint = Fingerprint::default();
        standing
    };
    let [known, joined] = [known, joined].map(|standing| standing.map(without_bytes));
    if known == joined {
        return None;
    }
    let [known, joined] = [known, joined].map(|standing| standing.map(|standing| standing.status));
    Some(if known == joined { Heals::Version } else { Heals::Status })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::polled::FLAWS;
    use crate::telemetry::{HEALED, UNREADABLE};

    #[test]
    fn whatever_is_wrong_with_an_element_is_counted_under_its_own_word() {
        assert_eq!(UNREADABLE[..FLAWS.len()], FLAWS);
    }

    #[test]
    fn what_is_healed_is_counted_under_its_own_word() {
        assert_eq!(Heals::ALL.map(Heals::as_str), HEALED);
        for (place, heals) in Heals::ALL.into_iter().enumerate() {
            assert_eq!(heals as usize, place);
        }
    }
}
