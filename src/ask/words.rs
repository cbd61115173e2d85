//! The words of the platforms' read API: which statuses may be asked for, and what some of them stand
//! for.

use super::fault::Voice;
use crate::provider::notify::{FAILURES, is_known_status};

/// The statuses of GOV.UK Notify, in the order of its error message.
const GOVUK: [&str; 16] = [
    "cancelled",
    "created",
    "sending",
    "sent",
    "delivered",
    "pending",
    "failed",
    "technical-failure",
    "temporary-failure",
    "permanent-failure",
    "pending-virus-check",
    "validation-failed",
    "virus-scan-failed",
    "returned-letter",
    "accepted",
    "received",
];

/// What GC Notify has beside those.
const GC_TOO: [&str; 2] = ["provider-failure", "pii-check-failed"];

/// The types of message that may be asked for, in the order of the error message.
pub(super) const TYPES: [&str; 3] = ["sms", "email", "letter"];

/// Types that relatives have beside those.
const TYPES_TOO: [&str; 2] = ["push", "messagebox"];

/// The status of a notification of which no status was ever told: it exists.
pub(super) const UNTOLD: &str = "created";

const SENDING: &str = "sending";
const DELIVERED: &str = "delivered";

/// A letter that is still to be printed.
const ACCEPTED: &str = "accepted";

/// A letter that was posted.
const RECEIVED: &str = "received";

/// Every status that may be asked for, as the error message lists them.
pub(super) fn statuses(voice: Voice) -> Vec<&'static str> {
    let more: &[&str] = if voice == Voice::Gc { &GC_TOO } else { &[] };
    GOVUK.iter().chain(more).copied().collect()
}

/// Whether that is a status to ask for: a word of any platform of the family.
pub(super) fn is_status(word: &str) -> bool {
    is_known_status(word)
}

/// Whether that is a type to ask for.
pub(super) fn is_type(word: &str) -> bool {
    TYPES.contains(&word) || TYPES_TOO.contains(&word)
}

/// The statuses, as they are kept, that one which is asked for stands for. Of what no status was told is
/// kept as empty.
///
/// The platforms have two words of their own for letters, beside those by which they keep them: what is
/// created or being sent they show as `accepted`, what is delivered as `received`. A list may be asked for
/// by either, whatever the type. A letter that was asked for is kept by the word that was shown.
pub(super) fn stands_for(status: &str) -> Vec<&str> {
    match status {
        "failed" => FAILURES.to_vec(),
        ACCEPTED => vec![ACCEPTED, UNTOLD, "", SENDING],
        UNTOLD => vec![UNTOLD, "", ACCEPTED],
        SENDING => vec![SENDING, ACCEPTED],
        RECEIVED => vec![RECEIVED, DELIVERED],
        DELIVERED => vec![DELIVERED, RECEIVED],
        other => vec![other],
    }
}

/// The word by which the platforms show what is kept with that status.
pub(super) fn shown<'s>(status: &'s str, kind: Option<&str>) -> &'s str {
    match status {
        UNTOLD | SENDING if kind == Some("letter") => ACCEPTED,
        DELIVERED if kind == Some("letter") => RECEIVED,
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_every_platform_may_be_asked_for() {
        for voice in [Voice::Govuk, Voice::Gc] {
            assert!(statuses(voice).into_iter().all(is_status));
        }
        assert!(FAILURES.into_iter().all(is_status));
        assert!(!is_status("elephant") && !is_status(""));
    }

    #[test]
    fn what_is_shown_under_a_word_is_found_by_it_and_by_the_one_it_is_kept_by() {
        for kind in [Some("letter"), Some("email"), None] {
            for kept in statuses(Voice::Gc) {
                let word = shown(kept, kind);
                assert!(stands_for(word).contains(&kept) && stands_for(kept).contains(&kept));
                // A letter that was asked for is kept by the word that is shown.
                assert!(stands_for(kept).contains(&word), "{kept} {word}");
                assert_eq!(shown(word, kind), word);
            }
        }
        assert_eq!(shown("delivered", Some("letter")), "received");
        assert_eq!(shown("delivered", Some("email")), "delivered");
    }

    #[test]
    fn failed_stands_for_every_failure_and_no_word_stands_for_one_twice() {
        for status in statuses(Voice::Gc) {
            let mut words = stands_for(status);
            assert!(words.contains(&status));
            let count = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), count, "{status}");
        }
        assert_eq!(stands_for("failed").len(), FAILURES.len());
    }
}
