//! The reachability probe that the platform's set-up form sends before it takes a URL.

use std::time::Duration;

use bytes::Bytes;

use super::Failure;
use super::simulate::{self, Args};
use crate::callback::Kind;
use crate::client::Target;
use crate::sender::{Platform, Retries, Rules, Wait};
use crate::simulate::engine::{self, Plan};
use crate::simulate::life::{Planned, Truth};
use crate::simulate::report::Report;
use crate::simulate::request::Request;
use crate::simulate::schedule::{Lives, Pace};
use crate::simulate::worker::Place;

/// What the form sends.
const BODY: &[u8] = br#"{"health_check": true}"#;

/// The probe, as the only callback of the only message: so it goes out as every other.
struct Probe;

impl Lives for Probe {
    fn callbacks(&self, _: u64) -> Vec<Planned> {
        let body = Bytes::from_static(BODY);
        vec![Planned { after: Duration::ZERO, kind: Kind::Receipt, body }]
    }

    fn truth(&self, _: u64) -> Truth {
        Truth::Silent
    }
}

/// Sends the probe, if the platform has one and it is wanted; how long the answer took.
///
/// # Errors
/// If the form would refuse the URL.
pub fn run(
    args: &Args,
    target: &Target,
    place: &Place,
    request: &Request,
) -> Result<Option<Duration>, Failure> {
    let Some(limit) = args.provider.rules(Kind::Receipt).probe_max else {
        let message = format!("{} sends no probe", args.provider);
        return if args.probe { Err(Failure::new(Failure::USAGE, message)) } else { Ok(None) };
    };
    if args.no_probe {
        return Ok(None);
    }
    let report = send(args.provider, limit, place.clone(), request.clone())?;
    if !report.is_reached {
        return Err(simulate::unreachable(target, &report));
    }
    judge(args.provider, &report)
}

fn send(
    platform: Platform,
    limit: Duration,
    place: Place,
    request: Request,
) -> Result<Report, Failure> {
    let rules = Rules {
        connect_max: limit,
        silence_max: limit,
        keep_alive: false,
        retries: Retries { max: 0, wait: Wait::Fixed(Duration::ZERO) },
        suspends: false,
        ..platform.rules(Kind::Receipt)
    };
    let plan = Plan {
        platform,
        rules: [rules; 4],
        lives: &Probe,
        messages: 1,
        pace: Pace::Closed { lasting: None },
        speed: 1.0,
        connections: 1,
        seed: 0,
        place,
        request,
    };
    Ok(engine::run(plan, &mut |_| ())?)
}

/// What the form makes of it.
fn judge(platform: Platform, report: &Report) -> Result<Option<Duration>, Failure> {
    let refused = |why: &str| {
        let message = format!("the probe failed, so {platform} would refuse this URL: {why}");
        Failure::new(Failure::NO, message)
    };
    if let Some(cause) = report.no_answers.keys().next() {
        return Err(refused(&format!("no answer: {cause}")));
    }
    match report.answers.keys().next() {
        Some(code @ 400..) => {
            let failure = refused(&format!("it was answered {code}"));
            Err(match code {
                401 | 403 => failure.hint("is this the token that the receiver expects?"),
                404 | 405 => failure.hint("is this the path where the receiver takes callbacks?"),
                _ => failure,
            })
        }
        _ => Ok(report.latency_max()),
    }
}
