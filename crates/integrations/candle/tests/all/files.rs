//! What PEFT and torch wrote and computed, and what is written back. The golden files are the core's.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Tensor, Var};
use candle_nn::{Linear, Module, VarBuilder};
use fused_lora_candle::{Adapter, AdapterConfig, LoraLinear, PeftAdapter, save_peft};

use crate::case::{CPU, apart, bits, values, weighted};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../tests/golden").join(name)
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden(name), &CPU).unwrap()
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("fused-lora-candle-{name}-{}", std::process::id());
        Folder(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed before may not have made it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `fc2(relu(fc1(x)))` with the adapter that PEFT saved.
fn network(adapter: &PeftAdapter, of: &HashMap<String, Tensor>) -> [LoraLinear; 2] {
    ["fc1", "fc2"].map(|name| {
        let tensor = |part: &str| of.get(&format!("{name}.{part}")).cloned();
        let linear = Linear::new(tensor("weight").unwrap(), tensor("bias"));
        adapter.layer(linear, name).unwrap()
    })
}

fn run([fc1, fc2]: &[LoraLinear; 2], x: &Tensor) -> Tensor {
    fc2.forward(&fc1.forward(x).unwrap().relu().unwrap()).unwrap()
}

#[test]
fn a_folder_of_peft_gives_torchs_outputs() {
    let expected = tensors("adapter/expected.safetensors");
    let adapter = PeftAdapter::read(golden("adapter"), &CPU).unwrap();
    let error = adapter.finish().unwrap_err().to_string();
    assert!(error.contains("2 of the file's 2") && error.contains("fc1"), "{error}");
    let layers = network(&adapter, &expected);
    adapter.finish().unwrap();
    assert!(layers.iter().all(|layer| layer.vars().unwrap().is_empty()));
    assert!(adapter.layer(Linear::new(expected["fc1.weight"].clone(), None), "fc3").is_ok());
    let y = run(&layers, &expected["x"]);
    assert!(apart(&y, &expected["y_f64"]) < 1e-6);

    // The same tensors by a builder over the file.
    let vb = std::fs::read(golden("adapter/adapter_model.safetensors")).unwrap();
    let vb = VarBuilder::from_buffered_safetensors(vb, DType::F32, &CPU).unwrap();
    let built = ["fc1", "fc2"].map(|name| {
        let of = |part: &str| expected.get(&format!("{name}.{part}")).cloned();
        let linear = Linear::new(of("weight").unwrap(), of("bias"));
        let vb = vb.pp(format!("base_model.model.{name}"));
        LoraLinear::from_peft(linear, adapter.config(), &vb).unwrap()
    });
    assert_eq!(bits(&run(&built, &expected["x"])), bits(&y));
    let linear = Linear::new(expected["fc1.weight"].clone(), None);
    let wrong = AdapterConfig::new(5, 8.0);
    let vb = vb.pp("base_model.model.fc1");
    assert!(LoraLinear::from_peft(linear, &wrong, &vb).is_err());

    // Back into a folder, and out of it again: the same bits.
    let folder = Folder::new("again");
    let named = ["fc1", "fc2"].into_iter().zip(&layers);
    save_peft(&folder.0, adapter.config().clone(), named.clone()).unwrap();
    let again = PeftAdapter::read(&folder.0, &CPU).unwrap().trainable();
    let again = network(&again, &expected);
    assert!(again.iter().all(|layer| layer.vars().unwrap().len() == 2));
    assert_eq!(bits(&run(&again, &expected["x"])), bits(&y));

    // A configuration that gives another scale would change what the file means.
    let error = save_peft(&folder.0, AdapterConfig::new(4, 1.0), named).unwrap_err().to_string();
    assert!(error.contains("scale"), "{error}");
}

/// A model whose layers nobody can reach: the adapter goes into its weights as they are loaded.
#[test]
fn adapters_merge_into_what_a_builder_loads() {
    let expected = tensors("adapter/expected.safetensors");
    let adapter = PeftAdapter::read(golden("adapter"), &CPU).unwrap();
    let base = VarBuilder::from_tensors(expected.clone(), DType::F32, &CPU);
    let vb = adapter.merged(base);
    let linear = |name: &str| {
        let w = &expected[&format!("{name}.weight")];
        let (n, k) = w.dims2().unwrap();
        candle_nn::linear_b(k, n, expected.contains_key(&format!("{name}.bias")), vb.pp(name))
    };
    let (fc1, fc2) = (linear("fc1").unwrap(), linear("fc2").unwrap());
    adapter.finish().unwrap();
    let y = fc2.forward(&fc1.forward(&expected["x"]).unwrap().relu().unwrap()).unwrap();
    assert!(apart(&y, &expected["y_f64"]) < 1e-6);
    assert!(vb.contains_tensor("fc1.weight") && !vb.contains_tensor("fc1.lora_A.weight"));
    // The weights that were loaded are as they were.
    let again = tensors("adapter/expected.safetensors");
    assert_eq!(bits(&expected["fc1.weight"]), bits(&again["fc1.weight"]));
}

/// One layer in every type: no further from the exact values than PEFT itself, or than a rounding.
#[test]
fn layers_are_as_exact_as_pefts() {
    let mut cases = 0;
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".safetensors") {
            continue;
        }
        cases += 1;
        let of = tensors(&name);
        let bytes = std::fs::read(golden(&name)).unwrap();
        let scale = scale(&bytes);
        let adapter = Adapter::new(of["a"].clone(), of["b"].clone(), scale).unwrap();
        let linear = Linear::new(of["w"].clone(), of.get("bias").cloned());
        let layer = LoraLinear::frozen(linear).unwrap();
        let layer = layer.with_adapter("golden", adapter.trainable().unwrap()).unwrap();
        let x = Var::from_tensor(&of["x"]).unwrap();
        let y = layer.forward(&x).unwrap();
        let gradients = weighted(&y, &of["dy"]).backward().unwrap();
        let vars = layer.vars().unwrap();
        for (output, var) in [("dx", &x), ("da", &vars[0]), ("db", &vars[1])] {
            close(gradients.get(var).unwrap(), &of, output, &name);
        }
        close(&y, &of, "y", &name);
    }
    assert!(cases >= 16, "{cases} golden files");
}

fn close(got: &Tensor, of: &HashMap<String, Tensor>, output: &str, name: &str) {
    let exact = &of[&format!("{output}_f64")];
    let unit = match of["x"].dtype() {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-22),
    };
    assert!(values(got).iter().all(|of| of.is_finite()));
    let (ours, theirs) = (apart(got, exact), apart(&of[output], exact));
    assert!(ours <= theirs.max(unit) * 1.05, "{name}, {output}: {ours:.1e}, PEFT {theirs:.1e}");
}

/// The scale that PEFT used, of the file's metadata.
fn scale(bytes: &[u8]) -> f32 {
    let (len, rest) = bytes.split_first_chunk::<8>().unwrap();
    let header = std::str::from_utf8(&rest[..u64::from_le_bytes(*len) as usize]).unwrap();
    let (_, after) = header.split_once("\"scale\":\"").unwrap();
    after.split_once('"').unwrap().0.parse().unwrap()
}
