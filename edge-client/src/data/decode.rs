//! Bytes to text.

use encoding_rs::{Encoding, UTF_8};

use super::DataError;

/// Decodes a whole file. Every byte must be valid; a byte-order mark is dropped.
pub(super) fn decode(name: &str, bytes: &[u8], encoding: Option<&str>) -> Result<String, DataError> {
    let encoding = match encoding {
        None => UTF_8,
        Some(label) => lookup(label).ok_or_else(|| {
            let message =
                format!("unknown encoding {label:?}; try utf-8, latin-1, windows-1252, utf-16le or shift_jis");
            DataError::file(name, message)
        })?,
    };
    if let Some((what, _)) = PACKED.iter().find(|(_, magic)| bytes.starts_with(magic)) {
        return Err(DataError::file(name, format!("holds no text but {what} data; unpack it first")));
    }
    if encoding == UTF_8 {
        if let Some((other, _)) = Encoding::for_bom(bytes).filter(|(other, _)| *other != UTF_8) {
            let label = other.name().to_ascii_lowercase();
            return Err(DataError::file(name, format!("is {label}; name it, as in --encoding {label}")));
        }
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        return std::str::from_utf8(bytes).map(str::to_string).map_err(|e| {
            let at = e.valid_up_to();
            let line = 1 + bytes[..at].iter().filter(|&&b| b == b'\n').count();
            let byte = bytes.get(at).copied().unwrap_or_default();
            let message = format!("byte 0x{byte:02X} is not UTF-8; name the file's encoding, as in --encoding latin-1");
            DataError::line(name, line, message)
        });
    }
    let bytes = Encoding::for_bom(bytes).filter(|(e, _)| *e == encoding).map_or(bytes, |(_, n)| &bytes[n..]);
    encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .map(|text| text.into_owned())
        .ok_or_else(|| DataError::file(name, format!("is not {}; give another --encoding", encoding.name())))
}

/// What files of text are packed in, and how those begin.
const PACKED: [(&str, &[u8]); 6] = [
    ("gzip", b"\x1f\x8b"),
    ("zip", b"PK\x03\x04"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
    ("xz", b"\xfd7zXZ\0"),
    ("bzip2", b"BZh91AY&SY"),
    ("Parquet", b"PAR1"),
];

/// The WHATWG labels, and the spellings with a hyphen that Python and iconv take.
fn lookup(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label(label.as_bytes()).or_else(|| Encoding::for_label(label.replace('-', "").as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::decode;

    #[test]
    fn invalid_utf8_names_the_line_and_the_way_out() {
        let message = decode("f.tsv", b"ok\ncaf\xE9\n", None).unwrap_err().to_string();
        assert!(message.starts_with("f.tsv:2: byte 0xE9"), "{message}");
        assert!(message.contains("--encoding latin-1"), "{message}");
    }

    #[test]
    fn encodings_by_their_usual_spellings() {
        for label in ["latin-1", "latin1", "ISO-8859-1", "cp1252"] {
            assert_eq!(decode("f", b"caf\xE9", Some(label)).unwrap(), "café");
        }
        assert_eq!(decode("f", b"\xFF\xFEa\0b\0", Some("utf-16le")).unwrap(), "ab");
        assert_eq!(decode("f", b"\xEF\xBB\xBFab", None).unwrap(), "ab");
        assert!(decode("f", b"", Some("klingon")).unwrap_err().to_string().contains("klingon"));
    }

    #[test]
    fn what_is_packed_or_of_two_bytes_is_called_so() {
        for (bytes, encoding, said) in [
            (b"\x1f\x8b\x08\0".as_slice(), None, "f.tsv: holds no text but gzip data; unpack it first"),
            (b"\x1f\x8b\x08\0", Some("latin-1"), "gzip"),
            (b"PAR1\x15", None, "Parquet"),
            (b"\xFF\xFEa\0", None, "--encoding utf-16le"),
            (b"\xFE\xFF\0a", None, "--encoding utf-16be"),
        ] {
            let message = decode("f.tsv", bytes, encoding).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn malformed_in_a_named_encoding() {
        assert!(decode("f", b"\x81", Some("shift_jis")).unwrap_err().to_string().contains("Shift_JIS"));
    }
}
