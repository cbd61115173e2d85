//! Why one callback decides the status of a notification and the others do not, in words.
//!
//! Pure: the callbacks come in as they were read again from the journal, and as history lines where
//! their bodies were pruned. The order is that of [`Precedence`], the same that settling uses; here
//! it is only put into words, so the two cannot disagree about the winner.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::output::moment;
use crate::callback::{Fingerprint, Kind, Precedence, Standing};
use crate::clock::Timestamp;
use crate::state::read::HistoryLine;

/// A callback about the notification, in the order of the journal.
#[derive(Clone, Debug)]
pub enum Told {
    /// Read again from the journal.
    Read {
        /// Its line of history.
        line: HistoryLine,
        /// What kind of news.
        kind: Kind,
        /// The status it tells.
        standing: Option<Standing>,
        /// Of the event's bytes.
        fingerprint: Fingerprint,
    },
    /// Its body was pruned.
    Pruned(HistoryLine),
    /// The journal has it, but it is no longer read as news of this notification.
    Unread(HistoryLine),
}

/// What came of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The state has its status.
    Wins,
    /// Another one has precedence.
    Loses,
    /// An identical one came before.
    Duplicate,
    /// It tells no status.
    NoStatus,
    /// It is no longer known how it compares.
    Unknown,
}

/// A callback with its verdict; what `explain --format json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The callback.
    #[serde(flatten)]
    pub history: HistoryLine,
    /// What came of it.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
}

/// Judges the callbacks about one notification whose status is `status`, reached at `completed_at`.
/// Those that told a status come first, by precedence, then the rest by position.
pub fn judge(told: Vec<Told>, status: Option<&str>, completed_at: Option<Timestamp>) -> Vec<Line> {
    let mut candidates = Vec::new();
    let mut lines = Vec::new();
    let mut first_seen: HashMap<Fingerprint, i64> = HashMap::new();
    for told in told {
        match sort(told, &mut first_seen) {
            Sorted::Candidate(candidate) => candidates.push(candidate),
            Sorted::Other(line) => lines.push(line),
        }
    }
    candidates.sort_by_key(|candidate| Reverse(candidate.order()));
    let is_state = |c: &Candidate| c.line.status.as_deref() == status && c.time() == completed_at;
    // What was pruned is known only by what it told, so the state decides whether it won.
    if let Some(winner) = candidates.iter().position(is_state)
        && candidates.iter().any(|candidate| candidate.precedence.is_none())
    {
        let winner = candidates.remove(winner);
        candidates.insert(0, winner);
    }
    let mut judged = rank(&candidates);
    judged.extend(lines);
    judged
}

/// A callback that told a status. Without a precedence its body was pruned.
struct Candidate {
    line: HistoryLine,
    precedence: Option<Precedence>,
}

impl Candidate {
    /// When its status was reached, which for the Notify family is its version.
    fn time(&self) -> Option<Timestamp> {
        self.line.completed_at
    }

    fn version(&self) -> Option<Timestamp> {
        self.precedence.map_or(self.line.completed_at, |precedence| precedence.version)
    }

    fn order(&self) -> (Option<Timestamp>, Option<Precedence>) {
        (self.version(), self.precedence)
    }

    fn status(&self) -> &str {
        self.line.status.as_deref().unwrap_or_default()
    }
}

enum Sorted {
    Candidate(Candidate),
    Other(Line),
}

fn sort(told: Told, first_seen: &mut HashMap<Fingerprint, i64>) -> Sorted {
    let other =
        |history, verdict, why: &str| Sorted::Other(Line { history, verdict, why: why.to_owned() });
    match told {
        Told::Read { line, kind, standing, fingerprint } => {
            if let Some(first) = first_seen.get(&fingerprint) {
                let why = format!("identical to seq {first}: counted as duplicate");
                return other(line, Verdict::Duplicate, &why);
            }
            first_seen.insert(fingerprint, line.seq);
            match standing {
                _ if line.duplicate => other(line, Verdict::Duplicate, IDENTICAL_TO_PRUNED),
                None => other(line, Verdict::NoStatus, no_status(kind)),
                Some(Standing { precedence, status, completed_at, .. }) => {
                    let line = HistoryLine { status: Some(status), completed_at, ..line };
                    Sorted::Candidate(Candidate { line, precedence: Some(precedence) })
                }
            }
        }
        Told::Pruned(line) if line.duplicate => {
            other(line, Verdict::Duplicate, IDENTICAL_TO_PRUNED)
        }
        Told::Pruned(line) if line.status.is_some() => {
            Sorted::Candidate(Candidate { line, precedence: None })
        }
        Told::Pruned(line) => {
            let kind = Kind::from_word(&line.kind).unwrap_or(Kind::Receipt);
            let why = format!("{}; {PRUNED}", no_status(kind));
            other(line, Verdict::NoStatus, &why)
        }
        Told::Unread(line) => other(line, Verdict::Unknown, UNREAD),
    }
}

const PRUNED: &str = "its body was pruned, this is what history kept";

const IDENTICAL_TO_PRUNED: &str = "identical to an earlier callback: counted as duplicate";

const UNREAD: &str = "its body is no longer read as news of this notification: was the source's \
                      provider changed? `receiptd rebuild` settles it as it is read now";

fn no_status(kind: Kind) -> &'static str {
    match kind {
        Kind::Complaint => "carries no status: joined as complained_at",
        Kind::ReturnedLetter => "carries no status: joined as returned_at",
        Kind::Receipt | Kind::ReceivedMessage => "carries no status: recorded only",
    }
}

/// What each candidate is told; the first is the winner.
fn rank(candidates: &[Candidate]) -> Vec<Line> {
    let Some((winner, others)) = candidates.split_first() else { return Vec::new() };
    let mut lines = vec![wins(winner, others.first())];
    lines.extend(others.iter().map(|other| loses(other, winner)));
    for (line, candidate) in lines.iter_mut().zip(candidates) {
        if candidate.precedence.is_none() {
            line.why = format!("{}; {PRUNED}", line.why);
        }
    }
    lines
}

fn wins(winner: &Candidate, second: Option<&Candidate>) -> Line {
    let why = match second {
        None => "wins: nothing else tells a status".to_owned(),
        Some(second) => match Difference::between(winner, second) {
            Difference::Version => match winner.version() {
                Some(version) => format!("wins: latest completed_at {}", moment(version)),
                None => "wins: the state has its status".to_owned(),
            },
            Difference::Rank => format!("wins: {}", outranks(winner, second)),
            Difference::Fingerprint => format!("wins: {}", tie(second.line.seq)),
            Difference::Unknown => "wins: the state has its status".to_owned(),
        },
    };
    Line { history: winner.line.clone(), verdict: Verdict::Wins, why }
}

fn loses(loser: &Candidate, winner: &Candidate) -> Line {
    let seq = winner.line.seq;
    let mut verdict = Verdict::Loses;
    let why = match Difference::between(winner, loser) {
        Difference::Version => older(loser, winner),
        Difference::Rank => outranked(loser, winner),
        Difference::Fingerprint => tie(seq),
        Difference::Unknown => {
            verdict = Verdict::Unknown;
            format!("same completed_at as seq {seq}; what decided between them was pruned")
        }
    };
    Line { history: loser.line.clone(), verdict, why }
}

/// What decides between two candidates.
enum Difference {
    Version,
    Rank,
    Fingerprint,
    /// A pruned body took it along.
    Unknown,
}

impl Difference {
    fn between(a: &Candidate, b: &Candidate) -> Self {
        match (a.precedence, b.precedence) {
            _ if a.version() != b.version() => Self::Version,
            (Some(a), Some(b)) if a.rank != b.rank => Self::Rank,
            (Some(_), Some(_)) => Self::Fingerprint,
            _ => Self::Unknown,
        }
    }
}

fn older(loser: &Candidate, winner: &Candidate) -> String {
    let seq = winner.line.seq;
    match (loser.version(), winner.version()) {
        (None, _) => format!("no completed_at, which counts as older than any: seq {seq} has one"),
        (Some(own), Some(other)) if own < other => {
            format!(
                "older than seq {seq}: completed_at {} is before {}",
                moment(own),
                moment(other)
            )
        }
        // Only a winner whose rank was pruned with its body can be older.
        _ => format!("the state has the status of seq {seq}, whatever their completed_at"),
    }
}

fn outranks(winner: &Candidate, second: &Candidate) -> String {
    let seq = second.line.seq;
    let (own, other) = (winner.status(), second.status());
    match winner.version() {
        _ if own == other => format!("its event comes later in a message's life than seq {seq}"),
        Some(_) => format!("same completed_at as seq {seq}, but {own} outranks {other}"),
        None => format!("no callback says when, and {own} outranks {other} (seq {seq})"),
    }
}

fn outranked(loser: &Candidate, winner: &Candidate) -> String {
    let seq = winner.line.seq;
    let (own, other) = (loser.status(), winner.status());
    match loser.version() {
        _ if own == other => format!("the event of seq {seq} comes later in a message's life"),
        Some(_) => format!("same completed_at as seq {seq}, but {other} outranks {own}"),
        None => format!("neither says when, and {other} (seq {seq}) outranks {own}"),
    }
}

fn tie(seq: i64) -> String {
    format!("tied with seq {seq}; the greater fingerprint decides, the same on every machine")
}
