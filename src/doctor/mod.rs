//! Is this endpoint safe? What a sender would lose at a receiver, found out by being one.
//!
//! [`examine`] sends to any receiver, ours or hand-written, what the platforms are known to send
//! and what hand-written receivers are known to answer wrongly, and says of each answer what it
//! would have cost: [`crate::sender::Rules`] knows what the platform does with it.
//!
//! It promises:
//!
//! - **Only the host that was named is spoken to**: no redirect is followed, no proxy is used.
//! - **The token goes only to a host whose certificate is good.** If it is not, that is the
//!   finding, and whatever needs the token is skipped.
//! - **Everything it writes is named**: each id it sends begins with [`specimen::ID_PREFIX`], comes
//!   from the seed, and stands in the [`Report`] with what a right receiver makes of it.
//! - **The receiver is not blamed for our own stand-still**: what had no answer, or a late one,
//!   while this process was frozen is asked again.
//! - **Whatever the receiver does, it ends**: each answer and each wait has a time limit.
//! - Neither the token nor more than a short line of an answer becomes part of a finding.
//!
//! It sees answers, not what is stored: whether reversed callbacks settle on the right status is
//! for whoever looks up the ids in the report.
//!
//! A [`Check`] is data: what is sent, why that matters, how to mend what fails. [`CHECKS`] is the
//! closed list of them, in the order in which they run; the modules are their themes.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::{ClientError, Target};
use crate::clock::Timestamp;
use crate::config::settings::Secret;
use crate::sender::Platform;

pub mod findings;

pub mod specimen;

mod consequence;
mod stall;
mod visit;
mod wire;

mod tls;

mod credentials;

mod answers;

mod order;

mod bodies;

mod connection;

use findings::{Check, Finding, Report};
use visit::Visit;

pub use tls::is_loopback;

/// Every check, in the order in which they run and are reported.
pub const CHECKS: [&Check; 25] = [
    &tls::HTTPS,
    &tls::CHAIN,
    &tls::HOST,
    &tls::EXPIRY,
    &tls::VERSION,
    &answers::REDIRECT,
    &credentials::RIGHT_TOKEN,
    &credentials::NO_TOKEN,
    &credentials::WRONG_TOKEN,
    &credentials::OTHER_SCHEME,
    &credentials::LOWER_CASE_SCHEME,
    &answers::PROBE_BOOLEAN,
    &answers::PROBE_STRING,
    &order::UNKNOWN_ID,
    &order::DUPLICATE,
    &order::REVERSED,
    &order::BOUNCE_AFTER_DELIVERED,
    &bodies::NULLS,
    &bodies::UNKNOWN_STATUS,
    &bodies::UNKNOWN_KEYS,
    &bodies::LARGE,
    &bodies::UNREADABLE,
    &connection::SLOW_BODY,
    &connection::KEEP_ALIVE,
    &answers::ANSWER_TIME,
];

/// What is to be examined.
#[derive(Clone, Debug)]
pub struct Question {
    /// The receiver's URL for callbacks.
    pub target: Target,
    /// As whom to call.
    pub platform: Platform,
    /// The bearer.
    pub token: Secret,
    /// PEM: authorities to be trusted beside those of this machine.
    pub ca_file: Option<PathBuf>,
    /// The longest that a check waits on purpose.
    pub patience: Duration,
    /// Where the ids come from.
    pub seed: u64,
    /// The time: that of the callbacks, and the one certificates are held against.
    pub now: Timestamp,
}

/// Makes every check.
///
/// # Errors
/// If nobody can be connected to, the token fits no header, or there are no authorities to hold a
/// certificate against. Whatever a receiver answers is a finding, not an error.
pub async fn examine(question: Question) -> Result<Report, ClientError> {
    let mut visit = Visit::new(question)?;
    let mut findings = tls::run(&visit).await?;
    if is_barred(&findings) {
        return Ok(visit.report(&findings, "the certificate must be good before a token is shown"));
    }
    findings.push(answers::redirect(&mut visit).await);
    if is_barred(&findings) {
        return Ok(visit.report(&findings, "everything sent here is redirected"));
    }
    let (right, outcome) = credentials::right_token(&mut visit).await;
    findings.push(right);
    findings.extend(credentials::refusals(&mut visit, outcome).await);
    if is_barred(&findings) {
        return Ok(visit.report(&findings, "the token was refused"));
    }
    findings.push(credentials::lower_case_scheme(&mut visit).await);
    findings.extend(answers::probes(&mut visit).await);
    findings.extend(order::run(&mut visit).await);
    findings.extend(bodies::run(&mut visit).await);
    findings.extend(connection::run(&mut visit).await);
    findings.push(answers::answer_time(&visit));
    Ok(visit.report(&findings, "not reached"))
}

/// Whether nothing more can be told.
fn is_barred(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.check.is_gate && finding.is_failure())
}
