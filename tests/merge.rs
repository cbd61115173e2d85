//! What is known of a notification is a function of the set of its receipts.
//!
//! Receipts are made from bodies, by the providers. Properties hold for any multiset of them; every
//! triple of statuses is also held against an oracle that knows nothing of joins: it sorts, by the
//! words of the senders' rules, and takes the last.

use std::cmp::Ordering;

use proptest::prelude::*;
use receiptd::callback::{Kind, News, Origin, Report};
use receiptd::clock::Timestamp;
use receiptd::merge::Facts;
use receiptd::provider::{self, Provider};
use sha2::{Digest, Sha256};

/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn report(provider: Provider, body: &str) -> Report {
    report_from(provider, Origin::CalledBack, body)
}

fn report_from(provider: Provider, origin: Origin, body: &str) -> Report {
    let mut reading = provider::read_entry(&provider.into(), origin, body.as_bytes());
    assert_eq!(reading.unrecognised, None, "{body}");
    match reading.events.pop().map(|event| event.news) {
        Some(News::Notification(report)) => *report,
        other => panic!("{body} gave {other:?}"),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn facts(provider: Provider, body: &str) -> Facts {
    Facts::of(report(provider, body), at("2026-11-22T10:00:00Z"))
}

fn joined(facts: impl IntoIterator<Item = Facts>) -> Facts {
    facts.into_iter().fold(Facts::default(), Facts::join)
}

// --- properties ----------------------------------------------------------------------------------

/// Anything a provider may say of one notification, with few enough values that receipts often
/// agree, tie and contradict each other.
fn any_facts() -> impl Strategy<Value = Facts> {
    let received = prop::sample::select(vec!["2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z"]);
    let called_back =
        prop_oneof![6 => notify_receipt(), 3 => ajo_event(), 1 => complaint(), 1 => letter()];
    let report = prop_oneof![
        11 => called_back.prop_map(|(provider, body)| report(provider, &body)),
        4 => answer().prop_map(|body| report_from(Provider::Notify, Origin::Polled, &body)),
    ];
    (report, received).prop_map(|(report, received)| Facts::of(report, at(received)))
}

/// What a platform says when it is asked, in either shape.
fn answer() -> impl Strategy<Value = String> {
    let status = prop::sample::select(WORDS.concat());
    let times = (json(TIMES), json(TIMES), json(TIMES));
    let texts = (json(TEXTS), json(TEXTS), json(TEXTS));
    let shape = prop::sample::select(vec![
        ("completed_at", "type", "email_address"),
        ("updated_at", "notification_type", "to"),
    ]);
    (status, times, texts, shape).prop_map(
        |(status, (version, sent, created), (reference, to, why), (at, kind, recipient))| {
            format!(
                r#"{{"id":"n","status":"{status}","{kind}":"sms","{recipient}":{to},"{at}":{version},
                "reference":{reference},"sent_at":{sent},"created_at":{created},
                "status_description":{why},"template":{{"id":{reference},"version":1}}}}"#
            )
        },
    )
}

fn json(values: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(values)
}

const TIMES: &[&str] = &[
    "null",
    r#""2026-11-01T00:00:00.000000Z""#,
    r#""2026-11-01T00:00:00.000001Z""#,
    r#""2026-11-02T00:00:00Z""#,
];
const TEXTS: &[&str] = &["null", r#""""#, r#""a""#, r#""b""#, r#""\u00e9""#];

fn notify_receipt() -> impl Strategy<Value = (Provider, String)> {
    let status = prop::sample::select(WORDS.concat());
    let times = (json(TIMES), json(TIMES), json(TIMES));
    let texts = (json(TEXTS), json(TEXTS), json(TEXTS), json(TEXTS), json(TEXTS));
    (status, times, texts, json(&["null", "1", "2"])).prop_map(
        |(status, (completed, sent, created), (reference, to, kind, why, said), version)| {
            let body = format!(
                r#"{{"id":"n","status":"{status}","notification_type":{kind},
                "reference":{reference},"to":{to},"completed_at":{completed},"sent_at":{sent},"created_at":{created},
                "status_description":{why},"provider_response":{said},
                "template_id":{reference},"template_version":{version}}}"#
            );
            (Provider::Notify, body)
        },
    )
}

fn ajo_event() -> impl Strategy<Value = (Provider, String)> {
    let event = prop::sample::select(ajo_events("email"));
    (event, prop::sample::select(vec!["email", "sms"]), 0..2_u8)
        .prop_map(|(event, channel, slot)| (Provider::Ajo, ajo_body(channel, &event, slot.into())))
}

fn complaint() -> impl Strategy<Value = (Provider, String)> {
    (json(TIMES), json(TEXTS)).prop_map(|(date, reference)| {
        let body = format!(
            r#"{{"notification_id":"n","complaint_id":"c","reference":{reference},
            "complaint_date":{date}}}"#
        );
        (Provider::Notify, body)
    })
}

fn letter() -> impl Strategy<Value = (Provider, String)> {
    (json(TEXTS), json(TEXTS)).prop_map(|(reference, template)| {
        let body = format!(
            r#"{{"notification_id":"n","date_sent":null,"template_name":null,
            "reference":{reference},"template_id":{template}}}"#
        );
        (Provider::GovukNotify, body)
    })
}

/// Facts, the same facts in another order with some repeated, and where to cut those into batches.
fn retold() -> impl Strategy<Value = (Vec<Facts>, Vec<Facts>, Vec<bool>)> {
    prop::collection::vec(any_facts(), 1..8)
        .prop_flat_map(|facts| {
            let repeated = prop::collection::vec(prop::sample::select(facts.clone()), 0..6);
            (Just(facts), repeated)
        })
        .prop_flat_map(|(facts, repeated)| {
            let all = [facts.clone(), repeated].concat();
            let cuts = prop::collection::vec(any::<bool>(), all.len());
            (Just(facts), Just(all).prop_shuffle(), cuts)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn order_repetition_and_batches_make_no_difference((told, retold, cuts) in retold()) {
        let expected = joined(told);
        prop_assert_eq!(&joined(retold.clone()), &expected);
        let mut batches = vec![Vec::new()];
        for (facts, cut) in retold.into_iter().zip(cuts) {
            if cut {
                batches.push(Vec::new());
            }
            batches.last_mut().unwrap().push(facts);
        }
        let batches: Vec<_> = batches.into_iter().map(joined).collect();
        prop_assert_eq!(&joined(batches.iter().cloned()), &expected);
        prop_assert_eq!(&joined(batches.into_iter().rev()), &expected);
    }

    #[test]
    fn joining_is_idempotent_commutative_and_associative(
        (a, b, c) in (any_facts(), any_facts(), any_facts())
    ) {
        prop_assert_eq!(a.clone().join(a.clone()), a.clone());
        prop_assert_eq!(a.clone().join(Facts::default()), a.clone());
        prop_assert_eq!(a.clone().join(b.clone()), b.clone().join(a.clone()));
        prop_assert_eq!(
            a.clone().join(b.clone()).join(c.clone()),
            a.clone().join(b.clone().join(c.clone()))
        );
    }
}

// --- what was asked for, against its rules -------------------------------------------------------

/// A callback, and what the read API says of the same row: null for a version unless it is an end.
fn told(origin: Origin, status: &str, version: Option<&str>) -> Facts {
    let version = version.map_or("null".to_owned(), |at| format!("\"{at}\""));
    let kind = if origin == Origin::Polled { "type" } else { "notification_type" };
    let body = format!(
        r#"{{"id": "n", "status": "{status}", "{kind}": "sms", "completed_at": {version}}}"#
    );
    Facts::of(report_from(Provider::Notify, origin, &body), at("2026-11-22T10:00:00Z"))
}

const EARLIER: &str = "2026-11-01T00:00:00.000000Z";
const LATER: &str = "2026-11-01T00:00:00.000001Z";

#[test]
fn an_answer_without_a_version_undoes_no_callback_that_has_one() {
    for called_back in WORDS.concat() {
        let callback = told(Origin::CalledBack, called_back, Some(EARLIER));
        for polled in WORDS.concat() {
            let answer = told(Origin::Polled, polled, None);
            assert_eq!(answer.join(callback.clone()), callback, "{polled} {called_back}");
        }
    }
}

#[test]
fn the_later_of_a_callback_and_an_answer_wins_whatever_they_say() {
    let (callback, answer) = (Origin::CalledBack, Origin::Polled);
    for a in WORDS.concat() {
        for b in WORDS.concat() {
            for (first, second) in [(callback, answer), (answer, callback)] {
                let (early, late) = (told(first, a, Some(EARLIER)), told(second, b, Some(LATER)));
                assert_eq!(early.clone().join(late.clone()).standing, late.standing, "{a} {b}");
            }
        }
    }
}

#[test]
fn an_answer_that_shows_what_a_callback_showed_is_no_news() {
    for word in WORDS.concat() {
        for version in [None, Some(EARLIER)] {
            let callback = told(Origin::CalledBack, word, version);
            let answer = told(Origin::Polled, word, version);
            assert_eq!(callback.clone().join(answer), callback, "{word}");
        }
    }
}

// --- the Notify family, against its rules --------------------------------------------------------

/// The statuses of the family from the lowest rank to the highest; those in a row are equal.
const WORDS: [&[&str]; 10] = [
    &["created"],
    &["pending-virus-check"],
    &["sending"],
    &["pending"],
    &["sent", "accepted", "received", "an-unknown-word"],
    &["temporary-failure", "failed"],
    &["delivered"],
    &[
        "technical-failure",
        "provider-failure",
        "validation-failure",
        "validation-failed",
        "virus-scan-failed",
        "pii-check-failed",
        "cancelled",
    ],
    &["permanent-failure"],
    &["returned-letter"],
];

/// A receipt as the oracle sees it: words and bytes.
struct Told {
    status: &'static str,
    completed_at: Option<&'static str>,
    body: String,
    facts: Facts,
}

impl Told {
    fn new(status: &'static str, completed_at: Option<&'static str>, slot: usize) -> Self {
        let version = completed_at.map_or("null".to_owned(), |at| format!("\"{at}\""));
        let body = format!(
            r#"{{"id":"n","status":"{status}","completed_at":{version},
            "notification_type":null,"slot":{slot}}}"#
        );
        let facts = facts(Provider::Notify, &body);
        Self { status, completed_at, body, facts }
    }

    fn rank(&self) -> usize {
        WORDS.iter().position(|row| row.contains(&self.status)).unwrap()
    }
}

/// "The highest `completed_at` wins; null is lowest; on equal versions the higher rank wins; then
/// the larger fingerprint of the body." The timestamps are of one form, so their texts compare.
fn by_the_familys_rules(a: &&Told, b: &&Told) -> Ordering {
    let version = match (a.completed_at, b.completed_at) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => a.cmp(b),
    };
    version
        .then_with(|| a.rank().cmp(&b.rank()))
        .then_with(|| Sha256::digest(&a.body).cmp(&Sha256::digest(&b.body)))
}

#[test]
fn every_triple_of_statuses_settles_by_the_familys_rules_in_every_order() {
    let times = [
        Some("2026-11-01T00:00:00.000000Z"),
        Some("2026-11-01T00:00:00.000001Z"),
        Some("2026-11-02T00:00:00.000000Z"),
    ];
    let [t1, t2, t3] = times;
    // With every triple of statuses, these are all ways three versions can lie.
    let versions = [
        [None, None, None],
        [None, None, t1],
        [None, t1, t1],
        [None, t1, t2],
        [t1, t1, t1],
        [t1, t1, t2],
        [t1, t2, t2],
        [t1, t2, t3],
    ];
    for versions in versions {
        let column = |slot: usize| {
            WORDS
                .concat()
                .into_iter()
                .map(|word| Told::new(word, versions[slot], slot))
                .collect::<Vec<_>>()
        };
        let columns = [column(0), column(1), column(2)];
        for a in &columns[0] {
            for b in &columns[1] {
                for c in &columns[2] {
                    assert_the_winner_is_found([a, b, c]);
                }
            }
        }
    }
}

fn assert_the_winner_is_found(told: [&Told; 3]) {
    let mut sorted = told;
    sorted.sort_by(by_the_familys_rules);
    let winner = &sorted[2].facts.standing;
    for order in ORDERS {
        let standing = joined(order.map(|place| told[place].facts.clone())).standing;
        if &standing != winner {
            let bodies = told.map(|told| &told.body);
            panic!("{bodies:?} in order {order:?} settled to {standing:?}, expected {winner:?}");
        }
    }
}

// --- Adobe Journey Optimizer, against its rules --------------------------------------------------

/// An event as the sender writes it, and what its rules make of it on one channel.
#[derive(Clone, Debug)]
struct AjoEvent {
    event: &'static str,
    failure: String,
    /// The stage of the channel's order it stands in, from the lowest, and its status.
    expected: Option<(usize, &'static str)>,
}

fn ajo_body(channel: &str, event: &AjoEvent, slot: usize) -> String {
    let AjoEvent { event, failure, .. } = event;
    format!(
        r#"{{"channel":"{channel}","messageExecution":{{"messageProfileID":"n"}},"slot":{slot},
        "messageDeliveryFeedback":{{"feedbackStatus":{{"value":"{event}"}},{failure}}}}}"#
    )
}

/// The place of an event in the order of its channel.
///
/// - E-mail: delay, unknown < error, exclude, denylist < sent < bounce (sync) < delivered, read <
///   bounce (async, `out_of_band`).
/// - Text messages: delay, unknown < error, exclude, denylist < sent < bounce < delivered, read.
fn ajo_place(channel: &str, name: &str) -> usize {
    let email: &[&[&str]] = &[
        &["delay", "unknown"],
        &["error", "exclude", "denylist"],
        &["sent"],
        &["bounce sync"],
        &["delivered", "read"],
        &["bounce async", "out_of_band sync", "out_of_band async"],
    ];
    let sms: &[&[&str]] = &[
        &["delay", "unknown"],
        &["error", "exclude", "denylist"],
        &["sent"],
        &["bounce sync", "bounce async", "out_of_band sync", "out_of_band async"],
        &["delivered", "read"],
    ];
    let order = if channel == "email" { email } else { sms };
    order.iter().position(|row| row.contains(&name)).unwrap()
}

/// Every kind of event there is on a channel.
fn ajo_events(channel: &str) -> Vec<AjoEvent> {
    let mut events = Vec::new();
    for (event, status) in [
        ("delay", "pending"),
        ("unknown", "pending"),
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "delivered"),
        ("error", "technical-failure"),
        ("denylist", "permanent-failure"),
    ] {
        let expected = Some((ajo_place(channel, event), status));
        events.push(AjoEvent { event, failure: r#""messageFailure":null"#.into(), expected });
    }
    for (code, status) in [("050102", "permanent-failure"), ("050109", "technical-failure")] {
        let failure = format!(r#""messageExclusion":{{"code":"{code}"}}"#);
        let expected = Some((ajo_place(channel, "exclude"), status));
        events.push(AjoEvent { event: "exclude", failure, expected });
    }
    for event in ["duplicate", "something-new"] {
        events.push(AjoEvent { event, failure: r#""offers":null"#.into(), expected: None });
    }
    for event in ["bounce", "out_of_band"] {
        for category in ["sync", "async"] {
            events.extend(ajo_bounces(channel, event, category));
        }
    }
    events
}

fn ajo_bounces(channel: &str, event: &'static str, category: &str) -> Vec<AjoEvent> {
    let place = ajo_place(channel, &format!("{event} {category}"));
    let by_code = |code: Option<&'static str>, otherwise| {
        if channel == "email" { code } else { Some(otherwise) }
    };
    [
        ("Hard", "99", Some("permanent-failure")),
        ("admin", "99", Some("technical-failure")),
        ("Soft", "22", Some("temporary-failure")),
        ("Ignored", "25", by_code(Some("technical-failure"), "temporary-failure")),
        ("Soft", "10", by_code(Some("permanent-failure"), "temporary-failure")),
        ("Ignored", "60", by_code(None, "temporary-failure")),
    ]
    .into_iter()
    .map(|(kind, code, status)| AjoEvent {
        event,
        failure: format!(
            r#""messageFailure":{{"category":"{category}","type":"{kind}","code":"{code}"}}"#
        ),
        expected: status.map(|status| (place, status)),
    })
    .collect()
}

/// The place decides; then permanent over temporary over technical; then the fingerprint.
fn by_adobes_rules(a: &(usize, &str, String), b: &(usize, &str, String)) -> Ordering {
    let finality = |status: &str| {
        ["technical-failure", "temporary-failure", "permanent-failure"]
            .iter()
            .position(|failure| *failure == status)
    };
    a.0.cmp(&b.0)
        .then_with(|| finality(a.1).cmp(&finality(b.1)))
        .then_with(|| Sha256::digest(&a.2).cmp(&Sha256::digest(&b.2)))
}

/// An event, its body, its facts: the same event in each of three slots has three fingerprints.
type Slot = Vec<(AjoEvent, String, Facts)>;

#[test]
fn every_triple_of_events_settles_by_adobes_rules_in_every_order_on_every_channel() {
    for channel in ["email", "sms", "push"] {
        let column = |slot: usize| -> Slot {
            ajo_events(channel)
                .into_iter()
                .map(|event| {
                    let body = ajo_body(channel, &event, slot);
                    let facts = facts(Provider::Ajo, &body);
                    (event, body, facts)
                })
                .collect()
        };
        let columns = [column(0), column(1), column(2)];
        for a in &columns[0] {
            for b in &columns[1] {
                for c in &columns[2] {
                    assert_adobes_winner_is_found(channel, [a, b, c]);
                }
            }
        }
    }
}

fn assert_adobes_winner_is_found(channel: &str, told: [&(AjoEvent, String, Facts); 3]) {
    let mut sorted: Vec<_> = told
        .iter()
        .filter_map(|(event, body, _)| {
            event.expected.map(|(place, status)| (place, status, body.clone()))
        })
        .collect();
    sorted.sort_by(by_adobes_rules);
    let winner = sorted.last();
    for order in ORDERS {
        let standing = joined(order.map(|place| told[place].2.clone())).standing;
        let settled =
            standing.as_ref().map(|s| (s.status.as_str(), &s.precedence.fingerprint.0[..]));
        let digest = winner.map(|(_, _, body)| Sha256::digest(body));
        let expected = winner.zip(digest.as_ref()).map(|((_, s, _), d)| (*s, &d[..16]));
        assert_eq!(settled, expected, "{channel} {order:?}: {:?}", told.map(|(event, ..)| event));
    }
}

// --- facts that are no status --------------------------------------------------------------------

#[test]
fn a_complaint_marks_its_notification_even_if_its_date_cannot_be_read() {
    let received = at("2026-11-22T10:00:00Z");
    for date in ["null", r#""soon""#, "17"] {
        let body =
            format!(r#"{{"notification_id":"n","complaint_id":"c","complaint_date":{date}}}"#);
        let complained_at = Facts::of(report(Provider::Notify, &body), received).complained_at;
        assert_eq!(complained_at, Some(received), "{date}");
    }
    let dated =
        r#"{"notification_id":"n","complaint_id":"c","complaint_date":"2001-01-01T12:00:00Z"}"#;
    let complained_at = Facts::of(report(Provider::Notify, dated), received).complained_at;
    assert_eq!(complained_at, Some(at("2001-01-01T12:00:00Z")));
}

#[test]
fn a_receipt_neither_complains_nor_returns_a_letter() {
    let body = r#"{"id":"n","status":"delivered","notification_type":"email"}"#;
    let facts = facts(Provider::Notify, body);
    assert_eq!((facts.complained_at, facts.returned_at), (None, None));
}

#[test]
fn a_letter_came_back_when_we_first_heard_of_it() {
    let body = r#"{"notification_id":"n","date_sent":null,"template_name":null}"#;
    let letter = report(Provider::GovukNotify, body);
    assert_eq!(letter.kind, Kind::ReturnedLetter);
    let [first, later] = ["2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z"].map(at);
    let facts = Facts::of(letter.clone(), later).join(Facts::of(letter, first));
    assert_eq!((facts.returned_at, facts.standing), (Some(first), None));
}
