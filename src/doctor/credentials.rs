//! Who may write: the token as the platform shows it gets in, and nothing else does.

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::header::{HeaderMap, HeaderValue};

use super::findings::{Check, Finding, Severity};
use super::specimen::News;
use super::visit::{Exchange, Visit, told};
use crate::sender::Outcome;

/// The token itself.
pub static RIGHT_TOKEN: Check = Check {
    name: "right-token",
    sends: "a receipt with the token that was given, as `Authorization: Bearer …`",
    why: "If this is refused every callback is: a 401 or 403 is never sent again.",
    mend: "Compare the token that was typed into the platform's form with the one the receiver \
           expects. After a rotation the platforms send the old one for 25 minutes or more: accept \
           both for a day.",
    is_gate: true,
};

/// Nobody.
pub static NO_TOKEN: Check = Check {
    name: "no-token",
    sends: "a receipt without `Authorization`",
    why: "Whoever finds the URL could tell the app that a message was delivered, or was not.",
    mend: "Check `Authorization` before anything else, in every branch (the probe's too), and answer \
           401 if it is not there.",
    is_gate: false,
};

/// Somebody else.
pub static WRONG_TOKEN: Check = Check {
    name: "wrong-token",
    sends: "a receipt with a made-up token of the same length, and one with an empty token",
    why: "Whoever finds the URL could tell the app that a message was delivered, or was not.",
    mend: "Compare the whole token, in constant time (hmac.compare_digest, crypto.timingSafeEqual), \
           and refuse to start where none is configured. Answer 401 if it differs.",
    is_gate: false,
};

/// Another way to say who one is.
pub static OTHER_SCHEME: Check = Check {
    name: "other-scheme",
    sends: "a receipt with `Authorization: Basic …` and made-up credentials",
    why: "A receiver that only looks whether there is an `Authorization` lets anybody in.",
    mend: "Accept the scheme `Bearer` with the right token after it, and answer 401 to all else.",
    is_gate: false,
};

/// The same in small letters.
pub static LOWER_CASE_SCHEME: Check = Check {
    name: "lower-case-scheme",
    sends: "a receipt with the right token after `bearer`, in lower case",
    why: "The platforms write `Bearer` today. HTTP has schemes in any letter case, and proxies and \
          clients change it: a 401 would then lose everything.",
    mend: "Compare the word `Bearer` without regard to letter case (RFC 9110, section 11.1).",
    is_gate: false,
};

/// The token that was given, and what came of it. Only 401 and 403 are about it; what else is
/// wrong, others tell.
pub async fn right_token(visit: &mut Visit) -> (Finding, Outcome) {
    let body = visit.fresh(&RIGHT_TOKEN, News::Delivered).bytes();
    let headers = visit.headers();
    let exchange = visit.post(headers, body).await;
    let consequence = visit.consequence(exchange.outcome);
    let is_refused = matches!(exchange.outcome, Outcome::Answered(401 | 403));
    let severity = if is_refused { Severity::Lost } else { Severity::Ok };
    let finding = Finding::new(&RIGHT_TOKEN, severity, exchange.told, consequence.to_string());
    (finding.within(exchange.took), exchange.outcome)
}

/// Everybody who must not get in. `right`: what came of the right token; who gets the same answer,
/// though it is none below 400, was not refused for the token, and nothing can be told.
pub async fn refusals(visit: &mut Visit, right: Outcome) -> Vec<Finding> {
    let made_up = visit.made_up_token();
    let basic = format!("Basic {}", BASE64.encode(format!("receiptd-doctor:{made_up}").as_bytes()));
    let bearer = |token: &str| HeaderValue::from_str(&format!("Bearer {token}")).ok();
    let none = visit.headers_with(None);
    let (wrong, empty) = (visit.headers_with(bearer(&made_up)), visit.headers_with(bearer("")));
    let basic = visit.headers_with(HeaderValue::from_str(&basic).ok());
    let is_telling = matches!(right, Outcome::Answered(..=399 | 401 | 403));
    let mut findings = Vec::new();
    for (check, callers) in
        [(&NO_TOKEN, vec![none]), (&WRONG_TOKEN, vec![wrong, empty]), (&OTHER_SCHEME, vec![basic])]
    {
        let exchanges = refused(visit, check, callers).await;
        let is_same = !is_telling && exchanges.iter().all(|exchange| exchange.outcome == right);
        findings.push(if is_same {
            Finding::skipped(check, "the right token gets the same answer: nothing can be told")
        } else {
            judge_refused(check, &exchanges)
        });
    }
    findings
}

/// What these callers hear.
async fn refused(visit: &mut Visit, check: &Check, callers: Vec<HeaderMap>) -> Vec<Exchange> {
    let id = visit.new_id(check, "nothing: it must be refused");
    let body: Bytes = visit.receipt(&id, News::Delivered).bytes();
    let mut exchanges = Vec::new();
    for headers in callers {
        exchanges.push(visit.post(headers, body.clone()).await);
    }
    exchanges
}

/// The worst of the answers decides.
fn judge_refused(check: &'static Check, exchanges: &[Exchange]) -> Finding {
    let worst = exchanges.iter().map(|exchange| match exchange.outcome {
        Outcome::Answered(401 | 403) => (Severity::Ok, ""),
        Outcome::Answered(..300) => {
            (Severity::Unsafe, "not be asked: anybody can write what the app then believes")
        }
        Outcome::Answered(300..400) => {
            (Severity::Warn, "be led astray: a redirect to a login page means nothing to a program")
        }
        Outcome::Answered(400..500) => {
            (Severity::Warn, "be refused without being told that it is for the token")
        }
        Outcome::Answered(_) | Outcome::NoAnswer => (
            Severity::Warn,
            "come again and again: to a stranger this looks like a failure of yours",
        ),
    });
    let (severity, would) =
        worst.max_by_key(|(severity, _)| *severity).unwrap_or((Severity::Ok, ""));
    let took = exchanges.iter().map(|exchange| exchange.took).sum();
    Finding::new(check, severity, told(exchanges), would).within(took)
}

/// The scheme in lower case: whoever refuses that loses nothing today.
pub async fn lower_case_scheme(visit: &mut Visit) -> Finding {
    let body = visit.fresh(&LOWER_CASE_SCHEME, News::Delivered).bytes();
    let headers = visit.bearer_after("bearer");
    let exchange = visit.post(headers, body).await;
    if matches!(exchange.outcome, Outcome::Answered(401 | 403)) {
        let would = "be refused if it, or a proxy before you, ever wrote the scheme in lower case";
        return Finding::new(&LOWER_CASE_SCHEME, Severity::Warn, exchange.told, would)
            .within(exchange.took);
    }
    visit.judge_accepted(&LOWER_CASE_SCHEME, &[exchange])
}
