//! What every answer must be: an answer of the receiver itself, and in time.

use std::time::Duration;

use super::consequence::span;
use super::findings::{Check, Finding, Severity};
use super::specimen::{self, News};
use super::visit::Visit;
use crate::sender::Outcome;

/// Is it the URL itself that answers?
pub static REDIRECT: Check = Check {
    name: "redirect",
    sends: "a receipt to the URL as it was given",
    why: "The senders follow 301, 302 and 303 with a GET that has no body: the callback is lost, and \
          the answer to the GET may even say 200. They follow 307 and 308 with the body, but show no \
          token to another host or port.",
    mend: "Give the platform the URL that the redirect leads to (with or without the last slash, with \
           https), and serve that path as it is: APPEND_SLASH=False, strict_slashes=False, \
           redirect_slashes=False.",
    is_gate: true,
};

/// The set-up form's question, as it is on the wire.
pub static PROBE_BOOLEAN: Check = Check {
    name: "probe-boolean",
    sends: "the reachability probe as it is on the wire: {\"health_check\": true}",
    why: "GC Notify's set-up form refuses the URL unless the probe is answered below 400 and, its \
          documentation says, within 1 s; the form itself gives up after 2 s.",
    mend: "Answer 2xx at once to a body with the key `health_check`, whether its value is true or \
           \"true\", after the token was checked and before anything else of a receipt is looked for.",
    is_gate: false,
};

/// The set-up form's question, as it is documented.
pub static PROBE_STRING: Check = Check {
    name: "probe-string",
    sends: "the reachability probe as it is documented: {\"health_check\": \"true\"}",
    why: PROBE_BOOLEAN.why,
    mend: PROBE_BOOLEAN.mend,
    is_gate: false,
};

/// How long anything took.
pub static ANSWER_TIME: Check = Check {
    name: "answer-time",
    sends: "nothing more: the slowest answer so far",
    why: "A sender that waited in vain for 5 s sends the callback again, so it is worked on twice; \
          GC Notify asks for an answer within 1 s.",
    mend: "Keep the callback durably, answer, and do everything else (other databases, other \
           services, mail) afterwards, in another process or thread.",
    is_gate: false,
};

/// Whether the plainest of callbacks is answered here at all. A redirect that keeps the body and
/// leads to the same host is followed by the platforms: what lies there is examined then.
pub async fn redirect(visit: &mut Visit) -> Finding {
    let body = visit.fresh(&REDIRECT, News::Delivered).bytes();
    let headers = visit.headers(&body);
    let exchange = visit.post(headers, body).await;
    if let Some(path) = exchange.kept_by_redirect.clone() {
        // A query may hold a secret.
        let shown = path.split('?').next().unwrap_or_default();
        let told = format!("{}, to {shown}", exchange.told);
        visit.question.target.path = path;
        let would =
            "follow it with body and token: twice the requests, and lost if it ever changes";
        return Finding::new(&REDIRECT, Severity::Warn, told, would).within(exchange.took);
    }
    if matches!(exchange.outcome, Outcome::Answered(301..=303 | 307 | 308)) {
        return visit.judge_accepted(&REDIRECT, &[exchange]);
    }
    Finding::new(&REDIRECT, Severity::Ok, exchange.told, "").within(exchange.took)
}

/// Both forms of the probe, of a platform that sends one.
pub async fn probes(visit: &mut Visit) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (check, value) in [(&PROBE_BOOLEAN, "true"), (&PROBE_STRING, "\"true\"")] {
        let Some(limit) = visit.rules.probe_max else {
            let reason = format!("{} sends no probe", visit.platform());
            findings.push(Finding::skipped(check, reason));
            continue;
        };
        let asked = visit.rules.answer_asked.unwrap_or(limit);
        let body = specimen::probe(value);
        let headers = visit.headers(&body);
        let exchange = visit.post(headers, body).await;
        let is_good = visit.consequence(exchange.outcome).is_accepted();
        let (severity, would) = judge_probe(is_good, exchange.took, asked, limit);
        findings.push(Finding::new(check, severity, exchange.told, would).within(exchange.took));
    }
    findings
}

fn judge_probe(
    is_good: bool,
    took: Duration,
    asked: Duration,
    limit: Duration,
) -> (Severity, String) {
    let refuse = "refuse the URL in its set-up form, so that no callback is ever sent";
    match is_good {
        false => (Severity::Lost, refuse.to_owned()),
        true if took > limit => {
            (Severity::Lost, format!("give up after {} and {refuse}", span(limit)))
        }
        true if took > asked => (
            Severity::Lost,
            format!(
                "by its documentation, which allows {}, {refuse}; its form waits {} today",
                span(asked),
                span(limit)
            ),
        ),
        true => (Severity::Ok, "take the URL".to_owned()),
    }
}

/// The slowest answer against what the platform asks for.
pub fn answer_time(visit: &Visit) -> Finding {
    let (slowest, answered) = (visit.slowest, visit.answered);
    let told = format!("the slowest of {answered} took {} ms", slowest.as_millis());
    let (severity, would) = match visit.rules.answer_asked {
        _ if slowest >= visit.rules.silence_max => (
            Severity::Warn,
            format!("have given up after {} of silence", span(visit.rules.silence_max)),
        ),
        Some(asked) if slowest > asked => (
            Severity::Warn,
            format!(
                "wait up to {}, though it asks for an answer within {}",
                span(visit.rules.silence_max),
                span(asked)
            ),
        ),
        None if slowest > CLOSE_TO_LIMIT => {
            (Severity::Warn, format!("wait, but no longer than {}", span(visit.rules.silence_max)))
        }
        _ => (Severity::Ok, "be content".to_owned()),
    };
    Finding::new(&ANSWER_TIME, severity, told, would).within(slowest)
}

/// Where a platform asks for nothing: under load, twice that is beyond its limit.
pub const CLOSE_TO_LIMIT: Duration = Duration::from_millis(2_500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_lost_if_it_is_refused_late_or_too_late() {
        let ms = Duration::from_millis;
        for (is_good, took, expected) in [
            (true, 999, Severity::Ok),
            (true, 1_001, Severity::Lost),
            (true, 2_001, Severity::Lost),
            (false, 1, Severity::Lost),
        ] {
            let (severity, would) = judge_probe(is_good, ms(took), ms(1_000), ms(2_000));
            assert_eq!(severity, expected, "{is_good} {took}: {would}");
        }
    }
}
