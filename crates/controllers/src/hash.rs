//! Short stable names for content, as upstream makes them: 32-bit FNV-1a over the content, written in
//! an alphabet that spells no words (`apimachinery/pkg/util/rand.SafeEncodeString`). The hashed bytes
//! are ours (JSON of the typed template), so hashes differ from those of upstream; equality of
//! templates is never decided by them.

/// 32-bit FNV-1a.
pub(crate) fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The decimal digits of a hash in the alphabet for names.
pub(crate) fn safe_encode(hash: u32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |byte: u8| char::from(*ALPHABET.get(usize::from(byte) % ALPHABET.len()).unwrap_or(&b'x'));
    hash.to_string().bytes().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(fnv32a(b""), 0x811c_9dc5);
        assert_eq!(fnv32a(b"foobar"), 0xbf9c_f968);
    }
}
