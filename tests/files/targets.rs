//! Files that would do nothing, or less than they say: each refused by its true reason. The meaning of
//! `target_modules`, `exclude_modules`, `layers_to_transform` and `layers_pattern` is that of PEFT
//! (`corpus.rs` has the files that are read).

use fused_lora::peft::{AdapterConfig, AdapterFile, CONFIG_FILE, MODEL_FILE, TargetModules};
use serde_json::{Value, json};

use super::corpus;
use super::files::{config, model, modules, refused, with_header};

/// The corpus' files with fields of the configuration changed.
fn changed(case: &str, change: &Value) -> (Vec<u8>, Vec<u8>) {
    let (model, config) = corpus::files(case);
    let mut fields: Value = serde_json::from_slice(&config).unwrap();
    for (name, value) in change.as_object().unwrap() {
        fields[name] = value.clone();
    }
    (model, serde_json::to_vec(&fields).unwrap())
}

/// Against the table that `targets.py` made with PEFT itself.
#[test]
fn configurations_mean_what_they_mean_in_peft() {
    let table: Value = serde_json::from_str(include_str!("targets.json")).unwrap();
    let paths = table["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap());
    let paths: Vec<&str> = paths.collect();
    let (mut pairs, mut refused) = (0, 0);
    for row in table["configs"].as_array().unwrap() {
        let (fields, expected) = (&row[0], row[1].as_str());
        let read = AdapterConfig::from_bytes(&config(fields)).unwrap();
        match (expected, read.targeted(paths.iter().copied())) {
            (None, Err(_)) => refused += 1,
            (Some(bits), Ok(targeted)) => {
                let bits = u64::from_str_radix(bits, 16).unwrap();
                let chosen = (0..paths.len()).filter(|&at| bits >> at & 1 == 1).map(|at| paths[at]);
                assert_eq!(targeted, chosen.collect::<Vec<_>>(), "{fields}");
                pairs += paths.len();
            }
            (expected, got) => panic!("{fields}: PEFT {expected:?}, here {got:?}"),
        }
    }
    assert!(pairs > 10_000 && refused > 5, "{pairs} pairs, {refused} refused");
}

#[test]
fn modules_that_are_no_targets_are_refused() {
    for (case, change, words) in [
        (
            "plain",
            json!({"target_modules": ["q_proj"]}),
            "target_modules does not name module `model.layers.0.self_attn.v_proj`",
        ),
        ("plain", json!({"target_modules": []}), "target_modules does not name module"),
        (
            "plain",
            json!({"target_modules": ["proj", "q_proj"]}),
            "target_modules does not name module",
        ),
        ("plain", json!({"target_modules": ".*q_proj"}), "target_modules does not name module"),
        (
            "plain",
            json!({"target_modules": "q_proj|v_proj"}),
            "target_modules does not name module",
        ),
        (
            "plain",
            json!({"exclude_modules": ["v_proj"]}),
            "exclude_modules takes module `model.layers.0.self_attn.v_proj` out",
        ),
        (
            "plain",
            json!({"exclude_modules": ["layers.1.self_attn.v_proj"]}),
            "exclude_modules takes module",
        ),
        ("plain", json!({"exclude_modules": r".*\.1\..*"}), "exclude_modules takes module"),
        (
            "plain",
            json!({"layers_to_transform": [0]}),
            "layers_to_transform leaves module `model.layers.1.self_attn.q_proj` out",
        ),
        (
            "plain",
            json!({"layers_to_transform": 1}),
            "layers_to_transform leaves module `model.layers.0.self_attn.q_proj` out",
        ),
        (
            "plain",
            json!({"layers_to_transform": [0, 1], "layers_pattern": "h"}),
            "layers_to_transform leaves module",
        ),
        (
            "saved_norm",
            json!({"modules_to_save": ["input_layernorm", "self_attn"]}),
            "modules_to_save",
        ),
        (
            "regex_target",
            json!({"layers_to_transform": [1]}),
            "layers_to_transform: PEFT allows it only beside a list",
        ),
        (
            "regex_target",
            json!({"layers_pattern": ["layers"]}),
            "layers_pattern: PEFT allows it only beside a list",
        ),
        (
            "plain",
            json!({"layers_pattern": ["layers"]}),
            "layers_pattern: layers_to_transform is missing",
        ),
        (
            "plain",
            json!({"layers_to_transform": "1"}),
            "layers_to_transform: expected a whole number",
        ),
        (
            "plain",
            json!({"layers_to_transform": [0.5]}),
            "layers_to_transform: expected a whole number",
        ),
        (
            "plain",
            json!({"exclude_modules": 3}),
            "exclude_modules: expected a list of names or one pattern, got 3",
        ),
        (
            "plain",
            json!({"modules_to_save": "norm"}),
            "modules_to_save: expected a list of names, got \"norm\"",
        ),
        (
            "plain",
            json!({"exclude_modules": "(?=x)"}),
            "exclude_modules, pattern `(?=x)`: lookahead",
        ),
    ] {
        let (model, config) = changed(case, &change);
        refused(&model, &config, CONFIG_FILE, words);
    }
}

#[test]
fn what_the_configuration_names_and_the_file_lacks_is_refused() {
    for (case, change, words) in [
        (
            "plain",
            json!({"target_modules": ["q_proj", "k_proj", "v_proj"]}),
            "target_modules names `k_proj`, and the file has no such module",
        ),
        (
            "layers",
            json!({"layers_to_transform": [1, 2, 3]}),
            "layers_to_transform names layer 2, of which the file has none",
        ),
        (
            "plain",
            json!({"modules_to_save": ["norm"]}),
            "modules_to_save: [\"norm\"] is not in adapter_model.safetensors",
        ),
        (
            "plain",
            json!({"modules_to_save": ["classifier", "score"]}),
            "modules_to_save: [\"classifier\"]",
        ),
        (
            "head",
            json!({"modules_to_save": ["classifier", "score", "norm"]}),
            "modules_to_save: [\"norm\"]",
        ),
    ] {
        let (model, config) = changed(case, &change);
        refused(&model, &config, CONFIG_FILE, words);
    }
    // What is named and taken out again cannot be there; neither can a layer that is named twice be there twice.
    for (case, change) in [
        (
            "plain",
            json!({"target_modules": ["q_proj", "v_proj", "k_proj"], "exclude_modules": ["k_proj"]}),
        ),
        (
            "plain",
            json!({"target_modules": ["q_proj", "v_proj", "k_proj"], "exclude_modules": ".*k_proj"}),
        ),
        (
            "plain",
            json!({"target_modules": ["q_proj", "v_proj", "q_proj"], "layers_to_transform": [1, 0, 1]}),
        ),
        ("plain", json!({"target_modules": null})),
        ("plain", json!({"target_modules": "All-Linear"})),
        ("plain", json!({"exclude_modules": [], "layers_to_transform": [], "layers_pattern": ""})),
        // A whole path stands above the layers.
        (
            "one_layer",
            json!({"target_modules": ["model.layers.2.mlp.gate_proj"], "layers_to_transform": [2]}),
        ),
    ] {
        let (model, config) = changed(case, &change);
        let read =
            AdapterFile::from_bytes(&model, &config).unwrap_or_else(|e| panic!("{change}: {e}"));
        let (model, config) = read.to_bytes().unwrap();
        assert_eq!(AdapterFile::from_bytes(&model, &config).unwrap(), read);
    }
}

#[test]
fn layers_are_counted_as_in_peft() {
    // The first number behind two names, unless layers_pattern says what stands before it.
    let chosen = |fields: Value, paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|path| format!("{path}.q")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut config = config(&fields);
        let mut value: Value = serde_json::from_slice(&config).unwrap();
        value["target_modules"] = json!(["q"]);
        config = serde_json::to_vec(&value).unwrap();
        paths
            .iter()
            .map(|path| AdapterFile::from_bytes(&modules([*path]), &config).is_ok())
            .collect::<Vec<_>>()
    };
    let paths = [
        "model.layers.1",
        "layers.1",
        "m.layers.0.experts.1",
        "m.layers.1.experts.0",
        "m.h.01",
        "m.layers.11",
    ];
    let one = json!({"layers_to_transform": 1});
    assert_eq!(chosen(one, &paths), [true, false, false, true, true, false]);
    let pattern = json!({"layers_to_transform": [1], "layers_pattern": ["experts"]});
    assert_eq!(chosen(pattern, &paths), [false, false, true, false, false, false]);
    let pattern = json!({"layers_to_transform": [1], "layers_pattern": "layers"});
    assert_eq!(chosen(pattern, &paths), [true, true, false, true, false, false]);
    let pattern = json!({"layers_to_transform": [1], "layers_pattern": ["x", "layers|h"]});
    assert!(!chosen(pattern, &paths)[0], "the half of the pattern that matches has no number");
    let pattern = json!({"layers_to_transform": [1], "layers_pattern": ["layers|h", "layers"]});
    assert!(!chosen(pattern, &paths)[0], "the first pattern that matches counts");
}

#[test]
fn empty_files_and_parts_are_refused() {
    const A: &str = "base_model.model.fc.lora_A.weight";
    const B: &str = "base_model.model.fc.lora_B.weight";
    let config = config(&json!({"target_modules": ["fc"]}));
    for (model, words) in [
        (with_header("{}", 0), "no factor of an adapter in it: it would do nothing"),
        (with_header(r#"{"__metadata__":{"format":"pt"}}"#, 0), "it would do nothing"),
        (
            model(&[(A, "F32", &[0]), (B, "F32", &[0])]),
            "lora_A.weight`: expected sizes of at least 1, got [0], as where ZeRO-3's",
        ),
        (
            model(&[(A, "F32", &[1, 3]), (B, "F32", &[0])]),
            "lora_B.weight`: expected sizes of at least 1, got [0], as where",
        ),
        (model(&[(A, "F32", &[3]), (B, "F32", &[1, 1])]), "got [3]: a part of ZeRO-3 or FSDP"),
        (
            model(&[(A, "F32", &[1, 3, 1, 1, 1]), (B, "F32", &[1, 1])]),
            "got [1, 3, 1, 1, 1]: convolutions in three dimensions are not supported",
        ),
        (
            model(&[(A, "F32", &[1, 3])]),
            "module `fc`: lora_B.weight is missing: the save left it out",
        ),
        (model(&[("base_model.model.lm_head.weight", "F32", &[1, 3])]), "it would do nothing"),
    ] {
        refused(&model, &config, MODEL_FILE, words);
    }
    let nothing = AdapterFile::new(AdapterConfig::new(1, 1.0), []).unwrap();
    assert!(nothing.to_bytes().unwrap_err().to_string().contains("the file would do nothing"));
}

#[test]
fn absent_fields_are_said_to_be_missing() {
    let (model, file) = corpus::files("plain");
    for (field, words) in [
        ("r", "r: expected a whole number of at least 1, but the field is missing"),
        ("lora_alpha", "lora_alpha: expected a number, but the field is missing"),
        ("peft_type", "peft_type: expected \"LORA\", but the field is missing"),
    ] {
        let mut fields: Value = serde_json::from_slice(&file).unwrap();
        fields.as_object_mut().unwrap().remove(field);
        refused(&model, &serde_json::to_vec(&fields).unwrap(), CONFIG_FILE, words);
        fields[field] = Value::Null;
        let words = if field == "peft_type" { "null is not supported" } else { "got null" };
        refused(&model, &serde_json::to_vec(&fields).unwrap(), CONFIG_FILE, words);
    }
}

#[test]
fn a_target_taken_out_again_cannot_be_written() {
    let (model, config) = corpus::files("plain");
    let mut file = AdapterFile::from_bytes(&model, &config).unwrap();
    file.config.target_modules = TargetModules::Pattern(".*q_proj".into());
    let error = file.to_bytes().unwrap_err().to_string();
    assert!(
        error.contains("target_modules does not name module `model.layers.0.self_attn.v_proj`"),
        "{error}"
    );
}
