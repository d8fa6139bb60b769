//! Reading takes time and memory in proportion to the files, whoever wrote them: thousands of modules with
//! as many keys, names and patterns of 60,000 characters, and files made to be slow. In a release
//! build: `cargo test --release --no-default-features --features files --test files speed -- --nocapture`.

use std::time::Duration;

use cpu_time::ThreadTime;
use fused_lora::Error;
use fused_lora::files::StateDict;
use fused_lora::peft::AdapterFile;
use serde_json::{Value, json};

use super::files::{config, modules, with_header};
use super::memory::measured;

/// Of this thread alone, since a machine may be busy; far above what reading takes. The old way took minutes
/// to hours.
const LIMIT: Duration = Duration::from_secs(20);

/// Reads, prints time and memory, and returns what came of it.
#[track_caller]
fn timed(what: &str, model: &[u8], config: &[u8]) -> Result<AdapterFile, String> {
    let start = ThreadTime::now();
    let (read, memory) = measured(|| AdapterFile::from_bytes(model, config));
    let took = start.elapsed();
    let size = model.len() + config.len();
    let outcome = match &read {
        Ok(file) => format!("{} modules", file.modules.len()),
        Err(error) => error.to_string().chars().take(150).collect(),
    };
    println!(
        "{what}: {:.3} s, files {} KB, largest allocation {} KB, at most {} KB: {outcome}",
        took.as_secs_f64(),
        size / 1024,
        memory.largest / 1024,
        memory.peak / 1024,
    );
    assert!(took < LIMIT, "{what}: {took:?}");
    // A pattern's automaton has a size of its own; everything else is in proportion.
    assert!(memory.largest < size + (8 << 20), "{what}: {memory:?} for {size} bytes");
    assert!(memory.peak < 8 * size + (32 << 20), "{what}: {memory:?} for {size} bytes");
    read.map_err(|error| match error {
        Error::Adapter { reason, .. } => reason,
        other => panic!("{other}"),
    })
}

/// A model of experts: `count` modules.
fn paths(count: usize) -> Vec<String> {
    let name = |i: usize| {
        let (layer, expert) = (i / 384, i / 3 % 128);
        format!("model.layers.{layer}.mlp.experts.{expert}.{}_proj", ["gate", "up", "down"][i % 3])
    };
    (0..count).map(name).collect()
}

fn strs(of: &[String]) -> impl Iterator<Item = &str> {
    of.iter().map(String::as_str)
}

/// A JSON object in this order, which `json!` would sort.
fn object(of: impl Iterator<Item = (String, usize)>) -> String {
    let entries: Vec<_> = of.map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", entries.join(","))
}

#[test]
fn thousands_of_modules_with_a_key_for_each() {
    let paths = paths(18_432);
    let model = modules(strs(&paths));
    let targets = json!(["gate_proj", "up_proj", "down_proj"]);
    let file = |keys: String, targets: &Value| {
        format!(
            r#"{{"peft_type":"LORA","r":1,"lora_alpha":1,"target_modules":{targets},"rank_pattern":{keys},"alpha_pattern":{keys}}}"#
        )
    };
    // Alpha tells which key was taken: its number.
    let whole = object(paths.iter().enumerate().map(|(at, path)| (path.clone(), at)));
    let whole = format!(
        r#"{{"peft_type":"LORA","r":1,"lora_alpha":1,"target_modules":{},"rank_pattern":{},"alpha_pattern":{whole}}}"#,
        json!(paths),
        object(paths.iter().map(|path| (path.clone(), 1))),
    );
    let read = timed("18,432 whole paths", &model, whole.as_bytes()).unwrap();
    for (at, path) in paths.iter().enumerate() {
        assert_eq!(read.modules[path].scale, at as f32, "{path}");
    }
    let written = ThreadTime::now();
    let (model_again, config_again) = read.to_bytes().unwrap();
    println!("written again: {:.3} s", written.elapsed().as_secs_f64());
    assert_eq!(AdapterFile::from_bytes(&model_again, &config_again).unwrap(), read);
    assert!(written.elapsed() < 2 * LIMIT);

    // With every sign escaped, and a pattern for each of the layers.
    let escaped = object(paths.iter().map(|path| (path.replace('.', r"\."), 1)));
    timed("18,432 escaped paths", &model, file(escaped, &targets).as_bytes()).unwrap();
    let layers =
        object((0..48).map(|layer| (format!(r".*\.layers\.{layer}\..*(gate|up)_proj$"), 1)));
    timed("a pattern for each of 48 layers", &model, file(layers, &targets).as_bytes()).unwrap();

    // A new adapter whose ranks all differ from the configuration's.
    let start = ThreadTime::now();
    let factor = fused_lora::peft::Factor::new(1, 1, fused_lora::DType::F32, &[1.0]).unwrap();
    let new = paths.iter().map(|path| (path.clone(), factor.clone(), factor.clone()));
    let new = AdapterFile::new(fused_lora::peft::AdapterConfig::new(2, 2.0), new).unwrap();
    println!("18,432 modules of another rank, made: {:.3} s", start.elapsed().as_secs_f64());
    assert_eq!(new.config.rank_pattern.len(), paths.len());
    assert!(start.elapsed() < LIMIT);
}

/// A file of one piece with a component of diffusers' settings for each module.
#[test]
fn thousands_of_components_with_settings_for_each() {
    let (mut header, mut settings, mut end) = (serde_json::Map::new(), serde_json::Map::new(), 0);
    for at in 0..10_000 {
        for letter in ["A", "B"] {
            let name = format!("c{at}.blocks.fc.lora_{letter}.weight");
            let info = json!({"dtype": "BF16", "shape": [1, 1], "data_offsets": [end, end + 2]});
            header.insert(name, info);
            end += 2;
        }
        for (field, value) in
            [("peft_type", json!("LORA")), ("r", json!(1)), ("lora_alpha", json!(at))]
        {
            settings.insert(format!("c{at}.{field}"), value);
        }
    }
    let settings = Value::Object(settings).to_string();
    header.insert("__metadata__".into(), json!({"lora_adapter_metadata": settings}));
    let file = with_header(&Value::Object(header).to_string(), end);
    let start = ThreadTime::now();
    let (read, memory) = measured(|| StateDict::from_bytes(&file));
    println!("10,000 components: {:.3} s, {memory:?}", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < LIMIT);
    assert!(memory.largest < file.len() && memory.peak < 16 * file.len(), "{memory:?}");
    let read = read.unwrap();
    assert_eq!(read.modules.len(), 10_000);
    assert_eq!(read.modules["c77.blocks.fc"].scale, 77.0);
}

/// Eight times the file takes eight times the time (at most 48, for a busy machine's sake), not 64.
#[test]
fn time_grows_with_the_file_not_with_its_square() {
    let time = |count: usize| {
        let paths = paths(count);
        let model = modules(strs(&paths));
        let keys: Value = paths.iter().map(|path| (path.clone(), json!(1))).collect();
        let config =
            config(&json!({"target_modules": paths, "rank_pattern": keys, "alpha_pattern": keys}));
        let once = || {
            let start = ThreadTime::now();
            AdapterFile::from_bytes(&model, &config).unwrap();
            start.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    };
    let (small, large) = (time(2_000), time(16_000));
    println!("2,000 modules {small:?}, 16,000 {large:?}");
    assert!(large < small * 48, "{small:?}, then {large:?} for eight times as much");
}

#[test]
fn names_and_patterns_of_sixty_thousand_characters() {
    const LONG: usize = 60_000;
    let letters = "x".repeat(LONG);
    let dots = "a.".repeat(LONG / 2) + "q";
    let any = ".".repeat(LONG);
    let one = |path: &str, fields: Value| (modules([path]), config(&fields));
    let key = |key: &str| json!({"rank_pattern": {key: 1}, "alpha_pattern": {key: 16}});
    for (what, (model, config), scale) in [
        ("letters", one(&letters, key(&letters)), Ok(16.0)),
        ("dotted", one(&dots, key(&dots)), Ok(16.0)),
        ("any characters on letters", one(&letters, key(&any)), Ok(16.0)),
        ("any characters on dots", one(&dots, key(&any)), Ok(8.0)),
        ("letters on a short path", one("fc", key(&letters)), Ok(8.0)),
        ("a short key on letters", one(&letters, key("fc")), Ok(8.0)),
        ("stars on letters", one(&letters, key(&".*".repeat(1000))), Ok(16.0)),
        ("thirty thousand stars", one(&letters, key(&".*".repeat(LONG / 2))), Err("too large")),
        ("bars", one(&letters, key(&"|".repeat(LONG * 10))), Err("too large")),
        (
            "stars and an end that is missing",
            one(&letters, key(&(".*".repeat(1000) + "b"))),
            Ok(8.0),
        ),
        ("one star on letters", one(&letters, key(".*b")), Ok(8.0)),
        ("nested stars on letters", one(&letters, key("(x*)*b")), Ok(8.0)),
        ("alternatives", one("fc", key(&vec!["fc"; LONG / 3].join("|"))), Ok(16.0)),
        ("optional letters on letters", one(&"x".repeat(1000), key(&"x?".repeat(1000))), Ok(16.0)),
        ("groups", one("fc", key(&"(".repeat(LONG))), Err("nesting of more than 200 groups")),
        ("closing", one("fc", key(&")".repeat(LONG))), Err("a `)` without its `(`")),
        ("a class", one("fc", key(&format!("[{letters}]{{2}}"))), Err("too large")),
        ("brackets", one("fc", key(&"[".repeat(LONG))), Err("a `[` is never closed")),
        ("backslashes", one("fc", key(&"\\".repeat(LONG))), Ok(8.0)),
        ("counts within counts", one("fc", key("((((x{99}){99}){99}){99}){99}")), Err("too large")),
        ("a count of millions", one("fc", key("x{4000000}")), Err("too large")),
        ("a count beyond numbers", one("fc", key("x{99999999999999999999999}")), Err("too large")),
        ("classes in a count", one("fc", key(r"\w{3000}")), Err("too large")),
        ("a long target", one(&letters, json!({"target_modules": [&letters]})), Ok(8.0)),
        (
            "a long pattern for targets",
            one(&letters, json!({"target_modules": format!("({letters}|b)*")})),
            Err("steps to match"),
        ),
        (
            "a long head",
            one(&letters, json!({"modules_to_save": [&letters]})),
            Err("modules_to_save"),
        ),
    ] {
        match (timed(what, &model, &config), scale) {
            (Ok(file), Ok(scale)) => {
                assert_eq!(file.modules.values().next().unwrap().scale, scale, "{what}")
            }
            (Err(reason), Err(words)) => assert!(reason.contains(words), "{what}: {reason}"),
            (got, expected) => panic!("{what}: expected {expected:?}, got {:?}", got.err()),
        }
    }
}

/// Files that ask for work in the square of their length: refused before it is done.
#[test]
fn files_made_to_be_slow_end_soon() {
    let letters = |count: usize, len: usize| -> Vec<String> {
        (0..count).map(|at| format!("{at:05}{}", "x".repeat(len))).collect()
    };
    let numbered = |count: usize, pattern: &dyn Fn(usize) -> String| -> Value {
        (0..count).map(|at| (pattern(at), json!(1))).collect()
    };
    let paths = letters(5_000, 200);
    let many = modules(strs(&paths));
    let long = modules(strs(&letters(40, 20_000)));
    let too_much = Some("steps to match with the modules");
    for (what, model, fields, words) in [
        (
            "5,000 patterns on 5,000 modules",
            &many,
            json!({"rank_pattern": numbered(5_000, &|at| format!("{at}.*y+"))}),
            too_much,
        ),
        (
            "patterns with many states",
            &long,
            json!({"rank_pattern": numbered(300, &|at| format!(".*[xy].{{{at}}}[yz]"))}),
            too_much,
        ),
        (
            "patterns in 8 KB each",
            &long,
            json!({"rank_pattern": numbered(300, &|at| format!("{}{at}", "(x|xx)?".repeat(1000)))}),
            too_much,
        ),
        (
            "keys that split at every character",
            &long,
            json!({"rank_pattern": numbered(4_000, &|at| {
                (0..60).map(|bit| if at >> (bit % 12) & 1 == 1 { 'x' } else { '.' }).collect::<String>() + "x"
            })}),
            None,
        ),
        (
            "the same for longer keys",
            &many,
            json!({"rank_pattern": numbered(20_000, &|at| {
                (0..190).map(|bit| if at >> (bit % 16) & 1 == 1 { 'x' } else { '.' }).collect::<String>()
            })}),
            too_much,
        ),
        ("names in modules_to_save", &many, json!({"modules_to_save": letters(20_000, 10)}), None),
        ("names in exclude_modules", &many, json!({"exclude_modules": letters(60_000, 100)}), None),
        (
            "a long list of layers",
            &many,
            json!({"layers_to_transform": (0..500_000).collect::<Vec<_>>()}),
            Some("layers_to_transform leaves"),
        ),
        (
            "a long list of patterns of layers",
            &many,
            json!({"layers_to_transform": [1], "layers_pattern": letters(5_000, 10)}),
            Some("at most 64 names"),
        ),
    ] {
        let got = timed(what, model, &config(&fields));
        match words {
            None => {}
            Some(words) => {
                assert!(got.as_ref().is_err_and(|reason| reason.contains(words)), "{what}: {got:?}")
            }
        }
    }
    let good = config(&json!({}));
    let repeated = |of: &str| of.repeat(2_000_000 / of.len());
    let shape =
        format!(r#"{{"a":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}}}"#, repeated("1,"));
    let claims = r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,18446744073709551615]}}"#;
    let unknown = |value: String| {
        format!(r#"{{"peft_type":"LORA","r":1,"lora_alpha":8,"x":{value},"use_dora":{value}}}"#)
    };
    let config_of = |raw: String| unknown(raw).into_bytes();
    for (what, model, config, words) in [
        ("a shape of a million sizes", with_header(&shape, 4), good.clone(), "at most 8 sizes"),
        ("a header of claims", with_header(claims, 0), good.clone(), "not a safetensors file"),
        (
            "a header's length of 2^63",
            [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat(),
            good.clone(),
            "a header of 92",
        ),
        ("a header of brackets", with_header(&repeated("["), 0), good.clone(), "header"),
        (
            "metadata of a million",
            with_header(&format!(r#"{{"__metadata__":{{{}"a":1}}}}"#, repeated(r#""a":1,"#)), 0),
            good,
            "it would do nothing",
        ),
        (
            "a field of a million numbers",
            modules(["fc"]),
            config_of(format!("[{}0]", repeated("0,"))),
            "use_dora",
        ),
        ("a field of brackets", modules(["fc"]), config_of(repeated("[")), "not a JSON object"),
        (
            "a line of two million",
            modules(["fc"]),
            format!("{{\"a\":{}", repeated("1 ")).into_bytes(),
            "not a JSON object",
        ),
    ] {
        let got = timed(what, &model, &config);
        assert!(got.as_ref().is_err_and(|reason| reason.contains(words)), "{what}: {got:?}");
        assert!(got.unwrap_err().len() < 1000, "{what}");
    }
}
