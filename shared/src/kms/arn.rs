//! The names of KMS keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest ARN that counts. Those of KMS keys have some 75 characters.
const MAX_LENGTH: usize = 200;

/// The full name of a KMS key: `arn:aws:kms:REGION:ACCOUNT:key/ID`. Never an alias, which could be pointed elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KmsKeyArn {
    text: String,
    /// Where in the text the region begins and ends.
    region: (usize, usize),
}

/// A text that is no full name of a KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the ARN of a KMS key: arn:aws:kms:REGION:ACCOUNT:key/ID")]
pub struct NotAKeyArn;

impl KmsKeyArn {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region that the key is in.
    pub fn region(&self) -> &str {
        self.text.get(self.region.0..self.region.1).unwrap_or_default()
    }

    /// What names the key's material: its account and id. The copies of a multi-region key have one name.
    pub fn material(&self) -> String {
        let parts: Vec<&str> = self.text.splitn(6, ':').collect();
        match parts.as_slice() {
            [_, partition, _, _, account, key] => format!("{partition}:{account}:{key}"),
            _ => self.text.clone(),
        }
    }

    /// Where KMS is in the key's region; none in a partition whose addresses are not known here.
    pub fn endpoint(&self) -> Option<String> {
        let domain = match self.text.split(':').nth(1)? {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => return None,
        };
        Some(format!("https://kms.{}.{domain}", self.region()))
    }
}

impl FromStr for KmsKeyArn {
    type Err = NotAKeyArn;

    fn from_str(text: &str) -> Result<Self, NotAKeyArn> {
        let parts: Vec<&str> = text.split(':').collect();
        let [arn, partition, service, region, account, key] = parts.as_slice() else {
            return Err(NotAKeyArn);
        };
        let id = key.strip_prefix("key/").ok_or(NotAKeyArn)?;
        let word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-'))
        };
        let lower = |text: &str| word(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let good = text.len() <= MAX_LENGTH
            && *arn == "arn"
            && *service == "kms"
            && lower(partition)
            && lower(region)
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && word(id);
        if !good {
            return Err(NotAKeyArn);
        }
        let start = arn.len() + partition.len() + service.len() + 3;
        Ok(Self { text: text.to_owned(), region: (start, start + region.len()) })
    }
}

impl fmt::Display for KmsKeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for KmsKeyArn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for KmsKeyArn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn an_arn_says_where_its_key_is() {
        let arn: KmsKeyArn = format!("arn:aws:kms:eu-central-1:111122223333:key/{ID}").parse().unwrap();
        assert_eq!(arn.region(), "eu-central-1");
        assert_eq!(arn.endpoint().as_deref(), Some("https://kms.eu-central-1.amazonaws.com"));
        let china: KmsKeyArn = format!("arn:aws-cn:kms:cn-north-1:111122223333:key/{ID}").parse().unwrap();
        assert_eq!(china.endpoint().as_deref(), Some("https://kms.cn-north-1.amazonaws.com.cn"));
    }

    #[test]
    fn copies_of_a_multi_region_key_are_one_key() {
        let [here, there, other] = ["eu-west-1:1", "us-east-1:1", "us-east-1:2"].map(|place| {
            let text = format!("arn:aws:kms:{place}11122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab");
            text.parse::<KmsKeyArn>().unwrap().material()
        });
        assert_eq!(here, there);
        assert_ne!(here, other);
    }

    #[test]
    fn what_is_no_key_arn_is_refused() {
        let long = "a".repeat(200);
        for bad in [
            "",
            ID,
            "alias/keypost",
            "arn:aws:kms:eu-central-1:111122223333:alias/keypost",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/a:b",
            "arn:aws:kms:eu-central-1:1111:key/a",
            "arn:aws:s3:eu-central-1:111122223333:key/a",
            "arn:aws:kms:evil.example/#:111122223333:key/a",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:kms:EU:111122223333:key/a",
            &format!("arn:aws:kms:eu-central-1:111122223333:key/{long}"),
        ] {
            assert!(bad.parse::<KmsKeyArn>().is_err(), "{bad}");
        }
    }
}
