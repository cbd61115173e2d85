//! receiptd: receive, settle, keep.

pub use provider::Provider;
pub use receiver::Receiver;

pub mod clock;

pub mod callback;

pub mod receive;

pub mod journal;

pub mod provider;

pub mod merge;

pub mod settle;

pub mod state;

pub mod sqlite;

pub mod api;

pub mod receiver;

pub mod lock;

pub mod shutdown;

pub mod replay;

pub mod config;

pub mod telemetry;

pub mod cli;
