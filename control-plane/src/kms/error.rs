//! What can go wrong with KMS, told so that an operator knows what to do.

use std::error::Error;

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

/// A call to KMS that did not do what it was for.
#[derive(Debug, thiserror::Error)]
#[error("KMS {operation} with {key}: {problem}")]
pub struct KmsError {
    /// As AWS names it.
    pub operation: &'static str,
    /// The key, as it was named.
    pub key: String,
    /// What happened.
    pub problem: KmsProblem,
}

/// What happened.
#[derive(Debug, thiserror::Error)]
pub enum KmsProblem {
    /// KMS has too much to do, for this account or at all.
    #[error("KMS throttles; it is tried again")]
    Throttled,
    /// No answer within the time that it had.
    #[error("KMS did not answer in time")]
    Timeout,
    /// No connection, or one that broke off.
    #[error("KMS cannot be reached: {0}")]
    Unreachable(String),
    /// KMS, or something that it depends on, is broken.
    #[error("KMS is broken at the moment: {0}")]
    Broken(String),
    /// There are no credentials.
    #[error("there are no AWS credentials: {0}")]
    NoCredentials(String),
    /// It is not known which region to ask.
    #[error("AWS_REGION is not set, and the key is not named by its ARN")]
    NoRegion,
    /// The credentials do not count, or do not allow this.
    #[error("the AWS credentials do not allow it: {0}")]
    AccessDenied(String),
    /// The key is disabled.
    #[error("the key is disabled")]
    Disabled,
    /// The key is being deleted, or not ready.
    #[error("the key is in no state to be used: {0}")]
    InvalidState(String),
    /// There is no such key.
    #[error("there is no such key")]
    NotFound,
    /// The key is not one for this.
    #[error("the key is of the wrong kind: {0}")]
    WrongKey(String),
    /// The ciphertext was made under another key, for another row, or was changed.
    #[error("the data key does not open: it belongs to another key or row, or is damaged")]
    DoesNotOpen,
    /// Something else that KMS says no to.
    #[error("KMS refused: {0}")]
    Refused(String),
    /// An answer that makes no sense.
    #[error("KMS answered with {0}")]
    Malformed(&'static str),
}

impl KmsProblem {
    /// A stable name, which metrics carry.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::NoCredentials(_) => "no_credentials",
            Self::NoRegion => "no_region",
            Self::AccessDenied(_) => "access_denied",
            Self::Disabled => "disabled",
            Self::InvalidState(_) => "invalid_state",
            Self::NotFound => "not_found",
            Self::WrongKey(_) => "wrong_key",
            Self::DoesNotOpen => "does_not_open",
            Self::Refused(_) => "refused",
            Self::Malformed(_) => "malformed",
        }
    }

    /// All names of the kind.
    pub const CODES: [&'static str; 14] = [
        "throttled",
        "timeout",
        "unreachable",
        "broken",
        "no_credentials",
        "no_region",
        "access_denied",
        "disabled",
        "invalid_state",
        "not_found",
        "wrong_key",
        "does_not_open",
        "refused",
        "malformed",
    ];

    /// Whether it is the key that was named that is wrong, rather than KMS or the way there.
    pub fn is_of_the_key(&self) -> bool {
        matches!(
            self,
            Self::AccessDenied(_)
                | Self::Disabled
                | Self::InvalidState(_)
                | Self::NotFound
                | Self::WrongKey(_)
                | Self::Refused(_)
                | Self::NoRegion
        )
    }
}

impl<E: ProvideErrorMetadata + Error + 'static> From<SdkError<E, HttpResponse>> for KmsProblem {
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::TimeoutError(_) => Self::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::Timeout,
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
                let causes = causes(&error);
                let of_credentials = causes.iter().any(|cause| cause.contains("credential"));
                let last = causes.last().cloned().unwrap_or_default();
                if of_credentials { Self::NoCredentials(last) } else { Self::Unreachable(last) }
            }
            SdkError::ServiceError(refusal) => {
                let metadata = refusal.err();
                let status = refusal.raw().status().as_u16();
                named(metadata.code().unwrap_or_default(), metadata.message().unwrap_or_default(), status)
            }
            _ => Self::Broken(causes(&error).last().cloned().unwrap_or_default()),
        }
    }
}

/// What an error of KMS means, by its name.
fn named(code: &str, message: &str, status: u16) -> KmsProblem {
    let told = || match (code, message) {
        ("", _) => status.to_string(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    match code {
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            KmsProblem::Throttled
        }
        "AccessDeniedException"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "MissingAuthenticationTokenException" => KmsProblem::AccessDenied(told()),
        "DisabledException" => KmsProblem::Disabled,
        "KMSInvalidStateException" => KmsProblem::InvalidState(told()),
        "NotFoundException" => KmsProblem::NotFound,
        "InvalidKeyUsageException" | "UnsupportedOperationException" => KmsProblem::WrongKey(told()),
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsProblem::DoesNotOpen,
        _ if status == 403 => KmsProblem::AccessDenied(told()),
        _ if status == 429 => KmsProblem::Throttled,
        _ if status >= 500 => KmsProblem::Broken(told()),
        _ => KmsProblem::Refused(told()),
    }
}

/// The error and all that is behind it, as texts.
fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes
}
