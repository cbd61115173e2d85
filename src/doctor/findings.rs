//! What a check is, and what came of it.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// Something that a receiver can get wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name: lower case, words joined by `-`. Part of the public interface.
    pub name: &'static str,
    /// What is sent, a sentence.
    pub sends: &'static str,
    /// Why it matters, a sentence: what the platforms do.
    pub why: &'static str,
    /// What to change in a receiver that fails.
    pub mend: &'static str,
    /// Whether nothing after it can be told if it fails.
    pub is_gate: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Does not apply, or could not be tried.
    Skipped,
    /// Nothing is lost by it alone.
    Warn,
    /// A callback would be lost for good, or all that follow.
    Lost,
    /// It accepts what it must refuse.
    Unsafe,
}

impl Severity {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warn => "warn",
            Self::Lost => "lost",
            Self::Unsafe => "unsafe",
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which check.
    #[serde(serialize_with = "name")]
    pub check: &'static Check,
    /// How bad it is.
    pub severity: Severity,
    /// What was sent.
    pub sent: &'static str,
    /// The answers, or why there was none; of a skipped check, why it was.
    pub came_back: String,
    /// What the platform does with that.
    pub sender_would: String,
    /// Why that matters.
    pub why: &'static str,
    /// What to change; empty where nothing is to be.
    pub mend: &'static str,
    /// The check whose finding explains this one: mend that first.
    pub because_of: Option<&'static str>,
    /// How long it took.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub took: Duration,
}

impl Finding {
    /// What came of a check that was made.
    pub fn new(
        check: &'static Check,
        severity: Severity,
        came_back: impl Into<String>,
        sender_would: impl Into<String>,
    ) -> Self {
        let is_to_mend = !matches!(severity, Severity::Ok | Severity::Skipped);
        Self {
            check,
            severity,
            sent: check.sends,
            came_back: came_back.into(),
            sender_would: sender_would.into(),
            why: check.why,
            mend: if is_to_mend { check.mend } else { "" },
            because_of: None,
            took: Duration::ZERO,
        }
    }

    /// A check that was not made.
    pub fn skipped(check: &'static Check, because: impl Into<String>) -> Self {
        Self::new(check, Severity::Skipped, because, "")
    }

    /// The same, with how long it took.
    #[must_use]
    pub fn within(self, took: Duration) -> Self {
        Self { took, ..self }
    }

    /// Whether something is lost, or let in.
    pub fn is_failure(&self) -> bool {
        self.severity >= Severity::Lost
    }
}

/// A message that was told of, to be looked up and removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Its id; also its reference, where the platform has one.
    pub id: String,
    /// The check that told of it.
    pub check: &'static str,
    /// What a right receiver holds of it now.
    pub expected: String,
}

/// Everything that was found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each of [`super::CHECKS`], in that order.
    pub findings: Vec<Finding>,
    /// Every id that was sent.
    pub written: Vec<Written>,
}

impl Report {
    /// How many findings are of that severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Whether nothing would be lost and nobody let in.
    pub fn is_safe(&self) -> bool {
        !self.findings.iter().any(Finding::is_failure)
    }
}

fn name<S: Serializer>(check: &&'static Check, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(check.name)
}

fn seconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}
