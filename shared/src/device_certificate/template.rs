//! Templates: text with attributes of the certificate in braces, such as `{o}-{cn}`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::attributes::{Attribute, Attributes, NoValue};
use crate::id::{DeviceId, IdError};

/// The most characters that a template may have.
const MAX_LENGTH: usize = 256;
/// The most parts, text and attributes, that it may have.
const MAX_PARTS: usize = 16;

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// More than 256 characters or 16 parts.
    #[error("must have at most 256 characters, and at most 16 parts")]
    TooLong,
    /// A brace without its counterpart.
    #[error("has a brace without its counterpart")]
    Brace,
    /// Something in braces that is no attribute.
    #[error(
        "{{{0}}} is not known: there are {{cn}}, {{o}}, {{ou}}, {{c}}, {{st}}, {{l}}, {{serialNumber}}, {{uid}}, \
         {{san.dns}}, {{san.email}} and {{san.uri}}"
    )]
    Unknown(String),
    /// A template for device ids that would give every device the same one.
    #[error("must name an attribute, such as {{cn}}: or else every device would have the same id")]
    Constant,
    /// Text that no device id can have.
    #[error("has text that no device id can have: {0}")]
    NotAnId(IdError),
    /// A control character.
    #[error("must not have control characters")]
    Control,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Attribute(Attribute),
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template(Vec<Part>);

impl Template {
    /// Puts the certificate's attributes in. Each must have one value.
    pub fn fill(&self, attributes: &Attributes) -> Result<String, (Attribute, NoValue)> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Attribute(attribute) => {
                    text.push_str(attributes.one(*attribute).map_err(|why| (*attribute, why))?);
                }
            }
        }
        Ok(text)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.chars().count() > MAX_LENGTH {
            return Err(TemplateError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (before, behind) =
                rest.split_once('{').map_or((rest, None), |(before, behind)| (before, Some(behind)));
            if before.contains('}') {
                return Err(TemplateError::Brace);
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let Some(behind) = behind else { break };
            let (name, after) = behind.split_once('}').ok_or(TemplateError::Brace)?;
            let attribute = name.parse().map_err(|()| TemplateError::Unknown(name.to_owned()))?;
            parts.push(Part::Attribute(attribute));
            rest = after;
        }
        if parts.len() > MAX_PARTS { Err(TemplateError::TooLong) } else { Ok(Self(parts)) }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Attribute(attribute) => write!(f, "{{{attribute}}}"),
        })
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> String {
        template.to_string()
    }
}

/// Which device a certificate is of: `{cn}` unless a pool says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceIdTemplate(Template);

/// Why a certificate names no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDeviceId {
    /// An attribute that the template names is not there, or there more than once.
    #[error("the certificate has {1} {{{0}}}")]
    Attribute(Attribute, NoValue),
    /// What comes out is no device id as it stands, and nothing is ever normalised (design §8).
    #[error("what the certificate says is no device id: it {0}")]
    NotAnId(IdError),
}

impl DeviceIdTemplate {
    /// The device that the certificate is of.
    pub fn device_id(&self, attributes: &Attributes) -> Result<DeviceId, NoDeviceId> {
        let text =
            self.0.fill(attributes).map_err(|(attribute, why)| NoDeviceId::Attribute(attribute, why))?;
        text.parse().map_err(NoDeviceId::NotAnId)
    }
}

impl FromStr for DeviceIdTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let template: Template = text.parse()?;
        if !template.0.iter().any(|part| matches!(part, Part::Attribute(_))) {
            return Err(TemplateError::Constant);
        }
        for part in &template.0 {
            if let Part::Text(text) = part {
                // Behind some other character, a text may begin with any that an id can have.
                format!("x{text}").parse::<DeviceId>().map_err(TemplateError::NotAnId)?;
            }
        }
        Ok(Self(template))
    }
}

impl Default for DeviceIdTemplate {
    fn default() -> Self {
        Self(Template(vec![Part::Attribute(Attribute::CommonName)]))
    }
}

impl fmt::Display for DeviceIdTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for DeviceIdTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

impl From<DeviceIdTemplate> for String {
    fn from(template: DeviceIdTemplate) -> String {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(template: &str, attributes: &[(&str, &str)]) -> Result<String, NoDeviceId> {
        let template: DeviceIdTemplate = template.parse().unwrap();
        template.device_id(&Attributes::made_of(attributes)).map(String::from)
    }

    #[test]
    fn a_device_is_who_its_certificate_says() {
        let subject = [("cn", "pos-1"), ("o", "05243"), ("san.dns", "pos-1.stores.example")];
        assert_eq!(device("{cn}", &subject).unwrap(), "pos-1");
        assert_eq!(device("{O}-{CN}", &subject).unwrap(), "05243-pos-1");
        assert_eq!(device("dev.{san.dns}", &subject).unwrap(), "dev.pos-1.stores.example");
        assert_eq!(DeviceIdTemplate::default().to_string(), "{cn}");
    }

    #[test]
    fn an_id_is_never_mended_and_never_guessed() {
        let missing = NoDeviceId::Attribute(Attribute::CommonName, NoValue::Missing);
        assert_eq!(device("{cn}", &[("o", "05243")]), Err(missing));
        let several = NoDeviceId::Attribute(Attribute::OrganizationalUnit, NoValue::Several);
        assert_eq!(device("{ou}", &[("ou", "a"), ("ou", "b")]), Err(several));
        for bad in ["pos 1", " pos-1", "pos/1", "pós-1", "-pos", "pos-1\n", &"x".repeat(129)] {
            assert!(matches!(device("{cn}", &[("cn", bad)]), Err(NoDeviceId::NotAnId(_))), "{bad:?}");
        }
    }

    #[test]
    fn wrong_templates_are_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<DeviceIdTemplate>().unwrap_err();
        assert_eq!(refused("{cn"), TemplateError::Brace);
        assert_eq!(refused("cn}"), TemplateError::Brace);
        assert_eq!(refused("{cn}}"), TemplateError::Brace);
        assert_eq!(refused("{}"), TemplateError::Unknown(String::new()));
        assert_eq!(refused("{cn}{x}"), TemplateError::Unknown("x".to_owned()));
        assert_eq!(refused("terminal"), TemplateError::Constant);
        assert_eq!(refused(""), TemplateError::Constant);
        assert_eq!(refused("{cn}\n"), TemplateError::Control);
        assert!(matches!(refused("a/{cn}"), TemplateError::NotAnId(_)));
        assert_eq!(refused(&"{cn}".repeat(17)), TemplateError::TooLong);
        assert_eq!(refused(&format!("{{cn}}{}", "a".repeat(253))), TemplateError::TooLong);
        assert!("unit {o}".parse::<Template>().is_ok(), "a tag may be any text");
    }

    proptest! {
        #[test]
        fn a_template_survives_its_text(text in "([a-z]{0,3}(\\{(cn|o|san\\.dns)\\})?){0,4}") {
            let template: Template = text.parse().unwrap();
            prop_assert_eq!(template.to_string(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<DeviceIdTemplate>();
        }
    }
}
