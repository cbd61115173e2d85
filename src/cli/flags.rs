//! Flags that several commands share, and how they become the layers of a configuration.

use std::path::PathBuf;

use crate::config::{Flags, Layers};

/// Where the configuration and the data are: flags of every command that needs either.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigFlags {
    /// Read settings from this TOML file
    ///
    /// `receiptd config default` prints one with every setting explained. Without the flag the
    /// environment variable RECEIPTD_CONFIG names the file; without either there is none.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Keep the state in this file; its name ends in .db
    ///
    /// The journal stands beside it, with .db replaced by .callbacks.db. Overrides store.path of
    /// the configuration.
    #[arg(long, value_name = "FILE")]
    pub db: Option<String>,
}

impl ConfigFlags {
    /// The layers a command with only these flags works from; `env` is
    /// [`crate::config::environment`].
    pub fn layers(&self, env: Vec<(String, String)>) -> Layers {
        let flags = Flags { db: self.db.clone(), ..Flags::default() };
        Layers::new(self.config.clone(), env, flags)
    }
}

/// All settings that have a flag: those of `serve`, and of `config check` and `config show` so that
/// they can be asked about exactly what `serve` would do.
#[derive(Clone, Default, clap::Args)]
pub struct ServeFlags {
    /// The configuration file and the state file.
    #[command(flatten)]
    pub config: ConfigFlags,

    /// Receive callbacks on this address, such as 0.0.0.0:8080
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,

    /// Serve health and metrics on this address; not for the internet
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,

    /// Add a source: a name of your choice and whose callbacks it sends
    ///
    /// For example passport=gc-notify, which then posts to /callbacks/passport. Providers: notify
    /// (any of the family), gc-notify, govuk-notify, us-notify, va-notify, notify-nl, ajo. May be
    /// given several times; takes the place of RECEIPTD_SOURCE and stands beside the sources of
    /// the file.
    #[arg(long = "source", value_name = "NAME=PROVIDER")]
    pub sources: Vec<String>,

    /// Accept the bearer with this SHA-256, if there is exactly one source
    ///
    /// `receiptd token new` makes a bearer and its hash. LABEL names it in logs and metrics and is
    /// `flag` unless given. May be given several times, which is how a token is rotated; takes the
    /// place of RECEIPTD_TOKEN_SHA256 and stands beside the tokens of the file.
    #[arg(long, value_name = "[LABEL=]HEX")]
    pub token_sha256: Vec<String>,

    /// Log as `text` for people or as `json` for machines
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// Log this and everything worse: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ServeFlags {
    /// The layers a command with these flags works from; `env` is [`crate::config::environment`].
    pub fn layers(&self, env: Vec<(String, String)>) -> Layers {
        Layers::new(self.config.config.clone(), env, self.flags())
    }

    fn flags(&self) -> Flags {
        Flags {
            listen: self.listen.clone(),
            admin_listen: self.admin_listen.clone(),
            db: self.config.db.clone(),
            sources: self.sources.clone(),
            token_sha256: self.token_sha256.clone(),
            log_format: self.log_format.clone(),
            log_level: self.log_level.clone(),
        }
    }
}

impl std::fmt::Debug for ServeFlags {
    /// As [`Flags`]: what was given as a token's hash does not print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServeFlags").field(&self.config.config).field(&self.flags()).finish()
    }
}
