//! The front door: who is calling, and the answer; nothing here interprets a body.

pub mod tls;

mod not_after;

pub mod authenticate;

mod jwt;

pub mod refusal;
