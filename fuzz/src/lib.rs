//! What must hold of every parser, whatever bytes it is given: one check a target.
//!
//! The checks know nothing of a fuzzer. `fuzz_targets/` hands them what libFuzzer makes up;
//! `tests/corpus.rs` of the receiver includes this very file and hands them the committed corpus,
//! so an ordinary `cargo test` repeats everything fuzzing has ever found.
//!
//! None of them is content with "it did not panic": each compares the receiver's reading with one
//! made another way (serde_json's own tree, a signature computed here, a filter over all rows), or
//! with itself under a change that must not matter.

pub mod notify;

pub mod ajo;

pub mod bearer;

pub mod jwt;

pub mod signature;

pub mod configuration;

pub mod cursor;

pub mod seal;

pub mod settle;

pub mod fixtures;

mod oracle;

/// Panics if what it promises does not hold for that input.
pub type Check = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: [(&str, Check); 10] = [
    ("notify", notify::check),
    ("ajo", ajo::check),
    ("bearer", bearer::check),
    ("jwt", jwt::check),
    ("signature", signature::check),
    ("configuration", configuration::check),
    ("cursor", cursor::check),
    ("seal", seal::check),
    ("settle", settle::check),
    ("fixtures", fixtures::check),
];
