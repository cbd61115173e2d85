//! What a receipt may hold: nothing, words nobody has heard of, a great deal, half of itself.
//!
//! All of them are authentic. A receiver that refuses what it does not understand loses it; one
//! that fails over it is asked again, fails again, and loses it then.

use super::findings::{Check, Finding};
use super::specimen::News;
use super::visit::Visit;

/// Null wherever it may be.
pub static NULLS: Check = Check {
    name: "nulls",
    sends: "a receipt with null in every field that may have it",
    why: "`reference`, `to`, `sent_at`, `completed_at` and the provider's words are null on real \
          receipts, `sent_at` even on a delivered one.",
    mend: "Make every field but `id` and `status` optional in the schema (Optional[str] = None, \
           .nullish()), and the columns nullable.",
    is_gate: false,
};

/// A new word.
pub static UNKNOWN_STATUS: Check = Check {
    name: "unknown-status",
    sends: "a receipt with a status that no platform uses today",
    why: "The statuses are an open set: the platforms add words without notice. A schema that lists \
          them answers 422, which is never sent again.",
    mend: "Keep the status as text, not as an enumeration, answer 2xx, and decide later what the word \
           means.",
    is_gate: false,
};

/// New keys.
pub static UNKNOWN_KEYS: Check = Check {
    name: "unknown-keys",
    sends: "a receipt with three more keys: a text, a number and an object",
    why: "The platforms add keys over time; GC Notify added two in 2025.",
    mend: "Ignore keys you do not know: no extra=\"forbid\", no additionalProperties: false, no \
           .strict().",
    is_gate: false,
};

/// The size of the large one.
const LARGE_BYTES: usize = 64 << 10;

/// A long one.
pub static LARGE: Check = Check {
    name: "large-body",
    sends: "a receipt of 64 KiB, most of it in a field that the platforms do not bound",
    why: "References are unbounded on most platforms, and texts and provider payloads are long; a 413 \
          is never sent again.",
    mend: "Raise the limit for bodies to 1 MiB, in the framework and in the proxy before it \
           (client_max_body_size, express.json({limit}), LimitRequestBody).",
    is_gate: false,
};

/// Half of one.
pub static UNREADABLE: Check = Check {
    name: "unreadable-body",
    sends: "the first half of a receipt, with the right token: no JSON",
    why: "What cannot be read today may be readable tomorrow, if it was kept. A 4xx loses it; a 5xx \
          is asked again until the retries are used up, and GC Notify then suspends every callback of \
          the service.",
    mend: "Store the bytes of the body before parsing them, answer 2xx whatever the parser says, and \
           raise an alarm on what it could not read.",
    is_gate: false,
};

/// Makes all checks of this theme.
pub async fn run(visit: &mut Visit) -> Vec<Finding> {
    let nulls = visit.fresh(&NULLS, News::Delivered).with_nulls().bytes();
    let status = visit.fresh(&UNKNOWN_STATUS, News::Unheard).bytes();
    let keys = visit.fresh(&UNKNOWN_KEYS, News::Delivered).with_unknown_keys().bytes();
    let large = visit.fresh(&LARGE, News::Delivered).of_length(LARGE_BYTES).bytes();
    let mut findings = vec![
        visit.expect_accepted(&NULLS, &[nulls]).await,
        visit.expect_accepted(&UNKNOWN_STATUS, &[status]).await,
        visit.expect_accepted(&UNKNOWN_KEYS, &[keys]).await,
        visit.expect_accepted(&LARGE, &[large]).await,
    ];
    findings.push(unreadable(visit).await);
    findings
}

async fn unreadable(visit: &mut Visit) -> Finding {
    if visit.is_signed() {
        return Finding::skipped(&UNREADABLE, "what is no JSON object has no signature");
    }
    let id = visit.new_id(&UNREADABLE, "nothing, or the bytes as they came");
    let cut = visit.receipt(&id, News::Delivered).cut();
    visit.expect_accepted(&UNREADABLE, &[cut]).await
}
