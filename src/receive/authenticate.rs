//! Who is calling, decided from the head alone, before the body is polled.
//!
//! A [`Doorkeeper`] knows one source's credentials. [`Doorkeeper::check`] gives a [`Verdict`]; any
//! one of the configured credentials suffices. It promises:
//!
//! - **Secrets are compared as SHA-256 digests, every one of them, in constant time.** How far two
//!   digests agree, and which of several agreed, cannot be told by the time taken. A token past its
//!   last day takes part in the comparison and never grants.
//! - **Bytes, not text.** The senders allow any ten or more characters in a token: latin-1, spaces
//!   inside. Only spaces between the scheme and the token, and white space at the end of the field,
//!   which is not part of a field's value in HTTP, are dropped. Query strings are never looked at.
//! - **What the caller is told depends on the request, never on the configuration** (`refusal`).
//! - **A refusal costs one short digest and no allocation**, and nothing is logged here: a flood of
//!   wrong tokens does not slow a right one. Only a source that configured JWTs decodes more, and
//!   only of a token that has the shape of one.
//!
//! Two kinds of caller cannot be judged before the body is there, and the verdict says what is
//! still owed: a signature over the body ([`Verdict::SignatureOwed`]), and the reachability probe
//! with a public placeholder instead of a token ([`Verdict::ProbeOnly`]).

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use jiff::civil::Date;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::clock::Timestamp;
use crate::config::settings::{Credentials, HeaderSecret, Secret, Token};
use crate::provider::Provider;
use crate::receive::jwt;
use crate::receive::refusal::{Reason, Refusal};

/// The header in which VA Notify signs the body of a notification-level callback.
pub const SIGNATURE_HEADER: &str = "x-enp-signature";

/// Of an HMAC with SHA-256 as hex. What has another form agrees with no body, so none is waited for.
pub const SIGNATURE_DIGITS: usize = 64;

/// What GC Notify's admin pages send in place of the bearer when a saved received-text callback
/// is probed (`wire/notify.md` section 2). It stands in public source code, so it proves nothing
/// and never grants, even if someone configures its digest.
const PROBE_BEARER: &[u8] = b"bearer_token_set";

/// Judges the callers of one source.
#[derive(Clone, Debug)]
pub struct Doorkeeper {
    credentials: Credentials,
    /// Whether the provider's set-up form may probe with [`PROBE_BEARER`].
    probed_by_placeholder: bool,
}

/// What the head of a request entitles its sender to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is the source.
    Granted(Granted<'a>),
    /// It is the source if the signature agrees with the body.
    SignatureOwed(SignatureOwed<'a>),
    /// The bearer is the set-up form's placeholder: if the body is exactly the reachability probe
    /// it is answered like one, otherwise with this refusal. It is never kept.
    ProbeOnly(Refusal<'a>),
    /// It is not the source.
    Refused(Refusal<'a>),
}

/// By what a caller proved to be the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted<'a> {
    /// A static bearer. The label and the last day let the caller count it, and warn of a token
    /// near its end and of a retiring token that is still in use.
    Token {
        /// The token's label in the configuration.
        label: &'a str,
        /// The last day, UTC, on which it is accepted.
        not_after: Option<Date>,
    },
    /// The secret in the configured header.
    Header,
    /// A signed token.
    Jwt {
        /// The id of the key that verified it, if it has one.
        kid: Option<&'a str>,
    },
    /// A signature over the body.
    Signature,
}

/// A signature that is to be compared with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureOwed<'a> {
    /// The key it was made with, if it is genuine.
    pub secret: &'a Secret,
    /// The header's value: [`SIGNATURE_DIGITS`] hex digits, in any letter case.
    pub signature: &'a str,
    /// The answer if it does not agree.
    otherwise: Refusal<'a>,
}

impl Doorkeeper {
    /// A doorkeeper who knows these credentials. With none at all it refuses everybody.
    pub fn new(credentials: &Credentials, provider: Provider) -> Self {
        Self {
            credentials: credentials.clone(),
            probed_by_placeholder: matches!(provider, Provider::Notify | Provider::GcNotify),
        }
    }

    /// Judges the head of a request that arrived at `now`.
    ///
    /// Two `Authorization` fields are refused whatever else is right: proxies and servers disagree
    /// on which of them counts. Otherwise the credentials are tried from the one that needs
    /// nothing but the head to the one that proves least.
    pub fn check<'a>(&'a self, headers: &'a HeaderMap, now: Timestamp) -> Verdict<'a> {
        let shown = Shown::in_head(headers);
        let mut refusal = match self.check_authorization(shown, now) {
            Ok(granted) => return Verdict::Granted(granted),
            Err(refusal) if refusal.reason == Reason::Repeated => return Verdict::Refused(refusal),
            Err(refusal) => refusal,
        };
        match self.check_header(headers) {
            Some(true) => return Verdict::Granted(Granted::Header),
            Some(false) => refusal = refusal.or(Reason::Header),
            None => {}
        }
        if let Some(secret) = &self.credentials.signature {
            refusal = match the_only(headers, SIGNATURE_HEADER).map(HeaderValue::to_str) {
                One::Is(Ok(signature)) if is_signature(signature) => {
                    let otherwise = Refusal { reason: Reason::Signature, label: None, ..refusal };
                    return Verdict::SignatureOwed(SignatureOwed { secret, signature, otherwise });
                }
                One::Absent => refusal,
                One::Is(_) | One::Repeated => refusal.or(Reason::Signature),
            };
        }
        if self.probed_by_placeholder && shown == Shown::Bearer(PROBE_BEARER) {
            return Verdict::ProbeOnly(Refusal { reason: Reason::Probe, label: None, ..refusal });
        }
        Verdict::Refused(refusal)
    }

    fn check_authorization(
        &self,
        shown: Shown<'_>,
        now: Timestamp,
    ) -> Result<Granted<'_>, Refusal<'_>> {
        let refuse = |reason| Refusal { reason, label: None, bearer_shown: false };
        match shown {
            Shown::Nothing => Err(refuse(Reason::Missing)),
            Shown::OtherScheme => Err(refuse(Reason::Scheme)),
            Shown::Repeated => Err(refuse(Reason::Repeated)),
            Shown::NoToken => Err(Refusal { bearer_shown: true, ..refuse(Reason::Malformed) }),
            Shown::Bearer(bearer) => self
                .check_bearer(bearer, now)
                .map_err(|(reason, label)| Refusal { reason, label, bearer_shown: true }),
        }
    }

    /// Static tokens first, then a JWT: a static token may look like a JWT.
    fn check_bearer(
        &self,
        bearer: &[u8],
        now: Timestamp,
    ) -> Result<Granted<'_>, (Reason, Option<&str>)> {
        let Credentials { tokens, jwt, .. } = &self.credentials;
        if bearer == PROBE_BEARER {
            return Err((Reason::Probe, None));
        }
        if tokens.is_empty() && jwt.is_none() {
            return Err((Reason::Missing, None));
        }
        let Matched { live, expired } = compare(tokens, bearer, now.date());
        if let Some(Token { label, not_after, .. }) = live {
            return Ok(Granted::Token { label, not_after: *not_after });
        }
        let verified = jwt.as_ref().map_or(Err(Reason::Wrong), |jwt| jwt::verify(jwt, bearer, now));
        match (verified, expired) {
            (Ok(key), _) => Ok(Granted::Jwt { kid: key.kid.as_deref() }),
            (Err(_), Some(token)) => Err((Reason::Expired, Some(&token.label))),
            (Err(reason), None) => Err((reason, None)),
        }
    }

    /// Whether the configured header holds the secret; nothing if it is not configured or absent.
    fn check_header(&self, headers: &HeaderMap) -> Option<bool> {
        let HeaderSecret { name, sha256 } = self.credentials.header.as_ref()?;
        match the_only(headers, name) {
            One::Absent => None,
            One::Repeated => Some(false),
            One::Is(value) => Some(digest(value.as_bytes()).ct_eq(sha256.as_slice()).into()),
        }
    }
}

impl Granted<'_> {
    /// The kind of credential: a word for a metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::Header => "header",
            Self::Jwt { .. } => "jwt",
            Self::Signature => "signature",
        }
    }
}

impl<'a> SignatureOwed<'a> {
    /// The verdict, once it is known whether the signature agrees with the body.
    pub fn decide(self, agrees: bool) -> Result<Granted<'a>, Refusal<'a>> {
        if agrees { Ok(Granted::Signature) } else { Err(self.otherwise) }
    }
}

/// What `Authorization` shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown<'h> {
    Nothing,
    Repeated,
    OtherScheme,
    NoToken,
    Bearer(&'h [u8]),
}

impl<'h> Shown<'h> {
    fn in_head(headers: &'h HeaderMap) -> Self {
        let value = match the_only(headers, AUTHORIZATION.as_str()) {
            One::Absent => return Self::Nothing,
            One::Repeated => return Self::Repeated,
            One::Is(value) => value.as_bytes().trim_ascii(),
        };
        let scheme_len = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
        let (scheme, rest) = value.split_at(scheme_len);
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Self::OtherScheme;
        }
        match rest.iter().position(|byte| *byte != b' ') {
            None => Self::NoToken,
            Some(spaces) => Self::Bearer(&rest[spaces..]),
        }
    }
}

/// A field that may stand in a head only once.
enum One<T> {
    Absent,
    Is(T),
    Repeated,
}

impl<T> One<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> One<U> {
        match self {
            Self::Absent => One::Absent,
            Self::Is(value) => One::Is(f(value)),
            Self::Repeated => One::Repeated,
        }
    }
}

fn the_only<'h>(headers: &'h HeaderMap, name: &str) -> One<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => One::Absent,
        (Some(value), None) => One::Is(value),
        (Some(_), Some(_)) => One::Repeated,
    }
}

fn is_signature(text: &str) -> bool {
    text.len() == SIGNATURE_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The configured tokens that agree with the one shown.
struct Matched<'a> {
    live: Option<&'a Token>,
    expired: Option<&'a Token>,
}

/// Compares the bearer with every token. The position is selected without a branch, so neither the
/// number of comparisons nor their outcome shows in the time taken; what is branched on, whether a
/// token's last day has passed, is no secret.
fn compare<'a>(tokens: &'a [Token], bearer: &[u8], today: Date) -> Matched<'a> {
    const NONE: u64 = u64::MAX;
    let shown = digest(bearer);
    let (mut live, mut expired) = (NONE, NONE);
    for (position, token) in (0..NONE).zip(tokens) {
        let is_expired = token.not_after.is_some_and(|last_day| last_day < today);
        let found = if is_expired { &mut expired } else { &mut live };
        found.conditional_assign(&position, token.sha256.as_slice().ct_eq(&shown));
    }
    let at = |position| usize::try_from(position).ok().and_then(|position| tokens.get(position));
    Matched { live: at(live), expired: at(expired) }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
