//! Adobe Journey Optimizer.
use super::{Dialect, Reading};
/// Reads one body.
pub fn read(_dialect: &Dialect, _body: &[u8]) -> Reading {
    Reading::unrecognised("not written yet")
}
