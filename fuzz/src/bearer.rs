//! The head of a request, as the doorkeeper judges it: `Authorization`, a secret header, and
//! whether a signature over the body is owed.
//!
//! The input is a head, a line `name: value` a field; what cannot be a field is left out. Whatever
//! it is:
//! - a token grants exactly if it is, byte for byte, a configured one that has not ended, shown once
//!   with the scheme `Bearer`; the same for the secret header;
//! - whatever bearer is shown grants where it is configured, until its last day, and not where one
//!   bit of it is another;
//! - the placeholder of a set-up form never grants;
//! - the challenge depends on the request alone.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use jiff::civil::date;
use receiptd::config::settings::{Credentials, HeaderSecret, Secret, Token};
use receiptd::provider::Provider;
use receiptd::receive::authenticate::{Doorkeeper, Granted, SIGNATURE_HEADER, Verdict};
use receiptd::receive::refusal::Reason;
use sha2::{Digest, Sha256};

use super::oracle::now;

const LIVE: [&[u8]; 2] = [b"correct horse battery", b"clef secr\xe8te \xa7\xff"];
const ENDED: &[u8] = b"the old one";
const SECRET_HEADER: &str = "x-callback-secret";
const SECRET: &[u8] = b"in a header";
const PLACEHOLDER: &[u8] = b"bearer_token_set";

/// Checks one head.
pub fn check(data: &[u8]) {
    let head = head(data);
    let bearer = bearer(&head);
    let is_repeated = head.get_all(AUTHORIZATION).iter().count() > 1;
    let door = Doorkeeper::new(&credentials(), Provider::GcNotify);
    let verdict = door.check(&head, now());
    assert_eq!(verdict, door.check(&head, now()));
    let by_token = bearer.is_some_and(|bearer| LIVE.contains(&bearer));
    let by_header = !is_repeated && only(&head, SECRET_HEADER) == Some(SECRET);
    let signature = only(&head, SIGNATURE_HEADER).filter(|value| {
        !is_repeated && value.len() == 64 && value.iter().all(u8::is_ascii_hexdigit)
    });
    match verdict {
        Verdict::Granted(Granted::Token { .. }) => assert!(by_token),
        Verdict::Granted(Granted::Header) => assert!(!by_token && by_header),
        Verdict::Granted(other) => panic!("granted by {other:?}"),
        Verdict::SignatureOwed(owed) => {
            assert!(!by_token && !by_header);
            assert_eq!(Some(owed.signature.as_bytes()), signature);
            assert_eq!(owed.decide(true), Ok(Granted::Signature));
            assert!(owed.decide(false).is_err());
        }
        Verdict::ProbeOnly(refusal) => {
            assert!(!by_token && !by_header && signature.is_none());
            assert_eq!((bearer, refusal.reason), (Some(PLACEHOLDER), Reason::Probe));
        }
        Verdict::Refused(refusal) => {
            assert!(!by_token && !by_header && signature.is_none() && bearer != Some(PLACEHOLDER));
            assert_eq!(refusal.reason == Reason::Repeated, is_repeated);
            assert_eq!(refusal.label.is_some(), bearer == Some(ENDED));
        }
    }
    check_challenge(&head);
    if let Some(bearer) = bearer {
        check_configured(bearer, &head);
    }
}

fn credentials() -> Credentials {
    let live = LIVE.into_iter().map(token);
    let ended = Token { not_after: Some(date(2026, 11, 21)), ..token(ENDED) };
    Credentials {
        tokens: live.chain([ended]).collect(),
        header: Some(HeaderSecret { name: SECRET_HEADER.into(), sha256: sha256(SECRET) }),
        signature: Some(Secret(b"a key".to_vec())),
        jwt: None,
    }
}

fn token(bearer: &[u8]) -> Token {
    Token { label: "one".into(), sha256: sha256(bearer), not_after: None }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn head(data: &[u8]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
        let field = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value)) = field {
            head.append(name, value);
        }
    }
    head
}

/// The value of a field that stands there once.
fn only<'h>(head: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let values: Vec<_> = head.get_all(name).iter().collect();
    if let [value] = values.as_slice() { Some(value.as_bytes()) } else { None }
}

/// The bearer, read letter by letter.
fn bearer(head: &HeaderMap) -> Option<&[u8]> {
    let mut value = only(head, AUTHORIZATION.as_str())?;
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    let [b'b' | b'B', b'e' | b'E', b'a' | b'A', b'r' | b'R', b'e' | b'E', b'r' | b'R', b' ', ..] =
        value
    else {
        return None;
    };
    let mut rest = &value[7..];
    while let [b' ', after @ ..] = rest {
        rest = after;
    }
    Some(rest)
}

/// What somebody who is refused is told is the same at every door.
fn check_challenge(head: &HeaderMap) {
    let tokens = Credentials { tokens: credentials().tokens, ..Credentials::default() };
    let doors = [Credentials::default(), tokens, credentials()]
        .map(|credentials| Doorkeeper::new(&credentials, Provider::GovukNotify));
    let challenges: Vec<_> = doors
        .iter()
        .filter_map(|door| match door.check(head, now()) {
            Verdict::Refused(refusal) => Some(refusal.challenge()),
            _ => None,
        })
        .collect();
    assert!(challenges.windows(2).all(|two| two[0] == two[1]), "{challenges:?}");
    assert!(!challenges.is_empty(), "a door without credentials let somebody in");
}

/// Whatever was shown grants where it is configured, and nothing near it does.
fn check_configured(bearer: &[u8], head: &HeaderMap) {
    let door = |token| {
        let credentials = Credentials { tokens: vec![token], ..Credentials::default() };
        Doorkeeper::new(&credentials, Provider::VaNotify)
    };
    let is_granted = |token| matches!(door(token).check(head, now()), Verdict::Granted(_));
    let last_day = |day| Token { not_after: Some(day), ..token(bearer) };
    let is_public = bearer == PLACEHOLDER;
    assert_eq!(is_granted(token(bearer)), !is_public);
    assert_eq!(is_granted(last_day(date(2026, 11, 22))), !is_public);
    assert!(!is_granted(last_day(date(2026, 11, 21))));
    let mut near = bearer.to_vec();
    near[bearer.len() / 2] ^= 1;
    assert!(!is_granted(token(&near)));
    assert!(!is_granted(token(&bearer[1..])));
}
