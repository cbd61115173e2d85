//! When a message has come to an end: the one place that says so, for every provider.
//!
//! An end is a status after which the platform tells nothing more in the usual course of things. Moves
//! between ends are possible, and a word that nobody knows is never one. One end is no status: a letter that
//! came back (`returned_at`) has its end whatever status is told of it, and whoever asks looks at that too.
//!
//! `sent` is the hard one, because it means two things:
//!
//! - A text message to another country: no carrier tells GC Notify, GOV.UK Notify, US Notify.gov or NotifyNL
//!   what became of it, so `sent` is all there will ever be. These platforms say `sent` of no other text.
//! - At VA Notify any message is `sent` before it is delivered, and so is a text at Adobe Journey
//!   Optimizer. An e-mail or a letter that is `sent` has its end before it everywhere but at Adobe, where
//!   `delivered` may never come for an e-mail and `sent` be the last word.
//!
//! The read API has two words of its own for letters: `accepted` is one that is still to be printed,
//! `received` one that the printer has posted, which is all that is known of a letter that arrived.

use super::Provider;
use crate::ends::{Ends, Statuses};

/// The statuses that can be an end.
pub const STATUSES: Statuses = Statuses {
    always: &[
        "delivered",
        "received",
        "failed",
        "temporary-failure",
        "permanent-failure",
        "technical-failure",
        "provider-failure",
        "validation-failure",
        "validation-failed",
        "virus-scan-failed",
        "pii-check-failed",
        "cancelled",
        "returned-letter",
    ],
    sometimes: &[("sent", "sms"), ("sent", "email")],
};

/// What is an end in each of these sources.
pub fn of<'s>(sources: impl IntoIterator<Item = (&'s str, Provider)>) -> Ends {
    let sources = sources.into_iter().map(|(name, provider)| (name.to_owned(), provider));
    Ends::new(&STATUSES, sources, is_end_of_type)
}

/// Whether a message of that provider, status and type has come to an end.
pub fn is_end(provider: Provider, status: &str, kind: Option<&str>) -> bool {
    STATUSES.always.contains(&status)
        || kind.is_some_and(|kind| is_end_of_type(provider, (status, kind)))
}

/// The type of message about whose status that platform never calls back, if there is one: GOV.UK Notify and
/// NotifyNL tell nothing of a letter but that it was returned, US Notify.gov nothing of a text message.
pub fn never_called_back(provider: Provider) -> Option<&'static str> {
    match provider {
        Provider::Notify | Provider::GovukNotify | Provider::NotifyNl => Some("letter"),
        Provider::UsNotify => Some("sms"),
        Provider::GcNotify | Provider::VaNotify | Provider::Ajo => None,
    }
}

/// Whether the platforms' read API tells when that status was reached, as `completed_at`: of every end,
/// and of `sent` whatever is sent.
pub fn has_completed_at(status: &str) -> bool {
    status == "sent" || STATUSES.always.contains(&status)
}

fn is_end_of_type(provider: Provider, pair: (&str, &str)) -> bool {
    match pair {
        ("sent", "sms") => !matches!(provider, Provider::VaNotify | Provider::Ajo),
        ("sent", "email") => provider == Provider::Ajo,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::notify::{FAILURES, is_known_status};
    use super::*;

    #[test]
    fn sent_is_the_end_of_a_text_where_nothing_follows_it_and_of_nothing_else() {
        for provider in Provider::ALL {
            let is_end = |kind| is_end(provider, "sent", kind);
            let is_ajo = provider == Provider::Ajo;
            let is_text_the_end = provider != Provider::VaNotify && !is_ajo;
            assert_eq!(is_end(Some("sms")), is_text_the_end, "{provider}");
            assert_eq!(is_end(Some("email")), is_ajo, "{provider}");
            for kind in [Some("letter"), Some("push"), Some("messagebox"), None] {
                assert!(!is_end(kind), "{provider} {kind:?}");
            }
        }
    }

    #[test]
    fn a_letter_that_was_posted_is_at_its_end_and_one_to_be_printed_is_not() {
        let is_end = |status| is_end(Provider::GovukNotify, status, Some("letter"));
        assert!(is_end("received") && is_end("delivered") && is_end("returned-letter"));
        assert!(!is_end("accepted") && !is_end("sending") && !is_end("pending-virus-check"));
    }

    #[test]
    fn every_failure_is_an_end_and_no_word_that_nobody_knows_is_one() {
        for status in FAILURES {
            assert!(is_end(Provider::Notify, status, None) && has_completed_at(status), "{status}");
        }
        assert!(!is_end(Provider::Notify, "a-new-word", Some("sms")));
        assert!(STATUSES.always.iter().all(|word| is_known_status(word)));
        assert!(STATUSES.sometimes.iter().all(|(word, _)| is_known_status(word)));
    }

    #[test]
    fn one_question_about_many_sources_is_answered_as_many_about_one() {
        let sources = Provider::ALL.map(|provider| (provider.as_str(), provider));
        let ends = of(sources);
        for (name, provider) in sources {
            for status in ["sent", "delivered", "sending", "accepted", "received"] {
                for kind in [Some("sms"), Some("email"), Some("letter"), None] {
                    let one = is_end(provider, status, kind);
                    assert_eq!(ends.is_end(name, Some(status), kind), one, "{name} {status}");
                }
            }
        }
    }

    #[test]
    fn the_read_api_tells_when_anything_was_sent() {
        assert!(has_completed_at("sent") && has_completed_at("delivered"));
        assert!(!has_completed_at("sending") && !has_completed_at("accepted"));
    }
}
