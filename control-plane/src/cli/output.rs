//! What a command prints: tables for people, the API's own JSON for scripts.
//!
//! Whatever came over the network is made [`printable`] before a person's terminal sees it: a device's name must not be
//! able to move the cursor. JSON goes out as it came, to the digit.

use std::fmt;
use std::io::{self, Write};

use comfy_table::{ColumnConstraint, Table, Width, presets};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::api::Answer;
use super::error::CommandError;

/// The most characters of a cell in a list, the first column aside.
const LONGEST_CELL: usize = 48;

/// How many spaces stand between columns.
const COLUMN_GAP: u16 = 2;

/// How a command prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// For scripts.
    pub(super) json: bool,
}

/// A column of a list: its heading, and the field of the API's answer that it shows.
pub(super) type Column = (&'static str, &'static str);

impl Output {
    /// One thing: its fields, one below the other.
    pub(super) fn one(self, answer: &Answer) -> Result<(), CommandError> {
        if self.json {
            return say(answer.json());
        }
        let fields: Fields = answer.read()?;
        say(&fields.table(&[]))
    }

    /// One thing: its fields but these, and then more lines, which the caller makes of those.
    pub(super) fn one_and(
        self,
        answer: &Answer,
        without: &[&str],
        lines: impl Iterator<Item = String>,
    ) -> Result<(), CommandError> {
        if self.json {
            return say(answer.json());
        }
        let fields: Fields = answer.read()?;
        let mut text = fields.table(without);
        for line in lines {
            text.push('\n');
            text.push_str(&printable(&line));
        }
        say(&text)
    }

    /// One thing of several that an answer held.
    pub(super) fn object(self, object: &RawValue) -> Result<(), CommandError> {
        if self.json {
            return say(object.get());
        }
        let fields: Fields =
            serde_json::from_str(object.get()).map_err(|error| CommandError::Answer(error.to_string()))?;
        say(&fields.table(&[]))
    }

    /// A thing with a secret, which stands on standard output alone, so that it can be piped or kept in a variable; what
    /// belongs to it goes to standard error.
    pub(super) fn secret(self, answer: &Answer, field: &str) -> Result<(), CommandError> {
        if self.json {
            return say(answer.json());
        }
        let fields: Fields = answer.read()?;
        let secret = fields
            .get(field)
            .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
            .ok_or_else(|| CommandError::Answer(format!("it has no {field}")))?;
        tell(&fields.table(&[field]));
        say(&printable(&secret))
    }

    /// A page of a list. `widths` are those of the pages before, and become those of this one too.
    pub(super) fn page(
        self,
        items: &[Box<RawValue>],
        columns: &[Column],
        widths: &mut Vec<u16>,
    ) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        if self.json {
            for item in items {
                writeln!(out, "{}", item.get())?;
            }
            return Ok(out.flush()?);
        }
        let mut table = plain_table();
        if widths.is_empty() {
            table.set_header(columns.iter().map(|(heading, _)| *heading));
        }
        for item in items {
            let fields: Fields =
                serde_json::from_str(item.get()).map_err(|error| CommandError::Answer(error.to_string()))?;
            let cells = columns.iter().enumerate().map(|(position, (_, field))| {
                let cell = fields.get(field).map_or_else(absent, |raw| text(raw, ", "));
                if position == 0 { cell } else { shortened(cell) }
            });
            table.add_row(cells);
        }
        spread(&mut table);
        widths.resize(columns.len(), 0);
        for (width, content) in widths.iter_mut().zip(table.column_max_content_widths()) {
            *width = content.saturating_add(COLUMN_GAP).max(*width);
        }
        table.set_constraints(
            widths.iter().map(|width| ColumnConstraint::LowerBoundary(Width::Fixed(*width))),
        );
        writeln!(out, "{}", table.trim_fmt())?;
        Ok(out.flush()?)
    }

    /// What was done, where there is nothing to show. Scripts have the exit code.
    pub(super) fn done(self, what: fmt::Arguments<'_>) -> Result<(), CommandError> {
        if self.json { Ok(()) } else { say(&what.to_string()) }
    }
}

/// Prints a line for whoever gave the command.
pub(super) fn say(line: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Prints a line that is no part of the result.
pub(super) fn tell(line: &str) {
    #[expect(clippy::print_stderr, reason = "for the person who gave the command")]
    {
        eprintln!("{line}");
    }
}

/// `text` without what a terminal would obey: control characters, and those that turn the direction of writing.
pub(super) fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// The numbers that an object has, in one line.
pub(super) fn counts(object: &str) -> Result<String, CommandError> {
    let fields: Fields =
        serde_json::from_str(object).map_err(|error| CommandError::Answer(error.to_string()))?;
    let is_number = |value: &RawValue| serde_json::from_str::<u64>(value.get()).is_ok();
    let numbers = fields.0.iter().filter(|(_, value)| is_number(value));
    let parts: Vec<String> =
        numbers.map(|(name, value)| format!("{} {}", printable(name), value.get())).collect();
    Ok(parts.join(", "))
}

/// The fields of an object in the order in which they came.
struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }

    fn table(&self, without: &[&str]) -> String {
        let mut table = plain_table();
        for (name, value) in self.0.iter().filter(|(name, _)| !without.contains(&name.as_str())) {
            table.add_row([printable(name), text(value, "\n")]);
        }
        spread(&mut table);
        table.trim_fmt()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A value as a person reads it; the parts of a list or of an object are put between `separator`s.
fn text(raw: &RawValue, separator: &str) -> String {
    if let Ok(fields) = serde_json::from_str::<Fields>(raw.get()) {
        let parts: Vec<String> =
            fields.0.iter().map(|(name, value)| format!("{}={}", printable(name), scalar(value))).collect();
        return if parts.is_empty() { absent() } else { parts.join(separator) };
    }
    if let Ok(items) = serde_json::from_str::<Vec<Box<RawValue>>>(raw.get()) {
        let parts: Vec<String> = items.iter().map(|item| scalar(item)).collect();
        return if parts.is_empty() { absent() } else { parts.join(separator) };
    }
    scalar(raw)
}

/// A text without its quotation marks; what is not simple stays JSON.
fn scalar(raw: &RawValue) -> String {
    match serde_json::from_str(raw.get()) {
        Ok(Value::String(text)) => printable(&text),
        Ok(Value::Null) => absent(),
        Ok(Value::Bool(true)) => "yes".to_owned(),
        Ok(Value::Bool(false)) => "no".to_owned(),
        _ => printable(raw.get()),
    }
}

fn absent() -> String {
    "-".to_owned()
}

fn shortened(cell: String) -> String {
    match cell.char_indices().nth(LONGEST_CELL) {
        Some((end, _)) => format!("{}…", cell.get(..end).unwrap_or_default()),
        None => cell,
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Columns begin at the left edge.
fn spread(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, COLUMN_GAP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(
            printable("a\u{1b}[2Jb\r\n\u{9b}\u{202e}ü漢"),
            "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9b}\\u{202e}ü漢"
        );
        let value = raw(r#"{"k\u001b": "\u001b]0;x\u0007", "l": {"deep": "\u009b"}}"#);
        let shown = text(&value, ", ");
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }

    #[test]
    fn values_read_as_a_person_would_write_them() {
        for (json, shown) in [
            (r#""text""#, "text"),
            ("null", "-"),
            ("true", "yes"),
            ("12345678901234567890123", "12345678901234567890123"),
            (r#"["a", "b"]"#, "a, b"),
            ("[]", "-"),
            (r#"{"country": "US", "deep": {"a": [1]}}"#, r#"country=US, deep={"a": [1]}"#),
            ("{}", "-"),
        ] {
            assert_eq!(text(&raw(json), ", "), shown);
        }
    }

    #[test]
    fn a_long_cell_is_cut_between_characters() {
        assert_eq!(shortened("ü".repeat(48)), "ü".repeat(48));
        assert_eq!(shortened("ü".repeat(49)), format!("{}…", "ü".repeat(48)));
    }
}
