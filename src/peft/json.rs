//! JSON as `config` needs it: objects whose order is kept, because in PEFT's patterns the first key
//! that matches counts; and an error that shows the place.

use core::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Python's json writes NaN and Infinity, which are none of JSON's: so quote the line.
pub(super) fn not_json(file: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(file);
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("").trim();
    let line: String = line.chars().take(80).collect();
    format!("not a JSON object: {error}: `{line}`")
}

/// The two fields whose order counts.
#[derive(Deserialize)]
pub(super) struct Patterns {
    #[serde(default)]
    pub(super) rank_pattern: Ordered,
    #[serde(default)]
    pub(super) alpha_pattern: Ordered,
}

/// A JSON object in the order of the file.
#[derive(Default)]
pub(super) struct Ordered(pub(super) Vec<(String, Value)>);

impl Ordered {
    pub(super) fn each<T>(
        self,
        field: &str,
        read: impl Fn(&str, &Value) -> Result<T, String>,
    ) -> Result<Vec<(String, T)>, String> {
        let entries = self.0.into_iter().map(|(key, value)| {
            let value = read(&format!("{field}, key `{key}`"), &value)?;
            Ok((key, value))
        });
        entries.collect()
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Ordered, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries: Vec<(String, Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    // As in Python: a key given again has its first place and its last value.
                    match entries.iter_mut().find(|(of, _)| *of == key) {
                        Some((_, old)) => *old = value,
                        None => entries.push((key, value)),
                    }
                }
                Ok(Ordered(entries))
            }
        }
        from.deserialize_any(Entries)
    }
}

/// A field as it is written.
pub(super) enum Field<'a> {
    Kept(&'a Value),
    Own(Value),
    Ordered(Ordered),
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Field::Kept(value) => value.serialize(to),
            Field::Own(value) => value.serialize(to),
            Field::Ordered(Ordered(entries)) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
