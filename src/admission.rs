//! Waiting for a place among a bounded number of connections.
//!
//! The callback listener and the admin listener both have as many places as are configured. Whoever
//! comes when all are taken is let wait, and each time it looks, the listener asks somebody to make
//! room: whom, is its own to say. A place is a value; dropping it gives it back and must notify.

use std::time::Duration;

use tokio::sync::Notify;

/// How long a connection may be silent before it can be asked to make room: two round trips of a
/// TLS handshake across a continent.
pub const GRACE: Duration = Duration::from_millis(250);

/// How often somebody who waits for a place looks whether one has been silent for too long.
pub const LOOK: Duration = Duration::from_millis(25);

/// What `try_admit` gives, once it gives something: it is asked at once, then whenever `left` was
/// notified and every [`LOOK`].
pub async fn admit<T>(left: &Notify, mut try_admit: impl FnMut() -> Option<T>) -> T {
    loop {
        let left = left.notified();
        tokio::pin!(left);
        left.as_mut().enable();
        if let Some(place) = try_admit() {
            return place;
        }
        // Elapsed: by now somebody may have been silent for too long.
        let _ = tokio::time::timeout(LOOK, left).await;
    }
}
