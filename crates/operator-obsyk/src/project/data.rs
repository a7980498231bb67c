//! The data of Secrets and ConfigMaps: its keys, and as much of its values as it takes to recognise them in the
//! object's own annotations, where tools and people put copies.
//!
//! Guarantees: no value is kept or copied, only lengths and hashes of it, and those no longer than the object is
//! projected; an annotation is found that holds a value whole (without the space around it), as it is or in
//! base64. Values shorter than [`VALUE_BYTES_MIN`] are not looked for: they are in anything. Deliberately unaware
//! of copies in other forms (escaped, packed, encrypted); `is_sent` knows the usual manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Shorter values are not looked for.
const VALUE_BYTES_MIN: usize = 4;
/// Shorter base64 neither: six bytes of a value.
const TEXT_BYTES_MIN: usize = 8;
/// Steps that one annotation may take; beyond that it is not sent, whatever it holds.
const STEPS_MAX: usize = 1 << 24;

/// Keys, and the prints of their values. `PACKED`: the values are base64.
#[derive(Default)]
pub(super) struct Data<const PACKED: bool> {
    keys: BTreeSet<String>,
    prints: Prints,
}

impl<const PACKED: bool> Data<PACKED> {
    pub(super) fn into_parts(self) -> (BTreeSet<String>, Prints) {
        (self.keys, self.prints)
    }
}

/// Hashes of what is looked for, by length.
#[derive(Default)]
pub(super) struct Prints(BTreeMap<usize, Vec<u64>>);

impl Prints {
    pub(super) fn extend(&mut self, other: Self) {
        for (length, hashes) in other.0 {
            self.0.entry(length).or_default().extend(hashes);
        }
    }

    /// Whether a text holds one of the values.
    pub(super) fn are_in(&self, text: &str) -> bool {
        let fitting = || self.0.range(..=text.len());
        fitting().count().saturating_mul(text.len()) > STEPS_MAX
            || fitting()
                .any(|(length, hashes)| windows(text.as_bytes(), *length).any(|h| hashes.contains(&h)))
    }

    fn add(&mut self, print: Print, length_min: usize) {
        if print.length >= length_min {
            self.0.entry(print.length).or_default().push(print.hash);
        }
    }

    /// A value as it is.
    fn plain(&mut self, value: impl Iterator<Item = u8>) {
        let (mut whole, mut trimmed) = (Print::default(), Print::default());
        let mut group = Group::default();
        // Complete groups of three bytes are the same in every base64 of the value, whatever follows it.
        let (mut text, mut text_trimmed) = (Print::default(), Print::default());
        let mut begun = false;
        for byte in value {
            if let Some(symbols) = group.push(byte) {
                symbols.into_iter().for_each(|symbol| text.push(symbol));
            }
            begun |= !byte.is_ascii_whitespace();
            if begun {
                whole.push(byte);
                if !byte.is_ascii_whitespace() {
                    (trimmed, text_trimmed) = (whole, text);
                }
            }
        }
        self.add(trimmed, VALUE_BYTES_MIN);
        self.add(text_trimmed, TEXT_BYTES_MIN);
    }
}

/// Length and hash of some bytes.
#[derive(Clone, Copy, Default)]
struct Print {
    length: usize,
    hash: u64,
}

/// A Mersenne prime, and a base below it: a polynomial over the bytes, so that a window can slide.
const PRIME: u64 = (1 << 61) - 1;
const BASE: u64 = 0x1a2b_3c4d_5e6f_7081;

fn times(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    u64::try_from(product % u128::from(PRIME)).unwrap_or(0)
}

impl Print {
    fn push(&mut self, byte: u8) {
        self.length += 1;
        // Beside zero, so that zeroes count.
        self.hash = (times(self.hash, BASE) + u64::from(byte) + 1) % PRIME;
    }
}

/// The hash of each part of that length.
fn windows(bytes: &[u8], length: usize) -> impl Iterator<Item = u64> {
    let (first, rest) = bytes.split_at(length.min(bytes.len()));
    let mut print = Print::default();
    first.iter().for_each(|byte| print.push(*byte));
    let leaving = (1..length).fold(1, |power, _| times(power, BASE));
    let slide = bytes.iter().zip(rest).scan(print.hash, move |hash, (old, new)| {
        let gone = times(u64::from(*old) + 1, leaving);
        *hash = (times((*hash + PRIME - gone) % PRIME, BASE) + u64::from(*new) + 1) % PRIME;
        Some(*hash)
    });
    std::iter::once(print.hash).chain(slide)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Three bytes on their way to base64.
#[derive(Default)]
struct Group {
    bits: u32,
    bytes: u8,
}

impl Group {
    fn push(&mut self, byte: u8) -> Option<[u8; 4]> {
        self.bits = (self.bits << 8) | u32::from(byte);
        self.bytes += 1;
        if self.bytes < 3 {
            return None;
        }
        let Self { bits, .. } = std::mem::take(self);
        let symbol = |shift: u32| {
            let at = usize::try_from((bits >> shift) & 0x3f).unwrap_or(0);
            ALPHABET.get(at).copied().unwrap_or(b'A')
        };
        Some([symbol(18), symbol(12), symbol(6), symbol(0)])
    }
}

/// The bytes of a base64 text; what is none of its symbols is passed over.
fn unpacked(text: &str) -> impl Iterator<Item = u8> {
    let sextet = |symbol: u8| match symbol {
        b'A'..=b'Z' => Some(symbol - b'A'),
        b'a'..=b'z' => Some(symbol - b'a' + 26),
        b'0'..=b'9' => Some(symbol - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let mut bits = 0_u32;
    let mut held = 0_u8;
    text.bytes().filter_map(sextet).filter_map(move |sextet| {
        bits = (bits << 6) | u32::from(sextet);
        held += 6;
        if held < 8 {
            return None;
        }
        held -= 8;
        u8::try_from((bits >> held) & 0xff).ok()
    })
}

/// One value, wherever the decoder has it.
struct Value<'a, const PACKED: bool>(&'a mut Prints);

impl<'de, const PACKED: bool> DeserializeSeed<'de> for Value<'_, PACKED> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, const PACKED: bool> Visitor<'de> for Value<'_, PACKED> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        if PACKED {
            self.0.plain(unpacked(value));
        } else {
            self.0.plain(value.bytes());
        }
        Ok(())
    }

    // No API server has these; one of them is no reason not to read the rest.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

impl<'de, const PACKED: bool> Deserialize<'de> for Data<PACKED> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries<const PACKED: bool>;
        impl<'de, const PACKED: bool> Visitor<'de> for Entries<PACKED> {
            type Value = Data<PACKED>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut data = Data::default();
                while let Some(key) = entries.next_key()? {
                    data.keys.insert(key);
                    entries.next_value_seed(Value::<PACKED>(&mut data.prints))?;
                }
                Ok(data)
            }
        }
        from.deserialize_map(Entries::<PACKED>)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    fn prints<const PACKED: bool>(value: &str) -> Prints {
        let json = serde_json::json!({"key": value, "none": null, "odd": [{"a": 1}]}).to_string();
        let (keys, prints) = serde_json::from_str::<Data<PACKED>>(&json).unwrap().into_parts();
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["key", "none", "odd"]);
        prints
    }

    #[test]
    fn copies_are_found_plain_and_in_base64() {
        let check = |value: &str, annotation: &str, found: bool| {
            let both = [
                prints::<false>(value).are_in(annotation),
                prints::<true>(&STANDARD.encode(value)).are_in(annotation),
            ];
            assert_eq!(both, [found; 2], "{value:?} in {annotation:?}");
        };
        check("hunter2", "hunter2", true);
        check("hunter2", "postgres://me:hunter2@db/app", true);
        check("hunter2\n", "the password is hunter2", true);
        check("  hunter2 \n", "hunter2", true);
        check("hunter2", "hunter", false);
        check("hunter2", "hunte2r", false);
        check("hunter2", "", false);
        check("hunter2", &STANDARD.encode("hunter2"), true);
        check("hunter2", &STANDARD.encode("hunter2\n"), true);
        check("hunter2", STANDARD.encode("hunter2").trim_end_matches('='), true);
        check("ключ", "это ключ", true);
        check("two words", "two words", true);
        check("two words", "two  words", false);
        // Too short to mean anything.
        check("yes", "yes", false);
        check("", "anything", false);
        check(" \n ", "anything \n ", false);
    }

    #[test]
    fn what_takes_too_long_to_search_is_not_sent() {
        let mut prints = Prints::default();
        for length in 4..200 {
            prints.plain(std::iter::repeat_n(b'x', length));
        }
        assert!(!prints.are_in(&"y".repeat(1000)) && prints.are_in(&"y".repeat(200_000)));
    }
}
