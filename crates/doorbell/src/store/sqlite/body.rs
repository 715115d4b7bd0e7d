//! How bodies and logs are kept: compressed where that helps.

use std::cell::RefCell;

use bytes::Bytes;
use rusqlite::Row;
use zstd::bulk::{Compressor, Decompressor};

use super::fault::{Fault, Outcome};
use crate::store::Body;

/// Shorter data is kept as it is: compressing would save less than a row costs.
const WORTH_COMPRESSING: usize = 200;
/// zstd's. Lower ones (down to -5) save a fifth of the time and cost a quarter to a half more bytes, and so more pages
/// to write; higher ones cost time and save next to nothing.
const LEVEL: i32 = 1;

const RAW: i64 = 0;
const ZSTD: i64 = 1;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Data as it stands in a row.
#[derive(Debug)]
pub(super) struct Packed {
    /// How it is encoded.
    pub(super) encoding: i64,
    /// Bytes before encoding.
    pub(super) size: usize,
    /// Encoded.
    pub(super) data: Vec<u8>,
}

/// Packs data, compressed if that makes it shorter.
pub(super) fn pack(data: Vec<u8>) -> Packed {
    let size = data.len();
    if size >= WORTH_COMPRESSING
        && let Some(compressed) = compress(&data)
        && compressed.len() < size
    {
        return Packed { encoding: ZSTD, size, data: compressed };
    }
    Packed { encoding: RAW, size, data }
}

/// The data as it was packed.
pub(super) fn unpack(packed: Packed) -> Outcome<Vec<u8>> {
    let data = match packed.encoding {
        RAW => packed.data,
        ZSTD => decompress(&packed.data, packed.size)?,
        other => return Err(Fault::Corrupt(format!("unknown encoding {other}"))),
    };
    if data.len() == packed.size {
        Ok(data)
    } else {
        Err(Fault::Corrupt(format!("{} bytes stored where {} were written", data.len(), packed.size)))
    }
}

/// Headers and body of an event as they stand in a row.
#[derive(Debug)]
pub(super) struct PackedBody {
    /// Bytes of the headers.
    pub(super) head: usize,
    /// Headers and body, one after the other.
    pub(super) packed: Packed,
}

/// Packs headers and body together: they are read together, and share words.
pub(super) fn pack_body(headers: &str, body: &[u8]) -> PackedBody {
    let mut data = Vec::with_capacity(headers.len() + body.len());
    data.extend_from_slice(headers.as_bytes());
    data.extend_from_slice(body);
    PackedBody { head: headers.len(), packed: pack(data) }
}

/// Headers and body as they were packed.
pub(super) fn unpack_body(packed: PackedBody) -> Outcome<Body> {
    let data = Bytes::from(unpack(packed.packed)?);
    if packed.head > data.len() {
        return Err(Fault::Corrupt("headers longer than what is stored".to_owned()));
    }
    let headers = std::str::from_utf8(&data[..packed.head])
        .map_err(|_| Fault::Corrupt("stored headers are not UTF-8".to_owned()))?
        .to_owned();
    Ok(Body { headers, bytes: data.slice(packed.head..) })
}

/// The columns `encoding, size, data` from column `first` on.
pub(super) fn packed_from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Packed> {
    Ok(Packed { encoding: row.get(first)?, size: row.get(first + 1)?, data: row.get(first + 2)? })
}

fn compress(data: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(LEVEL).ok();
        }
        slot.as_mut()?.compress(data).ok()
    })
}

fn decompress(data: &[u8], size: usize) -> Outcome<Vec<u8>> {
    let corrupt = |what: &str| Fault::Corrupt(format!("compressed data cannot be read: {what}"));
    // A damaged size must not decide how much memory is taken.
    match zstd::zstd_safe::get_frame_content_size(data) {
        Ok(Some(stated)) if usize::try_from(stated) == Ok(size) => {}
        _ => return Err(corrupt("its size is not the one that was written")),
    }
    let mut whole = Vec::new();
    whole.try_reserve_exact(size).map_err(|_| corrupt("no memory for its size"))?;
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        let decompressor = slot.as_mut().ok_or_else(|| corrupt("no decompressor"))?;
        decompressor.decompress_to_buffer(data, &mut whole).map_err(|error| corrupt(&error.to_string()))
    })?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_reads_back(headers: String, body in proptest::collection::vec(0u8..4, 0..2000)) {
            let back = unpack_body(pack_body(&headers, &body)).unwrap();
            prop_assert_eq!((back.headers, back.bytes), (headers, Bytes::from(body)));
        }

        #[test]
        fn damaged_data_is_an_error_and_no_panic(size: usize, head: usize, encoding in 0i64..3, data: Vec<u8>) {
            let _ = unpack_body(PackedBody { head, packed: Packed { encoding, size, data } });
        }

        #[test]
        fn damage_in_compressed_data_is_an_error_and_no_panic(at in 0usize..30, bits: u8, size in 0usize..10_000) {
            let mut packed = pack(vec![b'a'; 5000]);
            let place = at % packed.data.len();
            packed.data[place] ^= bits;
            packed.size = size;
            let _ = unpack(packed);
        }
    }

    #[test]
    fn text_is_compressed_and_short_or_random_data_is_not() {
        assert_eq!(pack(vec![b'a'; 5000]).encoding, ZSTD);
        assert_eq!(pack(vec![b'a'; 100]).encoding, RAW);
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        });
        assert_eq!(pack(noise.take(5000).collect()).encoding, RAW);
    }
}
