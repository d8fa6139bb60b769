//! Files as the real LyCORIS and PEFT saved them (`tests/golden/adapters`, by `make_lycoris.py`): what is read stands for the
//! weight difference that the package has, and is written in the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fused_lora::files::peft::AdapterFile;
use fused_lora::files::{Method, Module, StateDict};
use safetensors::SafeTensors;

use super::delta::{distance, unscaled};

/// What a base model of `make_lycoris.py` has: the layer, and its weight's shape.
pub(crate) const LAYERS: [(&str, &[usize]); 3] =
    [("fc", &[44, 30]), ("conv", &[10, 6, 3, 3]), ("proj", &[10, 6, 1, 1])];

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adapters")
}

/// Files of one piece, by name, with their bytes.
pub(crate) fn state_dicts() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && name != "expected" {
            files.push((name, std::fs::read(path).unwrap()));
        }
    }
    files.sort();
    assert_eq!(files.len(), 10);
    files
}

/// Folders of PEFT.
pub(crate) fn folders() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).map(named).collect();
    folders.sort();
    assert_eq!(folders.len(), 8);
    folders
}

/// ΔW and the scale of every module, by the packages.
pub(crate) fn expected() -> BTreeMap<String, (Vec<f64>, f64)> {
    let bytes = std::fs::read(folder().join("expected.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let scales = metadata.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let of = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let values =
            view.data().chunks_exact(8).map(|of| f64::from_le_bytes(of.try_into().unwrap()));
        (name.to_owned(), (values.collect(), scales[name].parse().unwrap()))
    };
    file.iter().map(of).collect()
}

/// The method by a file's name.
fn method(name: &str) -> Method {
    let name = name.trim_start_matches("peft_");
    match name {
        _ if name.starts_with("loha") => Method::Loha,
        _ if name.starts_with("lokr") => Method::Lokr,
        _ => Method::Lora,
    }
}

fn check(key: &str, module: &Module, weight: &[usize], most: &mut f64) {
    let expected = expected();
    let (delta, scale) = &expected[key];
    assert_eq!(module.scale, *scale as f32, "{key}");
    assert_eq!(module.method(), method(key), "{key}");
    assert_eq!(module.kernel, weight[2..], "{key}");
    assert_eq!(
        [module.out_features(), module.in_features()],
        [weight[0], weight[1..].iter().product()]
    );
    // PEFT's LoHa rounds its scale to f32 in f64 too.
    let scale = if key.starts_with("peft_loha") { f64::from(module.scale) } else { *scale };
    let got: Vec<f64> = unscaled(module).values.iter().map(|value| value * scale).collect();
    let far = distance(&got, delta);
    assert!(far < 1e-13, "{key}: {far}");
    *most = most.max(far);
}

#[test]
fn what_lycoris_saved_stands_for_its_weight_difference() {
    let mut most = 0.0;
    for (name, bytes) in state_dicts() {
        let file = StateDict::from_bytes(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(file.modules.len(), 3, "{name}");
        for (layer, weight) in LAYERS {
            let layer = format!("lycoris_{layer}");
            let module =
                file.module(&layer, weight).unwrap_or_else(|error| panic!("{name}: {error}"));
            check(&format!("{name}/{layer}"), &module, weight, &mut most);
            assert_eq!(module.magnitude.is_some(), name == "lora_dora", "{name}");
        }
    }
    println!("at most {most:.1e} of the largest element away");
}

#[test]
fn what_peft_saved_stands_for_its_weight_difference() {
    let mut most = 0.0;
    for (name, path) in folders() {
        let file = AdapterFile::read(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(file.modules.len(), 3, "{name}");
        for (layer, weight) in LAYERS {
            let module = file.modules[layer].clone().for_weight(weight).unwrap();
            check(&format!("{name}/{layer}"), &module, weight, &mut most);
            assert_eq!(module.magnitude.is_some(), name == "peft_dora", "{name}");
        }
    }
    println!("at most {most:.1e} of the largest element away");
}

/// Name, type, shape and bytes of every tensor.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let of = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let dtype = format!("{:?}", view.dtype());
        (name.to_owned(), (dtype, view.shape().to_vec(), view.data().to_vec()))
    };
    file.iter().map(of).collect()
}

#[test]
fn what_was_saved_is_written_in_the_same_tensors() {
    for (name, bytes) in state_dicts() {
        let file = StateDict::from_bytes(&bytes).unwrap();
        let written = file.to_bytes().unwrap();
        assert_eq!(file.to_bytes().unwrap(), written, "{name}: the same bytes");
        assert_eq!(StateDict::from_bytes(&written).unwrap(), file, "{name}");
        // With the base's shapes known it is the same file.
        let of = |(layer, weight): (&str, &[usize])| {
            let layer = format!("lycoris_{layer}");
            (layer.clone(), file.module(&layer, weight).unwrap())
        };
        let again = StateDict::new(LAYERS.map(of)).unwrap();
        assert_eq!(again.to_bytes().unwrap(), written, "{name}");

        // Alpha is written in a type that has the scale exactly; LyCORIS casts it with the rest. Of two full
        // factors no reader takes it.
        let (mut own, mut ours) = (tensors(&bytes), tensors(&written));
        assert_eq!(own.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "{name}");
        if name == "lora_bf16" || name == "lokr_full" {
            own.retain(|name, _| !name.ends_with(".alpha"));
            ours.retain(|name, _| !name.ends_with(".alpha"));
        }
        for (tensor, own) in &own {
            assert!(ours[tensor] == *own, "{name}: another {tensor}");
        }
    }
    for (name, path) in folders() {
        let file = AdapterFile::read(&path).unwrap();
        let (model, config) = file.to_bytes().unwrap();
        assert!(model == std::fs::read(path.join("adapter_model.safetensors")).unwrap(), "{name}");
        let fields = |of: &[u8]| serde_json::from_slice::<serde_json::Value>(of).unwrap();
        let own = std::fs::read(path.join("adapter_config.json")).unwrap();
        assert_eq!(fields(&config), fields(&own), "{name}");
        assert_eq!(AdapterFile::from_bytes(&model, &config).unwrap(), file, "{name}");
    }
}

/// The magnitude is the tensor's, in order.
#[test]
fn magnitudes_are_a_row_of_outputs() {
    let bytes = std::fs::read(folder().join("lora_dora.safetensors")).unwrap();
    let read = StateDict::from_bytes(&bytes).unwrap();
    let own = tensors(&bytes);
    for (layer, shape) in [("lycoris_fc", vec![44, 1]), ("lycoris_conv", vec![10, 1, 1, 1])] {
        let m = read.modules[layer].magnitude.as_ref().unwrap();
        let (_, saved, data) = &own[&format!("{layer}.dora_scale")];
        assert_eq!((saved, m.bytes()), (&shape, &data[..]), "{layer}");
        assert_eq!([m.rows(), m.cols()], [1, shape[0]]);
    }
    let path = folder().join("peft_dora");
    let own = tensors(&std::fs::read(path.join("adapter_model.safetensors")).unwrap());
    let read = AdapterFile::read(path).unwrap();
    assert!(read.config.dora);
    for (layer, shape) in [("fc", vec![44]), ("conv", vec![1, 10, 1, 1])] {
        let m = read.modules[layer].magnitude.as_ref().unwrap();
        let (_, saved, data) = &own[&format!("base_model.model.{layer}.lora_magnitude_vector")];
        assert_eq!((saved, m.bytes()), (&shape, &data[..]), "{layer}");
    }
}

#[test]
fn another_base_is_refused_with_both_shapes() {
    let bytes = std::fs::read(folder().join("loha.safetensors")).unwrap();
    let file = StateDict::from_bytes(&bytes).unwrap();
    for (layer, weight, words) in [
        ("lycoris_fc", &[44, 31][..], "expected an adapter of [44, 31], got one of [44, 30]"),
        ("lycoris_fc", &[43, 30], "expected an adapter of [43, 30], got one of [44, 30]"),
        (
            "lycoris_conv",
            &[10, 6, 3, 2],
            "expected an adapter of [10, 6, 3, 2], got one of [10, 54]",
        ),
        ("lycoris_conv", &[10, 6, 3, 1, 3], "expected a base weight of two dimensions"),
        ("lycoris_conv", &[], "expected a base weight of two dimensions"),
        ("lycoris_conv", &[10, usize::MAX, usize::MAX], "expected an adapter of"),
        ("lycoris_none", &[44, 30], "module `lycoris_none`: not one of the file's 3"),
    ] {
        let error = file.module(layer, weight).unwrap_err().to_string();
        assert!(error.contains(words), "{layer}, {weight:?}: {error}");
    }
    // Flat, so that a convolution of one dimension has as many elements.
    assert_eq!(file.module("lycoris_conv", &[10, 6, 9]).unwrap().kernel, [9]);
    let bytes = std::fs::read(folder().join("lora.safetensors")).unwrap();
    let file = StateDict::from_bytes(&bytes).unwrap();
    let error = file.module("lycoris_conv", &[10, 6, 9]).unwrap_err().to_string();
    assert!(error.contains("got one of [10, 54] with the kernel [3, 3]"), "{error}");
    assert!(file.module("lycoris_proj", &[10, 6]).unwrap().kernel.is_empty());
}
