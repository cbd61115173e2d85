//! A sink whose client was left out of this build is told from one that does not exist. Holds in any
//! build; `cargo test --no-default-features --test config_features` tries the one without any.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use receiptd::clock::Clock;
use receiptd::config::{self, Flags, Layers};

#[test]
fn a_build_without_a_client_says_so_when_its_sink_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "pw").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let login = format!("user = \"u\"\npassword_file = \"{}\"", password.display());
    let queue = "queue_url = \"https://sqs.ca-central-1.amazonaws.com/1/q\"";
    for (kind, is_built_in, lines) in [
        ("http", true, "url = \"http://127.0.0.1/\"".to_owned()),
        ("nats", cfg!(feature = "sink-nats"), format!("url = \"nats://h\"\n{login}")),
        (
            "amqp",
            cfg!(feature = "sink-amqp"),
            format!("url = \"amqp://h\"\nexchange = \"e\"\n{login}"),
        ),
        ("redis", cfg!(feature = "sink-redis"), format!("url = \"redis://h\"\n{login}")),
        ("sqs", cfg!(feature = "sink-sqs"), queue.to_owned()),
        (
            "postgres",
            cfg!(feature = "sink-postgres"),
            format!("url = \"postgresql://h/d\"\n{login}"),
        ),
    ] {
        let file = folder.path().join("receiptd.toml");
        fs::write(&file, format!("[[sink]]\nname = \"s\"\ntype = \"{kind}\"\n{lines}\n")).unwrap();
        let layers = Layers::new(Some(file), vec![], Flags::default());
        match config::load(&layers, Clock::system().now()) {
            Ok(loaded) => assert!(is_built_in && loaded.settings.sinks[0].to.word() == kind),
            Err(problems) => {
                let text = problems.to_string();
                assert!(!is_built_in, "{text}");
                assert_eq!(problems.iter().count(), 1, "{text}");
                assert!(text.contains(&format!("this build has no {kind}")), "{text}");
                assert!(text.contains(&format!("build with --features sink-{kind}")), "{text}");
            }
        }
    }
}
