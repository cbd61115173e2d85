//! Callbacks that come before their time, twice, backwards, or after the last word.

use bytes::Bytes;

use super::findings::{Check, Finding};
use super::specimen::News;
use super::visit::Visit;

/// A message the app has never heard of.
pub static UNKNOWN_ID: Check = Check {
    name: "unknown-id",
    sends: "a receipt about an id the app has never seen",
    why: "A callback can arrive before the app has committed the id that the send call gave it: an \
          unknown id is normal, and a 404 loses the receipt for ever.",
    mend: "Keep the receipt by its id whether the app knows that id or not, answer 2xx, and join the \
           two when the app has stored its own. Is the path of the URL right?",
    is_gate: false,
};

/// The same twice.
pub static DUPLICATE: Check = Check {
    name: "duplicate",
    sends: "the same receipt twice, byte for byte",
    why: "The senders deliver at least once: after a time-out, a broken connection or a redelivery of \
          their queue the same receipt comes again.",
    mend: "Answer 2xx to what you have already. With SQL: INSERT … ON CONFLICT DO NOTHING; a unique \
           key that is violated is no error.",
    is_gate: false,
};

/// The later news first.
pub static REVERSED: Check = Check {
    name: "reversed-order",
    sends: "`delivered`, then the `sending` of the same message that came before it",
    why: "Retries wait in a queue of their own, so older news overtakes newer on every platform.",
    mend: "Never refuse a receipt because the message is past it: answer 2xx, and let the highest \
           `completed_at` win, not the last to arrive.",
    is_gate: false,
};

/// What was final was not.
pub static BOUNCE_AFTER_DELIVERED: Check = Check {
    name: "bounce-after-delivered",
    sends: "`delivered`, then a later `permanent-failure` of the same message",
    why: "A late bounce turns a delivered message into a failed one; the platforms report it as \
          another receipt.",
    mend: "Treat no status as the last word: answer 2xx, and let the highest `completed_at` win.",
    is_gate: false,
};

/// Makes all checks of this theme, the plainest first.
pub async fn run(visit: &mut Visit) -> Vec<Finding> {
    let unknown = visit.fresh(&UNKNOWN_ID, News::Delivered).bytes();
    let twice = visit.fresh(&DUPLICATE, News::Delivered).bytes();
    let reversed = of_one_message(visit, &REVERSED, [News::Delivered, News::Sending]);
    let bounced = of_one_message(visit, &BOUNCE_AFTER_DELIVERED, [News::Delivered, News::Bounced]);
    vec![
        visit.expect_accepted(&UNKNOWN_ID, &[unknown]).await,
        visit.expect_accepted(&DUPLICATE, &[twice.clone(), twice]).await,
        visit.expect_accepted(&REVERSED, &reversed).await,
        visit.expect_accepted(&BOUNCE_AFTER_DELIVERED, &bounced).await,
    ]
}

/// Receipts of one message in the order in which they are sent.
fn of_one_message(visit: &mut Visit, check: &Check, news: [News; 2]) -> [Bytes; 2] {
    let last = news.into_iter().max_by_key(|news| news.version()).unwrap_or(News::Delivered);
    let id = visit.new_id(check, last.status(visit.platform().provider()));
    news.map(|news| visit.receipt(&id, news).bytes())
}
