//! `receiptd demo --once`, as a newcomer runs it.

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_receiptd"))
        .arg("demo")
        .args(arguments)
        .env_remove("NO_COLOR")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn every_answer_and_every_state_is_as_expected() {
    let output = demo(&["--once"]);
    let (told, problems) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), problems), (Some(0), ""), "{told}");
    assert!(told.contains("✓ All 12 as expected"), "{told}");
    assert!(!told.contains('✗'), "{told}");
}

#[test]
fn the_table_holds_each_settled_state() {
    let output = demo(&["--once"]);
    let told = text(&output.stdout);
    let (_, table) = told.split_once("settled state").expect("there is a table");
    for (title, state) in [
        ("Delivered, then bounced", "permanent-failure"),
        ("Receipts out of order", "delivered"),
        ("The same receipt again", "delivered"),
        ("An old status, sent again", "delivered"),
        ("Is anybody there?", "nothing kept"),
        ("A text from the public", "received message"),
        ("Delivered, then a complaint", "delivered, complaint"),
        ("A letter comes back", "no status, returned"),
        ("Adobe: a bounce at last", "permanent-failure"),
        ("Adobe: delivered, then sent", "delivered"),
        ("An unreadable body", "unrecognised"),
        ("A wrong token", "nothing kept"),
    ] {
        let row = table.lines().find(|line| line.contains(title));
        let row = row.unwrap_or_else(|| panic!("no row for {title}\n{table}"));
        assert!(row.contains(state) && row.contains("✓ yes"), "{row}");
    }
}

#[test]
fn what_is_not_read_at_a_terminal_is_not_coloured() {
    assert!(!text(&demo(&["--once"]).stdout).contains('\u{1b}'));
}

#[test]
fn programs_get_a_json_object_for_each_life() {
    let output = demo(&["--once", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    assert!(lines.iter().all(|line| line["as_expected"] == true));
    assert_eq!(lines[0]["settled"]["status"], "permanent-failure");
    assert_eq!(lines[0]["answers"][1]["answer"], 204);
}
