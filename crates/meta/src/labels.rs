//! The labels of a stored object. A server holds them for every object, most objects have few, and nothing
//! changes them: they are a sorted slice, a fifth of what a map takes.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// Labels by key. Equal keys: the last one given counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    fn sorted(mut pairs: Vec<(Box<str>, Box<str>)>) -> Self {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        // `dedup_by` keeps the first of two: the value moves to it.
        pairs.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                std::mem::swap(later, first);
            }
            same
        });
        Self(pairs.into())
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self::sorted(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Labels::sorted(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_key() {
        let read: Labels = serde_json::from_str(r#"{"b": "2", "a": "1", "c\"": "", "b": "3"}"#).unwrap();
        assert_eq!(read, [("a", "1"), ("c\"", ""), ("b", "3")].into_iter().collect());
        for (key, value) in [("a", Some("1")), ("b", Some("3")), ("c\"", Some("")), ("", None), ("d", None)] {
            assert_eq!(read.get(key), value, "{key}");
        }
        assert_eq!(read.iter().map(|(key, _)| key).collect::<String>(), "abc\"");
        assert!(serde_json::from_str::<Labels>(r#"{"a": 1}"#).is_err());
    }
}
