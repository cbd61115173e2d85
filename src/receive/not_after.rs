//! Until when a certificate is valid.
//!
//! The senders break off the handshake when our certificate has expired, and to us that looks like
//! silence; so its last moment is worth a metric and a warning. rustls does not tell it. This
//! walks the few DER elements in front of it (RFC 5280 section 4.1) and judges nothing: a
//! certificate that cannot be walked has no known end, and neither has one that is valid until
//! 9999-12-31, by which issuers mean that it has none (section 4.1.2.5).

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::clock::Timestamp;

/// DER tags: the version, and the two forms of a time.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The last moment at which the certificate is valid, if it can be read.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let certificate = element(certificate)?.content;
    let to_be_signed = element(certificate)?.content;
    let version = element(to_be_signed)?;
    let serial = if version.tag == VERSION { element(version.rest)? } else { version };
    let algorithm = element(serial.rest)?;
    let issuer = element(algorithm.rest)?;
    let validity = element(issuer.rest)?.content;
    let not_before = element(validity)?;
    time(&element(not_before.rest)?)
}

/// The element at the start of some DER, and what follows it.
struct Element<'d> {
    tag: u8,
    content: &'d [u8],
    rest: &'d [u8],
}

fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length of the length: a certificate of 16 MiB is none.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

/// `YYMMDDHHMMSSZ` from 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(element: &Element<'_>) -> Option<Timestamp> {
    let digits = str::from_utf8(element.content.strip_suffix(b"Z")?).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (element.tag, digits.len()) {
        (UTC_TIME, 12) if digits < "5" => (format!("20{}", &digits[..2]), &digits[2..]),
        (UTC_TIME, 12) => (format!("19{}", &digits[..2]), &digits[2..]),
        (GENERALIZED_TIME, 14) => (digits[..4].to_owned(), &digits[4..]),
        _ => return None,
    };
    let two = |at: usize| &rest[at..at + 2];
    let text = format!("{year}-{}-{}T{}:{}:{}Z", two(0), two(2), two(4), two(6), two(8));
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn valid_until(year: i32, month: u8, day: u8) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_end_is_read_from_either_form_of_a_time() {
        for ((year, month, day), expected) in [
            ((1999, 12, 31), "1999-12-31T00:00:00.000000Z"),
            ((2026, 11, 22), "2026-11-22T00:00:00.000000Z"),
            ((2049, 12, 31), "2049-12-31T00:00:00.000000Z"),
            ((2050, 1, 1), "2050-01-01T00:00:00.000000Z"),
            ((4096, 1, 1), "4096-01-01T00:00:00.000000Z"),
        ] {
            let end = not_after(&valid_until(year, month, day)).unwrap();
            assert_eq!(end.to_string(), expected);
        }
    }

    #[test]
    fn the_last_day_of_the_calendar_is_no_end() {
        assert_eq!(not_after(&valid_until(9999, 12, 31)), None);
    }

    #[test]
    fn a_certificate_cut_anywhere_before_its_end_has_no_known_end() {
        let whole = valid_until(2031, 2, 3);
        for length in 0..whole.len() {
            assert_eq!(not_after(&CertificateDer::from(&whole[..length])), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(at in 0_usize..300, byte: u8) {
            let mut strange = valid_until(2031, 2, 3).to_vec();
            let at = at % strange.len();
            strange[at] = byte;
            not_after(&CertificateDer::from(strange));
        }
    }
}
