//! Why a platform gave no answer that can be used.
//!
//! | answer | is |
//! |---|---|
//! | 404 to a notification | nothing is known of it: it is too old, or was sent with another kind of key |
//! | 408, 425, 5xx, none | asked again after a pause |
//! | 429 | the same; the platform limits us |
//! | 401, 403 | the key is wrong, or our clock |
//! | any other, a redirect too, and whatever cannot be read | wrong: to ask again would not help |
//!
//! A reason holds no word of the platform's and no value of ours: it may be logged.

use std::time::Duration;

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The platform knows no such notification.
    #[error("nothing is known of it")]
    NotFound,
    /// It may be different later.
    #[error("{why}")]
    Passing {
        /// A fragment.
        why: String,
        /// What the platform asks to wait.
        retry_after: Option<Duration>,
    },
    /// Too many requests.
    #[error("answered 429: the platform limits us")]
    Limited {
        /// What the platform asks to wait.
        retry_after: Option<Duration>,
    },
    /// It does not let us in.
    #[error("answered {code}: the key is not accepted, or this clock is wrong")]
    Denied {
        /// 401 or 403.
        code: u16,
    },
    /// Asking again would not help.
    #[error("{why}")]
    Wrong {
        /// A fragment.
        why: String,
    },
}

impl Fault {
    /// It may be different later.
    pub fn passing(why: impl Into<String>) -> Self {
        Self::Passing { why: why.into(), retry_after: None }
    }

    /// Asking again would not help.
    pub fn wrong(why: impl Into<String>) -> Self {
        Self::Wrong { why: why.into() }
    }

    /// How long to wait before asking again, as far as the platform says; `None` if that would not
    /// help.
    pub fn may_pass(&self) -> Option<Duration> {
        match self {
            Self::Passing { retry_after, .. } | Self::Limited { retry_after } => {
                Some(retry_after.unwrap_or_default())
            }
            Self::NotFound | Self::Denied { .. } | Self::Wrong { .. } => None,
        }
    }
}
