//! What PEFT wrote and computed: the core's golden files.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor, TensorData, activation::relu};
use fused_lora_burn::{AdapterConfig, LoraAdapter, LoraLinear, PeftAdapter, save_peft};
use safetensors::{Dtype, SafeTensors};

use crate::case::{apart, bits, devices, tensor, values, weighted};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../tests/golden").join(name)
}

fn tensors(bytes: &[u8]) -> HashMap<String, TensorData> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let data = |(name, of): (String, safetensors::tensor::TensorView<'_>)| {
        let dtype = match of.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => panic!("{other:?}"),
        };
        (name, TensorData::from_bytes_vec(of.data().to_vec(), of.shape().to_vec(), dtype))
    };
    file.tensors().into_iter().map(data).collect()
}

fn read(name: &str) -> HashMap<String, TensorData> {
    tensors(&std::fs::read(golden(name)).unwrap())
}

/// PEFT stores `[out, in]`, burn `[in, out]`: read where it lies.
fn turned(of: &TensorData, device: &Device) -> Param<Tensor<2>> {
    Param::from_tensor(tensor::<2>(of, device).transpose())
}

fn linear(of: &HashMap<String, TensorData>, name: &str, device: &Device) -> Linear {
    let bias = of.get(&format!("{name}bias"));
    Linear {
        weight: turned(&of[&format!("{name}weight")], device),
        bias: bias.map(|of| Param::from_tensor(tensor(of, device))),
    }
}

fn network(
    adapter: &PeftAdapter,
    of: &HashMap<String, TensorData>,
    on: &Device,
) -> [LoraLinear; 2] {
    ["fc1", "fc2"].map(|name| {
        let path = format!("base_model.model.{name}");
        adapter.layer(linear(of, &format!("{name}."), on), &path).unwrap()
    })
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("fused-lora-burn-{name}-{}", std::process::id());
        Folder(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn adapters_of_peft_load_and_are_written() {
    let of = read("adapter/expected.safetensors");
    for (name, device, _) in devices() {
        let run = |layers: &[LoraLinear; 2]| {
            let x = tensor::<2>(&of["x"], &device);
            layers[1].forward(relu(layers[0].forward(x)))
        };
        let adapter = PeftAdapter::read(golden("adapter"), &device).unwrap();
        let error = adapter.finish().unwrap_err().to_string();
        assert!(error.contains("2 of the file's 2") && error.contains("fc1"), "{error}");
        let layers = network(&adapter, &of, &device);
        adapter.finish().unwrap();
        assert!(adapter.adapter("fc3").unwrap().is_none());
        let y = run(&layers);
        let expected: Vec<f64> = of["y_f64"].iter().collect();
        let error = apart(&values(&y), &expected);
        assert!(error < 1e-6, "{name}: {error:.1e}");

        // Back into a folder, and out of it again: the same bits.
        let folder = Folder::new(name);
        let named = || ["fc1", "fc2"].into_iter().zip(&layers);
        save_peft(&folder.0, adapter.config().clone(), named()).unwrap();
        let on = device.clone().autodiff();
        let again = PeftAdapter::read(&folder.0, &on).unwrap().trainable();
        let again = network(&again, &of, &on);
        assert_eq!(bits(&run(&again)), bits(&y), "{name}");
        let trained = |of: &[LoraLinear; 2]| of[0].active().unwrap().1.a.val().is_require_grad();
        assert!(trained(&again) && !trained(&layers));

        // A configuration that gives another scale would change what the file means.
        let error = save_peft(&folder.0, AdapterConfig::new(4, 1.0), named()).unwrap_err();
        assert!(error.to_string().contains("scale"), "{error}");
    }
}

/// One layer in every type: no further from the exact values than PEFT itself, or than a rounding.
#[test]
fn layers_are_as_exact_as_pefts() {
    let mut cases = 0;
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if !file.ends_with(".safetensors") {
            continue;
        }
        let bytes = std::fs::read(golden(&file)).unwrap();
        let of = tensors(&bytes);
        for (name, device, types) in devices() {
            if ![&of["x"], &of["a"]].iter().all(|of| types.contains(&of.dtype())) {
                continue;
            }
            cases += 1;
            let on = device.autodiff();
            let (a, b) = (turned(&of["a"], &on), turned(&of["b"], &on));
            let adapter = LoraAdapter { a, b, scale: scale(&bytes) };
            let bias = of.get("bias").map(|of| Param::from_tensor(tensor(of, &on)));
            let frozen = LoraLinear::frozen(Linear { weight: turned(&of["w"], &on), bias });
            let layer = frozen.unwrap().with_adapter("golden", adapter).unwrap();
            let x = tensor::<2>(&of["x"], &on).require_grad();
            let y = layer.forward(x.clone());
            let gradients = weighted(&y, &tensor(&of["dy"], &on)).backward();
            let (_, adapter) = layer.active().unwrap();
            let [da, db] = [&adapter.a, &adapter.b].map(|of| of.val().grad(&gradients).unwrap());
            let got = [y, x.grad(&gradients).unwrap(), da.transpose(), db.transpose()];
            for (output, got) in ["y", "dx", "da", "db"].into_iter().zip(got) {
                close(&values(&got), &of, output, &format!("{name}, {file}"));
            }
        }
    }
    assert!(cases >= 8, "{cases} golden files");
}

fn close(got: &[f64], of: &HashMap<String, TensorData>, output: &str, what: &str) {
    let exact: Vec<f64> = of[&format!("{output}_f64")].iter().collect();
    let peft: Vec<f64> = of[output].iter().collect();
    let unit = match of["x"].dtype() {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-21),
    };
    let (ours, theirs) = (apart(got, &exact), apart(&peft, &exact));
    assert!(ours <= theirs.max(unit) * 1.05, "{what}, {output}: {ours:.1e}, PEFT {theirs:.1e}");
}

/// The scale that PEFT used, of the file's metadata.
fn scale(bytes: &[u8]) -> f64 {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    header.metadata().as_ref().unwrap()["scale"].parse().unwrap()
}
