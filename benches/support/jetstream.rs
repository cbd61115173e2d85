//! A JetStream server for a measurement: Debian's `nats-server`, on a free port, in a folder of its
//! own; and as much of its protocol as it takes to make a stream and to count it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::program::Done;

const STREAM: &str = "RECEIPTS";
const START_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A server with one empty stream; it ends when it is dropped.
pub struct JetStream {
    child: Child,
    address: SocketAddr,
    _files: Arc<TempDir>,
}

impl JetStream {
    /// Starts it with its files in that folder.
    pub fn start(files: &Arc<TempDir>) -> Done<Self> {
        let folder = files.path();
        let mut command = Command::new(program());
        command.args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"]).arg(folder);
        command.arg("--ports_file_dir").arg(folder).arg("-l").arg(folder.join("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .map_err(|error| format!("nats-server: {error} (apt install nats-server)"))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address: nowhere, _files: Arc::clone(files) };
        server.address = server.wait_for_address(folder)?;
        let subjects = json!({"name": STREAM, "subjects": ["receiptd.>"], "storage": "file",
            "retention": "limits", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1,
            "max_age": 0, "num_replicas": 1, "discard": "old",
            "duplicate_window": 120_000_000_000_u64});
        server.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &subjects)?;
        Ok(server)
    }

    /// It writes where it listens into a file named after its process.
    fn wait_for_address(&self, folder: &Path) -> Done<SocketAddr> {
        let file = folder.join(format!("nats-server_{}.ports", self.child.id()));
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            let ports = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let url = ports.and_then(|ports: Value| Some(ports["nats"][0].as_str()?.to_owned()));
            if let Some(address) = url.as_deref().and_then(|url| url.strip_prefix("nats://")) {
                return Ok(address.parse()?);
            }
            thread::sleep(Duration::from_millis(5));
        }
        let said = fs::read_to_string(folder.join("log")).unwrap_or_default();
        Err(format!("nats-server did not say where it listens\n{said}").into())
    }

    /// The configuration of a receiver that keeps nothing and passes all on to it.
    pub fn relay(&self) -> String {
        format!(
            "[store]\nkind = \"none\"\n[[sink]]\nname = \"jetstream\"\ntype = \"nats\"\n\
             url = \"nats://{}\"\nstream = \"{STREAM}\"\n",
            self.address
        )
    }

    /// How many messages the stream has.
    pub fn messages(&self) -> Done<u64> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), &json!({}))?;
        Ok(info["state"]["messages"].as_u64().ok_or("no number of messages")?)
    }

    /// One request and its answer, on a connection of its own.
    fn ask(&self, subject: &str, question: &Value) -> Done<Value> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let question = question.to_string();
        let hello = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB inbox 1\r\n";
        let publish = format!("PUB {subject} inbox {}\r\n{question}\r\n", question.len());
        (&stream).write_all(format!("{hello}{publish}").as_bytes())?;
        let mut read = BufReader::new(&stream);
        let mut line = String::new();
        while !line.starts_with("MSG ") {
            line.clear();
            if read.read_line(&mut line)? == 0 || line.starts_with("-ERR") {
                return Err(format!("nats-server ended the conversation: {line}").into());
            }
        }
        let length = line.split_whitespace().last().ok_or("a message without a length")?.parse()?;
        let mut answer = vec![0; length];
        read.read_exact(&mut answer)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(format!("nats-server refused {subject}: {error}").into()),
        }
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian puts it where only root's path goes.
fn program() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/nats-server");
    if debian.exists() { debian } else { PathBuf::from("nats-server") }
}
