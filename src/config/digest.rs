//! SHA-256 digests as they are configured: 64 hex digits, never the secret itself.
//!
//! What stands where a digest should may well be the bearer, pasted by mistake. So it is never
//! quoted, only measured.

use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest, Sha256};

/// Why a text is not the digest of a secret.
pub(super) struct Fault {
    pub(super) found: String,
    pub(super) hint: Option<String>,
}

/// What is expected where a digest is.
pub(super) const EXPECTED: &str = "the SHA-256 of the bearer, as 64 hex digits";

/// The digest, unless the text is none or is that of no secret at all.
pub(super) fn parse(text: &str) -> Result<[u8; 32], Fault> {
    let decoded = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let Some(digest) = decoded.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) else {
        return Err(not_a_digest(text));
    };
    let of_nothing = |secret: &[u8]| digest == <[u8; 32]>::from(Sha256::digest(secret));
    if digest == [0; 32] {
        return Err(Fault { found: "64 zeros".into(), hint: Some(make_one()) });
    }
    if of_nothing(b"") || of_nothing(b"\n") || of_nothing(b"\r\n") {
        let hint = "the secret was missing when this was made: give the bearer to `receiptd token \
                    hash` on standard input";
        let found = "the SHA-256 of an empty text";
        return Err(Fault { found: found.into(), hint: Some(hint.into()) });
    }
    Ok(digest)
}

/// A digest as it is shown: enough to tell two apart, not enough to be one.
pub(super) fn shown(digest: &[u8; 32]) -> String {
    format!("{}…", HEXLOWER_PERMISSIVE.encode(&digest[..4]))
}

fn not_a_digest(text: &str) -> Fault {
    let count = text.chars().count();
    let is_hex = text.chars().all(|c| c.is_ascii_hexdigit());
    let found = match is_hex {
        true => format!("{count} hex digits"),
        false => format!("a text of {count} characters that is not hex"),
    };
    let hint = if text.starts_with('<') {
        make_one()
    } else if is_hex && count > 32 {
        "a digit was lost or added, or it is not SHA-256; make it again with `receiptd token hash`"
            .into()
    } else {
        "this looks like a bearer rather than its hash: give it to `receiptd token hash` on \
         standard input and write down what that prints"
            .into()
    };
    Fault { found, hint: Some(hint) }
}

fn make_one() -> String {
    "`receiptd token new` makes a bearer and its hash".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_letter_case_is_the_same_digest() {
        let lower = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let digest = parse(lower).ok();
        assert_eq!(digest, Some(Sha256::digest(b"test").into()));
        assert_eq!(parse(&lower.to_uppercase()).ok(), digest);
    }

    #[test]
    fn a_text_that_is_no_digest_is_measured_and_not_quoted() {
        for text in ["canary", "canarycanarycanarycanarycanarycanarycanarycanarycanarycanarycana"] {
            let fault = parse(text).expect_err(text);
            assert!(!format!("{}{:?}", fault.found, fault.hint).contains("canary"));
        }
    }
}
