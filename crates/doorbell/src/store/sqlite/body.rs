//! How bodies and logs are kept: compressed where that helps.

use std::cell::RefCell;

use bytes::Bytes;
use rusqlite::Row;
use zstd::zstd_safe::{CCtx, DCtx, compress_bound, get_frame_content_size};

use super::dictionary::{Dictionaries, Dictionary, Packer};
use super::fault::{Fault, Outcome};
use crate::store::Body;

/// Shorter data is kept as it is: compressing would save less than a row costs.
const WORTH_COMPRESSING: usize = 200;
/// zstd's. Lower ones (down to -5) save a fifth of the time and cost a quarter to a half more bytes, and so more pages
/// to write; higher ones cost time and save next to nothing.
pub(super) const LEVEL: i32 = 1;
/// The same for data up to so many bytes that has a dictionary. With level 1, zstd copies a dictionary's tables for each
/// body over 8 KiB, which costs as much as the rest; with this one it looks them up in place up to here.
pub(super) const LEVEL_SHORT: i32 = 3;
/// See [`LEVEL_SHORT`].
pub(super) const SHORT: usize = 16 * 1024;

// How data is encoded; from 2 on, with the dictionary of that number.
pub(super) const RAW: i64 = 0;
pub(super) const ZSTD: i64 = 1;

/// Buffers up to this are kept for the next body.
const KEPT: usize = 256 * 1024;

thread_local! {
    static PACKING: RefCell<Option<Packing>> = const { RefCell::new(None) };
    static UNPACKING: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// What compressing needs besides the data.
struct Packing {
    context: CCtx<'static>,
    /// Room for the result, which is copied out at its size.
    room: Vec<u8>,
}

/// Data as it stands in a row.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// How it is encoded.
    pub(super) encoding: i64,
    /// Bytes before encoding.
    pub(super) size: usize,
    /// Encoded.
    pub(super) data: Vec<u8>,
}

/// Packs data, compressed if that makes it shorter.
pub(super) fn pack(data: &[u8], dictionary: Option<&Packer>) -> Packed {
    let size = data.len();
    if size >= WORTH_COMPRESSING
        && let Some(compressed) = compress(data, dictionary)
        && compressed.len() < size
    {
        return Packed { encoding: dictionary.map_or(ZSTD, |found| found.number), size, data: compressed };
    }
    Packed { encoding: RAW, size, data: data.to_vec() }
}

/// The data as it was packed; `dictionary` is the one that its encoding names, if it names one.
pub(super) fn unpack(packed: Packed, dictionary: Option<&Dictionary>) -> Outcome<Vec<u8>> {
    let data = match (packed.encoding, dictionary) {
        (RAW, _) => packed.data,
        (ZSTD, _) => decompress(&packed.data, packed.size, None)?,
        (number, Some(named)) if named.number == number => decompress(&packed.data, packed.size, Some(named))?,
        (number, _) => return Err(Fault::Corrupt(format!("unknown encoding {number}"))),
    };
    if data.len() == packed.size {
        Ok(data)
    } else {
        Err(Fault::Corrupt(format!("{} bytes stored where {} were written", data.len(), packed.size)))
    }
}

/// Headers and body of an event as they stand in a row.
#[derive(Debug, Clone)]
pub(super) struct PackedBody {
    /// Bytes of the headers.
    pub(super) head: usize,
    /// Headers and body, one after the other.
    pub(super) packed: Packed,
}

/// Packs headers and body together: they are read together, and share words.
pub(super) fn pack_body(headers: &str, body: &[u8], dictionary: Option<&Packer>) -> PackedBody {
    let mut data = Vec::with_capacity(headers.len() + body.len());
    data.extend_from_slice(headers.as_bytes());
    data.extend_from_slice(body);
    PackedBody { head: headers.len(), packed: pack(&data, dictionary) }
}

/// Headers and body as they were packed.
pub(super) fn unpack_body(packed: PackedBody, dictionaries: &Dictionaries) -> Outcome<Body> {
    let dictionary = dictionaries.get(packed.packed.encoding);
    let data = Bytes::from(unpack(packed.packed, dictionary.as_deref())?);
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

fn compress(data: &[u8], dictionary: Option<&Packer>) -> Option<Vec<u8>> {
    let tables = match dictionary {
        Some(dictionary) => Some(dictionary.tables()?),
        None => None,
    };
    PACKING.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Packing { context: CCtx::try_create()?, room: Vec::new() });
        }
        let Packing { context, room } = slot.as_mut()?;
        room.clear();
        room.try_reserve(compress_bound(data.len())).ok()?;
        match tables {
            Some(tables) if data.len() <= SHORT => {
                context.compress_using_cdict(room, data, tables.packing_short.as_cdict())
            }
            Some(tables) => context.compress_using_cdict(room, data, tables.packing.as_cdict()),
            None => context.compress(room, data, LEVEL),
        }
        .ok()?;
        let compressed = room.as_slice().to_vec();
        if room.capacity() > KEPT {
            *room = Vec::new();
        }
        Some(compressed)
    })
}

fn decompress(data: &[u8], size: usize, dictionary: Option<&Dictionary>) -> Outcome<Vec<u8>> {
    let corrupt = |what: &str| Fault::Corrupt(format!("compressed data cannot be read: {what}"));
    // A damaged size must not decide how much memory is taken.
    match get_frame_content_size(data) {
        Ok(Some(stated)) if usize::try_from(stated) == Ok(size) => {}
        _ => return Err(corrupt("its size is not the one that was written")),
    }
    let mut whole = Vec::new();
    whole.try_reserve_exact(size).map_err(|_| corrupt("no memory for its size"))?;
    UNPACKING.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = DCtx::try_create();
        }
        let context = slot.as_mut().ok_or_else(|| corrupt("no decompressor"))?;
        match dictionary {
            Some(dictionary) => {
                let unpacking = dictionary.unpacking().ok_or_else(|| corrupt("its dictionary is none"))?;
                context.decompress_using_ddict(&mut whole, data, unpacking.as_ddict())
            }
            None => context.decompress(&mut whole, data),
        }
        .map_err(|code| corrupt(zstd::zstd_safe::get_error_name(code)))
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
            let back = unpack_body(pack_body(&headers, &body, None), &Dictionaries::default()).unwrap();
            prop_assert_eq!((back.headers, back.bytes), (headers, Bytes::from(body)));
        }

        #[test]
        fn damaged_data_is_an_error_and_no_panic(size: usize, head: usize, encoding in 0i64..3, data: Vec<u8>) {
            let _ = unpack_body(PackedBody { head, packed: Packed { encoding, size, data } }, &Dictionaries::default());
        }

        #[test]
        fn damage_in_compressed_data_is_an_error_and_no_panic(at in 0usize..30, bits: u8, size in 0usize..10_000) {
            let mut packed = pack(&[b'a'; 5000], None);
            let place = at % packed.data.len();
            packed.data[place] ^= bits;
            packed.size = size;
            let _ = unpack(packed, None);
        }
    }

    #[test]
    fn text_is_compressed_and_short_or_random_data_is_not() {
        assert_eq!(pack(&[b'a'; 5000], None).encoding, ZSTD);
        assert_eq!(pack(&[b'a'; 100], None).encoding, RAW);
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        });
        assert_eq!(pack(&noise.take(5000).collect::<Vec<_>>(), None).encoding, RAW);
    }
}
