//! Every fixture case, through the library's own replay: the whole of settling, into a database.

use std::fs;
use std::path::{Path, PathBuf};

use receiptd::provider::{Dialect, Provider};
use receiptd::replay::expect::{self, Expected};
use receiptd::replay::order::Order;
use receiptd::replay::permute::{Verdict, permute};
use receiptd::replay::{Fixture, Offline, fixtures};

struct Case {
    name: String,
    dialect: Dialect,
    fixtures: Vec<Fixture>,
    expected: Vec<Expected>,
}

impl Case {
    fn at(folder: &Path) -> Self {
        let provider: Provider = name(folder.parent().unwrap()).parse().unwrap();
        let expected = fs::read_to_string(folder.join("expected.jsonl")).unwrap();
        Self {
            name: format!("{provider}/{}", name(folder)),
            dialect: provider.into(),
            fixtures: fixtures::load([folder]).unwrap(),
            expected: expect::parse(&expected).unwrap(),
        }
    }

    fn offline(&self) -> Offline {
        Offline::new("fixtures", self.dialect.clone()).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let cases: Vec<Case> = folders(&root)
        .iter()
        .flat_map(|provider| folders(provider))
        .map(|folder| Case::at(&folder))
        .collect();
    assert!(cases.len() > 50, "only {} cases", cases.len());
    cases
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn every_case_settles_as_expected_as_it_stands_reversed_and_shuffled() {
    for case in cases() {
        let mut offline = case.offline();
        let shuffled = (1..=5).map(|seed| Order::Shuffled { seed });
        for order in [Order::AsIs, Order::Reversed].into_iter().chain(shuffled) {
            let arranged = order.arrange(&case.fixtures, 1);
            let settled = offline.settle(&arranged).unwrap().notifications;
            let differences = expect::differences(&case.expected, &settled);
            assert_eq!(differences, [], "{}, {order:?}", case.name);
        }
    }
}

#[test]
fn no_order_of_any_case_gives_a_second_state() {
    let mut orders_tried = 0;
    for case in cases() {
        match permute(&mut case.offline(), &case.fixtures, 1).unwrap() {
            Verdict::One { notifications, orders } => {
                assert_eq!(notifications, case.expected.len(), "{}", case.name);
                orders_tried += orders;
            }
            Verdict::Two(conflict) => panic!("{}: {conflict:#?}", case.name),
        }
    }
    assert!(orders_tried > 200, "only {orders_tried} orders");
}

#[test]
fn repeating_everything_changes_nothing_but_the_duplicates() {
    for case in cases() {
        let mut offline = case.offline();
        let mut once = offline.settle(&case.fixtures).unwrap().notifications;
        let thrice = Order::Shuffled { seed: 7 }.arrange(&case.fixtures, 3);
        let mut thrice = offline.settle(&thrice).unwrap().notifications;
        for (once, thrice) in once.iter_mut().zip(&mut thrice) {
            assert!(thrice.duplicates > once.duplicates, "{}", case.name);
            (once.duplicates, thrice.duplicates) = (0, 0);
        }
        assert_eq!(once, thrice, "{}", case.name);
    }
}

/// Receipts of one notification with one version, so that ranks and fingerprints decide too.
fn receipts_of_one_version(statuses: &[&str]) -> Vec<Fixture> {
    let receipt = |status: &&str| {
        let body = format!(
            r#"{{"id": "740e5834-3a29-46b4-9a6f-16142fde533a", "reference": "for {status}",
                "to": "hello@example.gc.ca", "status": "{status}", "notification_type": "email",
                "created_at": "2026-11-22T10:00:00.000000Z", "sent_at": null,
                "completed_at": "2026-11-22T10:00:02.000000Z"}}"#
        );
        Fixture::new(*status, body)
    };
    statuses.iter().map(receipt).collect()
}

#[test]
fn up_to_seven_receipts_of_a_notification_every_order_is_tried() {
    let statuses = ["sent", "new", "newer", "delivered", "sending", "delivered", "created"];
    let fixtures = receipts_of_one_version(&statuses);
    let mut offline = Offline::new("fixtures", Provider::GcNotify).unwrap();
    let verdict = permute(&mut offline, &fixtures, 1).unwrap();
    assert_eq!(verdict, Verdict::One { notifications: 1, orders: 5_040 });
}

#[test]
fn of_more_receipts_a_thousand_orders_are_tried_by_chance() {
    let statuses = ["sent", "a", "b", "c", "d", "e", "f", "g"];
    let fixtures = receipts_of_one_version(&statuses);
    let mut offline = Offline::new("fixtures", Provider::GcNotify).unwrap();
    let verdict = permute(&mut offline, &fixtures, 1).unwrap();
    assert_eq!(verdict, Verdict::One { notifications: 1, orders: 1_000 });
}

#[test]
fn what_is_not_understood_is_named_by_its_place() {
    let fixtures = [Fixture::new("a", "[]"), Fixture::new("b", "no JSON")];
    let outcome = Offline::new("fixtures", Provider::GcNotify).unwrap().settle(&fixtures).unwrap();
    let places: Vec<_> = outcome.unrecognised.iter().map(|(place, _)| *place).collect();
    assert_eq!((places, outcome.notifications.len()), (vec![0, 1], 0));
}
