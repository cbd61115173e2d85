//! Who may write: the token as the platform shows it gets in, and nothing else does.

use data_encoding::BASE64;
use hyper::header::{HeaderMap, HeaderValue};

use super::findings::{Check, Finding, Severity};
use super::specimen::{self, News};
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

/// What a check of the token says where the platform signs instead: what is sent, how to mend it.
struct Signed {
    sends: &'static str,
    mend: &'static str,
}

/// [`RIGHT_TOKEN`].
static RIGHT_SIGNATURE: Signed = Signed {
    sends: "a receipt with its signature under the secret that was given, as `x-enp-signature`",
    mend: "Is it the secret of the API key that asked for the callback? Signed is Python's `urlencode` \
           of the payload in the order of its keys (a space is `+`, null is `None`), not the JSON: \
           compare the hexadecimal HMAC-SHA256 of that.",
};

/// [`NO_TOKEN`].
static NO_SIGNATURE: Signed = Signed {
    sends: "a receipt without `x-enp-signature`",
    mend: "Check `x-enp-signature` before anything else, in every branch, and answer 401 if it is not \
           there.",
};

/// [`WRONG_TOKEN`].
static WRONG_SIGNATURE: Signed = Signed {
    sends: "a receipt signed with a made-up secret, and one with the signature of another body",
    mend: "Compute the signature of the body that came, compare the whole of it, in constant time \
           (hmac.compare_digest, crypto.timingSafeEqual), and answer 401 if it differs.",
};

impl Signed {
    /// The finding in these words, if the platform signs.
    fn tell(&self, visit: &Visit, finding: Finding) -> Finding {
        if !visit.is_signed() {
            return finding;
        }
        let mend = if finding.mend.is_empty() { "" } else { self.mend };
        Finding { sent: self.sends, mend, ..finding }
    }
}

/// The token that was given, and what came of it. Only 401 and 403 are about it; what else is
/// wrong, others tell.
pub async fn right_token(visit: &mut Visit) -> (Finding, Outcome) {
    let body = visit.fresh(&RIGHT_TOKEN, News::Delivered).bytes();
    let headers = visit.headers(&body);
    let exchange = visit.post(headers, body).await;
    let consequence = visit.consequence(exchange.outcome);
    let is_refused = matches!(exchange.outcome, Outcome::Answered(401 | 403));
    let severity = if is_refused { Severity::Lost } else { Severity::Ok };
    let finding = Finding::new(&RIGHT_TOKEN, severity, exchange.told, consequence.to_string());
    (RIGHT_SIGNATURE.tell(visit, finding.within(exchange.took)), exchange.outcome)
}

/// Everybody who must not get in. `right`: what came of the right token; who gets the same answer,
/// though it is none below 400, was not refused for the token, and nothing can be told.
pub async fn refusals(visit: &mut Visit, right: Outcome) -> Vec<Finding> {
    let made_up = visit.made_up_token();
    let is_telling = matches!(right, Outcome::Answered(..=399 | 401 | 403));
    let mut findings = Vec::new();
    for (check, signed) in [
        (&NO_TOKEN, Some(&NO_SIGNATURE)),
        (&WRONG_TOKEN, Some(&WRONG_SIGNATURE)),
        (&OTHER_SCHEME, None),
    ] {
        if visit.is_signed() && signed.is_none() {
            findings.push(Finding::skipped(check, NO_SCHEME));
            continue;
        }
        let exchanges = refused(visit, check, &made_up).await;
        let is_same = !is_telling && exchanges.iter().all(|exchange| exchange.outcome == right);
        let finding = if is_same {
            Finding::skipped(check, "the right token gets the same answer: nothing can be told")
        } else {
            judge_refused(check, &exchanges)
        };
        findings.push(match signed {
            Some(signed) => signed.tell(visit, finding),
            None => finding,
        });
    }
    findings
}

/// Why a check of the scheme is skipped.
const NO_SCHEME: &str = "va-notify-signed sends no `Authorization`";

/// What the strangers of this check hear.
async fn refused(visit: &mut Visit, check: &Check, made_up: &str) -> Vec<Exchange> {
    let id = visit.new_id(check, "nothing: it must be refused");
    let body = visit.receipt(&id, News::Delivered).bytes();
    let mut exchanges = Vec::new();
    for headers in strangers(visit, check, made_up, &body) {
        exchanges.push(visit.post(headers, body.clone()).await);
    }
    exchanges
}

/// How those who must not get in present themselves with this body.
fn strangers(visit: &Visit, check: &Check, made_up: &str, body: &[u8]) -> Vec<HeaderMap> {
    let known_as = |words: String| visit.headers_with(HeaderValue::from_str(&words).ok());
    if *check == NO_TOKEN {
        return vec![visit.headers_with(None)];
    }
    if *check == OTHER_SCHEME {
        let basic = BASE64.encode(format!("receiptd-doctor:{made_up}").as_bytes());
        return vec![known_as(format!("Basic {basic}"))];
    }
    if visit.is_signed() {
        let of_another = visit.headers(&specimen::probe("true"));
        return vec![visit.headers_signed(made_up.as_bytes(), body), of_another];
    }
    vec![known_as(format!("Bearer {made_up}")), known_as("Bearer ".to_owned())]
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
    if visit.is_signed() {
        return Finding::skipped(&LOWER_CASE_SCHEME, NO_SCHEME);
    }
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
