//! What was measured, as files: CSV, with a head of comments that says where, when and by what.
//! Called by `ratios` and `share`.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Result;

/// Writes `rows`, with `head`, lines of Markdown, before them.
pub fn write<T: Serialize>(file: &Path, head: &str, rows: &[T]) -> Result<()> {
    let head: String = head.lines().map(|line| format!("# {line}\n")).collect();
    let mut writer = csv::Writer::from_writer(head.into_bytes());
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    Ok(fs::write(file, bytes)?)
}

/// The head and the rows of a file that [`write`] wrote.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<(String, Vec<T>)> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(|error| named(&error))?;
    let head = text.lines().map_while(|line| line.strip_prefix("# "));
    let head = head.map(|line| format!("{line}\n")).collect();
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    let rows: std::result::Result<Vec<T>, _> = reader.deserialize().collect();
    Ok((head, rows.map_err(|error| named(&error))?))
}
