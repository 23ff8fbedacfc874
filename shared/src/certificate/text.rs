//! The string types of a name as text, and their normal form for comparison (RFC 5280 §7.1).

use std::borrow::Cow;

use der::Tag;

/// An attribute's value as text: `None` if its type is no string, `Some(Err)` if it is one and its bytes are not.
///
/// TeletexString is read as Latin-1, as everybody else does: what T.61 says is implemented nowhere. UniversalString is
/// not read.
pub(crate) fn decode<'a>(tag: Tag, content: &'a [u8]) -> Option<Result<Cow<'a, str>, NotText>> {
    match tag {
        Tag::Utf8String => Some(std::str::from_utf8(content).map(Cow::Borrowed).map_err(|_| NotText)),
        Tag::PrintableString | Tag::Ia5String | Tag::VisibleString | Tag::NumericString => {
            Some(ascii(content))
        }
        Tag::TeletexString => Some(Ok(content.iter().copied().map(char::from).collect())),
        Tag::BmpString => Some(basic_multilingual_plane(content)),
        _ => None,
    }
}

/// The bytes are not in the encoding that their type promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotText;

fn ascii(content: &[u8]) -> Result<Cow<'_, str>, NotText> {
    match std::str::from_utf8(content) {
        Ok(text) if text.is_ascii() => Ok(Cow::Borrowed(text)),
        _ => Err(NotText),
    }
}

fn basic_multilingual_plane(content: &[u8]) -> Result<Cow<'_, str>, NotText> {
    let (units, []) = content.as_chunks::<2>() else { return Err(NotText) };
    // A surrogate is no character, and BMPString has no pairs of them.
    units.iter().map(|unit| char::from_u32(u32::from(u16::from_be_bytes(*unit))).ok_or(NotText)).collect()
}

/// What caseIgnoreMatch compares: lower case, white space within as one space, and none around (RFC 4518 §2.2 and §2.6.1,
/// without the Unicode normalisation of §2.3, which no verifier in use applies).
pub(crate) fn normalise(text: &str, into: &mut Vec<u8>) {
    let mut words = text.split(char::is_whitespace).filter(|word| !word.is_empty());
    let mut add = |word: &str| {
        if word.is_ascii() {
            into.extend(word.bytes().map(|octet| octet.to_ascii_lowercase()));
        } else {
            let mut utf8 = [0; 4];
            word.chars()
                .flat_map(char::to_lowercase)
                .for_each(|char| into.extend(char.encode_utf8(&mut utf8).bytes()));
        }
    };
    if let Some(first) = words.next() {
        add(first);
    }
    for word in words {
        add(" ");
        add(word);
    }
}

/// The format characters of Unicode that hide or reorder text: zero-width, directional and tag characters.
pub(crate) fn is_invisible(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        let mut bytes = Vec::new();
        normalise(text, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn case_and_white_space_do_not_count() {
        assert_eq!(normal("  Retail \t Corp\u{a0}"), "retail corp");
        assert_eq!(normal("RÉSEAU Ä"), "réseau ä");
        assert_eq!(normal(" "), "");
        assert_ne!(normal("a b"), normal("ab"));
    }

    #[test]
    fn every_string_type_is_read_as_what_it_is() {
        let text = |tag, content| decode(tag, content).unwrap().map(Cow::into_owned);
        assert_eq!(text(Tag::Utf8String, "é".as_bytes()), Ok("é".to_owned()));
        assert_eq!(text(Tag::Utf8String, b"\xe9"), Err(NotText));
        assert_eq!(text(Tag::PrintableString, b"a*b"), Ok("a*b".to_owned()));
        assert_eq!(text(Tag::PrintableString, "é".as_bytes()), Err(NotText));
        assert_eq!(text(Tag::Ia5String, b"\xe9"), Err(NotText));
        assert_eq!(text(Tag::TeletexString, b"\xe9"), Ok("é".to_owned()));
        assert_eq!(text(Tag::BmpString, b"\x00a\x20\xac"), Ok("a€".to_owned()));
        assert_eq!(text(Tag::BmpString, b"\x00a\x20"), Err(NotText));
        assert_eq!(text(Tag::BmpString, b"\xd8\x00\xdc\x00"), Err(NotText));
        assert_eq!(decode(Tag::Integer, b"1"), None);
    }
}
