//! Adapter files: what the real packages saved gives their outputs and weight differences, what is written
//! is what was read, and damaged or foreign files are refused with a reason, never a panic.

mod corpus;
mod delta;
mod family;
mod files;
mod foreign;
mod layouts;
mod memory;
mod mutations;
mod packages;
mod patterns;
mod refusals;
mod speed;
mod state_dicts;
mod sums;
mod targets;
mod trained;

use std::path::{Path, PathBuf};

use fused_lora::peft::{
    AdapterConfig, AdapterFile, CONFIG_FILE, Claims, Factor, MODEL_FILE, TargetModules,
};
use fused_lora::reference::{Dense, Sums, expected};
use fused_lora::{DType, Device, Error, Forward, Operand, Problem};
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
        let (of_a, of_b) = module.plain().unwrap();
        let (a, b) = (factor(of_a), factor(of_b));
        let mut y = device.zeros(m, n, DType::F32).unwrap();
        let operands = Forward::new(xt.matrix(), wt.matrix(), y.matrix_mut())
            .bias(biast.matrix())
            .adapter(a.matrix(), b.matrix());
        device.run(&device.plan(&problem).unwrap(), operands).unwrap();

        let wide = |of: &Factor| {
            Dense::new(of.rows(), of.cols(), of.values().into_iter().map(f64::from).collect())
        };
        let (a, b) = (wide(of_a), wide(of_b));
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
    for (path, rank, scale) in &modules {
        assert_eq!(adapter.config.rank_and_scale(path), Ok((*rank, *scale)), "{path}");
    }
    assert_eq!(adapter.config.rank_and_scale("no.such.layer"), Ok((4, 2.0)), "what patterns leave");
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

    // Alpha to the last bit, as Python reads it.
    for text in
        ["1.1844674407370957e20", "0.1", "1e-7", "123456789.12345679", "-2.2250738585072014e-308"]
    {
        let config = String::from_utf8(config.clone()).unwrap();
        let config = config.replace("\"lora_alpha\": 8", &format!("\"lora_alpha\": {text}"));
        let read = AdapterFile::from_bytes(&model, config.as_bytes()).unwrap();
        assert_eq!(read.config.alpha, text.parse::<f64>().unwrap());
        let (model, config) = read.to_bytes().unwrap();
        assert_eq!(AdapterFile::from_bytes(&model, &config).unwrap(), read);
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
    assert_eq!(read.modules["m.h"].plain().unwrap().0.dtype(), DType::F16);
    assert_eq!(read.modules["m.z"].plain().unwrap().1.dtype(), DType::Bf16);
    assert_eq!(read.modules["m.z"].plain().unwrap().1.bytes(), halves);

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

/// The layers of a model, as a framework has them: paths with PEFT's prefix or without, scales of their own.
#[test]
fn layers_are_written_with_the_scales_that_they_run_with() {
    let factor = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]).unwrap();
    let layer =
        |path: &str, rank, scale| (path.to_owned(), factor(rank, 3), factor(2, rank), scale);
    let config = AdapterConfig::new(8, 16.0);
    let layers = [layer("base_model.model.a.fc", 8, 2.0), layer("b.fc", 4, 4.0)];
    let file = AdapterFile::of_layers(config.clone(), layers).unwrap();
    let (model, bytes) = file.to_bytes().unwrap();
    assert_eq!(AdapterFile::from_bytes(&model, &bytes).unwrap(), file);
    assert_eq!(file.modules.keys().collect::<Vec<_>>(), ["a.fc", "b.fc"]);
    for path in ["a.fc", "base_model.model.a.fc"] {
        assert_eq!(file.module(path), file.modules.get("a.fc"));
        assert_eq!(file.config.rank_and_scale(path).unwrap(), (8, 2.0));
    }

    let refused = |layers: Vec<_>| match AdapterFile::of_layers(config.clone(), layers) {
        Err(Error::Adapter { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(vec![layer("a.fc", 8, 2.0), layer("b.fc", 4, 2.0)]);
    assert_eq!(reason, "module `b.fc`: expected the scale 2, the config gives it 4");
    let twice = vec![layer("a.fc", 8, 2.0), layer("base_model.model.a.fc", 8, 2.0)];
    assert!(refused(twice).contains("module `a.fc` is given twice"));
}

/// From several threads too, and however often a layer asks.
#[test]
fn a_file_knows_which_modules_found_no_layer() {
    let factor = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]).unwrap();
    let paths: Vec<String> = (0..8).map(|layer| format!("layers.{layer}.fc")).collect();
    let module = |path: &String| (path.clone(), factor(2, 3), factor(4, 2));
    let file = AdapterFile::new(AdapterConfig::new(2, 4.0), paths.iter().map(module)).unwrap();
    let claims = Claims::new(file.clone());
    let left = |claims: &Claims| match claims.finish() {
        Err(Error::Adapter { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let reason = |left: usize, first: &str| {
        format!("{left} of the file's 8 modules have no layer in this model, the first `{first}`")
    };
    assert_eq!(left(&claims), reason(8, "layers.0.fc"));
    assert_eq!(claims.claim("layers.9.fc"), None);
    std::thread::scope(|scope| {
        let (claims, file) = (&claims, &file);
        for path in &paths[..7] {
            scope.spawn(move || {
                assert_eq!(claims.claim(path), file.modules.get(path));
                let with_prefix = format!("base_model.model.{path}");
                assert_eq!(claims.claim(&with_prefix), file.modules.get(path));
            });
        }
    });
    assert_eq!(left(&claims), reason(1, "layers.7.fc"));
    claims.claim("layers.7.fc").unwrap();
    claims.finish().unwrap();
    assert_eq!(claims.file(), &file);
}

/// The golden config with some fields changed.
fn edited(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let mut fields: Value = serde_json::from_slice(&golden_files().1).unwrap();
    change(fields.as_object_mut().unwrap());
    serde_json::to_vec(&fields).unwrap()
}

/// For `tests/golden/check_written.py`, which has the real PEFT read it.
#[test]
fn write_for_peft() {
    // Through a config and factors of our own making, not those that were read.
    let golden = AdapterFile::read(golden()).unwrap();
    let mut config = AdapterConfig::new(4, 8.0);
    config.alpha_pattern = vec![("fc2".into(), 9.0)];
    let modules = golden.modules.into_iter().map(|(path, module)| {
        let again =
            |of: &Factor| Factor::new(of.rows(), of.cols(), of.dtype(), &of.values()).unwrap();
        let (a, b) = module.plain().unwrap();
        (path, again(a), again(b))
    });
    let file = AdapterFile::new(config, modules).unwrap();
    file.write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("written-adapter")).unwrap();
    assert!(file.to_bytes().unwrap().0 == golden_files().0);
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
