//! The front door: who is calling, and the answer; nothing here interprets a body.

pub mod authenticate;

mod jwt;
