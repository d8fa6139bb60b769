//! JSON as `config` needs it: fields as they stand in the file (so that a large one costs its own length and
//! is written back unchanged), objects whose order is kept, because in PEFT's patterns the first
//! key that matches counts, and errors that show the place.

use core::fmt;
use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};

use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a file, each as text.
pub(super) type Fields = BTreeMap<String, String>;

pub(super) fn fields(file: &[u8]) -> Result<Fields, String> {
    let fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(file).map_err(|error| not_json(file, &error))?;
    let text = |(name, raw): (String, Box<RawValue>)| (name, Box::<str>::from(raw).into_string());
    Ok(fields.into_iter().map(text).collect())
}

/// Python's json writes NaN and Infinity, which are none of JSON's: so quote the line.
fn not_json(file: &[u8], error: &serde_json::Error) -> String {
    let line = file.split(|&byte| byte == b'\n').nth(error.line().saturating_sub(1));
    let line = line.unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(400)]);
    let line: String = line.trim().chars().take(80).collect();
    format!("not a JSON object: {error}: `{line}`")
}

/// A value in a message: its beginning.
pub(super) fn shown(raw: &str) -> String {
    let mut chars = raw.chars();
    let begin: String = chars.by_ref().take(80).collect();
    if chars.as_str().is_empty() { begin } else { format!("{begin}…") }
}

/// A field that may be absent or null.
pub(super) fn optional<T: DeserializeOwned>(
    fields: &Fields,
    name: &str,
    expected: &str,
) -> Result<Option<T>, String> {
    fields.get(name).map_or(Ok(None), |raw| read(name, raw, expected))
}

pub(super) fn read<T: DeserializeOwned>(
    name: &str,
    raw: &str,
    expected: &str,
) -> Result<T, String> {
    let got = |_| format!("{name}: expected {expected}, got {}", shown(raw));
    serde_json::from_str(raw).map_err(got)
}

/// Whether a field is switched off: null, false or empty.
pub(super) fn is_off(raw: &str) -> bool {
    let inside = |open, close| raw.strip_prefix(open).and_then(|raw: &str| raw.strip_suffix(close));
    let within = inside('[', ']').or(inside('{', '}'));
    matches!(raw, "null" | "false") || within.is_some_and(|within| within.trim().is_empty())
}

/// A JSON object in the order of the file; `value` reads one entry by the name it has in a message.
pub(super) fn ordered<T>(
    fields: &Fields,
    field: &str,
    value: impl Fn(&str, &str) -> Result<T, String>,
) -> Result<Vec<(String, T)>, String> {
    let Some(raw) = fields.get(field).filter(|raw| *raw != "null") else { return Ok(Vec::new()) };
    let entries = Entries {
        value: |key: &str, raw: &str| {
            value(&format!("{field}, key `{}`", super::super::shown(key)), raw)
        },
    };
    let read = |raw: &str| {
        let mut from = serde_json::Deserializer::from_str(raw);
        from.deserialize_map(entries)
    };
    read(raw).map_err(|error| {
        // An entry's own words, without serde's "at line 1 column 20" of a part of the file.
        let text = error.to_string();
        match text.rsplit_once(" at line ") {
            Some((own, _)) if own.starts_with(field) => own.to_owned(),
            _ => format!("{field}: expected an object, got {}", shown(raw)),
        }
    })
}

struct Entries<F> {
    value: F,
}

impl<'de, T, F: Fn(&str, &str) -> Result<T, String>> Visitor<'de> for Entries<F> {
    type Value = Vec<(String, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Self::Value = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        while let Some((key, raw)) = map.next_entry::<String, &RawValue>()? {
            let value = (self.value)(&key, raw.get()).map_err(A::Error::custom)?;
            // As in Python: a key given again has its first place and its last value.
            match places.entry(key.clone()) {
                Entry::Occupied(place) => entries[*place.get()].1 = value,
                Entry::Vacant(place) => {
                    place.insert(entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(entries)
    }
}

/// A value as PEFT writes it: indented by two more than a field.
pub(super) fn text<T: serde::Serialize + ?Sized>(of: &T) -> Result<String, String> {
    let text = serde_json::to_string_pretty(of).map_err(|error| error.to_string())?;
    Ok(text.replace('\n', "\n  "))
}

/// An object of `entries` in their order, each value as text.
pub(super) fn object<'a>(
    entries: impl Iterator<Item = (&'a str, String)>,
) -> Result<String, String> {
    let mut object = String::new();
    for (key, value) in entries {
        object.push_str(if object.is_empty() { "{" } else { "," });
        let key = serde_json::to_string(key).map_err(|error| error.to_string())?;
        object.push_str(&format!("\n    {key}: {value}"));
    }
    object.push_str(if object.is_empty() { "{}" } else { "\n  }" });
    Ok(object)
}

/// A file of these fields.
pub(super) fn whole(fields: &Fields) -> Result<Vec<u8>, String> {
    let mut file = String::new();
    for (name, raw) in fields {
        file.push_str(if file.is_empty() { "{" } else { "," });
        let name = serde_json::to_string(name).map_err(|error| error.to_string())?;
        file.push_str(&format!("\n  {name}: {raw}"));
    }
    file.push_str(if file.is_empty() { "{}" } else { "\n}" });
    Ok(file.into_bytes())
}
