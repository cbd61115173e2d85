//! Bodies to state, the whole way but the files.
//!
//! The input's first line is the name of a provider (any other word stands for `notify`); each
//! further line is a body. Whatever they are:
//! - every body gives an event or is unrecognised, and nothing panics on the way;
//! - the state is that which reading and joining alone give, without any table;
//! - every order, in one batch or one by one, gives one state;
//! - all of it once more changes nothing but the number of duplicates.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use receiptd::callback::{Fingerprint, Kind, News};
use receiptd::clock::Timestamp;
use receiptd::merge::Facts;
use receiptd::provider::{self, Dialect, Provider};
use receiptd::replay::permute::{Verdict, permute};
use receiptd::replay::{Fixture, Offline, Outcome, SettledNotification, received_at};

/// Bodies that are settled; those of one notification in every order.
const BODIES_MAX: usize = 8;

/// With more bodies than this only one other order is tried: the number of orders explodes.
const PERMUTED_MAX: usize = 3;

thread_local! {
    static OFFLINE: RefCell<BTreeMap<&'static str, Offline>> = const { RefCell::new(BTreeMap::new()) };
}

/// Checks bodies of one provider.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let word = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let provider: Provider = word.trim().parse().unwrap_or(Provider::Notify);
    let fixtures: Vec<Fixture> =
        lines.take(BODIES_MAX).map(|line| Fixture::new("body", line)).collect();
    OFFLINE.with_borrow_mut(|all| {
        let new = || Offline::new("one", provider).unwrap();
        check_bodies(all.entry(provider.as_str()).or_insert_with(new), provider, &fixtures);
    });
}

fn check_bodies(offline: &mut Offline, provider: Provider, fixtures: &[Fixture]) {
    let outcome = offline.settle(fixtures).unwrap();
    assert_eq!(outcome.notifications, joined(&provider.into(), fixtures));
    assert_unrecognised(&outcome, &provider.into(), fixtures);
    let backwards = offline.settle(fixtures.iter().rev()).unwrap();
    assert_eq!(backwards.notifications, outcome.notifications);
    if fixtures.len() <= PERMUTED_MAX {
        let verdict = permute(offline, fixtures, 0).unwrap();
        assert!(matches!(verdict, Verdict::One { .. }), "{verdict:?}");
    }
    let twice = offline.settle(fixtures.iter().chain(fixtures)).unwrap();
    assert_eq!(without_duplicates(twice), without_duplicates(outcome));
}

fn without_duplicates(outcome: Outcome) -> Vec<SettledNotification> {
    let without = |settled| SettledNotification { duplicates: 0, ..settled };
    outcome.notifications.into_iter().map(without).collect()
}

/// A body is unrecognised exactly where its reading says so, and nothing is passed over.
fn assert_unrecognised(outcome: &Outcome, dialect: &Dialect, fixtures: &[Fixture]) {
    let mut expected = Vec::new();
    for (place, fixture) in fixtures.iter().enumerate() {
        let reading = provider::read(dialect, &fixture.body);
        assert!(!reading.events.is_empty() || reading.unrecognised.is_some());
        expected.extend(reading.unrecognised.map(|reason| (place, reason.into_owned())));
    }
    assert_eq!(outcome.unrecognised, expected);
}

/// What is known of one notification, without any table.
#[derive(Default)]
struct Known {
    facts: Facts,
    seen: BTreeSet<Fingerprint>,
    receipts: i64,
    duplicates: i64,
}

fn joined(dialect: &Dialect, fixtures: &[Fixture]) -> Vec<SettledNotification> {
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for event in fixtures.iter().flat_map(|fixture| provider::read(dialect, &fixture.body).events) {
        let fingerprint = event.fingerprint;
        let News::Notification(report) = event.news else { continue };
        let known = all.entry(report.id.clone()).or_default();
        if known.seen.insert(fingerprint) {
            known.receipts += i64::from(report.kind == Kind::Receipt);
            known.facts = std::mem::take(&mut known.facts).join(Facts::of(*report, received_at()));
        } else {
            known.duplicates += 1;
        }
    }
    all.into_iter().map(|(id, known)| settled(id, known)).collect()
}

fn settled(id: String, known: Known) -> SettledNotification {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let Known { facts: Facts { standing, identity, complained_at, returned_at }, .. } = known;
    let (sent_at, completed_at) =
        standing.as_ref().map_or((None, None), |told| (told.sent_at, told.completed_at));
    let (status, status_description, provider_response) = match standing {
        None => (None, None, None),
        Some(told) => (Some(told.status), told.status_description, told.provider_response),
    };
    SettledNotification {
        id,
        status,
        status_description,
        provider_response,
        reference: identity.reference,
        recipient: identity.recipient,
        notification_type: identity.notification_type,
        template_id: identity.template_id,
        template_version: identity.template_version,
        created_at: text(identity.created_at),
        sent_at: text(sent_at),
        completed_at: text(completed_at),
        complained_at: text(complained_at),
        returned_at: text(returned_at),
        receipts: known.receipts,
        duplicates: known.duplicates,
    }
}
