//! Why a sink did not take a change, and what follows from that.

use std::fmt;
use std::time::Duration;

/// Why a sink did not take a change. The text is kept beside the change and logged, so it says what
/// happened (a code, the kind of an error) and never what the sink answered or what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It may pass: the change is sent again, with the same id.
    Passing {
        /// What happened.
        why: String,
        /// Not before this has passed, if the sink said so.
        retry_after: Option<Duration>,
    },
    /// The sink will never take this change: it is parked, and the next one goes on.
    Refused {
        /// What happened.
        why: String,
    },
    /// The sink is there no more and says so: nothing that waits in an outbox is sent to it until the next
    /// start.
    Gone {
        /// What happened.
        why: String,
    },
}

impl Fault {
    /// Something that may pass.
    pub fn passing(why: impl Into<String>) -> Self {
        Self::Passing { why: why.into(), retry_after: None }
    }

    /// Something that will not.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into() }
    }

    /// What happened.
    pub fn why(&self) -> &str {
        match self {
            Self::Passing { why, .. } | Self::Refused { why } | Self::Gone { why } => why,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for Fault {}
