//! Why a caller is refused, and the challenge that goes with it.
//!
//! The [`Reason`] and the label of a token are for our own logs and metrics. What the caller is
//! told depends on the request, never on the configuration: the challenge says `invalid_token`
//! exactly when a bearer was shown, whatever was wrong with it. Two `Authorization` fields show
//! none: the request is malformed before anybody asks who sent it.

use hyper::header::HeaderValue;

/// A plain challenge: no bearer was shown.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="receiptd""#);

/// The challenge of whoever showed a bearer that does not grant (RFC 6750 section 3.1).
const CHALLENGE_INVALID: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="receiptd", error="invalid_token""#);

/// A caller that is not the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Why; for logs and metrics, never for the caller.
    pub reason: Reason,
    /// The label of the expired token that was shown, if the reason is [`Reason::Expired`].
    pub label: Option<&'a str>,
    /// Whether the caller showed a bearer, right or not.
    pub(super) bearer_shown: bool,
}

impl Refusal<'_> {
    /// The value of `WWW-Authenticate`. It depends only on whether a bearer was shown.
    pub fn challenge(&self) -> HeaderValue {
        if self.bearer_shown { CHALLENGE_INVALID } else { CHALLENGE }
    }

    /// This refusal, or one for `reason` if nothing that could have granted was shown so far.
    pub(super) fn or(self, reason: Reason) -> Self {
        match self.reason {
            Reason::Missing | Reason::Scheme => Self { reason, ..self },
            _ => self,
        }
    }
}

/// Why a caller was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Nothing that this source accepts was shown.
    Missing,
    /// `Authorization` with a scheme other than `Bearer`.
    Scheme,
    /// `Authorization: Bearer` without a token.
    Malformed,
    /// More than one `Authorization`.
    Repeated,
    /// A bearer that nobody configured.
    Wrong,
    /// A configured token after its last day.
    Expired,
    /// The public placeholder of a set-up form, with something other than its probe.
    Probe,
    /// The configured header holds another value, or stands there more than once.
    Header,
    /// The signature does not agree with the body, is not 64 hex digits, or stands there twice.
    Signature,
    /// Three parts, but not those of a JSON Web Token.
    JwtMalformed,
    /// Signed, or not signed, in another way than the source pins.
    JwtAlgorithm,
    /// No key of the source has the id that it names.
    JwtKey,
    /// None of the keys made this signature.
    JwtSignature,
    /// A claim is missing or of the wrong type.
    JwtClaims,
    /// Too old.
    JwtExpired,
    /// Not valid yet.
    JwtEarly,
    /// Made by another issuer.
    JwtIssuer,
    /// Meant for another audience.
    JwtAudience,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 18] = [
        Self::Missing,
        Self::Scheme,
        Self::Malformed,
        Self::Repeated,
        Self::Wrong,
        Self::Expired,
        Self::Probe,
        Self::Header,
        Self::Signature,
        Self::JwtMalformed,
        Self::JwtAlgorithm,
        Self::JwtKey,
        Self::JwtSignature,
        Self::JwtClaims,
        Self::JwtExpired,
        Self::JwtEarly,
        Self::JwtIssuer,
        Self::JwtAudience,
    ];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Scheme => "scheme",
            Self::Malformed => "malformed",
            Self::Repeated => "repeated",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
            Self::Probe => "probe",
            Self::Header => "header",
            Self::Signature => "signature",
            Self::JwtMalformed => "jwt-malformed",
            Self::JwtAlgorithm => "jwt-algorithm",
            Self::JwtKey => "jwt-key",
            Self::JwtSignature => "jwt-signature",
            Self::JwtClaims => "jwt-claims",
            Self::JwtExpired => "jwt-expired",
            Self::JwtEarly => "jwt-early",
            Self::JwtIssuer => "jwt-issuer",
            Self::JwtAudience => "jwt-audience",
        }
    }
}
