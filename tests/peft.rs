//! PEFT's adapter files: what the real PEFT saved gives the real PEFT's outputs, what is written
//! is what was read, and damaged or foreign files are refused with a reason, never a panic.
#![cfg(feature = "peft")]

use std::path::{Path, PathBuf};

use fused_lora::peft::{
    AdapterConfig, AdapterFile, CONFIG_FILE, Factor, MODEL_FILE, Module, TargetModules,
};
use fused_lora::reference::{Dense, Sums, expected};
use fused_lora::{Adapter, DType, Device, Error, Forward, Operand, Problem};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adapter")
}

fn golden_files() -> (Vec<u8>, Vec<u8>) {
    let read = |name| std::fs::read(golden().join(name)).unwrap();
    (read(MODEL_FILE), read(CONFIG_FILE))
}

/// Rows, columns and elements of a tensor of f32 or f64; a vector is one row.
fn dense(file: &SafeTensors<'_>, name: &str) -> Dense {
    let view = file.tensor(name).unwrap();
    let (rows, cols) = match view.shape() {
        [cols] => (1, *cols),
        [rows, cols] => (*rows, *cols),
        other => panic!("{name}: {other:?}"),
    };
    let values = match view.dtype() {
        safetensors::Dtype::F64 => view
            .data()
            .chunks_exact(8)
            .map(|of| f64::from_le_bytes(of.try_into().unwrap()))
            .collect(),
        safetensors::Dtype::F32 => view
            .data()
            .chunks_exact(4)
            .map(|of| f64::from(f32::from_le_bytes(of.try_into().unwrap())))
            .collect(),
        other => panic!("{name}: {other:?}"),
    };
    Dense::new(rows, cols, values)
}

fn floats(of: &Dense) -> Vec<f32> {
    of.values().iter().map(|&value| value as f32).collect()
}

/// `y = fc2(relu(fc1(x)))` with PEFT's adapters: within the tolerance of two layers.
#[test]
fn a_model_saved_by_peft_gives_its_outputs() {
    let adapter = AdapterFile::read(golden()).unwrap();
    let bytes = std::fs::read(golden().join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let device = Device::cpu();

    let mut x = dense(&file, "x");
    // How far the input of a layer may lie from the exact one.
    let mut slack = Dense::from_fn(x.rows(), x.cols(), |_, _| 0.0);
    for name in ["fc1", "fc2"] {
        let module = &adapter.modules[name];
        let (w, bias) =
            (dense(&file, &format!("{name}.weight")), dense(&file, &format!("{name}.bias")));
        let [m, k, n, r] = [x.rows(), w.cols(), w.rows(), module.rank()];
        assert_eq!((module.in_features(), module.out_features()), (k, n));
        let problem = Problem::forward(m, k, n, r)
            .with_scale(module.scale)
            .with_bias(true)
            .with_keep_shrunk(false);
        let tensor =
            |of: &Dense| device.tensor(of.rows(), of.cols(), DType::F32, &floats(of)).unwrap();
        let factor =
            |of: &Factor| device.tensor(of.rows(), of.cols(), of.dtype(), &of.values()).unwrap();
        let (xt, wt, biast) = (tensor(&x), tensor(&w), tensor(&bias));
        let (a, b) = (factor(&module.a), factor(&module.b));
        let mut y = device.zeros(m, n, DType::F32).unwrap();
        let operands = Forward {
            x: xt.matrix(),
            w: wt.matrix(),
            bias: Some(biast.matrix()),
            adapter: Some(Adapter { a: a.matrix(), b: b.matrix() }),
            y: y.matrix_mut(),
            shrunk: None,
        };
        device.run(&device.plan(&problem).unwrap(), operands).unwrap();

        let wide = |of: &Factor| {
            Dense::new(of.rows(), of.cols(), of.values().into_iter().map(f64::from).collect())
        };
        let (a, b) = (wide(&module.a), wide(&module.b));
        let results = expected(&problem, Sums::F32, |operand| match operand {
            Operand::X => x.clone(),
            Operand::W => w.clone(),
            Operand::Bias => bias.clone(),
            Operand::A => a.clone(),
            Operand::B => b.clone(),
            other => unreachable!("{other}"),
        });
        // An error of the input goes through |w + s·b·a|, and relu makes none larger.
        let merged = Dense::from_fn(n, k, |row, col| {
            let delta: f64 = (0..r).map(|rank| b.at(row, rank) * a.at(rank, col)).sum();
            (w.at(row, col) + f64::from(module.scale) * delta).abs()
        });
        let through = slack.times_transposed(&merged);
        let own = &results[0].1.tolerance;
        slack = Dense::from_fn(m, n, |row, col| own.at(row, col) + through.at(row, col));
        let relu = |value: f32| if name == "fc1" { value.max(0.0) } else { value };
        x = Dense::new(m, n, y.to_f32().unwrap().into_iter().map(|y| f64::from(relu(y))).collect());
    }
    let mut used = 0f64;
    for (name, own) in [("y_f64", 1.0), ("y", 2.0)] {
        // PEFT's own y, in f32 too, may lie as far from the truth on the other side.
        let truth = dense(&file, name);
        for ((got, truth), slack) in x.values().iter().zip(truth.values()).zip(slack.values()) {
            used = used.max((got - truth).abs() / (own * slack));
        }
    }
    println!("used {used:.3} of the tolerance");
    assert!(used <= 1.0, "used {used} of the tolerance");
}

#[test]
fn ranks_and_scales_follow_the_patterns() {
    let adapter = AdapterFile::read(golden()).unwrap();
    let modules: Vec<_> =
        adapter.modules.iter().map(|(path, of)| (path.as_str(), of.rank(), of.scale)).collect();
    assert_eq!(modules, [("fc1", 4, 8.0 / 4.0), ("fc2", 6, 9.0 / 6.0)]);
    assert_eq!(adapter.config.rank_pattern, [("fc2".to_owned(), 6)]);
    let names = ["fc1", "fc2"].map(str::to_owned).to_vec();
    assert_eq!(adapter.config.target_modules, TargetModules::Names(names));

    // The first key that matches counts, in the order of the file, not of the alphabet.
    let (model, config) = golden_files();
    for (patterns, fits) in [
        (r#"{"fc2": 6, ".*": 4}"#, true),
        (r#"{".*": 4, "fc2": 6}"#, false),
        (r#"{"^fc2": 6}"#, true),
        (r#"{"c2": 6}"#, false),
    ] {
        let config = String::from_utf8(config.clone()).unwrap();
        let (head, tail) = config.split_once("\"rank_pattern\": {\n    \"fc2\": 6\n  }").unwrap();
        let config = format!("{head}\"rank_pattern\": {patterns}{tail}");
        let read = AdapterFile::from_bytes(&model, config.as_bytes());
        assert_eq!(read.is_ok(), fits, "{patterns}: {read:?}");
    }

    // rsLoRA; alpha as a fraction.
    let config = edited(|fields| {
        fields.insert("use_rslora".into(), json!(true));
        fields.insert("lora_alpha".into(), json!(2.5));
    });
    let adapter = AdapterFile::from_bytes(&model, &config).unwrap();
    assert_eq!(adapter.modules["fc1"].scale, 2.5 / 2.0);
    assert_eq!(adapter.modules["fc2"].scale, (9.0 / 6f64.sqrt()) as f32);
}

#[test]
fn what_peft_saved_is_written_in_the_same_bytes() {
    let (model, _) = golden_files();
    let read = AdapterFile::read(golden()).unwrap();
    let (written, config) = read.to_bytes().unwrap();
    assert!(written == model, "the tensors' file differs from PEFT's own");
    assert_eq!(read.to_bytes().unwrap(), (written, config.clone()));
    // The JSON too, but for the layout: fields sorted by name, unknown ones kept.
    let fields = |of: &[u8]| serde_json::from_slice::<Value>(of).unwrap();
    assert_eq!(fields(&config), fields(&golden_files().1));
}

#[test]
fn every_bit_survives_a_file_of_mixed_types() {
    // Every 16-bit pattern, infinities, NaN with payloads and subnormals among them.
    let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut tensors: Vec<(String, safetensors::tensor::TensorView<'_>)> = Vec::new();
    for (name, dtype) in [("h", safetensors::Dtype::F16), ("z", safetensors::Dtype::BF16)] {
        for (letter, shape) in [("A", vec![8, 8192]), ("B", vec![8192, 8])] {
            let view = safetensors::tensor::TensorView::new(dtype, shape, &halves).unwrap();
            let default = if name == "h" { ".default" } else { "" };
            tensors
                .push((format!("base_model.model.m.{name}.lora_{letter}{default}.weight"), view));
        }
    }
    let model = safetensors::serialize(tensors, None).unwrap();
    let config = br#"{"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": "m.*"}"#;
    let read = AdapterFile::from_bytes(&model, config).unwrap();
    assert_eq!(read.modules["m.h"].a.dtype(), DType::F16);
    assert_eq!(read.modules["m.z"].b.dtype(), DType::Bf16);
    assert_eq!(read.modules["m.z"].b.bytes(), halves);

    let folder = Folder::new("mixed");
    read.write(&folder.0).unwrap();
    assert_eq!(AdapterFile::read(&folder.0).unwrap(), read);
    read.write(&folder.0).unwrap(); // over the old one
    let mut names: Vec<_> =
        std::fs::read_dir(&folder.0).unwrap().map(|of| of.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [CONFIG_FILE, MODEL_FILE], "nothing is left behind");
}

#[test]
fn a_new_adapter_names_its_modules_and_ranks() {
    let factor = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]).unwrap();
    let module = |path: &str, rank| (path.to_owned(), factor(rank, 3), factor(2, rank));
    // `fc` ends `enc.fc` and `a.enc.fc`: each needs an entry that the shorter one does not catch.
    let modules = [module("fc", 4), module("enc.fc", 8), module("a.enc.fc", 2), module("x.q", 8)];
    let file = AdapterFile::new(AdapterConfig::new(8, 16.0), modules).unwrap();
    let (model, config) = file.to_bytes().unwrap();
    let read = AdapterFile::from_bytes(&model, &config).unwrap();
    assert_eq!(read, file);
    let got: Vec<_> =
        read.modules.iter().map(|(path, of)| (&**path, of.rank(), of.scale)).collect();
    assert_eq!(got, [("a.enc.fc", 2, 8.0), ("enc.fc", 8, 2.0), ("fc", 4, 4.0), ("x.q", 8, 2.0)]);

    let refused = |config, modules: Vec<_>| match AdapterFile::new(config, modules) {
        Err(Error::Adapter { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let plain = AdapterConfig::new(8, 16.0);
    let twice = vec![module("fc", 4), module("fc", 4)];
    assert!(refused(plain.clone(), twice).contains("module `fc` is given twice"));
    let unlike = vec![("fc".to_owned(), factor(4, 3), factor(2, 5))];
    assert!(refused(plain.clone(), unlike).contains("lora_A has rank 4, lora_B rank 5"));
    let nan = AdapterConfig::new(8, f64::NAN);
    assert!(refused(nan, vec![module("fc", 8)]).contains("lora_alpha is NaN"));

    // What was changed by hand after that is checked again.
    let refused = |change: fn(&mut AdapterFile)| {
        let mut file = file.clone();
        change(&mut file);
        match file.to_bytes() {
            Err(Error::Adapter { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let reason = refused(|file| file.modules.get_mut("fc").unwrap().scale = 1.0);
    assert!(reason.contains("module `fc`: expected rank 4 and scale 4"), "{reason}");
    let reason = refused(|file| file.config.target_modules = TargetModules::Names(vec![]));
    assert!(reason.contains("target_modules does not name module `a.enc.fc`"), "{reason}");
    assert!(matches!(
        Factor::new(2, 3, DType::F32, &[0.0; 5]),
        Err(Error::TensorLen { expected: 6, got: 5, .. })
    ));
}

/// The golden config with some fields changed.
fn edited(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let mut fields: Value = serde_json::from_slice(&golden_files().1).unwrap();
    change(fields.as_object_mut().unwrap());
    serde_json::to_vec(&fields).unwrap()
}

#[track_caller]
fn refused(model: &[u8], config: &[u8], file: &str, reason: &str) {
    match AdapterFile::from_bytes(model, config) {
        Err(Error::Adapter { path, reason: got }) => {
            assert_eq!(path, file, "{got}");
            assert!(got.contains(reason), "expected `{reason}` in `{got}`");
        }
        other => panic!("expected `{reason}`, got {other:?}"),
    }
}

#[test]
fn configs_of_another_mathematics_are_refused_by_field() {
    let model = golden_files().0;
    for (field, value, reason) in [
        ("peft_type", json!("LOHA"), "peft_type: \"LOHA\" is not supported"),
        ("peft_type", json!(null), "peft_type: null is not supported"),
        ("use_dora", json!(true), "use_dora: true is not supported"),
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
        ("rank_pattern", json!({"fc(1|2)": 6}), "rank_pattern: key `fc(1|2)`"),
        ("alpha_pattern", json!({"fc2": null}), "alpha_pattern, key `fc2`: expected a number"),
        ("alpha_pattern", json!({"fc[2]": 9}), "alpha_pattern: key `fc[2]`"),
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

/// Name, storage type, shape.
type TensorOf<'a> = (&'a str, &'a str, &'a [usize]);

/// A safetensors file with these tensors, all zero.
fn model(tensors: &[TensorOf<'_>]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let size = if ["F16", "BF16"].contains(dtype) { 2 } else { 4 };
        let begin = end;
        end += size * shape.iter().product::<usize>();
        header.insert(
            (*name).into(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}),
        );
    }
    with_header(&Value::Object(header).to_string(), end)
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn tensors_that_are_not_a_plain_pair_are_refused_by_name() {
    const A: &str = "base_model.model.fc.lora_A.weight";
    const B: &str = "base_model.model.fc.lora_B.weight";
    let config = br#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8}"#;
    AdapterFile::from_bytes(&model(&[(A, "F32", &[4, 3]), (B, "BF16", &[2, 4])]), config).unwrap();

    let good: &[TensorOf<'_>] = &[(A, "F32", &[4, 3]), (B, "F32", &[2, 4])];
    for (name, reason) in [
        ("base_model.model.fc.lora_magnitude_vector", "DoRA's magnitude"),
        ("base_model.model.fc.lora_magnitude_vector.weight", "DoRA's magnitude"),
        ("base_model.model.fc.lora_B.bias", "a bias on lora_B"),
        ("base_model.model.emb.lora_embedding_A", "adapters of embeddings"),
        ("base_model.model.fc.lora_A.other.weight", "expected lora_A.weight or lora_B.weight"),
        ("base_model.model.fc.lora_C.weight", "expected lora_A.weight or lora_B.weight"),
        ("base_model.model.head.weight", "belongs to no lora_A or lora_B"),
        ("base_model.model.fc.bias", "belongs to no lora_A or lora_B"),
        ("fc.lora_A.weight", "begins with `base_model.model.`"),
        ("lora_unet_fc.lora_down.weight", "begins with `base_model.model.`"),
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
        (&[(A, "F32", &[4, 3, 1, 1]), good[1]], "expected two dimensions, got [4, 3, 1, 1]"),
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
    refused(&with_header("{\"a\":", 0), config, MODEL_FILE, "header: EOF");
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

#[test]
fn every_prefix_of_either_file_is_refused() {
    let (model, config) = golden_files();
    for len in 0..model.len() {
        assert!(AdapterFile::from_bytes(&model[..len], &config).is_err(), "{len}");
    }
    for len in 0..config.len() {
        assert!(AdapterFile::from_bytes(&model, &config[..len]).is_err(), "{len}");
    }
}

/// A folder of this test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("peft-{name}-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// For `tests/golden/check_written.py`, which has the real PEFT read it.
#[test]
#[ignore = "writes a folder for a check by hand"]
fn write_for_peft() {
    // Through a config and factors of our own making, not those that were read.
    let golden = AdapterFile::read(golden()).unwrap();
    let mut config = AdapterConfig::new(4, 8.0);
    config.alpha_pattern = vec![("fc2".into(), 9.0)];
    let modules = golden.modules.into_iter().map(|(path, Module { a, b, .. })| {
        let again =
            |of: Factor| Factor::new(of.rows(), of.cols(), of.dtype(), &of.values()).unwrap();
        (path, again(a), again(b))
    });
    let file = AdapterFile::new(config, modules).unwrap();
    file.write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("written-adapter")).unwrap();
}
