//! The names of functions in a WebAssembly module: an eighth of the Worker, and nobody reads them in production.
//! worker-build needs them while it works, so they go afterwards.

/// The length of a module's preamble.
const PREAMBLE: usize = 8;
/// The id of custom sections (WebAssembly 2.0, §5.5.2).
const CUSTOM: u8 = 0;

/// The module without its `name` section (§7.4.1). None where it is no module.
pub(super) fn without_names(module: &[u8]) -> Option<Vec<u8>> {
    if !module.starts_with(b"\0asm") {
        return None;
    }
    let mut kept = module.get(..PREAMBLE)?.to_vec();
    let mut rest = module.get(PREAMBLE..)?;
    while let Some((&id, after_id)) = rest.split_first() {
        let (length, content) = read_u32(after_id)?;
        let (content, next) = content.split_at_checked(length)?;
        if id != CUSTOM || custom_name(content)? != b"name" {
            kept.extend_from_slice(rest.get(..rest.len() - next.len())?);
        }
        rest = next;
    }
    Some(kept)
}

fn custom_name(content: &[u8]) -> Option<&[u8]> {
    let (length, name) = read_u32(content)?;
    name.get(..length)
}

/// An unsigned LEB128 number of 32 bits at most (§5.2.2), and what follows it.
fn read_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (position, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(position + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_section_goes_and_nothing_else() {
        let preamble = b"\0asm\x01\0\0\0".as_slice();
        let types = b"\x01\x04\x01\x60\0\0";
        let names = b"\0\x86\x00\x04namex";
        let producers = b"\0\x04\x03abc";
        let module = [preamble, types, names, producers].concat();
        assert_eq!(without_names(&module).unwrap(), [preamble, types, producers].concat());
        let without = [preamble, types].concat();
        assert_eq!(without_names(&without).unwrap(), without);
        for broken in
            [b"".as_slice(), b"\0asm", &module[..module.len() - 1], b"\0asm\x01\0\0\0\0\xff\xff\xff\xff\xff"]
        {
            assert_eq!(without_names(broken), None);
        }
    }
}
