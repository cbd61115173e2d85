//! Who makes a callback safe, so that it may be answered 2xx.
//!
//! The front door hands a callback over and hears one of two things: it is safe, or it is not and
//! the sender must come again. How it was made safe is none of its business.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::journal::{Entry, Journal, Refused};
use crate::relay::{NotPassedOn, Relay};

/// Whether a callback for which there is no room repeats one that is kept: asked with the source's
/// name and the body. Must be quick.
pub struct IsKept(pub Box<Ask>);

/// See [`IsKept`].
pub type Ask = dyn Fn(&str, &[u8]) -> bool + Send + Sync;

impl fmt::Debug for IsKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IsKept")
    }
}

/// Why a callback is not safe. All of these are answered 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// The journal said no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing was heard in time; it may become safe yet.
    #[error("no commit in time")]
    Late,
    /// A sink has not accepted it.
    #[error(transparent)]
    NotPassedOn(#[from] NotPassedOn),
}

/// Makes callbacks safe.
#[derive(Debug)]
pub enum Keeper {
    /// On the disk of this machine.
    Journal {
        /// Where callbacks go.
        journal: Journal,
        /// Asked on a full disk.
        is_kept: IsKept,
        /// How long to wait for the commit.
        ack_wait_max: Duration,
    },
    /// With sinks elsewhere.
    Relay(Arc<Relay>),
}

impl Keeper {
    /// Returns once the callback is safe. It owns the bytes from here on: a caller that hangs up, or
    /// that waits in vain, changes nothing for them.
    ///
    /// # Errors
    /// If it is not, or not in time.
    pub async fn keep(&self, entry: Entry) -> Result<(), NotKept> {
        match self {
            Self::Journal { journal, is_kept, ack_wait_max } => {
                append(journal, is_kept, *ack_wait_max, entry).await
            }
            Self::Relay(relay) => Ok(relay.pass_on(entry).await?),
        }
    }
}

async fn append(
    journal: &Journal,
    is_kept: &IsKept,
    ack_wait_max: Duration,
    entry: Entry,
) -> Result<(), NotKept> {
    let (source, body) = (entry.source.clone(), entry.body.clone());
    let told = journal.append(entry)?;
    match timeout(ack_wait_max, told).await {
        Ok(Ok(Ok(_seq))) => Ok(()),
        // Refused until its sender gives up, a repeat could get all callbacks suspended.
        Ok(Ok(Err(Refused::DiskFull))) if (is_kept.0)(&source, &body) => Ok(()),
        Ok(Ok(Err(why))) => Err(why.into()),
        Ok(Err(_)) => Err(Refused::Closed.into()),
        Err(_) => Err(NotKept::Late),
    }
}
