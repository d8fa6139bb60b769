//! What the real PEFT saves (`corpus.py`): read with the ranks and scales that PEFT gives it, written
//! again, and the same modules chosen from those of the base model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fused_lora::peft::{AdapterFile, CONFIG_FILE, MODEL_FILE};
use serde_json::Value;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/corpus")
}

/// The contents of the two files of a case.
pub(crate) fn files(name: &str) -> (Vec<u8>, Vec<u8>) {
    let read = |file| std::fs::read(folder().join(name).join(file)).unwrap();
    (read(MODEL_FILE), read(CONFIG_FILE))
}

/// What PEFT made of each case.
pub(crate) fn expected() -> BTreeMap<String, Value> {
    let file = std::fs::read(folder().join("expected.json")).unwrap();
    serde_json::from_slice(&file).unwrap()
}

#[test]
fn what_peft_saves_has_its_ranks_and_scales() {
    for (name, expected) in expected() {
        let read =
            AdapterFile::read(folder().join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let got: BTreeMap<_, _> =
            read.modules.iter().map(|(path, of)| (path.as_str(), (of.rank(), of.scale))).collect();
        let modules = expected["modules"].as_object().unwrap().iter().map(|(path, of)| {
            (path.as_str(), (of[0].as_u64().unwrap() as usize, of[1].as_f64().unwrap() as f32))
        });
        assert_eq!(got, modules.collect(), "{name}");
    }
}

#[test]
fn the_issues_expression_gives_4_on_layer_3_and_2_elsewhere() {
    let read = AdapterFile::read(folder().join("expressions")).unwrap();
    for (path, module) in &read.modules {
        let expected = if path.contains(".3.") { (32, 4.0) } else { (8, 2.0) };
        assert_eq!((module.rank(), module.scale), expected, "{path}");
    }
    assert_eq!(read.modules.len(), 8);
}

/// `targeted` is PEFT's choice among the linear layers of the base model.
#[test]
fn the_targets_among_a_models_layers_are_pefts() {
    for (name, expected) in expected() {
        let read = AdapterFile::read(folder().join(&name)).unwrap();
        let linear =
            expected["linear"].as_array().unwrap().iter().map(|path| path.as_str().unwrap());
        let mut targeted = read.config.targeted(linear).unwrap();
        targeted.sort_unstable();
        let has: Vec<_> = read.modules.keys().map(String::as_str).collect();
        assert_eq!(targeted, has, "{name}");
    }
}

#[test]
fn what_is_read_can_be_written_and_is_the_same() {
    for name in expected().keys() {
        let (model, config) = files(name);
        let read = AdapterFile::from_bytes(&model, &config).unwrap();
        let (model_again, config_again) = read.to_bytes().unwrap();
        assert!(model_again == model, "{name}: other tensors");
        let fields = |of: &[u8]| serde_json::from_slice::<Value>(of).unwrap();
        assert_eq!(fields(&config_again), fields(&config), "{name}");
        assert_eq!(AdapterFile::from_bytes(&model_again, &config_again).unwrap(), read, "{name}");
    }
}

/// Heads, embeddings and output layers that PEFT saves beside the adapter.
#[test]
fn whole_weights_beside_the_adapter_are_kept() {
    for (case, expected) in [
        ("plain", &[][..]),
        ("head", &[("score.weight", &[2, 4][..])][..]),
        ("output_layer", &[("lm_head.base_layer.weight", &[7, 4])]),
        ("resized", &[("lm_head.weight", &[7, 4]), ("model.embed_tokens.weight", &[7, 4])]),
        (
            "saved_norm",
            &[
                ("model.layers.0.input_layernorm.weight", &[4]),
                ("model.layers.1.input_layernorm.weight", &[4]),
            ],
        ),
    ] {
        let read = AdapterFile::read(folder().join(case)).unwrap();
        let got: Vec<_> = read.replaced.iter().map(|(name, of)| (&**name, of.shape())).collect();
        assert_eq!(got, expected, "{case}");
        for weight in read.replaced.values() {
            assert_eq!(weight.values().len(), weight.shape().iter().product::<usize>());
            assert_eq!(weight.bytes().len(), 2 * weight.values().len());
        }
    }
}
