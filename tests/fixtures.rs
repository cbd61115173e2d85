//! Every fixture settles to what it says it does, in any order.
//!
//! `tests/fixtures/<provider>/<case>/` holds `callbacks/NN-name.json` (one body a file, byte for
//! byte) or `callbacks/NN.jsonl` (one body a line), and `expected.jsonl`: what is settled, one
//! notification a line, sorted by id. A case that settles nothing has an empty `expected.jsonl`.
//! `receipts` counts distinct receipts, `duplicates` repeated identical callbacks of any kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use receiptd::callback::{Fingerprint, Kind, News};
use receiptd::clock::Timestamp;
use receiptd::merge::Facts;
use receiptd::provider::{self, Dialect, Provider};
use serde::{Deserialize, Serialize};

const SHUFFLES: u64 = 20;

/// The keys of a line of `expected.jsonl`, in their order.
const KEYS: [&str; 15] = [
    "id",
    "status",
    "status_description",
    "provider_response",
    "reference",
    "recipient",
    "notification_type",
    "template_id",
    "template_version",
    "created_at",
    "sent_at",
    "completed_at",
    "complained_at",
    "receipts",
    "duplicates",
];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settled {
    id: String,
    status: Option<String>,
    status_description: Option<String>,
    provider_response: Option<String>,
    reference: Option<String>,
    recipient: Option<String>,
    notification_type: Option<String>,
    template_id: Option<String>,
    template_version: Option<i64>,
    created_at: Option<String>,
    sent_at: Option<String>,
    completed_at: Option<String>,
    complained_at: Option<String>,
    receipts: usize,
    duplicates: usize,
}

struct Case {
    name: String,
    dialect: Dialect,
    bodies: Vec<Vec<u8>>,
    expected: Vec<Settled>,
}

/// What settling keeps of one notification, without any of its machinery.
#[derive(Default)]
struct Kept {
    facts: Facts,
    seen: BTreeSet<(Kind, Fingerprint)>,
    duplicates: usize,
}

#[test]
fn every_case_settles_as_expected_in_any_order() {
    for case in cases() {
        let forwards: Vec<_> = case.bodies.iter().collect();
        assert_settles(&case, &forwards, "in the order given");
        let backwards: Vec<_> = case.bodies.iter().rev().collect();
        assert_settles(&case, &backwards, "reversed");
        for seed in 0..SHUFFLES {
            assert_settles(&case, &shuffled(&forwards, seed), &format!("shuffled with {seed}"));
        }
    }
}

#[test]
fn every_provider_has_a_case() {
    let cases = cases();
    for provider in Provider::ALL {
        assert!(cases.iter().any(|case| case.dialect.provider == provider), "{provider}");
    }
}

fn assert_settles(case: &Case, bodies: &[&Vec<u8>], order: &str) {
    let settled = settle(&case.dialect, bodies);
    let ids = |settled: &[Settled]| settled.iter().map(|s| s.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&settled), ids(&case.expected), "{}, {order}: ids", case.name);
    for (settled, expected) in settled.iter().zip(&case.expected) {
        let settled = serde_json::to_value(settled).unwrap();
        let expected = serde_json::to_value(expected).unwrap();
        for key in KEYS {
            assert_eq!(settled[key], expected[key], "{}, {order}: {key}", case.name);
        }
    }
}

fn settle(dialect: &Dialect, bodies: &[&Vec<u8>]) -> Vec<Settled> {
    let received_at: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    let mut kept = BTreeMap::<String, Kept>::new();
    for event in bodies.iter().flat_map(|body| provider::read(dialect, body).events) {
        let (kind, fingerprint) = (event.kind(), event.fingerprint);
        let News::Notification(report) = event.news else { continue };
        let entry = kept.entry(report.id.clone()).or_default();
        if entry.seen.insert((kind, fingerprint)) {
            let facts = std::mem::take(&mut entry.facts);
            entry.facts = facts.join(Facts::of(*report, received_at));
        } else {
            entry.duplicates += 1;
        }
    }
    kept.into_iter().map(|(id, kept)| settled(id, kept)).collect()
}

fn settled(id: String, kept: Kept) -> Settled {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let Facts { standing, identity, complained_at, .. } = kept.facts;
    Settled {
        id,
        status: standing.as_ref().map(|s| s.status.clone()),
        status_description: standing.as_ref().and_then(|s| s.status_description.clone()),
        provider_response: standing.as_ref().and_then(|s| s.provider_response.clone()),
        reference: identity.reference,
        recipient: identity.recipient,
        notification_type: identity.notification_type,
        template_id: identity.template_id,
        template_version: identity.template_version,
        created_at: text(identity.created_at),
        sent_at: text(standing.as_ref().and_then(|s| s.sent_at)),
        completed_at: text(standing.as_ref().and_then(|s| s.completed_at)),
        complained_at: text(complained_at),
        receipts: kept.seen.iter().filter(|(kind, _)| *kind == Kind::Receipt).count(),
        duplicates: kept.duplicates,
    }
}

/// Fisher and Yates, with SplitMix64 for chance: the same seed shuffles alike everywhere.
fn shuffled<'a>(bodies: &[&'a Vec<u8>], seed: u64) -> Vec<&'a Vec<u8>> {
    let mut state = seed;
    let mut chance = move |below: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    };
    let mut bodies = bodies.to_vec();
    for last in (1..bodies.len()).rev() {
        bodies.swap(last, chance(last + 1));
    }
    bodies
}

/// Every case there is. A folder that is not one fails the test rather than be passed over.
fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut cases = Vec::new();
    for folder in entries(&root).into_iter().filter(|path| name(path) != ".gitattributes") {
        let provider: Provider = name(&folder).parse().unwrap_or_else(|_| {
            panic!("{} is not named after a provider", folder.display());
        });
        cases.extend(entries(&folder).iter().map(|path| case(provider, path)));
    }
    cases
}

fn case(provider: Provider, folder: &Path) -> Case {
    let names: Vec<_> = entries(folder).iter().map(|path| name(path)).collect();
    assert_eq!(names, ["callbacks", "expected.jsonl"], "{}", folder.display());
    let files = entries(&folder.join("callbacks"));
    assert!(!files.is_empty(), "{} has no callbacks", folder.display());
    let bodies = files.iter().zip(1..).flat_map(|(file, number)| bodies(file, number)).collect();
    let name = format!("{provider}/{}", name(folder));
    let expected = expected(&folder.join("expected.jsonl"));
    Case { name, dialect: provider.into(), bodies, expected }
}

fn bodies(file: &Path, number: usize) -> Vec<Vec<u8>> {
    let name = name(file);
    let rest = name.strip_prefix(&format!("{number:02}"));
    let rest = rest.unwrap_or_else(|| panic!("{} should be number {number:02}", file.display()));
    let bytes = fs::read(file).unwrap();
    if rest == ".jsonl" {
        return bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(Vec::from).collect();
    }
    let named = rest.starts_with('-') && rest.len() > "-.json".len() && rest.ends_with(".json");
    assert!(named, "{} is neither NN-name.json nor NN.jsonl", file.display());
    vec![bytes]
}

fn expected(file: &Path) -> Vec<Settled> {
    let text = fs::read_to_string(file).unwrap();
    let mut settled = Vec::<Settled>::new();
    for line in text.lines() {
        let places: Vec<_> = KEYS.iter().map(|key| line.find(&format!("\"{key}\": "))).collect();
        assert!(places.iter().all(Option::is_some), "{}: a key is missing", file.display());
        assert!(places.is_sorted(), "{}: keys are out of order", file.display());
        let line: Settled = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if let Some(last) = settled.last() {
            assert!(last.id < line.id, "{}: not sorted by id", file.display());
        }
        settled.push(line);
    }
    settled
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
