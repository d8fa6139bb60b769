//! Files that `tests/files/main.rs` must see refused, each with its reason.

use fused_lora::Error;
use fused_lora::peft::{AdapterFile, CONFIG_FILE, MODEL_FILE};
use proptest::prelude::*;
use serde_json::json;

use super::files::{TensorOf, model, refused, with_header};
use super::{Folder, edited, golden, golden_files};

#[test]
fn configs_of_another_mathematics_are_refused_by_field() {
    let model = golden_files().0;
    for (field, value, reason) in [
        ("peft_type", json!("OFT"), "peft_type: \"OFT\" is not supported"),
        ("peft_type", json!("LOHA"), "alpha: expected a number, but the field is missing"),
        ("rank_dropout", json!(0.5), "rank_dropout: 0.5 is not supported: it drops rows of ΔW"),
        ("peft_type", json!(null), "peft_type: null is not supported"),
        ("use_qalora", json!(true), "use_qalora"),
        ("use_bdlora", json!({"nblocks": 2}), "use_bdlora"),
        ("use_something_new", json!(true), "use_something_new: true is not supported: an option"),
        ("kasa_config", json!({"a": 1}), "kasa_config"),
        ("velora_config", json!({"a": 1}), "velora_config"),
        ("future_config", json!({"a": 1}), "future_config"),
        ("lora_bias", json!(true), "lora_bias"),
        ("bias", json!("lora_only"), "bias: \"lora_only\""),
        ("modules_to_save", json!(["head"]), "modules_to_save: [\"head\"]"),
        ("trainable_token_indices", json!([1]), "trainable_token_indices"),
        ("layer_replication", json!([[0, 4]]), "layer_replication"),
        ("target_parameters", json!(["w"]), "target_parameters"),
        ("alora_invocation_tokens", json!([3, 4]), "alora_invocation_tokens"),
        ("init_lora_weights", json!("pissa"), "changes the frozen weight"),
        ("r", json!(0), "r: expected a whole number of at least 1, got 0"),
        ("r", json!(-4), "r: expected a whole number"),
        ("r", json!(4.5), "r: expected a whole number"),
        ("r", json!(null), "r: expected a whole number"),
        ("lora_alpha", json!("8"), "lora_alpha: expected a number, got \"8\""),
        ("lora_alpha", json!(1e300), "module `fc1`: expected a finite scale"),
        ("use_rslora", json!("yes"), "use_rslora: expected true or false"),
        ("fan_in_fan_out", json!(3), "fan_in_fan_out: expected true or false"),
        ("target_modules", json!({"a": 1}), "target_modules: expected a list"),
        ("target_modules", json!([1]), "target_modules: expected a list"),
        ("rank_pattern", json!({"fc2": 0}), "rank_pattern, key `fc2`: expected a whole number"),
        ("rank_pattern", json!([1]), "rank_pattern"),
        ("rank_pattern", json!({"fc(1": 6}), "rank_pattern, key `fc(1`: not one of Python's"),
        ("rank_pattern", json!({"fc(?=2)": 6}), "rank_pattern, key `fc(?=2)`: lookahead"),
        ("alpha_pattern", json!({"fc2": null}), "alpha_pattern, key `fc2`: expected a number"),
        ("alpha_pattern", json!({"fc[2": 9}), "alpha_pattern, key `fc[2`: not one of Python's"),
        (
            "target_modules",
            json!("(fc)\\1"),
            "target_modules, pattern `(fc)\\1`: the backreference",
        ),
    ] {
        let config = edited(|fields| {
            fields.insert(field.into(), value);
        });
        refused(&model, &config, CONFIG_FILE, reason);
    }
    // The same fields, switched off, do no harm.
    let config = edited(|fields| {
        fields.insert("use_dora".into(), json!(null));
        fields.insert("modules_to_save".into(), json!([]));
        fields.insert("runtime_config".into(), json!({"ephemeral_gpu_offload": false}));
        fields.insert("init_lora_weights".into(), json!("gaussian"));
    });
    AdapterFile::from_bytes(&model, &config).unwrap();

    let without = edited(|fields| drop(fields.remove("peft_type")));
    refused(
        &model,
        &without,
        CONFIG_FILE,
        "peft_type: expected \"LORA\", but the field is missing",
    );
    // What Python's json writes for a NaN.
    let config = String::from_utf8(golden_files().1).unwrap();
    let nan = config.replace("\"lora_alpha\": 8", "\"lora_alpha\": NaN");
    refused(&model, nan.as_bytes(), CONFIG_FILE, "`\"lora_alpha\": NaN,`");
    refused(&model, b"", CONFIG_FILE, "not a JSON object");
    refused(&model, b"[1]", CONFIG_FILE, "not a JSON object");
    refused(&model, &config.as_bytes()[..300], CONFIG_FILE, "not a JSON object");
    refused(&model, b"\xff\xfe{}", CONFIG_FILE, "not a JSON object");
}

#[test]
fn tensors_that_are_not_a_plain_pair_are_refused_by_name() {
    const A: &str = "base_model.model.fc.lora_A.weight";
    const B: &str = "base_model.model.fc.lora_B.weight";
    let config = br#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8}"#;
    AdapterFile::from_bytes(&model(&[(A, "F32", &[4, 3]), (B, "BF16", &[2, 4])]), config).unwrap();

    let good: &[TensorOf<'_>] = &[(A, "F32", &[4, 3]), (B, "F32", &[2, 4])];
    for (name, reason) in [
        ("base_model.model.fc.lora_B.bias", "a bias on lora_B"),
        ("base_model.model.emb.lora_embedding_A", "adapters of embeddings"),
        (
            "base_model.model.fc.lora_A.other.weight",
            "expected lora_A.weight, got the adapter's name `other`",
        ),
        (
            "base_model.model.fc.hada_w1_a.other",
            "expected hada_w1_a, got the adapter's name `other`",
        ),
        ("base_model.model.fc.lora_C.weight", "expected a name that PEFT gives"),
        ("base_model.model.head.weight", "belongs to no factor"),
        ("base_model.model.fc.bias", "belongs to no factor"),
        ("fc.lora_A.weight", "begins with `base_model.model.`"),
        ("", "begins with `base_model.model.`"),
    ] {
        let more = [good, &[(name, "F32", &[4, 4])]].concat();
        refused(&model(&more), config, MODEL_FILE, reason);
        refused(&model(&more), config, MODEL_FILE, &format!("tensor `{name}`"));
    }
    let table: &[(&[TensorOf<'_>], &str)] = &[
        (&[good[0]], "module `fc`: lora_B.weight is missing"),
        (&[good[1]], "module `fc`: lora_A.weight is missing"),
        (&[good[0], (B, "F32", &[2, 5])], "lora_A has rank 4, lora_B rank 5"),
        (&[(A, "F32", &[5, 3]), (B, "F32", &[2, 5])], "module `fc`: expected rank 4 by r"),
        (&[(A, "F32", &[0, 3]), (B, "F32", &[2, 0])], "expected sizes of at least 1"),
        (&[(A, "F32", &[4, 0]), good[1]], "expected sizes of at least 1"),
        (&[(A, "I32", &[4, 3]), good[1]], "expected F32, F16 or BF16, got I32"),
        (&[(A, "F32", &[4, 3, 1, 1, 1]), good[1]], "three dimensions are not supported"),
        (&[(A, "F32", &[4, 3]), (B, "F32", &[2, 4, 3, 3])], "no factor of this name has a kernel"),
        (&[(A, "F32", &[12]), good[1]], "expected two dimensions, got [12]"),
        (
            &[good[0], good[1], ("base_model.model.fc.lora_A.default.weight", "F32", &[4, 3])],
            "its module has this factor twice",
        ),
        (
            &[
                ("base_model.model.lora_A.weight", "F32", &[4, 3]),
                ("base_model.model.lora_B.weight", "F32", &[2, 4]),
            ],
            "tensor `base_model.model.lora_A.weight`: names no module",
        ),
    ];
    for (tensors, reason) in table {
        refused(&model(tensors), config, MODEL_FILE, reason);
    }

    let whole = model(good);
    refused(&whole[..whole.len() - 1], config, MODEL_FILE, "expected 80 bytes of data, got 79");
    let longer = [&whole[..], &[0]].concat();
    refused(&longer, config, MODEL_FILE, "expected 80 bytes of data, got 81");
    refused(&whole[..40], config, MODEL_FILE, "in a file of 40");
    refused(&whole[..7], config, MODEL_FILE, "shorter than its first 8 bytes");
    refused(&[255; 64], config, MODEL_FILE, "not a safetensors file");
    refused(&with_header("{\"a\":", 0), config, MODEL_FILE, "header: tensor `a`: EOF");
    // Data that two tensors share, that none has, and that are not in the order of the header.
    let two = |a: [usize; 2], b: [usize; 2]| {
        let of = |name: &str, [begin, end]: [usize; 2]| {
            let size = (end - begin) / 4;
            format!(
                r#""{name}":{{"dtype":"F32","shape":[1,{size}],"data_offsets":[{begin},{end}]}}"#
            )
        };
        with_header(&format!("{{{},{}}}", of(A, a), of(B, b)), a[1].max(b[1]))
    };
    refused(&two([0, 8], [4, 12]), config, MODEL_FILE, "expected its data at 8, got 4");
    refused(&two([0, 8], [0, 8]), config, MODEL_FILE, "its data are another tensor's too");
    refused(&two([0, 8], [12, 16]), config, MODEL_FILE, "expected its data at 8, got 12");
    refused(&two([4, 12], [12, 16]), config, MODEL_FILE, "expected its data at 0, got 4");
    refused(&two([4, 16], [0, 4]), config, MODEL_FILE, "expected rank 4 by r");
    // Offsets that wrap around when they are added up.
    let huge = (0..8u64).map(|at| {
        let (len, begin) = ((1u64 << 61) - 4, at * ((1 << 61) - 4));
        let end = begin.wrapping_add(len);
        format!(r#""t{at}":{{"dtype":"F32","shape":[{}],"data_offsets":[{begin},{end}]}}"#, len / 4)
    });
    let huge = format!("{{{}}}", huge.collect::<Vec<_>>().join(","));
    refused(&with_header(&huge, 0), config, MODEL_FILE, "not a safetensors file");
}

#[test]
fn missing_files_are_named() {
    let folder = Folder::new("missing");
    let missing = |name: &str| match AdapterFile::read(&folder.0) {
        Err(Error::Adapter { path, .. }) => assert!(path.ends_with(name), "{path}"),
        other => panic!("{other:?}"),
    };
    missing(MODEL_FILE);
    std::fs::copy(golden().join(MODEL_FILE), folder.0.join(MODEL_FILE)).unwrap();
    missing(CONFIG_FILE);
    // A folder that cannot be made, because a file is in its place.
    let blocked = folder.0.join(MODEL_FILE).join("inside");
    let error = AdapterFile::read(golden()).unwrap().write(&blocked).unwrap_err();
    assert!(matches!(&error, Error::Adapter { path, .. } if path.ends_with("inside")), "{error}");
}

/// What became of damaged files: an error of the right kind, or an adapter that writes again.
fn survives(model: &[u8], config: &[u8]) {
    match AdapterFile::from_bytes(model, config) {
        Err(Error::Adapter { path, reason }) => {
            assert!([MODEL_FILE, CONFIG_FILE].contains(&&*path) && !reason.is_empty());
        }
        Err(other) => panic!("{other}"),
        // A renamed module may no longer be one that target_modules names.
        Ok(file) => drop(file.to_bytes()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn damage_is_an_error_never_a_panic(
        which in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let (mut model, mut config) = golden_files();
        let file = if which { &mut model } else { &mut config };
        for (at, value) in flips {
            // Most flips go into the header: the data may be anything.
            let at = at.index(file.len().min(500));
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        survives(&model, &config);
    }
}

/// Every beginning of a file, but for the whole.
pub(crate) fn prefixes(file: &[u8], refused: impl Fn(&[u8]) -> bool) {
    for len in 0..file.len() {
        assert!(refused(&file[..len]), "{len}");
    }
}

#[test]
fn every_prefix_of_either_file_is_refused() {
    let (model, config) = golden_files();
    prefixes(&model, |model| AdapterFile::from_bytes(model, &config).is_err());
    prefixes(&config, |config| AdapterFile::from_bytes(&model, config).is_err());
}
