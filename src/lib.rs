//! receiptd: receive, settle, keep.

pub mod clock;

pub mod callback;

pub mod journal;

pub mod provider;

pub mod merge;

pub mod settle;

pub mod state;

pub mod sqlite;

pub mod lock;

pub mod replay;

pub mod config;

pub mod cli;
