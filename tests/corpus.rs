//! Everything fuzzing has found, once more: the corpus in `fuzz/corpus/` through the very checks
//! that the fuzzer runs, on any toolchain and without libFuzzer. `fuzz/README.md` says how it grows.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod checks;

/// Fewer inputs than this are no corpus.
const INPUTS_MIN: usize = 10;

/// Bytes of the whole corpus: it is cloned by everybody.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Checks every input of one target, and names those that fail.
#[track_caller]
fn replay(target: &str) {
    let (_, check) = checks::TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let folder = root().join("corpus").join(target);
    let names = names(&folder);
    assert!(names.len() >= INPUTS_MIN, "{target} has {} inputs", names.len());
    let fails = |name: &String| {
        let bytes = fs::read(folder.join(name)).unwrap();
        catch_unwind(|| check(&bytes)).is_err()
    };
    let failed: Vec<_> = names.iter().filter(|name| fails(name)).collect();
    assert!(failed.is_empty(), "of {} inputs of {target} these fail: {failed:?}", names.len());
}

#[test]
fn a_notify_body_is_read_as_its_tree_says() {
    replay("notify");
}

#[test]
fn an_adobe_body_is_read_as_its_elements_are() {
    replay("ajo");
}

#[test]
fn only_what_is_configured_grants() {
    replay("bearer");
}

#[test]
fn only_what_our_keys_signed_grants() {
    replay("jwt");
}

#[test]
fn a_signature_agrees_with_one_message_only() {
    replay("signature");
}

#[test]
fn a_configuration_is_right_or_every_problem_is_named_and_no_secret_told() {
    replay("configuration");
}

#[test]
fn a_position_is_kept_and_its_page_is_what_stands_behind_it() {
    replay("cursor");
}

#[test]
fn a_sealed_cursor_opens_only_as_what_it_was_made_of() {
    replay("seal");
}

#[test]
fn any_order_of_bodies_settles_to_what_joining_gives() {
    replay("settle");
}

#[test]
fn a_fixture_file_is_read_to_the_byte() {
    replay("fixtures");
}

/// A target that is not replayed, or a corpus that nobody reads, would look like a test.
#[test]
fn every_target_has_a_program_and_a_corpus_and_nothing_else_has() {
    let mut targets: Vec<String> =
        checks::TARGETS.into_iter().map(|(name, _)| name.to_owned()).collect();
    targets.sort();
    assert_eq!(names(&root().join("corpus")), targets);
    let programs: Vec<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&root().join("fuzz_targets")), programs);
    let replayed = include_str!("corpus.rs");
    for target in &targets {
        assert!(replayed.contains(&format!("    replay(\"{target}\");")), "{target}");
        let program = root().join("fuzz_targets").join(format!("{target}.rs"));
        let text = fs::read_to_string(program).unwrap();
        assert!(text.contains(&format!("receiptd_fuzz::{target}::check(data)")), "{target}");
    }
}

#[test]
fn the_corpus_stays_small() {
    let folders =
        names(&root().join("corpus")).into_iter().map(|name| root().join("corpus").join(name));
    let bytes: u64 = folders
        .flat_map(|folder| names(&folder).into_iter().map(move |name| folder.join(name)))
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}
