//! Receipts → state, and nothing else.
//!
//! [`Facts::join`] is commutative, associative and idempotent: the facts known of a notification
//! are a function of the *set* of its receipts, whatever order they came in, however often, and
//! however they were cut into batches. It is pure, total, and knows no I/O, no clock and no
//! provider. Each field is a join of its own:
//!
//! - the status group moves as one unit: the higher [`Precedence`](crate::callback::Precedence)
//!   wins;
//! - texts: a value beats none, then the greater text, so that two receipts that disagree give the
//!   same answer on every machine;
//! - `created_at`, `complained_at`, `returned_at`: a value beats none, then the earlier instant.

use crate::callback::{Fingerprint, Identity, Kind, Report, Standing};
use crate::clock::Timestamp;

/// What is known of a notification: the join of everything reported about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The winning status, if any receipt told one.
    pub standing: Option<Standing>,
    /// What does not change.
    pub identity: Identity,
    /// The first complaint.
    pub complained_at: Option<Timestamp>,
    /// When we first heard that the letter came back: the sender does not say when it did.
    pub returned_at: Option<Timestamp>,
}

impl Facts {
    /// Whether they say the same, whichever bytes said it: a platform that is asked and one that calls
    /// back tell one thing in two shapes.
    pub fn is_same_but_for_bytes(&self, other: &Self) -> bool {
        let without = |facts: &Self| {
            let mut facts = facts.clone();
            if let Some(standing) = &mut facts.standing {
                standing.precedence.fingerprint = Fingerprint::default();
            }
            facts
        };
        self == other || without(self) == without(other)
    }

    /// What one report says by itself. `received_at` stands in for what a sender does not tell:
    /// when a letter came back and, if the date is missing or unreadable, when a recipient
    /// complained. A complaint thus always marks its notification.
    pub fn of(report: Report, received_at: Timestamp) -> Self {
        Self {
            standing: report.standing,
            identity: report.identity,
            complained_at: (report.kind == Kind::Complaint)
                .then(|| report.complained_at.unwrap_or(received_at)),
            returned_at: (report.kind == Kind::ReturnedLetter).then_some(received_at),
        }
    }

    /// Everything either side knows.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            standing: self.standing.max(other.standing),
            identity: join_identity(self.identity, other.identity),
            complained_at: earlier(self.complained_at, other.complained_at),
            returned_at: earlier(self.returned_at, other.returned_at),
        }
    }
}

fn join_identity(a: Identity, b: Identity) -> Identity {
    Identity {
        reference: a.reference.max(b.reference),
        recipient: a.recipient.max(b.recipient),
        notification_type: a.notification_type.max(b.notification_type),
        template_id: a.template_id.max(b.template_id),
        template_version: a.template_version.max(b.template_version),
        created_at: earlier(a.created_at, b.created_at),
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}
