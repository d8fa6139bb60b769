//! Keys and paths as Python's `re` sees them (`patterns.py` made the table): keys of `alpha_pattern`, and
//! patterns of `target_modules`.

use fused_lora::peft::{AdapterConfig, AdapterFile, Factor, TargetModules};
use fused_lora::{DType, Error};
use serde_json::Value;

struct Table {
    paths: Vec<String>,
    refused: serde_json::Map<String, Value>,
    keys: Vec<Key>,
}

struct Key {
    text: String,
    matches: Option<Vec<bool>>,
    full: Option<Vec<bool>>,
}

fn table() -> Table {
    let table: Value = serde_json::from_str(include_str!("patterns.json")).unwrap();
    let text = |of: &Value| of.as_str().unwrap().to_owned();
    let paths: Vec<String> = table["paths"].as_array().unwrap().iter().map(text).collect();
    let bits = |of: &Value| {
        // Hexadecimal, the last digit has the first four paths.
        let digits = of.as_str()?.chars().rev().map(|digit| digit.to_digit(16).unwrap());
        let mut bits: Vec<bool> =
            digits.flat_map(|digit| (0..4).map(move |i| digit >> i & 1 == 1)).collect();
        bits.resize(paths.len(), false);
        Some(bits)
    };
    let keys = table["keys"].as_array().unwrap();
    let keys =
        keys.iter().map(|of| Key { text: text(&of[0]), matches: bits(&of[1]), full: bits(&of[2]) });
    let keys = keys.collect();
    Table { refused: table["refused"].as_object().unwrap().clone(), keys, paths }
}

/// What the key says about every path, or why it is refused.
type Answer = fn(&str, &[&str]) -> Result<Vec<bool>, String>;

/// Through the scale that a key of `alpha_pattern` gives.
fn as_key(key: &str, paths: &[&str]) -> Result<Vec<bool>, String> {
    let mut config = AdapterConfig::new(1, 1.0);
    config.target_modules = TargetModules::OfArchitecture;
    config.alpha_pattern = vec![(key.to_owned(), 2.0)];
    let factor = Factor::new(1, 1, DType::F32, &[1.0]).unwrap();
    let modules = paths.iter().map(|path| ((*path).to_owned(), factor.clone(), factor.clone()));
    let file = AdapterFile::new(config, modules).map_err(reason)?;
    Ok(paths.iter().map(|path| file.modules[*path].scale == 2.0).collect())
}

/// Through the modules that a pattern of `target_modules` means.
fn as_target(key: &str, paths: &[&str]) -> Result<Vec<bool>, String> {
    let mut config = AdapterConfig::new(1, 1.0);
    config.target_modules = TargetModules::Pattern(key.to_owned());
    let targeted = config.targeted(paths.iter().copied()).map_err(reason)?;
    let mut rest = targeted.into_iter().peekable();
    Ok(paths.iter().map(|path| rest.next_if(|of| of == path).is_some()).collect())
}

fn reason(error: Error) -> String {
    match error {
        Error::Adapter { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

/// `exact`: PEFT looks the path itself up where no key matches.
fn compare(answer: Answer, python: fn(&Key) -> &Option<Vec<bool>>, exact: bool) {
    let table = table();
    let paths: Vec<&str> = table.paths.iter().map(String::as_str).collect();
    let ascii: Vec<&str> = paths.iter().copied().filter(|path| path.is_ascii()).collect();
    let (mut pairs, mut refused, mut wrong) = (0, 0, Vec::new());
    for key in &table.keys {
        let text = &key.text;
        let Some(expected) = python(key) else {
            match answer(text, &paths) {
                Ok(_) => wrong.push(format!("`{text}`: Python refuses it, taken here")),
                Err(_) => refused += 1,
            }
            continue;
        };
        if let Some(words) = table.refused.get(text) {
            let words = words.as_str().unwrap();
            match answer(text, &paths) {
                Err(why) if why.contains(words) => refused += 1,
                other => wrong
                    .push(format!("`{text}`: expected a refusal with `{words}`, got {other:?}")),
            }
            continue;
        }
        // These two mean the same in both languages beside ASCII alone; the rest is refused by name.
        let (asked, got) = match answer(text, &paths) {
            Err(why) if why.contains("beside characters outside ASCII") => {
                (&ascii, answer(text, &ascii))
            }
            other => (&paths, other),
        };
        let got = match got {
            Ok(got) => got,
            Err(why) => {
                wrong.push(format!("`{text}`: {why}"));
                continue;
            }
        };
        for (path, got) in asked.iter().zip(got) {
            pairs += 1;
            let at = paths.iter().position(|of| of == path).unwrap();
            let expected = expected[at] || (exact && path == text);
            if got != expected {
                wrong.push(format!("`{text}` on `{path}`: Python {expected}, here {got}"));
            }
        }
    }
    println!("{pairs} pairs, {refused} keys refused");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(pairs > 20_000 && refused > 50, "{pairs} pairs, {refused} refused");
}

#[test]
fn keys_match_as_in_python() {
    compare(as_key, |key| &key.matches, true);
}

#[test]
fn target_patterns_match_as_in_python() {
    compare(as_target, |key| &key.full, false);
}
