//! Written for the real packages to read: `tests/golden/check_lycoris_written.py` has them load what this leaves in
//! `written-family`, in cargo's folder for the files of tests (`CARGO_TARGET_TMPDIR`). Here it is read again, of course;
//! and what PEFT could not load is refused.

use std::path::Path;

use fused_lora::DType;
use fused_lora::files::peft::AdapterFile;
use fused_lora::files::{Module, Side, StateDict};

use super::delta::Random;
use super::layouts::{LAYERS, folder, folders, state_dicts};

/// What a folder of PEFT cannot hold, of the files of LyCORIS; the second because LyCORIS sorts the pair that a size
/// is split in, and PEFT does not.
const NOT_PEFTS: [(&str, &str); 2] =
    [("lora_tucker", "PEFT has no Tucker core for LoRA"), ("lokr_both", "PEFT builds w1 [2, 2]")];

#[test]
fn write_for_the_packages() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("written-family");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out).unwrap();
    for (name, bytes) in state_dicts() {
        let file = StateDict::from_bytes(&bytes).unwrap();
        file.write(out.join(format!("{name}.safetensors"))).unwrap();
        // The same as a folder of PEFT.
        let modules = LAYERS.map(|(layer, weight)| {
            (layer.to_owned(), file.module(&format!("lycoris_{layer}"), weight).unwrap())
        });
        match AdapterFile::from_modules(modules.clone()) {
            Ok(folder) => {
                assert_eq!(folder.modules, modules.into(), "{name}");
                let to = out.join(format!("to_peft_{name}"));
                folder.write(&to).unwrap();
                let read = AdapterFile::read(&to).unwrap();
                for (layer, weight) in LAYERS {
                    let read = read.modules[layer].clone().for_weight(weight).unwrap();
                    assert_eq!(read, folder.modules[layer], "{name}, {layer}");
                }
            }
            Err(error) => {
                let (_, words) = NOT_PEFTS
                    .iter()
                    .find(|(of, _)| *of == name)
                    .unwrap_or_else(|| panic!("{name}: {error}"));
                assert!(error.to_string().contains(words), "{name}: {error}");
            }
        }
    }
    for (name, path) in folders() {
        let file = AdapterFile::read(&path).unwrap();
        file.write(out.join(&name)).unwrap();
        // And the other way round; of two full factors LyCORIS has no scale.
        let modules = LAYERS.map(|(layer, weight)| {
            let module = file.modules[layer].clone().for_weight(weight).unwrap();
            let module =
                if name == "peft_lokr_full" { module.fold_scale().unwrap() } else { module };
            (format!("lycoris_{layer}"), module)
        });
        let to = out.join(format!("to_lycoris_{name}.safetensors"));
        let written = StateDict::new(modules).unwrap();
        written.write(&to).unwrap();
        let read = StateDict::read(&to).unwrap();
        for (layer, weight) in LAYERS {
            let layer = format!("lycoris_{layer}");
            assert_eq!(
                read.module(&layer, weight).unwrap(),
                written.modules[&layer],
                "{name}, {layer}"
            );
        }
    }
    assert!(folder().join("expected.safetensors").is_file());
}

fn named(path: &str, module: Module) -> (String, Module) {
    (path.to_owned(), module)
}

#[test]
fn what_a_folder_of_peft_cannot_hold_is_refused() {
    let random = Random::new(2);
    let of = |rows, cols| random.factor(rows, cols, DType::F32);
    let lora = |scale| Module::lora(of(2, 6), of(8, 2), scale).unwrap();
    let (one, other) = (lora(0.3), lora(1.7));
    let loha = Module::loha([of(8, 2), of(2, 6)], [of(8, 2), of(2, 6)], 1.0).unwrap();
    let dora = one.clone().with_magnitude(of(1, 8)).unwrap();
    let dora_loha = loha.clone().with_magnitude(of(1, 8)).unwrap();
    // 8 = 1·8 and 6 = 3·2 are none that PEFT makes; of 8 = 2·4 and 6 = 2·3 a w2 of rank 3 is full.
    let lokr = |[a, b]: [usize; 2], r| {
        let w2 = Side::Low(of(8 / a, r), of(r, 6 / b));
        Module::lokr(Side::Full(of(a, b)), w2, 1.0).unwrap()
    };
    let (uneven, high, good) = (lokr([1, 3], 1), lokr([2, 2], 3), lokr([2, 2], 1));
    let reason = |modules: Vec<(String, Module)>| {
        AdapterFile::from_modules(modules).unwrap_err().to_string()
    };
    for (modules, words) in [
        (vec![], "no module in it"),
        (vec![named("a", one.clone()), named("a", other.clone())], "module `a` is given twice"),
        (vec![named("", one.clone())], "a module's path is empty"),
        (
            vec![named("a", one.clone()), named("b", loha)],
            "module `b`: LoHa beside LoRA: one folder of PEFT has one method",
        ),
        (
            vec![named("a", one.clone()), named("b", dora)],
            "module `b`: PEFT has DoRA on all modules",
        ),
        (vec![named("a", dora_loha)], "module `a`: PEFT has no DoRA on LoHa"),
        (
            vec![named("a", uneven)],
            "module `a`: PEFT builds w1 [2, 2] and w2 [4, 3] from decompose_factor; expected such a w1, got [1, 3]",
        ),
        (vec![named("a", high)], "at rank 3 its w1 is full, its w2 full"),
    ] {
        let error = reason(modules);
        assert!(error.contains(words), "expected `{words}` in `{error}`");
    }
    // Scales and ranks of all kinds, each in its pattern; `b` ends `a.b`.
    let modules = [named("a.b", one), named("b", other), named("c", lora(0.3))];
    let file = AdapterFile::from_modules(modules.clone()).unwrap();
    assert_eq!(file.modules, modules.into());
    let (model, config) = file.to_bytes().unwrap();
    assert_eq!(AdapterFile::from_bytes(&model, &config).unwrap(), file);
    let lokr = AdapterFile::from_modules([named("a", good)]).unwrap();
    let (model, config) = lokr.to_bytes().unwrap();
    assert_eq!(AdapterFile::from_bytes(&model, &config).unwrap(), lokr);

    // Tensors and settings that contradict each other.
    let text = String::from_utf8(config).unwrap();
    let dora = text.replace("LOKR", "LOHA");
    let error = AdapterFile::from_bytes(&model, dora.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("module `a`: expected LoHa by peft_type and use_dora"), "{error}");
}
