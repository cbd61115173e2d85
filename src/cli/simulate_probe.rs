//! The reachability probe that the platform's set-up form sends before it takes a URL.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};

use super::simulate::Args;
use super::{Failure, block_on};
use crate::callback::Kind;
use crate::client::{Client, ClientError, Options, Target};
use crate::simulate::request::{Credential, USER_AGENT as SENDER};

/// What the form sends.
const PROBE: &[u8] = br#"{"health_check": true}"#;

/// Sends the probe, if the platform has one and it is wanted; how long the answer took.
///
/// # Errors
/// If the form would refuse the URL.
pub fn run(
    args: &Args,
    target: &Target,
    credential: &Credential,
) -> Result<Option<Duration>, Failure> {
    let rules = args.provider.rules(Kind::Receipt);
    let (Some(limit), Credential::Bearer(token)) = (rules.probe_max, credential) else {
        let message = format!("{} sends no probe", args.provider);
        return if args.probe { Err(Failure::new(Failure::USAGE, message)) } else { Ok(None) };
    };
    if args.no_probe {
        return Ok(None);
    }
    let options = Options {
        connect_ms_max: limit,
        answer_ms_max: limit,
        keep_alive: false,
        ca_file: args.ca_file.clone(),
    };
    let mut client = Client::new(target.clone(), options)?;
    let started = Instant::now();
    let answer = block_on(client.post(headers(token)?, Bytes::from_static(PROBE)))?;
    let refused = |why: &str| {
        let message =
            format!("the probe failed, so {} would refuse this URL: {why}", args.provider);
        Failure::new(Failure::NO, message)
    };
    match answer {
        Ok(answer) if answer.code < 400 => Ok(Some(started.elapsed())),
        Ok(answer) => {
            let failure = refused(&format!("it was answered {}", answer.code));
            Err(if matches!(answer.code, 401 | 403) {
                failure.hint("is this the token that the receiver expects?")
            } else {
                failure
            })
        }
        Err(error @ ClientError::Answer { .. }) => Err(refused(&error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn headers(token: &[u8]) -> Result<HeaderMap, Failure> {
    let bearer = [b"Bearer ", token].concat();
    let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_| {
        Failure::new(Failure::USAGE, "the token holds bytes that no header can, such as a newline")
    })?;
    bearer.set_sensitive(true);
    Ok(HeaderMap::from_iter([
        (USER_AGENT, HeaderValue::from_static(SENDER)),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (AUTHORIZATION, bearer),
    ]))
}
