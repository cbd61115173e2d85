//! What SQS says when it does not take a message, and what follows from that.
//!
//! What it refuses for the message itself (its size, its characters) is refused. All else may pass: a
//! queue that is missing, a key that was taken away or has expired is mended by its operator, and loses
//! nothing meanwhile. Nothing of an answer is passed on but its code, and that only if it can be one.

use std::fmt;

use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;

use super::fault::Fault;

/// Codes that speak of the message itself, without the prefix of older protocols.
const REFUSED: [&str; 3] =
    ["InvalidMessageContents", "InvalidParameterValue", "BatchRequestTooLong"];

/// Codes after which the credentials are looked for again: they may have been replaced.
const UNAUTHENTIC: [&str; 8] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSecurityToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Whether other credentials may do better.
pub(super) fn is_unauthentic<R>(error: &SdkError<SendMessageBatchError, R>) -> bool {
    error.code().is_some_and(|code| UNAUTHENTIC.contains(&bare(code)))
}

/// What a request that failed as a whole comes to.
pub(super) fn of_request<R: fmt::Debug>(error: &SdkError<SendMessageBatchError, R>) -> Fault {
    if let Some(code) = error.code() {
        return of_code(code);
    }
    Fault::passing(match error {
        SdkError::TimeoutError(_) => "SQS did not answer in time",
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "SQS did not answer in time",
        SdkError::DispatchFailure(failure) if failure.is_io() => "SQS cannot be reached",
        SdkError::ResponseError(_) | SdkError::ServiceError(_) => {
            "SQS answers what is not understood"
        }
        // The client has no kind for this; only our own words are chosen by its text.
        other if DisplayErrorContext(other).to_string().contains("redential") => {
            "no credentials were found"
        }
        _ => "the request could not be made",
    })
}

/// What a code of SQS comes to.
pub(super) fn of_code(code: &str) -> Fault {
    let code = bare(code);
    if REFUSED.contains(&code) {
        return Fault::refused(format!("SQS refuses the message ({code})"));
    }
    let why = match code {
        "QueueDoesNotExist" | "NonExistentQueue" => "the queue does not exist",
        "InvalidAddress" => "the queue is not at this endpoint or in this region",
        "AccessDenied" | "AccessDeniedException" => "these credentials may not send to the queue",
        code if UNAUTHENTIC.contains(&code) => "SQS refuses the credentials",
        code if code.contains("Throttl") => "SQS asks for fewer requests",
        _ => "SQS did not take it",
    };
    Fault::passing(format!("{why} ({code})"))
}

/// A code without the prefix of older protocols; only what can be a code.
fn bare(code: &str) -> &str {
    let code = code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code);
    let is_code = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if code.len() <= 64 && code.chars().all(is_code) { code } else { "unknown code" }
}
