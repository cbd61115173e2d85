//! The keys of signed tokens: one pinned algorithm, one file, and only keys that fit both.
//!
//! The library would take a private key, a key on another curve or an RSA key of 512 bits, and
//! then refuse every token at the first callback. Whatever cannot verify with the pinned algorithm
//! is refused here instead, when someone is looking.

use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};

use super::check::{one_of, unusable_file};
use super::credentials::{SECRET_BYTES_MAX, secret_file};
use super::files;
use super::report::{At, Checked, Found, Report};
use super::section::Section;
use super::settings::{Jwt, JwtAlgorithm, JwtKey};

/// Seconds the clocks may differ when a source does not say; the embedded file documents it.
const LEEWAY_S_DEFAULT: u64 = 60;

/// Bytes of an HS256 secret: below this it can be guessed from one token.
const SECRET_BYTES_MIN: usize = 16;

/// Bits of an RSA modulus that the verifier accepts.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Reads how a source's JWTs are verified.
pub(super) fn read(mut section: Section<'_>, at: &At, report: &mut Report) -> Checked<Jwt> {
    let algorithms = [
        ("HS256", JwtAlgorithm::Hs256),
        ("RS256", JwtAlgorithm::Rs256),
        ("ES256", JwtAlgorithm::Es256),
    ];
    let algorithm = one_of(&mut section, "algorithm", &algorithms, report);
    let files = ["secret_file", "public_key_file", "jwks_file"]
        .map(|name| section.text(name, report).map(|file| file.map(|file| (name, file))));
    let issuer = section.text("issuer", report);
    let audience = section.text("audience", report);
    let leeway_s = leeway_s(&mut section, report);
    section.finish(report);
    let file = one_file(files, at, report);
    let algorithm = algorithm?;
    let (name, file) = file?;
    let keys = keys(algorithm, name, &file, report);
    Ok(Jwt {
        algorithm,
        keys: keys?,
        issuer: issuer?.map(|issuer| issuer.value),
        audience: audience?.map(|audience| audience.value),
        leeway_s: leeway_s?,
    })
}

fn leeway_s(section: &mut Section<'_>, report: &mut Report) -> Checked<u64> {
    let at = At { origin: super::Origin::Default, ..section.at_key("leeway_s") };
    Ok(match section.number("leeway_s", (0, 600), report)? {
        Some(found) => found.value,
        None => {
            report.effective(&at, LEEWAY_S_DEFAULT);
            LEEWAY_S_DEFAULT
        }
    })
}

type NamedFile = (&'static str, Found<String>);

fn one_file(
    files: [Checked<Option<NamedFile>>; 3],
    at: &At,
    report: &mut Report,
) -> Checked<NamedFile> {
    let files = files.into_iter().collect::<Checked<Vec<_>>>()?;
    let mut named: Vec<NamedFile> = files.into_iter().flatten().collect();
    let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    match names.as_slice() {
        [_] => Ok(named.remove(0)),
        _ => {
            let found = if names.is_empty() { "none".into() } else { names.join(" and ") };
            let expected = "exactly one of secret_file, public_key_file and jwks_file";
            Err(report.problem(at, found, expected))
        }
    }
}

/// The keys in the file; at least one.
fn keys(
    algorithm: JwtAlgorithm,
    name: &str,
    file: &Found<String>,
    report: &mut Report,
) -> Checked<Vec<JwtKey>> {
    let is_shared_secret = algorithm == JwtAlgorithm::Hs256;
    if is_shared_secret != (name == "secret_file") {
        let expected = match is_shared_secret {
            true => "secret_file, because algorithm is HS256",
            false => "public_key_file or jwks_file, because algorithm is RS256 or ES256",
        };
        return Err(report.problem(&file.at, name, expected));
    }
    if is_shared_secret {
        let secret = secret_file(file, report)?;
        if secret.0.len() < SECRET_BYTES_MIN {
            let fault = format!("only {} bytes, which can be guessed", secret.0.len());
            let expected = format!("a secret of at least {SECRET_BYTES_MIN} bytes");
            return Err(unusable_file(file, &fault, &expected, report));
        }
        return Ok(vec![JwtKey { kid: None, key: DecodingKey::from_secret(&secret.0) }]);
    }
    let read = files::read(Path::new(&file.value), SECRET_BYTES_MAX)
        .map_err(|fault| fault.to_string())
        .and_then(|bytes| match name {
            "public_key_file" => from_pem(algorithm, &bytes).map(|key| vec![key]),
            _ => from_key_set(algorithm, &bytes),
        });
    let expected = match algorithm {
        JwtAlgorithm::Es256 => "a readable file with a public key on P-256, for ES256",
        _ => "a readable file with a public RSA key, for RS256",
    };
    read.map_err(|fault| unusable_file(file, &fault, expected, report))
}

fn from_pem(algorithm: JwtAlgorithm, bytes: &[u8]) -> Result<JwtKey, String> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("PRIVATE KEY-----") {
        return Err("a private key; it wants the public one (openssl pkey -pubout)".into());
    }
    if text.contains("BEGIN CERTIFICATE-----") {
        return Err("a certificate; it wants its public key (openssl x509 -noout -pubkey)".into());
    }
    let (key, kind) = match algorithm {
        JwtAlgorithm::Es256 => (DecodingKey::from_ec_pem(bytes), "P-256"),
        _ => (DecodingKey::from_rsa_pem(bytes), "RSA"),
    };
    let key = key.map_err(|_| format!("no {kind} public key in it (PEM, BEGIN PUBLIC KEY)"))?;
    let inside = key.try_get_as_bytes().unwrap_or_default();
    match algorithm {
        JwtAlgorithm::Es256 => p256_point(inside)?,
        _ => rsa_modulus(der_modulus(inside).ok_or("the RSA key in it is damaged")?)?,
    }
    Ok(JwtKey { kid: None, key })
}

/// The keys of a JSON Web Key Set that fit the algorithm. A set usually holds others too, and keys
/// of kinds we do not know must not make the rest useless, so each is read on its own.
fn from_key_set(algorithm: JwtAlgorithm, bytes: &[u8]) -> Result<Vec<JwtKey>, String> {
    #[derive(serde::Deserialize)]
    struct KeySet {
        keys: Vec<serde_json::Value>,
    }
    let set: KeySet = serde_json::from_slice(bytes)
        .map_err(|_| "not a JSON Web Key Set: {\"keys\": […]}".to_owned())?;
    let count = set.keys.len();
    let fitting: Vec<JwtKey> = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter(|key| is_for_signatures(algorithm, key) && is_of_kind(algorithm, key))
        .filter_map(|key| Some((DecodingKey::from_jwk(&key).ok()?, key.common.key_id)))
        .map(|(key, kid)| JwtKey { kid, key })
        .collect();
    if fitting.is_empty() {
        return Err(format!("none of its {count} keys fits the algorithm"));
    }
    Ok(fitting)
}

fn is_for_signatures(algorithm: JwtAlgorithm, key: &Jwk) -> bool {
    let pinned = match algorithm {
        JwtAlgorithm::Hs256 => KeyAlgorithm::HS256,
        JwtAlgorithm::Rs256 => KeyAlgorithm::RS256,
        JwtAlgorithm::Es256 => KeyAlgorithm::ES256,
    };
    let common = &key.common;
    common.key_algorithm.is_none_or(|algorithm| algorithm == pinned)
        && common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify))
}

fn is_of_kind(algorithm: JwtAlgorithm, key: &Jwk) -> bool {
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
    match (algorithm, &key.algorithm) {
        (JwtAlgorithm::Rs256, AlgorithmParameters::RSA(rsa)) => {
            rsa_modulus(&decode(&rsa.n)).is_ok() && !decode(&rsa.e).is_empty()
        }
        (JwtAlgorithm::Es256, AlgorithmParameters::EllipticCurve(curve)) => {
            curve.curve == EllipticCurve::P256
                && [&curve.x, &curve.y].into_iter().all(|number| decode(number).len() == 32)
        }
        _ => false,
    }
}

fn p256_point(point: &[u8]) -> Result<(), String> {
    match point {
        [0x04, rest @ ..] if rest.len() == 64 => Ok(()),
        _ => Err("ES256 wants a key on P-256 (prime256v1), uncompressed".into()),
    }
}

fn rsa_modulus(modulus: &[u8]) -> Result<(), String> {
    let start = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
    let significant = &modulus[start..];
    let spare = significant.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = significant.len() * 8 - spare;
    if RSA_BITS.contains(&bits) {
        return Ok(());
    }
    let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
    Err(format!("an RSA key of {bits} bits; RS256 wants {least} to {most}"))
}

/// The modulus of an `RSAPublicKey`: a SEQUENCE whose first member is that INTEGER.
fn der_modulus(key: &[u8]) -> Option<&[u8]> {
    let sequence = der_content(key, 0x30)?;
    der_content(sequence, 0x02)
}

/// The content of the DER value that begins here, if it has that tag.
fn der_content(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let len = len
            .iter()
            .try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?;
        (len, rest)
    };
    (found == tag).then_some(())?;
    rest.get(..len)
}
