//! The rows of an import: NDJSON, or CSV (RFC 4180), taken apart as the pieces arrive.
//!
//! What is held is one row of at most [`MAX_ROW_BYTES`] and the piece that is being read.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::body::read_fields;
use super::json::RawObject;
use super::problem::{FieldError, bounded};
use crate::service::device::NewDevice;

/// The longest row. One that is longer is passed over.
const MAX_ROW_BYTES: usize = 1 << 20;
/// How many characters of an id that is none are repeated.
const LONGEST_ID: usize = 200;
/// How errors name the row itself.
const ROW: &str = "line";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated values, with a heading.
    Csv,
}

/// A row, read.
#[derive(Debug)]
pub(super) struct Row {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// How many bytes it had.
    pub(super) bytes: usize,
    /// The device that it says, or what is wrong.
    pub(super) read: Result<NewDevice, BadRow>,
}

/// A row that says no device.
#[derive(Debug)]
pub(super) struct BadRow {
    /// Its id, where one can be made out.
    pub(super) id: Option<String>,
    /// What is wrong.
    pub(super) errors: Vec<FieldError>,
}

/// The heading of a CSV file is wrong: no row can be read.
#[derive(Debug)]
pub(super) struct BadHeading(pub(super) Vec<FieldError>);

/// Reads rows from pieces.
pub(super) struct Rows {
    records: Records,
    grammar: Grammar,
}

enum Grammar {
    Ndjson,
    Csv { reader: Box<Reader>, columns: Option<Vec<Column>> },
}

enum Column {
    Text(&'static str),
    ServerUrls,
    Tag(String),
    Metadata(String),
}

impl Rows {
    pub(super) fn new(format: Format) -> Self {
        let grammar = match format {
            Format::Ndjson => Grammar::Ndjson,
            Format::Csv => {
                // What ends a row has been found already; a carriage return within one is a character of it.
                let reader = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
                Grammar::Csv { reader: Box::new(reader), columns: None }
            }
        };
        Self { records: Records::new(format == Format::Csv), grammar }
    }

    /// Gives it the next piece, once [`next`](Self::next) has no more rows of the one before.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.records.push(piece);
    }

    /// Says that there are no more pieces.
    pub(super) fn end(&mut self) {
        self.records.ended = true;
    }

    /// Reads the heading, if there is to be one and it is there. Whether rows can be read now.
    pub(super) fn heading(&mut self) -> Result<bool, BadHeading> {
        let Grammar::Csv { reader, columns } = &mut self.grammar else { return Ok(true) };
        if columns.is_none() {
            let Some(record) = self.records.next() else { return Ok(false) };
            *columns = Some(read_heading(reader, record)?);
        }
        Ok(true)
    }

    /// The next row; none where another piece is needed, or all have been read.
    pub(super) fn next(&mut self) -> Result<Option<Row>, BadHeading> {
        if !self.heading()? {
            return Ok(None);
        }
        let Some(record) = self.records.next() else { return Ok(None) };
        let read = match (record.text(), &mut self.grammar) {
            (Err(detail), _) => Err(BadRow { id: None, errors: vec![of_row(detail)] }),
            (Ok(text), Grammar::Ndjson) => read_object(text),
            (Ok(text), Grammar::Csv { reader, columns }) => {
                read_cells(&cells(reader, text), columns.as_deref().unwrap_or_default())
            }
        };
        Ok(Some(Row { line: record.line, bytes: record.bytes.len(), read }))
    }
}

fn of_row(detail: impl Into<String>) -> FieldError {
    FieldError { field: ROW.to_owned(), detail: detail.into() }
}

fn read_object(text: &str) -> Result<NewDevice, BadRow> {
    let object = serde_json::from_str(text).map_err(|error| {
        let detail = match error.classify() {
            serde_json::error::Category::Data => "must be a JSON object with each field once".to_owned(),
            // The line that it names is the line within the row.
            _ => format!("is not JSON: {}", error.to_string().replace(" at line 1 column ", " at column ")),
        };
        BadRow { id: None, errors: vec![of_row(detail)] }
    })?;
    read_device(object)
}

fn read_device(object: RawObject) -> Result<NewDevice, BadRow> {
    let id = object.0.get("id").and_then(|id| serde_json::from_str::<String>(id.get()).ok());
    read_fields(object).map_err(|errors| BadRow {
        id: id.map(|id| id.chars().take(LONGEST_ID).collect()),
        errors: bounded(errors),
    })
}

fn read_heading(reader: &mut Reader, record: Record) -> Result<Vec<Column>, BadHeading> {
    let text = record.text().map_err(|detail| BadHeading(vec![of_row(detail)]))?;
    let (mut columns, mut errors, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (position, name) in (1..).zip(cells(reader, text)) {
        let mut wrong = |field: &str, detail: &str| {
            errors.push(FieldError { field: field.to_owned(), detail: detail.to_owned() });
        };
        match Column::named(&name) {
            _ if name.is_empty() => wrong(&format!("column {position}"), "has no name"),
            None => wrong(&name, "is unknown"),
            Some(_) if !names.insert(name.clone()) => wrong(&name, "is there twice"),
            Some(column) => columns.push(column),
        }
    }
    for name in ["id", "name"] {
        if !names.contains(name) {
            errors.push(FieldError { field: name.to_owned(), detail: "is required".to_owned() });
        }
    }
    if errors.is_empty() { Ok(columns) } else { Err(BadHeading(bounded(errors))) }
}

impl Column {
    fn named(name: &str) -> Option<Self> {
        const TEXTS: [&str; 4] = ["id", "name", "description", "primaryServerUrl"];
        if let Some(field) = TEXTS.into_iter().find(|field| *field == name) {
            Some(Column::Text(field))
        } else if name == "serverUrls" {
            Some(Column::ServerUrls)
        } else if let Some(tag) = name.strip_prefix("tags.") {
            Some(Column::Tag(tag.to_owned()))
        } else {
            name.strip_prefix("metadata.").map(|key| Column::Metadata(key.to_owned()))
        }
    }
}

/// The cells of one row. A reader that has been reset is as good as a new one.
fn cells(reader: &mut Reader, text: &str) -> Vec<String> {
    reader.reset();
    let mut unquoted = vec![0; text.len()];
    let mut ends = vec![0; text.bytes().filter(|byte| *byte == b',').count() + 1];
    let (mut written, mut found) = (0, 0);
    // The text, and then the end of it.
    for input in [text.as_bytes(), b""] {
        let output = unquoted.get_mut(written..).unwrap_or_default();
        let places = ends.get_mut(found..).unwrap_or_default();
        let (result, _, bytes, places) = reader.read_record(input, output, places);
        (written, found) = (written + bytes, found + places);
        if result == ReadRecordResult::Record {
            break;
        }
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let cell = |(start, end): (usize, &usize)| {
        String::from_utf8_lossy(unquoted.get(start..*end).unwrap_or_default()).into_owned()
    };
    starts.zip(ends.iter().take(found)).map(cell).collect()
}

/// A cell without text says nothing, as if the column were not there.
fn read_cells(cells: &[String], columns: &[Column]) -> Result<NewDevice, BadRow> {
    let mut object = BTreeMap::new();
    let (mut tags, mut metadata) = (BTreeMap::new(), BTreeMap::new());
    for (column, cell) in columns.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
        match column {
            Column::Text(name) => add(&mut object, name, cell),
            Column::ServerUrls => add(&mut object, "serverUrls", &cell.split('|').collect::<Vec<_>>()),
            Column::Tag(name) => drop(tags.insert(name, cell)),
            Column::Metadata(name) => drop(metadata.insert(name, cell)),
        }
    }
    if cells.len() != columns.len() {
        let detail = format!("has {} columns where the heading has {}", cells.len(), columns.len());
        let id = columns.iter().position(|column| matches!(column, Column::Text("id")));
        let id = id.and_then(|position| cells.get(position));
        let id = id.map(|id| id.chars().take(LONGEST_ID).collect());
        return Err(BadRow { id, errors: vec![of_row(detail)] });
    }
    if !tags.is_empty() {
        add(&mut object, "tags", &tags);
    }
    if !metadata.is_empty() {
        add(&mut object, "metadata", &metadata);
    }
    read_device(RawObject(object))
}

fn add(object: &mut BTreeMap<String, Box<RawValue>>, name: &str, value: &impl Serialize) {
    // Texts, lists and maps of texts: they serialise.
    if let Ok(value) = to_raw_value(value) {
        object.insert(name.to_owned(), value);
    }
}

/// A row as it was sent.
struct Record {
    line: u64,
    bytes: Vec<u8>,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    TooLong,
    NeverClosed,
    TextAfterQuote,
}

impl Record {
    fn text(&self) -> Result<&str, String> {
        match self.fault {
            Some(Fault::TooLong) => Err(format!("has more than {MAX_ROW_BYTES} bytes")),
            Some(Fault::NeverClosed) => Err("has a quote that is never closed".to_owned()),
            Some(Fault::TextAfterQuote) => Err("has text after a closing quote".to_owned()),
            None => str::from_utf8(&self.bytes).map_err(|_| "is not UTF-8".to_owned()),
        }
    }
}

/// Finds where rows end: at line feeds, but not at those within quotes.
struct Records {
    knows_quotes: bool,
    piece: Bytes,
    ended: bool,
    /// The line that is being read.
    line: u64,
    /// The line on which the row began.
    began: u64,
    /// What has been read of the row.
    held: Vec<u8>,
    place: Place,
    fault: Option<Fault>,
}

/// Where in a row of CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    CellStart,
    Plain,
    Quoted,
    /// After a quote within quotes: the end of them, or the first of two that mean one.
    QuoteInQuoted,
}

impl Records {
    fn new(knows_quotes: bool) -> Self {
        Self {
            knows_quotes,
            piece: Bytes::new(),
            ended: false,
            line: 1,
            began: 1,
            held: Vec::new(),
            place: Place::CellStart,
            fault: None,
        }
    }

    fn push(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// The next row that is not blank.
    fn next(&mut self) -> Option<Record> {
        while !self.piece.is_empty() {
            let piece = std::mem::take(&mut self.piece);
            let mut bytes = piece.iter();
            let finished = bytes.by_ref().find_map(|byte| self.take(*byte));
            self.piece = piece.slice_ref(bytes.as_slice());
            if finished.is_some() {
                return finished;
            }
        }
        if !self.ended {
            return None;
        }
        if self.place == Place::Quoted {
            self.fault = Some(Fault::NeverClosed);
        }
        self.finish()
    }

    fn take(&mut self, byte: u8) -> Option<Record> {
        self.line += u64::from(byte == b'\n');
        if byte == b'\n' && self.place != Place::Quoted {
            return self.finish();
        }
        if self.held.len() < MAX_ROW_BYTES {
            self.held.push(byte);
        } else {
            self.fault = self.fault.or(Some(Fault::TooLong));
        }
        if self.knows_quotes {
            self.place = match (self.place, byte) {
                (Place::Quoted, b'"') => Place::QuoteInQuoted,
                (Place::CellStart | Place::QuoteInQuoted, b'"') | (Place::Quoted, _) => Place::Quoted,
                (_, b',') => Place::CellStart,
                // Of the line's end.
                (Place::QuoteInQuoted, b'\r') => Place::QuoteInQuoted,
                (Place::QuoteInQuoted, _) => {
                    self.fault = self.fault.or(Some(Fault::TextAfterQuote));
                    Place::Plain
                }
                _ => Place::Plain,
            };
        }
        if self.began == 1 && self.held == BYTE_ORDER_MARK {
            self.held.clear();
            self.place = Place::CellStart;
        }
        None
    }

    fn finish(&mut self) -> Option<Record> {
        let mut bytes = std::mem::take(&mut self.held);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        let record = Record { line: self.began, bytes, fault: self.fault.take() };
        self.began = self.line;
        self.place = Place::CellStart;
        let blank = record.fault.is_none() && record.bytes.iter().all(u8::is_ascii_whitespace);
        (!blank).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// What the rows of a body say that arrives in pieces of these sizes: line, and the device or what is wrong.
    fn read(format: Format, body: &[u8], sizes: &[usize]) -> Result<Vec<(u64, Value)>, Vec<FieldError>> {
        let (mut rows, mut read) = (Rows::new(format), Vec::new());
        let (mut rest, mut sizes) = (Bytes::copy_from_slice(body), sizes.iter().cycle());
        loop {
            while let Some(row) = rows.next().map_err(|BadHeading(errors)| errors)? {
                let told = match row.read {
                    Ok(device) => json!([
                        device.id,
                        device.name,
                        device.description,
                        device.metadata.get(),
                        device.tags,
                        device.primary_server_url,
                        device.server_urls
                    ]),
                    Err(bad) => json!({"id": bad.id, "errors": bad.errors}),
                };
                read.push((row.line, told));
            }
            if rows.records.ended {
                return Ok(read);
            }
            match rest.len() {
                0 => rows.end(),
                left => rows.push(rest.split_to(left.min(*sizes.next().unwrap()))),
            }
        }
    }

    fn quoted(cell: &str) -> String {
        format!("\"{}\"", cell.replace('"', "\"\""))
    }

    /// A cell with quotes where it needs them, or wants them.
    fn cell(text: &str, wants: bool) -> String {
        if wants || text.contains(['"', ',', '\n', '\r']) { quoted(text) } else { text.to_owned() }
    }

    type Row = (String, String, Option<String>, BTreeMap<usize, String>, Vec<String>, bool);

    fn any_row() -> impl Strategy<Value = Row> {
        (
            "[A-Za-z0-9][A-Za-z0-9._:-]{0,9}",
            "[ -~é\u{1f600}]{0,5}[\"',a-z]",
            prop::option::of("[ -~]{1,9}"),
            prop::collection::btree_map(0_usize..3, "[ -~]{1,5}", 0..3),
            prop::collection::vec("http://[a-z]{1,5}(:[1-9])?/[a-z,]{0,4}", 0..3),
            any::<bool>(),
        )
    }

    proptest! {
        #[test]
        fn csv_and_ndjson_say_the_same_however_they_are_cut(
            rows in prop::collection::vec(any_row(), 0..8),
            sizes in prop::collection::vec(1_usize..50, 1..5),
            line_end in prop::sample::select(vec!["\n", "\r\n"]),
            mark in any::<bool>(),
        ) {
            let mut csv = if mark { "\u{feff}".to_owned() } else { String::new() };
            csv.push_str("id,name,description,metadata.a b,tags.t0,\"metadata.\"\"\",serverUrls");
            csv.push_str(line_end);
            let mut ndjson = String::new();
            for (id, name, description, keyed, urls, wants) in &rows {
                let of = |n: usize| keyed.get(&n).map_or("", String::as_str);
                let urls_cell = urls.join("|");
                let cells = [id, name, description.as_deref().unwrap_or(""), of(0), of(1), of(2), &urls_cell];
                let cells: Vec<String> = cells.iter().map(|text| cell(text, *wants)).collect();
                csv.push_str(&cells.join(","));
                csv.push_str(line_end);
                let metadata: BTreeMap<&str, &String> = [("a b", 0), ("\"", 2)]
                    .into_iter()
                    .filter_map(|(name, n)| Some((name, keyed.get(&n)?)))
                    .collect();
                let tags: BTreeMap<&str, &String> = keyed.get(&1).into_iter().map(|tag| ("t0", tag)).collect();
                let row = json!({"id": id, "name": name, "description": description, "metadata": metadata,
                    "tags": tags, "serverUrls": urls});
                ndjson.push_str(&format!("{row}{line_end}"));
            }
            let told = |read: Result<Vec<(u64, Value)>, Vec<FieldError>>| -> Vec<Value> {
                read.unwrap().into_iter().map(|(_, told)| told).collect()
            };
            let from_csv = told(read(Format::Csv, csv.as_bytes(), &sizes));
            prop_assert_eq!(from_csv.len(), rows.len());
            prop_assert_eq!(&from_csv, &told(read(Format::Ndjson, ndjson.as_bytes(), &sizes)));
            prop_assert!(from_csv.iter().all(Value::is_array), "{:?}", from_csv);
        }

        #[test]
        fn whatever_comes_is_read_to_its_end_the_same_however_it_is_cut(
            body in "(id,name,tags.t\n)?([a-z]|[\",\n\r{}:]|é|\u{0}|\"id\"){0,60}",
            sizes in prop::collection::vec(1_usize..9, 1..5),
        ) {
            for format in [Format::Csv, Format::Ndjson] {
                let whole = read(format, body.as_bytes(), &[usize::MAX]);
                prop_assert_eq!(&read(format, body.as_bytes(), &sizes), &whole);
                let lines: Vec<u64> = whole.unwrap_or_default().iter().map(|(line, _)| *line).collect();
                prop_assert!(lines.is_sorted_by(|one, next| one < next), "{:?}", lines);
                prop_assert!(lines.last().is_none_or(|last| *last <= 1 + body.matches('\n').count() as u64));
            }
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_not_held() {
        let mut rows = Rows::new(Format::Ndjson);
        for _ in 0..40 {
            rows.push(Bytes::from(vec![b'x'; 1 << 17]));
            assert!(rows.next().unwrap().is_none());
            assert!(rows.records.held.len() <= MAX_ROW_BYTES);
        }
        rows.push(Bytes::from_static(b"\n{}\n"));
        let row = rows.next().unwrap().unwrap();
        assert_eq!(row.read.unwrap_err().errors, [of_row("has more than 1048576 bytes")]);
        assert_eq!(rows.next().unwrap().unwrap().line, 2);
    }
}
