//! Reads variables one by one and collects what is wrong with them.

use std::fmt::Display;

use super::{ConfigError, ConfigErrors, Lookup};

/// A pass over the environment. A method answers `None` where it has noted an error.
pub(super) struct Reader<'a> {
    lookup: Lookup<'a>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: Lookup<'a>) -> Self {
        Self { lookup, errors: Vec::new() }
    }

    /// A variable that must be there.
    pub(super) fn required<T, E: Display>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match self.text(variable)? {
            Some(text) => self.parse(variable, &text, parse),
            None => {
                self.refuse(variable, "is not set");
                None
            }
        }
    }

    /// A variable with a default.
    pub(super) fn optional<T, E: Display>(
        &mut self,
        variable: &'static str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        self.parse(variable, text.as_deref().unwrap_or(default), parse)
    }

    /// A variable that may be absent.
    pub(super) fn optional_or_none<T, E: Display>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.text(variable)? {
            Some(text) => self.parse(variable, &text, parse).map(Some),
            None => Some(None),
        }
    }

    /// Notes that a variable is wrong. One that is read twice is reported once.
    pub(super) fn refuse(&mut self, variable: &'static str, reason: &str) {
        let error = ConfigError { variable, reason: reason.to_owned() };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// What was read, or all that is wrong.
    pub(super) fn finish<T>(self, config: Option<T>) -> Result<T, ConfigErrors> {
        match config {
            Some(config) if self.errors.is_empty() => Ok(config),
            _ => Err(ConfigErrors(self.errors)),
        }
    }

    /// The variable's text. An empty one counts as absent, as in the env files of container tools.
    fn text(&mut self, variable: &'static str) -> Option<Option<String>> {
        match (self.lookup)(variable).map(|value| value.into_string()) {
            None => Some(None),
            Some(Ok(text)) => Some(Some(text).filter(|text| !text.is_empty())),
            Some(Err(_)) => {
                self.refuse(variable, "is not UTF-8");
                None
            }
        }
    }

    fn parse<T, E: Display>(
        &mut self,
        variable: &'static str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.refuse(variable, &reason.to_string());
                None
            }
        }
    }
}
