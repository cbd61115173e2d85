//! receiptd: receive, settle, keep.

pub mod clock;

pub mod receive;

pub mod callback;

pub mod journal;

pub mod provider;

pub mod merge;

pub mod settle;

pub mod state;

pub mod sqlite;

pub mod lock;

pub mod config;

pub mod cli;
