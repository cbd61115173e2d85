//! receiptd: receive, settle, keep.

pub mod clock;

pub mod receive;

pub mod callback;

pub mod merge;

pub mod provider;

pub mod config;

pub mod cli;
