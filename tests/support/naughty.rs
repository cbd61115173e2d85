//! What has broken parsers, loggers, databases and pages: a body of every kind, and JSON values to put
//! into each of its places.

use serde_json::Value;

/// Stands in every value that is put in, so that it can be looked for where it must not be.
pub const CANARY: &str = "CANARY";

/// One body of every kind the providers read.
pub const SEEDS: [&str; 7] = [
    r#"{"id":"n","reference":"r","to":"t","status":"delivered","status_description":"d",
    "provider_response":"p","created_at":"2017-05-14T12:15:30.000000Z","completed_at":
    "2017-05-14T12:15:33.000000Z","sent_at":"2017-05-14T12:15:31.000000Z","notification_type":
    "email","template_id":"i","template_version":1}"#,
    r#"{"id":"n","status":"sent","notification_type":"sms","status_reason":"s","provider":"p",
    "provider_payload":{"key":"value"}}"#,
    r#"{"id":"m","source_number":"s","destination_number":"d","message":"m","date_received":
    "2017-06-20T00:00:00.000000Z"}"#,
    r#"{"notification_id":"n","complaint_id":"c","reference":"r","to":"t","complaint_date":
    "2001-01-01T12:00:00.000000Z"}"#,
    r#"{"notification_id":"n","reference":"r","date_sent":"2017-05-14T12:15:30.000000Z","sent_by":
    "API","template_name":"t","template_id":"None","template_version":null}"#,
    r#"{"requestId":"r","imsOrg":"i","sandbox":{"name":"s"},"channel":"email","channelContext":
    {"profileAddress":"a","profileNumber":null},"messageExecution":{"messageExecutionID":"e",
    "messageProfileID":"p"},"messageDeliveryFeedback":{"feedbackStatus":{"value":"bounce"},
    "messageFailure":{"category":"sync","type":"Hard","code":"10","reason":"r"},
    "deliveryTimestamp":"2026-10-06T18:22:41.512Z"}}"#,
    r#"[{"requestId":"r","messageExecution":null,"messageDeliveryFeedback":{"feedbackStatus":
    "exclude","messageExclusion":{"code":"050102","reason":"r"}},"identityMap":{"email":
    [{"id":"a","primary":true}]}}]"#,
];

/// JSON values that have broken parsers, loggers, databases and pages.
pub fn naughty_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "null",
        "true",
        "0",
        "-0",
        "1e400",
        "-1e400",
        "1e-400",
        "123456789012345678901234567890",
        "0.1",
        "{}",
        "[]",
        r#""""#,
        r#"" ""#,
        r#"["CANARY"]"#,
        r#"[[["CANARY"]]]"#,
        r#"{"CANARY":"CANARY"}"#,
        r#"{"value":"CANARY"}"#,
        r#"{"id":"CANARY","id":null}"#,
        r#""CANARY""#,
        r#""CANARY\u0000CANARY""#,
        r#""\ud800CANARY""#,
        r#""CANARY\udc00\ud800""#,
        r#""\u202eCANARY\u202c""#,
        r#""\u2028CANARY\u2029""#,
        r#""\ufeffCANARY\uffff""#,
        r#""\r\nX-Injected: CANARY\u001b[31m""#,
        r#""Z\u0335\u030d\u035d CANARY""#,
        r#""\ud83d\udc69\u200d\ud83d\ude80 CANARY""#,
        r#""' OR 1=1; DROP TABLE x; -- CANARY""#,
        r#""<script>alert('CANARY')</script>""#,
        r#""${jndi:ldap://CANARY} {{CANARY}} %s%n""#,
        r#""=CMD|'/C CANARY'!A0""#,
        r#""../../CANARY""#,
        r#""2017-05-14T12:15:30Z CANARY""#,
        r#""9999-99-99T99:99:99Z""#,
        r#""9999-12-31T23:59:59.999999999Z""#,
        r#""-009999-01-01T00:00:00Z""#,
        r#""+292278994-08-17T07:12:55Z""#,
        r#""12:15:30""#,
    ]
    .map(String::from)
    .into();
    let deep = 100_000;
    values.push(format!("\"{}\"", CANARY.repeat(20_000)));
    values.push(format!("{}{}", "[".repeat(deep), "]".repeat(deep)));
    values.push(format!(r#"{}"CANARY"{}"#, r#"{"a":"#.repeat(deep), "}".repeat(deep)));
    values
}

/// This body with each of its values in turn, however deep, replaced by `json`.
pub fn with_each_value_replaced(seed: &str, json: &str) -> Vec<String> {
    const MARK: &str = "this value is replaced";
    let seed: Value = serde_json::from_str(seed).unwrap();
    let mut marked = Vec::new();
    let mut places = vec![String::new()];
    while let Some(place) = places.pop() {
        let mut body = seed.clone();
        let value = body.pointer_mut(&place).unwrap();
        match &*value {
            Value::Object(map) => places.extend(map.keys().map(|key| format!("{place}/{key}"))),
            Value::Array(list) => places.extend((0..list.len()).map(|at| format!("{place}/{at}"))),
            _ => {}
        }
        *value = MARK.into();
        marked.push(body.to_string().replace(&format!("\"{MARK}\""), json));
    }
    marked
}
