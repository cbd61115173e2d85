//! Raw settings → checked settings, all problems at once.

pub mod settings;
