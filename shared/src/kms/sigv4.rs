//! AWS Signature Version 4, for the one form of request that Keypost sends without AWS's own library: a POST whose query is
//! empty. The Worker has no room for that library; here are its few steps, checked against AWS's published vectors.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::secret::SecretText;
use crate::time::UnixTime;

/// The most characters that an access key id may have. They are not secret.
const MAX_ID: usize = 128;

/// What a request is signed with.
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: SecretText,
    session_token: Option<SecretText>,
}

/// Texts that are no AWS credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be what AWS gave out, without spaces or line breaks")]
pub struct CredentialsError;

impl Credentials {
    /// Takes what AWS gave out.
    pub fn new(id: &str, secret: &str, session_token: Option<&str>) -> Result<Self, CredentialsError> {
        let printable = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let good = printable(id) && id.len() <= MAX_ID && printable(secret);
        if !good || session_token.is_some_and(|token| !printable(token)) {
            return Err(CredentialsError);
        }
        Ok(Self {
            access_key_id: id.to_owned(),
            secret_access_key: SecretText::new(secret.to_owned()),
            session_token: session_token.map(|token| SecretText::new(token.to_owned())),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

/// A POST to sign.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// Host, and port where it is not the scheme's own.
    pub host: &'a str,
    /// The path, as it is sent, with nothing in it that would have to be encoded.
    pub path: &'a str,
    /// The headers to sign beside `host` and those that signing adds: names in lower case, values without spaces around.
    pub headers: &'a [(&'static str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// The service's region.
    pub region: &'a str,
    /// The service, as AWS abbreviates it.
    pub service: &'a str,
}

/// The headers that sign a request: `x-amz-date`, `authorization` and, for temporary credentials, `x-amz-security-token`.
pub fn headers(
    request: &Unsigned<'_>,
    credentials: &Credentials,
    now: UnixTime,
) -> Vec<(&'static str, String)> {
    let time = iso_basic(now);
    let date = time.get(..8).unwrap_or_default();
    let token = credentials.session_token.as_ref().map(SecretText::expose);

    let mut signed: Vec<(&str, &str)> = request.headers.to_vec();
    signed.push(("host", request.host));
    signed.push(("x-amz-date", &time));
    signed.extend(token.map(|token| ("x-amz-security-token", token)));
    signed.sort_unstable();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let body = hex(&Sha256::digest(request.body));
    let canonical = format!("POST\n{}\n\n{lines}\n{names}\n{body}", request.path);

    let scope = format!("{date}/{}/{}/aws4_request", request.region, request.service);
    let digest = hex(&Sha256::digest(canonical.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
    let first = format!("AWS4{}", credentials.secret_access_key.expose());
    let key = [date, request.region, request.service, "aws4_request"]
        .iter()
        .fold(first.into_bytes(), |key, part| hmac(&key, part.as_bytes()).to_vec());
    let signature = hex(&hmac(&key, to_sign.as_bytes()));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key_id
    );

    let mut headers = vec![("authorization", authorization)];
    headers.extend(token.map(|token| ("x-amz-security-token", token.to_owned())));
    headers.push(("x-amz-date", time));
    headers
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // RFC 2104 takes keys of any length.
    match <Hmac<Sha256> as Mac>::new_from_slice(key) {
        Ok(mac) => mac.chain_update(message).finalize().into_bytes().into(),
        Err(_) => [0; 32],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20150830T123600Z` (ISO 8601, basic format).
fn iso_basic(now: UnixTime) -> String {
    let (days, second) = (now.0.div_euclid(86_400), now.0.rem_euclid(86_400));
    // Years begin in March here, so that the leap day is their last; eras are the 400 years after which the calendar
    // repeats itself.
    let from_march_of_0 = days + 719_468;
    let (era, day) = (from_march_of_0.div_euclid(146_097), from_march_of_0.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next_year;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z, the time of AWS's vectors.
    const THEN: UnixTime = UnixTime(1_440_938_160);

    fn vector(headers_: &[(&'static str, &str)], body: &str, token: Option<&str>) -> String {
        let credentials =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token).unwrap();
        let request = Unsigned {
            host: "example.amazonaws.com",
            path: "/",
            headers: headers_,
            body: body.as_bytes(),
            region: "us-east-1",
            service: "service",
        };
        let headers = headers(&request, &credentials, THEN);
        assert!(headers.contains(&("x-amz-date", "20150830T123600Z".to_owned())));
        let (_, authorization) = headers.into_iter().find(|(name, _)| *name == "authorization").unwrap();
        authorization
    }

    fn authorization(names: &str, signature: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={names}, Signature={signature}"
        )
    }

    #[test]
    fn requests_are_signed_as_the_vectors_of_aws_are() {
        // The Signature Version 4 test suite: post-vanilla, post-header-key-case, post-header-value-case,
        // post-x-www-form-urlencoded, post-sts-header-before.
        let vanilla = authorization(
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        );
        assert_eq!(vector(&[], "", None), vanilla);
        let value_case = authorization(
            "host;my-header1;x-amz-date",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        );
        assert_eq!(vector(&[("my-header1", "VALUE1")], "", None), value_case);
        let form = authorization(
            "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
            "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
        );
        let of_form = [
            ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("content-length", "13"),
        ];
        assert_eq!(vector(&of_form, "Param1=value1", None), form);
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let temporary = authorization(
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        );
        assert_eq!(vector(&[], "", Some(token)), temporary);
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        // By `date -u -d @SECONDS +%Y%m%dT%H%M%SZ`.
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
        ] {
            assert_eq!(iso_basic(UnixTime(seconds)), text);
        }
    }

    #[test]
    fn credentials_do_not_print_and_hold_nothing_that_could_break_a_header() {
        let credentials = Credentials::new("AKID", "hunter2", Some("hunter3")).unwrap();
        assert_eq!(format!("{credentials:?}"), "Credentials(AKID)");
        for (id, secret, token) in
            [("", "s", None), ("a b", "s", None), ("a", "", None), ("a", "s\n", None), ("a", "s", Some("é"))]
        {
            assert!(Credentials::new(id, secret, token).is_err(), "{id} {secret}");
        }
    }
}
