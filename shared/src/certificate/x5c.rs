//! The `x5c` header (RFC 7515 §4.1.6): standard Base64 of one certificate each, the device's first. Its size is looked at
//! before anything is decoded, so that nobody can send work by the megabyte.

use base64ct::{Base64, Encoding};

use super::refusal::{Place, Problem, Refusal};
use super::{MAX_CERTIFICATE_LENGTH, MAX_CHAIN_LENGTH, Rules};

/// Decodes the entries of `x5c`.
pub fn decode_x5c<T: AsRef<str>>(entries: &[T], rules: &Rules) -> Result<Vec<Vec<u8>>, Refusal> {
    check_sizes(entries.iter().map(|entry| entry.as_ref().len() / 4 * 3), rules)?;
    entries
        .iter()
        .enumerate()
        .map(|(position, entry)| {
            Base64::decode_vec(entry.as_ref())
                .map_err(|_| Place::Certificate(position).refuses(Problem::NotBase64))
        })
        .collect()
}

/// So many certificates, so many bytes each and so many together, and no more.
pub(crate) fn check_sizes(sizes: impl ExactSizeIterator<Item = usize>, rules: &Rules) -> Result<(), Refusal> {
    // The device's, the intermediates, and the root, which may be there or not.
    let (count, most) = (sizes.len(), rules.max_intermediates.saturating_add(2));
    if count == 0 {
        return Err(Place::Chain.refuses(Problem::Empty));
    }
    if count > most {
        return Err(Place::Chain.refuses(Problem::TooManyCertificates { count, most }));
    }
    let mut total = 0usize;
    for (position, bytes) in sizes.enumerate() {
        if bytes > MAX_CERTIFICATE_LENGTH {
            let problem = Problem::TooLarge { bytes, most: MAX_CERTIFICATE_LENGTH };
            return Err(Place::Certificate(position).refuses(problem));
        }
        total = total.saturating_add(bytes);
    }
    if total > MAX_CHAIN_LENGTH {
        return Err(Place::Chain.refuses(Problem::TooLarge { bytes: total, most: MAX_CHAIN_LENGTH }));
    }
    Ok(())
}
