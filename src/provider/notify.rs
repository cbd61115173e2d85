//! The Notify family.
use super::{Provider, Reading};
/// Reads one body.
pub fn read(_platform: Provider, _body: &[u8]) -> Reading {
    Reading::unrecognised("not written yet")
}
/// The probe.
pub fn is_probe(_body: &[u8]) -> bool {
    false
}
/// Known words.
pub fn is_known_status(_word: &str) -> bool {
    true
}
