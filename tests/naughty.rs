//! Bad input cannot hurt.
//!
//! Whatever the bytes, every provider gives a reading, and no reason it gives holds anything of the
//! body: the word [`CANARY`] stands in every value that is put in, and must not come out in one.

use proptest::prelude::*;
use receiptd::callback::{Event, News};
use receiptd::provider::{self, Dialect, Provider, notify};

#[path = "support/naughty.rs"]
mod inputs;

use inputs::{CANARY, SEEDS, naughty_values, with_each_value_replaced};

/// Longer than any sentence a reason is, far shorter than the bodies below.
const REASON_CHARS_MAX: usize = 200;

/// Tenants are configured, so that this check meets naughty values too, and must not tell ours.
fn dialects() -> impl Iterator<Item = Dialect> {
    let tenant = Some("CANARY of the configuration".to_owned());
    let ajo = Dialect { ims_org: tenant.clone(), sandbox: tenant, ..Provider::Ajo.into() };
    Provider::ALL.into_iter().map(Dialect::from).chain([ajo])
}

fn assert_harmless(body: &[u8]) {
    for dialect in dialects() {
        let reading = provider::read(&dialect, body);
        assert!(reading.events.iter().all(|event| !event.id().is_empty()));
        let Some(reason) = reading.unrecognised else {
            assert!(!reading.events.is_empty(), "{dialect:?} said nothing at all");
            continue;
        };
        assert!(!reason.to_uppercase().contains(CANARY), "{dialect:?} told: {reason}");
        assert!(reason.len() <= REASON_CHARS_MAX && !reason.contains(char::is_control), "{reason}");
    }
    assert!(!notify::signature_agrees(CANARY.as_bytes(), body, &[b'0'; 64]));
    assert!(!notify::signature_agrees(CANARY.as_bytes(), body, body));
}

#[test]
fn a_naughty_value_in_any_field_does_no_harm() {
    for seed in SEEDS {
        for value in naughty_values() {
            for body in with_each_value_replaced(seed, &value) {
                assert_harmless(body.as_bytes());
            }
        }
    }
}

#[test]
fn naughty_bodies_do_no_harm() {
    let deep = 100_000;
    for body in [
        "",
        " ",
        "\0",
        "null",
        "true",
        "0",
        "1e400",
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "[{}]",
        "{]",
        r#""CANARY""#,
        r#"["CANARY"]"#,
        r#"{"CANARY":1}"#,
        r#"{"\ud800CANARY":1}"#,
        "CANARY",
        r#"{"id":"CANARY"} CANARY"#,
        r#"{"id":"CANARY"}{"id":"CANARY"}"#,
        "{'id':'CANARY'}",
        r#"{"status":"CANARY","status":null,"notification_type":"CANARY"}"#,
        r#"{"id":"CANARY",}"#,
        r#"{"id":NaN,"CANARY":Infinity}"#,
        r#"/*CANARY*/{}"#,
        "\u{feff}",
        "\u{feff}{}",
        "\u{feff}\u{feff}{}",
        r#"{"health_check":"CANARY"}"#,
        "status=CANARY&id=1",
        r#"{"id":"CANARY\x"}"#,
        r#"{"id":"CANARY\ud8"}"#,
        "{\"id\":\"CANARY\n\"}",
        "<CANARY/>",
    ] {
        assert_harmless(body.as_bytes());
    }
    for body in ["[", "{", r#"{"a":"#, "[{\"a\":", "]", "\"", "\\", "[1,", "\u{feff}"] {
        assert_harmless(body.repeat(deep).as_bytes());
    }
    assert_harmless(format!(r#"{{"{}":1}}"#, CANARY.repeat(deep)).as_bytes());
    assert_harmless(format!("{}{}", "[".repeat(deep), "]".repeat(deep)).as_bytes());
    let many_keys: Vec<_> = (0..deep).map(|n| format!(r#""{n}":"CANARY""#)).collect();
    assert_harmless(format!("{{{}}}", many_keys.join(",")).as_bytes());
}

#[test]
fn bytes_that_are_no_utf_8_do_no_harm() {
    for seed in SEEDS {
        let utf_16 = seed.encode_utf16();
        assert_harmless(&utf_16.clone().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
        assert_harmless(&utf_16.flat_map(u16::to_be_bytes).collect::<Vec<_>>());
        for byte in [0x00, 0x1F, b'"', b'\\', b'{', b']', 0x80, 0xC0, 0xED, 0xFF] {
            for place in 0..seed.len() {
                let mut body = seed.as_bytes().to_vec();
                body[place] = byte;
                assert_harmless(&body);
            }
        }
    }
}

#[test]
fn no_part_of_a_body_is_taken_for_the_whole() {
    for seed in SEEDS {
        for length in 0..seed.len() {
            for dialect in dialects() {
                let reading = provider::read(&dialect, &seed.as_bytes()[..length]);
                assert_eq!(reading.events, [], "{length} bytes of {seed}");
                assert!(reading.unrecognised.is_some());
            }
        }
    }
}

#[test]
fn a_naughty_text_is_kept_character_for_character() {
    for (json, kept) in [
        (r#""nul \u0000 nul""#, "nul \0 nul"),
        (r#""\u202eright to left""#, "\u{202e}right to left"),
        (r#""half \ud800""#, "half \u{fffd}"),
        (r#""\udc00\ud83d\ude00\ud83d""#, "\u{fffd}😀\u{fffd}"),
        (r#""' OR 1=1; --""#, "' OR 1=1; --"),
        ("1e400", "1e400"),
        ("-0.10", "-0.10"),
        (r#"{"a" :[1]}"#, r#"{"a" :[1]}"#),
        (r#"" ""#, " "),
        (r#""""#, ""),
    ] {
        let body = SEEDS[0].replace(r#""reference":"r""#, &format!(r#""reference":{json}"#));
        let events = provider::read(&Provider::Notify.into(), body.as_bytes()).events;
        let [Event { news: News::Notification(report), .. }] = &events[..] else {
            panic!("{json} gave {events:?}");
        };
        assert_eq!(report.identity.reference.as_deref(), Some(kept), "{json}");
        assert_eq!(report.standing.as_ref().unwrap().status, "delivered");
    }
}

#[test]
fn an_id_that_is_no_faithful_string_settles_nothing() {
    for id in ["7", "null", r#""""#, "[]", "{}", "true", r#""\ud800""#, "1e400"] {
        for seed in &SEEDS[..5] {
            let body = seed.replace(r#"id":"n""#, &format!(r#"id":{id}"#));
            let body = body.replace(r#"{"id":"m""#, &format!(r#"{{"id":{id}"#));
            let reading = provider::read(&Provider::Notify.into(), body.as_bytes());
            assert_eq!(reading.events, [], "{body}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(body in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_harmless(&body);
    }

    #[test]
    fn random_texts_in_a_body_do_no_harm(
        seed in prop::sample::select(SEEDS.to_vec()),
        at in any::<prop::sample::Index>(),
        text in any::<String>(),
    ) {
        let mut body = seed.to_owned();
        body.insert_str(at.index(seed.len()), &text);
        assert_harmless(body.as_bytes());
    }
}
