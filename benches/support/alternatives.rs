//! What one would write or pick instead of receiptd: small receivers in `benches/alternatives/`,
//! each as its framework's documentation would have it, each answering after its commit.
//!
//! All of them do the same: compare the token, upsert the receipt into a table by its id in a
//! write-ahead log with `synchronous=FULL`, answer 204. They are run from a copy in cargo's folder
//! for temporary files, where their dependencies are put through their own package managers, at the
//! versions pinned beside the source.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::receipt::BEARER;

/// One of them.
#[derive(Clone, Copy)]
pub enum Alternative {
    /// Python, uvicorn with so many processes.
    FastApi {
        /// uvicorn's `--workers`.
        workers: u32,
    },
    /// Node.js.
    Express,
    /// Debian's package `webhook`, which runs a program for each callback.
    Webhook,
}

/// One that can be started.
pub struct Prepared {
    alternative: Alternative,
    folder: PathBuf,
}

impl Alternative {
    /// In the order of the table.
    pub const ALL: [Self; 4] =
        [Self::Express, Self::FastApi { workers: 1 }, Self::FastApi { workers: 2 }, Self::Webhook];

    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Express => "Express + better-sqlite3",
            Self::FastApi { workers: 1 } => "FastAPI + sqlite3, 1 worker",
            Self::FastApi { .. } => "FastAPI + sqlite3, 2 workers",
            Self::Webhook => "webhook running sqlite3",
        }
    }

    /// Copies it and puts its dependencies beside it, unless they are there.
    ///
    /// # Errors
    /// A sentence for the table: why it cannot be measured here.
    pub fn prepare(self) -> Result<Prepared, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alternatives");
        let folder = target.join(self.folder());
        self.copy_to(&folder).map_err(|error| format!("cannot be copied: {error}"))?;
        match self {
            Self::Express => {
                install(&folder, "package-lock.json", &[("npm", &["ci", "--no-audit"])])
            }
            Self::FastApi { .. } => {
                let pip = "venv/bin/pip";
                let wanted = &["install", "--quiet", "-r", "requirements.txt"];
                let steps: [Step<'_>; 2] =
                    [("python3", &["-m", "venv", "--clear", "venv"]), (pip, wanted)];
                install(&folder, "requirements.txt", &steps)
            }
            Self::Webhook => {
                let package = "needs Debian's webhook and sqlite3: apt install webhook sqlite3";
                let is_there = |program, flag| run(&folder, program, &[flag]).is_ok();
                let both = is_there("webhook", "-version") && is_there("sqlite3", "-version");
                both.then_some(()).ok_or_else(|| package.to_owned())
            }
        }?;
        Ok(Prepared { alternative: self, folder })
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Express => "express",
            Self::FastApi { .. } => "fastapi",
            Self::Webhook => "webhook",
        }
    }

    fn copy_to(self, folder: &Path) -> io::Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/alternatives");
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(source.join(self.folder()))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

impl Prepared {
    /// What starts it at that port of 127.0.0.1, on that database.
    pub fn command(&self, port: u16, db: &Path) -> io::Result<Command> {
        let port = port.to_string();
        let mut command = match self.alternative {
            Alternative::Express => {
                let mut node = Command::new(self.folder.join("node_modules/node/bin/node"));
                node.arg("server.mjs").arg(&port).arg(db).env("NODE_ENV", "production");
                node
            }
            Alternative::FastApi { workers } => {
                let mut uvicorn = Command::new(self.folder.join("venv/bin/uvicorn"));
                uvicorn.args(["main:app", "--host", "127.0.0.1", "--port", &port]);
                uvicorn.args(["--workers", &workers.to_string()]);
                uvicorn.args(["--no-access-log", "--log-level", "warning"]);
                uvicorn
            }
            Alternative::Webhook => {
                self.make_tables(db)?;
                let mut webhook = Command::new("webhook");
                webhook.args(["-hooks", "hooks.json", "-template", "-urlprefix", "callbacks"]);
                webhook.args(["-ip", "127.0.0.1", "-port", &port]);
                webhook.env("HOOK_COMMAND", self.folder.join("receive.sh"));
                webhook
            }
        };
        command.current_dir(&self.folder).env("CALLBACK_DB", db).env("CALLBACK_TOKEN", BEARER);
        Ok(command)
    }

    /// The others make their table when they start.
    fn make_tables(&self, db: &Path) -> io::Result<()> {
        let schema = fs::read_to_string(self.folder.join("schema.sql"))?;
        let open = rusqlite::Connection::open(db);
        open.and_then(|tables| tables.execute_batch(&schema)).map_err(io::Error::other)
    }
}

/// A program and its arguments.
type Step<'a> = (&'a str, &'a [&'a str]);

/// Takes these steps, unless they were taken for the same pins before.
fn install(folder: &Path, pins: &str, steps: &[Step<'_>]) -> Result<(), String> {
    let stamp = folder.join("installed");
    let wanted = fs::read(folder.join(pins)).map_err(|error| format!("no {pins}: {error}"))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let _ = fs::remove_file(&stamp);
    steps.iter().try_for_each(|(program, arguments)| run(folder, program, arguments))?;
    fs::write(stamp, wanted).map_err(|error| error.to_string())
}

/// Runs a program to its end; the last line it says if it fails.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let inside = folder.join(program);
    let path = if inside.exists() { inside } else { PathBuf::from(program) };
    let mut command = Command::new(path);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let done = command.output().map_err(|error| format!("{program} cannot be run: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
    Err(format!("{program} {} failed: {last}", arguments.join(" ")))
}
