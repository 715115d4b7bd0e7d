//! The headers of an event without its body: of what may be many megabytes, only the beginning is read and unpacked.

use std::io::{self, Read};

use rusqlite::{Connection, MAIN_DB};
use zstd::stream::read::Decoder;

use super::body::{RAW, ZSTD};
use super::dictionary::Dictionaries;
use super::fault::{Fault, Outcome};

/// The headers of the event with this sequence.
pub(super) fn headers(sql: &Connection, seq: i64, dictionaries: &Dictionaries) -> Outcome<String> {
    let row = "SELECT head, encoding FROM bodies WHERE event_seq = ?1";
    let (head, encoding): (u64, i64) =
        sql.prepare_cached(row)?.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let stored = sql.blob_open(MAIN_DB, "bodies", "data", seq, true)?;
    let read = match (encoding, dictionaries.get(encoding)) {
        (RAW, _) => beginning(stored, head),
        (ZSTD, _) => Decoder::new(stored).and_then(|unpacked| beginning(unpacked, head)),
        (_, Some(named)) => {
            let dictionary = named.unpacking().ok_or_else(|| Fault::Corrupt("a dictionary is none".to_owned()))?;
            let stored = io::BufReader::new(stored);
            Decoder::with_prepared_dictionary(stored, dictionary).and_then(|unpacked| beginning(unpacked, head))
        }
        (number, None) => return Err(Fault::Corrupt(format!("unknown encoding {number}"))),
    };
    let headers = read.map_err(|error| Fault::Corrupt(format!("stored headers cannot be read: {error}")))?;
    String::from_utf8(headers).map_err(|_| Fault::Corrupt("stored headers are not UTF-8".to_owned()))
}

/// The first bytes, which must be there: room is taken for what comes, not for what a damaged number says.
fn beginning(from: impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    from.take(bytes).read_to_end(&mut read)?;
    if read.len() as u64 == bytes { Ok(read) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::super::body::{pack_body, unpack_body};
    use super::super::{rows, schema};
    use super::*;

    const HEADERS: &str = r#"{"x-github-event":"issues","user-agent":"GitHub-Hookshot/1"}"#;

    /// A database with one event's headers and body, packed with this dictionary.
    fn database(body: &[u8], dictionary: Option<&[u8]>) -> (Connection, Dictionaries) {
        let mut sql = Connection::open_in_memory().unwrap();
        schema::migrate(&mut sql).unwrap();
        if let Some(dictionary) = dictionary {
            let learnt = "INSERT INTO dictionaries (number, source, data) VALUES (2, 'acme', ?1)";
            sql.execute(learnt, [dictionary]).unwrap();
        }
        let dictionaries = Dictionaries::load(&sql).unwrap();
        let packed = pack_body(HEADERS, body, dictionaries.of("acme").as_deref());
        let insert = "INSERT INTO bodies (event_seq, encoding, head, size, data) VALUES (1, ?1, ?2, ?3, ?4)";
        let data = params![packed.packed.encoding, packed.head, packed.packed.size, packed.packed.data];
        sql.execute(insert, data).unwrap();
        (sql, dictionaries)
    }

    /// Text that compresses, but not to nothing.
    fn text(bytes: usize) -> Vec<u8> {
        let numbers = (0..).flat_map(|n: u32| format!("{:x} ", n.wrapping_mul(2_654_435_761)).into_bytes());
        numbers.take(bytes).collect()
    }

    #[test]
    fn headers_are_read_however_they_are_stored() {
        let dictionary = HEADERS.repeat(4).into_bytes();
        for (body, dictionary, encoding) in [
            (text(20), None, RAW),
            (text(5000), None, ZSTD),
            (text(3_000_000), None, ZSTD),
            (text(500), Some(&dictionary[..]), 2),
        ] {
            let (sql, dictionaries) = database(&body, dictionary);
            let found: i64 = sql.query_row("SELECT encoding FROM bodies", (), |row| row.get(0)).unwrap();
            assert_eq!(found, encoding);
            assert_eq!(headers(&sql, 1, &dictionaries).unwrap(), HEADERS);
        }
    }

    #[test]
    fn the_body_behind_them_is_not_read() {
        let (sql, dictionaries) = database(&text(3_000_000), None);
        sql.execute("UPDATE bodies SET data = substr(data, 1, 200000)", ()).unwrap();
        assert!(unpack_body(rows::body(&sql, 1).unwrap(), &dictionaries).is_err(), "most of it is gone");
        assert_eq!(headers(&sql, 1, &dictionaries).unwrap(), HEADERS);
    }

    #[test]
    fn damage_is_an_error() {
        for damage in [
            "UPDATE bodies SET encoding = 7",
            "UPDATE bodies SET head = 9000000000000000000",
            "UPDATE bodies SET data = substr(data, 1, 10)",
            "UPDATE bodies SET data = x'00112233445566778899'",
            "UPDATE bodies SET data = NULL WHERE 0; UPDATE bodies SET data = 'text'",
            "DELETE FROM bodies",
        ] {
            let (sql, dictionaries) = database(&text(5000), None);
            sql.execute_batch(damage).unwrap();
            assert!(headers(&sql, 1, &dictionaries).is_err(), "{damage}");
        }
    }
}
