//! Who is let in, and by what, as the server asks it: credentials, a head, a moment.

use data_encoding::BASE64URL_NOPAD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use jiff::civil::date;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use receiptd::clock::Timestamp;
use receiptd::config::settings::{
    Credentials, HeaderSecret, Jwt, JwtAlgorithm, JwtKey, Secret, Token,
};
use receiptd::provider::Provider;
use receiptd::receive::authenticate::{Doorkeeper, Granted, SIGNATURE_HEADER, Verdict};
use receiptd::receive::refusal::Reason;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a signature looks like: 64 hex digits.
const SIGNED: &[u8] = b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// 2026-11-22T10:00:00Z
const NOW_S: i64 = 1_795_341_600;

fn now() -> Timestamp {
    Timestamp::from_unix_micros(NOW_S * 1_000_000)
}

fn sha256(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn token(label: &str, bearer: impl AsRef<[u8]>) -> Token {
    Token { label: label.to_owned(), sha256: sha256(bearer), not_after: None }
}

fn with_tokens(tokens: impl Into<Vec<Token>>) -> Doorkeeper {
    let credentials = Credentials { tokens: tokens.into(), ..Credentials::default() };
    Doorkeeper::new(&credentials, Provider::GcNotify)
}

fn head(fields: &[(&str, &[u8])]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in fields {
        head.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    head
}

fn authorization(value: impl AsRef<[u8]>) -> HeaderMap {
    head(&[(AUTHORIZATION.as_str(), value.as_ref())])
}

/// The verdict in a word or two: `token <label>`, `by <kind>`, or the reason of the refusal.
fn word(doorkeeper: &Doorkeeper, head: &HeaderMap, now: Timestamp) -> String {
    match doorkeeper.check(head, now) {
        Verdict::Granted(Granted::Token { label, .. }) => format!("token {label}"),
        Verdict::Granted(granted) => format!("by {}", granted.kind()),
        Verdict::SignatureOwed(_) => "signature owed".to_owned(),
        Verdict::ProbeOnly(_) => "probe only".to_owned(),
        Verdict::Refused(refusal) => refusal.reason.as_str().to_owned(),
    }
}

mod bearer {
    use super::*;

    #[test]
    fn the_scheme_may_be_in_any_letter_case_and_be_followed_by_spaces() {
        let doorkeeper = with_tokens([token("one", "correct horse")]);
        for (value, expected) in [
            ("Bearer correct horse", "token one"),
            ("bearer correct horse", "token one"),
            ("bEARER    correct horse", "token one"),
            ("Bearer correct horse  \t", "token one"),
            ("Bearer correct  horse", "wrong"),
            ("Bearer Correct horse", "wrong"),
            ("Bearer correct horse battery", "wrong"),
            ("Bearer correct", "wrong"),
            ("Bearer\tcorrect horse", "scheme"),
            ("Bearercorrect horse", "scheme"),
            ("correct horse", "scheme"),
            ("Basic Y29ycmVjdCBob3JzZQ==", "scheme"),
            ("Bearer", "malformed"),
            ("Bearer   ", "malformed"),
            ("", "scheme"),
        ] {
            assert_eq!(word(&doorkeeper, &authorization(value), now()), expected, "{value:?}");
        }
    }

    #[test]
    fn a_token_is_bytes_not_text() {
        let latin_1 = b"clef secr\xe8te \xa7\xff";
        let doorkeeper = with_tokens([token("latin-1", latin_1)]);
        let shown = [b"Bearer ".as_slice(), latin_1].concat();
        assert_eq!(word(&doorkeeper, &authorization(&shown), now()), "token latin-1");
        assert_eq!(
            word(&doorkeeper, &authorization("Bearer clef secrète §ÿ".as_bytes()), now()),
            "wrong"
        );
    }

    #[test]
    fn every_configured_token_grants_under_its_own_label() {
        let doorkeeper = with_tokens([token("old", "the old one"), token("new", "the new one")]);
        for (bearer, expected) in
            [("the old one", "token old"), ("the new one", "token new"), ("the one", "wrong")]
        {
            let head = authorization(format!("Bearer {bearer}"));
            assert_eq!(word(&doorkeeper, &head, now()), expected);
        }
    }

    #[test]
    fn a_token_grants_to_the_end_of_its_last_day_and_not_a_microsecond_longer() {
        let last_day = date(2026, 11, 22);
        let retiring = Token { not_after: Some(last_day), ..token("retiring", "some bearer") };
        let doorkeeper = with_tokens([retiring, token("other", "another bearer")]);
        let head = authorization("Bearer some bearer");
        let Verdict::Granted(Granted::Token { label, not_after }) =
            doorkeeper.check(&head, "2026-11-22T23:59:59.999999Z".parse().unwrap())
        else {
            panic!("refused on its last day");
        };
        assert_eq!((label, not_after), ("retiring", Some(last_day)));
        let Verdict::Refused(refusal) =
            doorkeeper.check(&head, "2026-11-23T00:00:00.000000Z".parse().unwrap())
        else {
            panic!("granted after its last day");
        };
        assert_eq!((refusal.reason, refusal.label), (Reason::Expired, Some("retiring")));
    }

    #[test]
    fn a_bearer_configured_twice_grants_while_either_entry_lives() {
        let dead = Token { not_after: Some(date(2026, 1, 31)), ..token("dead", "some bearer") };
        let live = token("live", "some bearer");
        for tokens in [[dead.clone(), live.clone()], [live, dead]] {
            let head = authorization("Bearer some bearer");
            assert_eq!(word(&with_tokens(tokens), &head, now()), "token live");
        }
    }

    #[test]
    fn two_authorizations_are_refused_even_if_both_are_right() {
        let credentials = Credentials {
            tokens: vec![token("one", "correct horse")],
            header: Some(HeaderSecret { name: "x-secret".to_owned(), sha256: sha256("s3") }),
            ..Credentials::default()
        };
        let doorkeeper = Doorkeeper::new(&credentials, Provider::Ajo);
        let right: (&str, &[u8]) = ("authorization", b"Bearer correct horse");
        let head = head(&[right, right, ("x-secret", b"s3")]);
        assert_eq!(word(&doorkeeper, &head, now()), "repeated");
    }

    #[test]
    fn without_any_credential_nobody_is_let_in() {
        let doorkeeper = Doorkeeper::new(&Credentials::default(), Provider::Notify);
        for value in ["Bearer ", "Bearer x", "Bearer a.b.c", ""] {
            let verdict = word(&doorkeeper, &authorization(value), now());
            assert!(["malformed", "missing", "scheme"].contains(&verdict.as_str()), "{verdict}");
        }
        assert_eq!(word(&doorkeeper, &HeaderMap::new(), now()), "missing");
    }

    #[test]
    fn a_challenge_says_invalid_token_exactly_when_a_bearer_was_shown() {
        let plain = r#"Bearer realm="receiptd""#;
        let invalid = r#"Bearer realm="receiptd", error="invalid_token""#;
        let expired = Token { not_after: Some(date(2026, 1, 31)), ..token("gone", "gone bearer") };
        let header = HeaderSecret { name: "x-secret".to_owned(), sha256: sha256("s3") };
        let several = Credentials {
            tokens: vec![expired],
            header: Some(header),
            jwt: Some(jwt::settings(JwtAlgorithm::Hs256, vec![])),
            signature: None,
        };
        for credentials in [several, Credentials::default()] {
            let doorkeeper = Doorkeeper::new(&credentials, Provider::Ajo);
            for (head, expected) in [
                (HeaderMap::new(), plain),
                (authorization("Basic abc"), plain),
                (head(&[("authorization", b"Bearer a"), ("authorization", b"Bearer b")]), plain),
                (head(&[("x-secret", b"wrong")]), plain),
                (authorization("Bearer"), invalid),
                (authorization("Bearer wrong"), invalid),
                (authorization("Bearer gone bearer"), invalid),
                (authorization("Bearer a.b.c"), invalid),
            ] {
                let Verdict::Refused(refusal) = doorkeeper.check(&head, now()) else {
                    panic!("granted {head:?}");
                };
                assert_eq!(refusal.challenge(), expected, "{head:?}");
            }
        }
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words: Vec<_> = Reason::ALL.into_iter().map(Reason::as_str).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    proptest! {
        #[test]
        fn what_is_not_the_token_never_grants(
            value in prop::collection::vec(prop_oneof![Just(9), 32_u8..127, 128_u8..], 0..64),
            scheme in "([Bb]earer ?|Basic )?",
        ) {
            let shown = [scheme.as_bytes(), &value].concat();
            let credentials = Credentials {
                tokens: vec![token("one", "long enough not to be guessed")],
                jwt: Some(jwt::settings(JwtAlgorithm::Hs256, vec![jwt::secret("s", None)])),
                ..Credentials::default()
            };
            let doorkeeper = Doorkeeper::new(&credentials, Provider::Ajo);
            let refused = matches!(
                doorkeeper.check(&authorization(shown), now()),
                Verdict::Refused(_)
            );
            prop_assert!(refused);
        }
    }
}

mod other_credentials {
    use super::*;

    fn with_header(name: &str, value: &str) -> Credentials {
        let header = HeaderSecret { name: name.to_owned(), sha256: sha256(value) };
        Credentials { header: Some(header), ..Credentials::default() }
    }

    #[test]
    fn the_named_header_grants_if_it_stands_there_once_with_the_secret() {
        let doorkeeper = Doorkeeper::new(&with_header("x-secret", "s3cret"), Provider::Ajo);
        for (fields, expected) in [
            (&[("x-secret", b"s3cret".as_slice())][..], "by header"),
            (&[("X-Secret", b"s3cret")], "by header"),
            (&[("x-secret", b"s3cret"), ("authorization", b"Bearer unrelated")], "by header"),
            (&[("x-secret", b"s3cret"), ("x-secret", b"s3cret")], "header"),
            (&[("x-secret", b"S3cret")], "header"),
            (&[("x-secret", b"")], "header"),
            (&[("x-other", b"s3cret")], "missing"),
            (&[("authorization", b"Bearer s3cret")], "missing"),
        ] {
            assert_eq!(word(&doorkeeper, &head(fields), now()), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_signature_is_owed_until_the_body_is_there() {
        let secret = Secret(b"the api key".to_vec());
        let credentials = Credentials { signature: Some(secret.clone()), ..Credentials::default() };
        let doorkeeper = Doorkeeper::new(&credentials, Provider::VaNotify);
        let signed = head(&[(SIGNATURE_HEADER, SIGNED)]);
        let Verdict::SignatureOwed(owed) = doorkeeper.check(&signed, now()) else {
            panic!("not owed");
        };
        assert_eq!((owed.secret, owed.signature), (&secret, std::str::from_utf8(SIGNED).unwrap()));
        assert_eq!(owed.decide(true), Ok(Granted::Signature));
        assert_eq!(owed.decide(false).unwrap_err().reason, Reason::Signature);

        let twice = head(&[(SIGNATURE_HEADER, SIGNED), (SIGNATURE_HEADER, SIGNED)]);
        assert_eq!(word(&doorkeeper, &twice, now()), "signature");
        let (short, long) = (&SIGNED[1..], [SIGNED, b"0"].concat());
        let (no_hex, latin_1) = ([&SIGNED[1..], b"g"].concat(), [&SIGNED[1..], b"\xe9"].concat());
        for never in [b"00ff", short, &long, &no_hex, &latin_1, b"\xe9", b""] {
            let head = head(&[(SIGNATURE_HEADER, never)]);
            assert_eq!(word(&doorkeeper, &head, now()), "signature", "{never:?}");
        }
        let upper = head(&[(SIGNATURE_HEADER, &SIGNED.to_ascii_uppercase())]);
        assert_eq!(word(&doorkeeper, &upper, now()), "signature owed");
        assert_eq!(word(&doorkeeper, &HeaderMap::new(), now()), "missing");
    }

    #[test]
    fn a_signature_means_nothing_to_a_source_that_configured_none() {
        let signed = head(&[(SIGNATURE_HEADER, SIGNED)]);
        assert_eq!(word(&with_tokens([token("one", "some bearer")]), &signed, now()), "missing");
    }

    #[test]
    fn any_one_of_several_kinds_suffices() {
        let credentials = Credentials {
            tokens: vec![token("one", "some bearer")],
            jwt: Some(jwt::settings(JwtAlgorithm::Hs256, vec![jwt::secret("key", None)])),
            signature: Some(Secret(b"key".to_vec())),
            ..with_header("x-secret", "s3cret")
        };
        let doorkeeper = Doorkeeper::new(&credentials, Provider::Ajo);
        let signed = format!("Bearer {}", jwt::hs256("key", &jwt::claims()));
        let wrong: (&str, &[u8]) = ("authorization", b"Bearer wrong");
        for (fields, expected) in [
            (&[("authorization", b"Bearer some bearer".as_slice())][..], "token one"),
            (&[("authorization", signed.as_bytes())], "by jwt"),
            (&[wrong, ("x-secret", b"s3cret")], "by header"),
            (&[wrong, ("x-secret", b"wrong"), (SIGNATURE_HEADER, SIGNED)], "signature owed"),
            (&[wrong, ("x-secret", b"wrong")], "wrong"),
            (&[("x-secret", b"wrong")], "header"),
        ] {
            assert_eq!(word(&doorkeeper, &head(fields), now()), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_placeholder_of_the_set_up_form_is_good_for_a_probe_and_nothing_else() {
        let placeholder = authorization("Bearer bearer_token_set");
        // Its digest among the tokens must not make a public word a credential.
        for tokens in [vec![token("one", "some bearer")], vec![token("x", "bearer_token_set")]] {
            let credentials = Credentials { tokens, ..Credentials::default() };
            for provider in Provider::ALL {
                let expected = match provider {
                    Provider::Notify | Provider::GcNotify => "probe only",
                    _ => "probe",
                };
                let doorkeeper = Doorkeeper::new(&credentials, provider);
                assert_eq!(word(&doorkeeper, &placeholder, now()), expected, "{provider}");
            }
        }
        let doorkeeper = with_tokens([token("one", "some bearer")]);
        for other in ["Bearer Bearer_token_set", "Bearer bearer_token_set2", "bearer_token_set"] {
            assert_ne!(word(&doorkeeper, &authorization(other), now()), "probe only");
        }
    }
}

mod jwt {
    use std::sync::OnceLock;

    use super::*;

    pub fn settings(algorithm: JwtAlgorithm, keys: Vec<JwtKey>) -> Jwt {
        Jwt { algorithm, keys, issuer: None, audience: None, leeway_s: 60 }
    }

    pub fn secret(secret: &str, kid: Option<&str>) -> JwtKey {
        let key = DecodingKey::from_secret(secret.as_bytes());
        JwtKey { kid: kid.map(str::to_owned), key }
    }

    pub fn claims() -> Value {
        json!({ "exp": NOW_S + 300 })
    }

    pub fn hs256(secret: &str, claims: &Value) -> String {
        let head = json!({ "alg": "HS256", "typ": "JWT" });
        sign(&head, claims, &EncodingKey::from_secret(secret.as_bytes()), Algorithm::HS256)
    }

    fn part(json: &Value) -> String {
        BASE64URL_NOPAD.encode(json.to_string().as_bytes())
    }

    /// Signs whatever the head says of itself.
    fn sign(head: &Value, claims: &Value, key: &EncodingKey, with: Algorithm) -> String {
        sign_text(&format!("{}.{}", part(head), part(claims)), key, with)
    }

    fn sign_text(signed: &str, key: &EncodingKey, with: Algorithm) -> String {
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, with).unwrap();
        format!("{signed}.{signature}")
    }

    fn verdict(jwt: &Jwt, token: &str) -> String {
        verdict_at(jwt, token, now())
    }

    fn verdict_at(jwt: &Jwt, token: &str, now: Timestamp) -> String {
        let credentials = Credentials { jwt: Some(jwt.clone()), ..Credentials::default() };
        let doorkeeper = Doorkeeper::new(&credentials, Provider::Ajo);
        word(&doorkeeper, &authorization(format!("Bearer {token}")), now)
    }

    fn hs256_settings() -> Jwt {
        settings(JwtAlgorithm::Hs256, vec![secret("key", None)])
    }

    /// A pair of keys for each algorithm that has pairs, made once: RSA takes its time.
    struct Pairs {
        rsa: KeyPair,
        ec: KeyPair,
    }

    fn pairs() -> &'static Pairs {
        static PAIRS: OnceLock<Pairs> = OnceLock::new();
        PAIRS.get_or_init(|| Pairs {
            rsa: KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
            ec: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        })
    }

    fn rs256_settings() -> Jwt {
        let pem = pairs().rsa.public_key_pem();
        let key = DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        settings(JwtAlgorithm::Rs256, vec![JwtKey { kid: None, key }])
    }

    fn es256_settings() -> Jwt {
        let pem = pairs().ec.public_key_pem();
        let key = DecodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        settings(JwtAlgorithm::Es256, vec![JwtKey { kid: None, key }])
    }

    fn rsa_signing() -> EncodingKey {
        EncodingKey::from_rsa_pem(pairs().rsa.serialize_pem().as_bytes()).unwrap()
    }

    fn ec_signing(pair: &KeyPair) -> EncodingKey {
        EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn each_pinned_algorithm_verifies_its_own_tokens_and_no_others() {
        let tokens = [
            hs256("key", &claims()),
            sign(&json!({ "alg": "RS256" }), &claims(), &rsa_signing(), Algorithm::RS256),
            sign(&json!({ "alg": "ES256" }), &claims(), &ec_signing(&pairs().ec), Algorithm::ES256),
        ];
        for (own, jwt) in [hs256_settings(), rs256_settings(), es256_settings()].iter().enumerate()
        {
            for (position, token) in tokens.iter().enumerate() {
                let expected = if position == own { "by jwt" } else { "jwt-algorithm" };
                assert_eq!(verdict(jwt, token), expected, "{:?} {position}", jwt.algorithm);
            }
        }
    }

    #[test]
    fn what_the_token_says_of_its_algorithm_is_never_believed() {
        let key = EncodingKey::from_secret(b"key");
        for alg in ["none", "None", "hs256", "HS384", "RS256", "", "HS256 "] {
            let head = json!({ "alg": alg });
            let token = sign(&head, &claims(), &key, Algorithm::HS256);
            assert_eq!(verdict(&hs256_settings(), &token), "jwt-algorithm", "{alg}");
        }
        let unsigned = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims()));
        assert_eq!(verdict(&hs256_settings(), &unsigned), "jwt-algorithm");
        let unsigned = format!("{}.{}.", part(&json!({ "alg": "HS256" })), part(&claims()));
        assert_eq!(verdict(&hs256_settings(), &unsigned), "jwt-signature");
    }

    #[test]
    fn a_public_key_is_of_no_use_as_a_shared_secret() {
        for (jwt, pair, alg) in
            [(rs256_settings(), &pairs().rsa, "RS256"), (es256_settings(), &pairs().ec, "ES256")]
        {
            let (pem, der) = (pair.public_key_pem(), pair.public_key_raw());
            for public in [pem.as_bytes(), pem.trim_end().as_bytes(), der] {
                let key = EncodingKey::from_secret(public);
                let honest = sign(&json!({ "alg": "HS256" }), &claims(), &key, Algorithm::HS256);
                assert_eq!(verdict(&jwt, &honest), "jwt-algorithm");
                let lying = sign(&json!({ "alg": alg }), &claims(), &key, Algorithm::HS256);
                assert_eq!(verdict(&jwt, &lying), "jwt-signature");
                // A key file of the wrong kind behind a pinned HS256 must not open the door either.
                let mixed = Jwt { algorithm: JwtAlgorithm::Hs256, ..jwt.clone() };
                assert_eq!(verdict(&mixed, &honest), "jwt-signature");
            }
        }
    }

    #[test]
    fn a_token_signed_by_another_key_is_refused() {
        assert_eq!(verdict(&hs256_settings(), &hs256("other", &claims())), "jwt-signature");
        let stranger = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let head = json!({ "alg": "ES256" });
        let token = sign(&head, &claims(), &ec_signing(&stranger), Algorithm::ES256);
        assert_eq!(verdict(&es256_settings(), &token), "jwt-signature");
        let own = sign(&head, &claims(), &ec_signing(&pairs().ec), Algorithm::ES256);
        let (signed, signature) = own.rsplit_once('.').unwrap();
        let (head, _) = signed.split_once('.').unwrap();
        let longer = part(&json!({ "exp": NOW_S + 999_999 }));
        let altered = format!("{head}.{longer}.{signature}");
        assert_eq!(verdict(&es256_settings(), &altered), "jwt-signature");
    }

    #[test]
    fn a_token_brings_no_key_of_its_own() {
        let stranger = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let point = stranger.public_key_raw();
        let jwk = json!({
            "kty": "EC", "crv": "P-256",
            "x": BASE64URL_NOPAD.encode(&point[1..33]), "y": BASE64URL_NOPAD.encode(&point[33..]),
        });
        let head = json!({ "alg": "ES256", "jwk": jwk, "jku": "https://example.test/keys" });
        let token = sign(&head, &claims(), &ec_signing(&stranger), Algorithm::ES256);
        assert_eq!(verdict(&es256_settings(), &token), "jwt-signature");
    }

    #[test]
    fn the_named_key_verifies_and_a_key_with_another_id_is_not_tried() {
        let jwt = settings(
            JwtAlgorithm::Hs256,
            vec![secret("one", Some("k1")), secret("two", Some("k2")), secret("two", Some("k2b"))],
        );
        let token = |kid: Value, secret: &str| {
            let key = EncodingKey::from_secret(secret.as_bytes());
            sign(&json!({ "alg": "HS256", "kid": kid }), &claims(), &key, Algorithm::HS256)
        };
        for (kid, secret, expected) in [
            (json!("k1"), "one", "by jwt"),
            (json!("k2"), "two", "by jwt"),
            (json!("k1"), "two", "jwt-signature"),
            (json!("k3"), "one", "jwt-key"),
            (json!(""), "one", "jwt-key"),
            (json!(1), "one", "jwt-malformed"),
            (json!(null), "one", "jwt-malformed"),
        ] {
            assert_eq!(verdict(&jwt, &token(kid.clone(), secret)), expected, "{kid} {secret}");
        }
        assert_eq!(verdict(&jwt, &hs256("two", &claims())), "by jwt", "no id: every key is tried");
        let nameless = hs256_settings();
        assert_eq!(verdict(&nameless, &token(json!("k9"), "key")), "by jwt", "a key without an id");
    }

    #[test]
    fn the_grant_names_the_key_that_verified() {
        let keys = vec![secret("one", Some("k1")), secret("two", Some("k2"))];
        let jwt = Some(settings(JwtAlgorithm::Hs256, keys));
        let credentials = Credentials { jwt, ..Credentials::default() };
        let doorkeeper = Doorkeeper::new(&credentials, Provider::Ajo);
        let head = authorization(format!("Bearer {}", hs256("two", &claims())));
        let expected = Verdict::Granted(Granted::Jwt { kid: Some("k2") });
        assert_eq!(doorkeeper.check(&head, now()), expected);
    }

    #[test]
    fn expiry_and_beginning_are_judged_by_our_clock_with_the_leeway_and_no_more() {
        let micro = |seconds: i64, micros: i64| {
            Timestamp::from_unix_micros((NOW_S + seconds) * 1_000_000 + micros)
        };
        let jwt = hs256_settings();
        let expiring = hs256("key", &json!({ "exp": NOW_S }));
        let beginning = hs256("key", &json!({ "exp": NOW_S + 3600, "nbf": NOW_S }));
        let fraction = hs256("key", &json!({ "exp": NOW_S as f64 + 0.5 }));
        for (token, at, expected) in [
            (&expiring, micro(-1, 0), "by jwt"),
            (&expiring, micro(0, 0), "by jwt"),
            (&expiring, micro(60, -1), "by jwt"),
            (&expiring, micro(60, 0), "jwt-expired"),
            (&expiring, micro(1_000_000, 0), "jwt-expired"),
            (&fraction, micro(60, 499_999), "by jwt"),
            (&fraction, micro(60, 500_000), "jwt-expired"),
            (&beginning, micro(0, 0), "by jwt"),
            (&beginning, micro(-60, 0), "by jwt"),
            (&beginning, micro(-60, -1), "jwt-early"),
        ] {
            assert_eq!(verdict_at(&jwt, token, at), expected, "{at}");
        }
        let strict = Jwt { leeway_s: 0, ..jwt };
        assert_eq!(verdict_at(&strict, &expiring, micro(0, -1)), "by jwt");
        assert_eq!(verdict_at(&strict, &expiring, micro(0, 0)), "jwt-expired");
        assert_eq!(verdict_at(&strict, &beginning, micro(0, -1)), "jwt-early");
    }

    #[test]
    fn an_absurd_leeway_or_expiry_does_not_wrap() {
        let endless = Jwt { leeway_s: u64::MAX, ..hs256_settings() };
        assert_eq!(verdict(&endless, &hs256("key", &json!({ "exp": 0 }))), "by jwt");
        for (exp, expected) in [
            (json!(u64::MAX), "by jwt"),
            (json!(1e300), "by jwt"),
            (json!(-1e300), "jwt-expired"),
            (json!(i64::MIN), "jwt-expired"),
        ] {
            let token = hs256("key", &json!({ "exp": exp }));
            assert_eq!(verdict(&hs256_settings(), &token), expected, "{exp}");
        }
    }

    #[test]
    fn a_claim_that_is_missing_or_of_another_type_refuses() {
        let exp = NOW_S + 300;
        for claims in [
            json!({}),
            json!({ "exp": null }),
            json!({ "exp": exp.to_string() }),
            json!({ "exp": [exp] }),
            json!({ "exp": true }),
            json!({ "exp": exp, "nbf": "now" }),
            json!({ "exp": exp, "nbf": null }),
            json!({ "exp": exp, "iss": 1 }),
            json!({ "exp": exp, "aud": { "a": 1 } }),
            json!({ "exp": exp, "aud": [1] }),
            json!([exp]),
            json!(exp),
        ] {
            let token = hs256("key", &claims);
            assert_eq!(verdict(&hs256_settings(), &token), "jwt-claims", "{claims}");
        }
        for raw in [
            format!(r#"{{"exp":1,"exp":{exp}}}"#),
            r#"{"exp":1e400}"#.to_owned(),
            r#"{"exp":NaN}"#.to_owned(),
            format!(r#"{{"exp":{exp}}} {{}}"#),
        ] {
            let head = part(&json!({ "alg": "HS256" }));
            let signed = format!("{head}.{}", BASE64URL_NOPAD.encode(raw.as_bytes()));
            let token = sign_text(&signed, &EncodingKey::from_secret(b"key"), Algorithm::HS256);
            assert_eq!(verdict(&hs256_settings(), &token), "jwt-claims", "{raw}");
        }
    }

    #[test]
    fn issuer_and_audience_must_be_ours_when_configured() {
        let jwt = Jwt {
            issuer: Some("adobe".to_owned()),
            audience: Some("receiptd".to_owned()),
            ..hs256_settings()
        };
        let exp = NOW_S + 300;
        for (iss, aud, expected) in [
            (json!("adobe"), json!("receiptd"), "by jwt"),
            (json!("adobe"), json!(["other", "receiptd"]), "by jwt"),
            (json!("Adobe"), json!("receiptd"), "jwt-issuer"),
            (json!("adobe "), json!("receiptd"), "jwt-issuer"),
            (json!("adobe"), json!("receipt"), "jwt-audience"),
            (json!("adobe"), json!(["other"]), "jwt-audience"),
            (json!("adobe"), json!([]), "jwt-audience"),
        ] {
            let token = hs256("key", &json!({ "exp": exp, "iss": iss, "aud": aud }));
            assert_eq!(verdict(&jwt, &token), expected, "{iss} {aud}");
        }
        let token = hs256("key", &json!({ "exp": exp, "aud": "receiptd" }));
        assert_eq!(verdict(&jwt, &token), "jwt-issuer");
        let token = hs256("key", &json!({ "exp": exp, "iss": "adobe" }));
        assert_eq!(verdict(&jwt, &token), "jwt-audience");
        let token = hs256("key", &json!({ "exp": exp, "iss": "anyone", "aud": ["anything"] }));
        assert_eq!(verdict(&hs256_settings(), &token), "by jwt", "not configured, not compared");
    }

    #[test]
    fn garbage_is_refused_and_a_token_without_the_shape_of_a_jwt_is_simply_wrong() {
        let good = hs256("key", &claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let array = BASE64URL_NOPAD.encode(br#"["HS256"]"#);
        let twice = BASE64URL_NOPAD.encode(br#"{"alg":"none","alg":"HS256"}"#);
        for (token, expected) in [
            ("opaque".to_owned(), "wrong"),
            ("a.b".to_owned(), "wrong"),
            (format!("{good}.{signature}"), "wrong"),
            ("..".to_owned(), "jwt-malformed"),
            ("a.b.c".to_owned(), "jwt-malformed"),
            (format!("{array}.e30.{signature}"), "jwt-malformed"),
            (format!("{twice}.e30.{signature}"), "jwt-malformed"),
            (format!("{signed}.{signature}="), "jwt-signature"),
            (format!("{signed}.{}", &signature[1..]), "jwt-signature"),
            (format!("{signed}. {signature}"), "jwt-signature"),
            (format!("{signed}."), "jwt-signature"),
            (format!(".{signed}"), "jwt-malformed"),
            (format!("{good}{}", "A".repeat(16 * 1024)), "wrong"),
        ] {
            assert_eq!(verdict(&hs256_settings(), &token), expected, "{token:.60}");
        }
    }

    #[test]
    fn a_critical_extension_is_refused_because_none_is_understood() {
        let key = EncodingKey::from_secret(b"key");
        for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null)] {
            let head = json!({ "alg": "HS256", "crit": crit });
            let token = sign(&head, &claims(), &key, Algorithm::HS256);
            assert_eq!(verdict(&hs256_settings(), &token), "jwt-malformed", "{crit}");
        }
    }

    #[test]
    fn a_static_bearer_may_look_like_a_jwt() {
        let lookalike = hs256("not the key", &json!({}));
        let credentials = Credentials {
            tokens: vec![token("static", &lookalike)],
            jwt: Some(hs256_settings()),
            ..Credentials::default()
        };
        let doorkeeper = Doorkeeper::new(&credentials, Provider::Ajo);
        let head = authorization(format!("Bearer {lookalike}"));
        assert_eq!(word(&doorkeeper, &head, now()), "token static");
        let genuine = authorization(format!("Bearer {}", hs256("key", &claims())));
        assert_eq!(word(&doorkeeper, &genuine, now()), "by jwt");
    }
}
