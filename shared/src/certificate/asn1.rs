//! Strict reading of DER (X.690 §10 and §11). The `der` crate reads tags and lengths and refuses whatever is not
//! canonical about them; here is what X.509 needs on top of it: which bytes an element was, and the few primitive types.

use der::asn1::AnyRef;
use der::{Reader, SliceReader, Tag, TagNumber, Tagged};

/// What could not be read, named as RFC 5280 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// One element: what it is, what is in it, and its own bytes, header included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: Tag,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads the only element of `bytes`.
    pub(crate) fn only(bytes: &'a [u8], what: &'static str) -> Result<Self, Malformed> {
        let mut fields = Fields::new(bytes, what)?;
        let element = fields.next()?;
        fields.end()?;
        Ok(element)
    }

    /// The elements inside.
    pub(crate) fn fields(&self, what: &'static str) -> Result<Fields<'a>, Malformed> {
        Fields::new(self.content, what)
    }
}

/// Elements one after the other.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    reader: SliceReader<'a>,
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Result<Self, Malformed> {
        let reader = SliceReader::new(bytes).map_err(|_| Malformed(what))?;
        Ok(Self { bytes, reader, what })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reader.is_finished()
    }

    /// The next element, whatever it is.
    pub(crate) fn next(&mut self) -> Result<Element<'a>, Malformed> {
        let start = self.position()?;
        let value: AnyRef<'a> = self.reader.decode().map_err(|_| self.malformed())?;
        let end = self.position()?;
        let whole = self.bytes.get(start..end).ok_or_else(|| self.malformed())?;
        Ok(Element { tag: value.tag(), content: value.value(), whole })
    }

    /// The next element, which must be a `tag`.
    pub(crate) fn expect(&mut self, tag: Tag) -> Result<Element<'a>, Malformed> {
        let element = self.next()?;
        if element.tag == tag { Ok(element) } else { Err(self.malformed()) }
    }

    /// The next element if it is a `tag`. Ask [`end`](Self::end) afterwards: anything else is left where it is.
    pub(crate) fn optional(&mut self, tag: Tag) -> Result<Option<Element<'a>>, Malformed> {
        if self.is_empty() || self.reader.peek_byte() != Some(tag.octet()) {
            return Ok(None);
        }
        self.next().map(Some)
    }

    /// A BOOLEAN DEFAULT FALSE. DER leaves the default out (X.690 §11.5); that it is there all the same, as some vendors
    /// have it, changes nothing. But only 0 and 255 are values (§11.1).
    pub(crate) fn optional_boolean(&mut self) -> Result<bool, Malformed> {
        match self.optional(Tag::Boolean)? {
            None | Some(Element { content: [0x00], .. }) => Ok(false),
            Some(Element { content: [0xff], .. }) => Ok(true),
            Some(_) => Err(self.malformed()),
        }
    }

    /// Refuses anything that is left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    fn malformed(&self) -> Malformed {
        Malformed(self.what)
    }

    fn position(&self) -> Result<usize, Malformed> {
        usize::try_from(self.reader.position()).map_err(|_| self.malformed())
    }
}

/// `[number]` around a whole element or another type's constructed content.
pub(crate) const fn constructed(number: TagNumber) -> Tag {
    Tag::ContextSpecific { constructed: true, number }
}

/// `[number]` in place of a primitive type's own tag.
pub(crate) const fn primitive(number: TagNumber) -> Tag {
    Tag::ContextSpecific { constructed: false, number }
}

/// The content of an INTEGER, which must be of the least length (X.690 §8.3.2), as it stands: two's complement.
pub(crate) fn integer<'a>(content: &'a [u8], what: &'static str) -> Result<&'a [u8], Malformed> {
    match content {
        [] | [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(Malformed(what)),
        _ => Ok(content),
    }
}

/// The magnitude of an INTEGER that must be positive, without the octet that only carries the sign.
pub(crate) fn positive<'a>(content: &'a [u8], what: &'static str) -> Result<&'a [u8], Malformed> {
    match integer(content, what)? {
        [0x00] | [0x80..=0xff, ..] => Err(Malformed(what)),
        [0x00, magnitude @ ..] | magnitude => Ok(magnitude),
    }
}

/// A small INTEGER that must not be negative. What is too big for the type is as good as its greatest value, because
/// these numbers are lengths and versions.
pub(crate) fn small(content: &[u8], what: &'static str) -> Result<u32, Malformed> {
    match integer(content, what)? {
        [0x80..=0xff, ..] => Err(Malformed(what)),
        digits => Ok(digits
            .iter()
            .try_fold(0u32, |number, digit| number.checked_mul(256)?.checked_add(u32::from(*digit)))
            .unwrap_or(u32::MAX)),
    }
}

/// The bits of a BIT STRING, the unused ones of the last octet being zero (X.690 §11.2.1), and how many are unused.
pub(crate) fn bit_string<'a>(content: &'a [u8], what: &'static str) -> Result<(&'a [u8], u8), Malformed> {
    match content {
        [0, bits @ ..] => Ok((bits, 0)),
        [unused @ 1..=7, bits @ ..] => match bits.last() {
            Some(last) if last & ((1 << unused) - 1) == 0 => Ok((bits, *unused)),
            _ => Err(Malformed(what)),
        },
        _ => Err(Malformed(what)),
    }
}

/// A BIT STRING that holds whole octets.
pub(crate) fn octets<'a>(content: &'a [u8], what: &'static str) -> Result<&'a [u8], Malformed> {
    match bit_string(content, what)? {
        (bits, 0) => Ok(bits),
        _ => Err(Malformed(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shortest_length_is_read() {
        assert!(Element::only(&[0x04, 0x01, 0xaa], "t").is_ok());
        assert!(Element::only(&[0x04, 0x81, 0x01, 0xaa], "t").is_err());
        assert!(Element::only(&[0x04, 0x80, 0xaa, 0x00, 0x00], "t").is_err());
        assert!(Element::only(&[0x04, 0x01, 0xaa, 0x00], "t").is_err(), "something follows");
        assert!(Element::only(&[0x04, 0x02, 0xaa], "t").is_err(), "something is missing");
        assert!(Element::only(&[], "t").is_err());
    }

    #[test]
    fn an_integer_has_no_superfluous_octet() {
        assert!(integer(&[0x00], "t").is_ok());
        assert!(integer(&[0x00, 0x80], "t").is_ok());
        assert!(integer(&[0x00, 0x7f], "t").is_err());
        assert!(integer(&[0xff, 0x80], "t").is_err());
        assert!(integer(&[0xff, 0x7f], "t").is_ok());
        assert!(integer(&[], "t").is_err());
    }

    #[test]
    fn positive_takes_neither_zero_nor_less() {
        assert_eq!(positive(&[0x01], "t"), Ok(&[0x01][..]));
        assert_eq!(positive(&[0x00, 0x80], "t"), Ok(&[0x80][..]));
        assert!(positive(&[0x00], "t").is_err());
        assert!(positive(&[0x80], "t").is_err());
        assert!(positive(&[], "t").is_err());
    }

    #[test]
    fn a_small_number_stops_at_its_greatest_value() {
        assert_eq!(small(&[0x00], "t"), Ok(0));
        assert_eq!(small(&[0x01, 0x00], "t"), Ok(256));
        assert_eq!(small(&[0x7f; 9], "t"), Ok(u32::MAX));
        assert!(small(&[0xff], "t").is_err());
    }

    #[test]
    fn unused_bits_are_zero() {
        assert_eq!(bit_string(&[5, 0b1010_0000], "t"), Ok((&[0b1010_0000][..], 5)));
        assert!(bit_string(&[5, 0b1011_0000], "t").is_err());
        assert!(bit_string(&[8, 0], "t").is_err());
        assert!(bit_string(&[1], "t").is_err());
        assert!(bit_string(&[], "t").is_err());
        assert_eq!(bit_string(&[0], "t"), Ok((&[][..], 0)));
        assert!(octets(&[1, 0], "t").is_err());
    }

    #[test]
    fn a_boolean_has_two_values() {
        let read = |bytes: &'static [u8]| Fields::new(bytes, "t").unwrap().optional_boolean();
        assert_eq!(read(&[]), Ok(false));
        assert_eq!(read(&[0x04, 0x00]), Ok(false));
        assert_eq!(read(&[0x01, 0x01, 0xff]), Ok(true));
        assert_eq!(read(&[0x01, 0x01, 0x00]), Ok(false));
        assert!(read(&[0x01, 0x01, 0x01]).is_err());
        assert!(read(&[0x01, 0x02, 0xff, 0xff]).is_err());
        assert!(read(&[0x01, 0x00]).is_err());
    }
}
