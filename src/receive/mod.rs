//! The front door: who is calling, and the answer; nothing here interprets a body.

pub mod tls;

pub mod authenticate;

mod jwt;

pub mod refusal;
