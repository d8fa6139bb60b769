//! What strangers' files hold instead of a plain adapter of PEFT's: told by its own name, never guessed at.

use fused_lora::Error;
use fused_lora::peft::{AdapterFile, CONFIG_FILE, MODEL_FILE};
use serde_json::{Value, json};

use super::Folder;
use super::corpus;
use super::files::{TensorOf, config, model, modules, reason, refused};

const GOOD: [TensorOf<'_>; 2] = [
    ("base_model.model.fc.lora_A.weight", "F32", &[1, 3]),
    ("base_model.model.fc.lora_B.weight", "F32", &[2, 1]),
];

/// Each beside a good pair, and alone.
#[test]
fn foreign_tensors_are_told_by_their_own_name() {
    let config = config(&json!({"target_modules": ["fc"]}));
    AdapterFile::from_bytes(&model(&GOOD), &config).unwrap();
    for (name, words) in [
        // Other methods.
        ("lora_unet_fc.dora_scale", "DoRA"),
        ("lora_unet_fc.hada_w2_b", "kohya"),
        ("lycoris_fc.lokr_t2", "LyCORIS"),
        ("base_model.model.fc.lora_mid.weight", "Tucker"),
        ("base_model.model.fc.oft_R.weight", "OFT"),
        ("lora_unet_fc.oft_blocks", "OFT"),
        ("base_model.model.fc.boft_R", "BOFT"),
        ("base_model.model.fc.vera_lambda_b", "VeRA"),
        ("base_model.vera_A", "VeRA"),
        ("base_model.model.fc.ia3_l", "IA³"),
        ("base_model.model.fc.lora_E", "AdaLoRA"),
        ("base_model.model.fc.lora_ranknum", "AdaLoRA"),
        ("base_model.model.fc.lora_diag", "KaSA"),
        ("base_model.model.fc.lora_embedding_A", "adapters of embeddings"),
        ("base_model.model.fc.lora_B.bias", "a bias on lora_B"),
        ("base_model.model.fc.fourierft_spectrum", "FourierFT"),
        ("base_model.model.fc.shira_weight", "SHiRA"),
        ("prompt_embeddings", "prompt tuning"),
        ("base_model.model.embed.token_adapter.trainable_tokens_delta", "trainable tokens"),
        // Other layouts.
        ("lora_unet_mid_block_fc.lora_down.weight", "kohya"),
        ("lora_te_text_model_fc.lora_up.weight", "kohya"),
        ("lora_te1_text_model_fc.alpha", "kohya"),
        ("diffusion_model.double_blocks.0.fc.lora_A.weight", "ComfyUI"),
        ("unet.down_blocks.0.fc.lora_A.weight", "diffusers"),
        ("unet.attn1.processor.to_q_lora.down.weight", "diffusers"),
        ("text_encoder.text_model.fc.lora_linear_layer.up.weight", "diffusers"),
        ("transformer.blocks.0.fc.lora_A.weight", "diffusers"),
        ("down_blocks.0.fc.lora.down.weight", "diffusers"),
        ("model.layers.0.self_attn.q_proj.lora_a", "MLX"),
        ("layers.0.q_proj.lora_b", "MLX"),
        ("transformer.h.0.attn.attn.lora_A", "LitGPT"),
        ("fc.alpha", "alpha as a tensor"),
        ("base_model.model.fc.alpha", "alpha as a tensor"),
        // PEFT's own, saved past save_pretrained.
        ("base_model.model._orig_mod.fc.lora_A.weight", "compiled"),
        ("_orig_mod.base_model.model.fc.lora_A.weight", "compiled"),
        ("base_model.model.layers.0._orig_mod.fc.lora_B.weight", "compiled"),
        ("base_model.model._fsdp_wrapped_module.fc.lora_A.weight", "FSDP"),
        ("base_model.model.a._checkpoint_wrapped_module.fc.lora_A.weight", "checkpoints"),
        ("module.base_model.model.fc.lora_A.weight", "DataParallel"),
        ("base_model.model.base_model.model.fc.lora_A.weight", "an adapter upon an adapter"),
        ("base_model.model.fc.lora_A.other.weight", "the adapter's name `other`"),
        ("base_model.model.head.modules_to_save.default.weight", "a raw state dict"),
        ("base_model.model.head.original_module.weight", "a raw state dict"),
        ("fc.lora_A.weight", "expected a name that begins with `base_model.model.`"),
        // Nothing that has a name.
        (
            "base_model.model.fc.weight",
            "neither modules_to_save nor a resized embedding explains it",
        ),
        ("base_model.model.a\nb.lora_A.weight", "a line break in a name"),
    ] {
        let tensor: TensorOf<'_> = (name, "F32", &[1, 1]);
        for tensors in [&[GOOD[0], GOOD[1], tensor][..], &[tensor]] {
            let (path, reason) = reason(&model(tensors), &config);
            assert_eq!(path, MODEL_FILE);
            assert!(reason.contains(words), "{name}: {reason}");
            assert!(reason.contains(&format!("tensor `{name}`")), "{name}: {reason}");
            assert!(!reason.contains("a retrained"), "{name}: {reason}");
            // What to do stands behind it.
            let remedies = [
                "merge",
                "save",
                "read it",
                "rename",
                "take",
                "put that before",
                "which no module has",
            ];
            assert!(remedies.iter().any(|remedy| reason.contains(remedy)), "{name}: {reason}");
        }
    }
}

#[test]
fn whole_files_of_another_kind_are_told_by_their_own_name() {
    let (good, fields) = corpus::files("plain");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for (bytes, words) in [
        (&pointer[..], "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"PK\x03\x04 and so on, longer than eight bytes", "torch.save"),
        (b"\x80\x02}q\x00X\x03\x00\x00\x00abcdef", "torch.save"),
        (b"GGUF\x03\x00\x00\x00and so on", "GGUF"),
        (b"{\"peft_type\": \"LORA\"}", "JSON, not tensors"),
    ] {
        refused(bytes, &fields, MODEL_FILE, words);
    }
    refused(&good, pointer, CONFIG_FILE, "Git LFS pointer");
    refused(&good, b"<html>", CONFIG_FILE, "a web page");
    refused(&good, b"{\"a\": NaN}", CONFIG_FILE, "`{\"a\": NaN}`");
}

#[test]
fn what_lies_in_the_folder_instead_is_told() {
    let (model, config) = corpus::files("plain");
    let kohya = super::files::model(&[("lora_unet_fc.lora_down.weight", "F32", &[1, 1])]);
    let refusal = |files: &[(&str, &[u8])]| {
        let folder = Folder::new("instead");
        let _ = std::fs::remove_dir_all(&folder.0);
        for (name, bytes) in files {
            let path = folder.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        match AdapterFile::read(&folder.0) {
            Err(Error::Adapter { path, reason }) => (path, reason),
            other => panic!("{other:?}"),
        }
    };
    for (name, words) in [
        ("adapter_model.bin", "`adapter_model.bin`: a pickle of torch.save: load it in PEFT"),
        ("adapter_model.safetensors.index.json", "an index of several parts: join"),
        ("adapter_model-00001-of-00002.safetensors", "one of several parts: join"),
        ("adapters.safetensors", "MLX"),
        ("pytorch_lora_weights.safetensors", "diffusers"),
        ("model.safetensors", "a whole model"),
        ("style.safetensors", "`style.safetensors`: not the name that PEFT gives"),
        (
            "mine/adapter_model.safetensors",
            "in the folder `mine`, as PEFT saves an adapter of that name",
        ),
        ("README.md", "not there"),
    ] {
        let (path, reason) = refusal(&[(name, &model), (CONFIG_FILE, &config)]);
        assert!(path.ends_with(MODEL_FILE), "{path}");
        assert!(reason.contains(words), "{name}: {reason}");
    }
    let (path, reason) = refusal(&[]);
    assert!(path.ends_with(MODEL_FILE) && reason == "there is no such folder", "{path}: {reason}");
    for (tensors, words) in [(&model, "without alpha there is no scale"), (&kohya, "kohya")] {
        let (path, reason) = refusal(&[(MODEL_FILE, tensors)]);
        assert!(path.ends_with(CONFIG_FILE) && reason.contains(words), "{path}: {reason}");
    }
}

#[test]
fn fields_of_other_methods_are_refused_with_a_remedy() {
    let (model, file) = corpus::files("plain");
    let with = |field: &str, value: &Value| {
        let mut fields: Value = serde_json::from_slice(&file).unwrap();
        fields[field] = value.clone();
        serde_json::to_vec(&fields).unwrap()
    };
    for kind in ["OFT", "VERA", "IA3", "ADALORA", "BOFT", "PROMPT_TUNING", "XLORA"] {
        let words =
            format!("peft_type: \"{kind}\" is not supported: only LORA, LOHA and LOKR are; merge");
        refused(&model, &with("peft_type", &json!(kind)), CONFIG_FILE, &words);
    }
    // Initialisations: those that leave the base weight alone, as PEFT compares them.
    for harmless in [
        json!(true),
        json!(false),
        json!(null),
        json!("gaussian"),
        json!("Gaussian"),
        json!("GAUSSIAN"),
        json!("mica"),
        json!("MiCA"),
        json!("eva"),
        json!("orthogonal"),
    ] {
        AdapterFile::from_bytes(&model, &with("init_lora_weights", &harmless)).unwrap();
    }
    for changing in ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga"] {
        let words = "this initialisation changes the frozen weight; save with path_initial_model";
        refused(&model, &with("init_lora_weights", &json!(changing)), CONFIG_FILE, words);
    }
    for unknown in
        [json!("orthogonl"), json!("kaiming"), json!("EVA"), json!(3), json!(["eva"]), json!("")]
    {
        let words = "an initialisation that is not known here (known: true, false, gaussian, eva,";
        refused(&model, &with("init_lora_weights", &unknown), CONFIG_FILE, words);
    }
    // PEFT's oldest versions.
    for lists in [json!([true, false, true]), json!([true])] {
        let words = "is not supported: PEFT's old MergedLinear adapts some blocks";
        refused(&model, &with("enable_lora", &lists), CONFIG_FILE, words);
    }
    for off in [json!(null), json!([]), json!(false)] {
        AdapterFile::from_bytes(&model, &with("enable_lora", &off)).unwrap();
    }
}

/// A refusal stays readable whatever a stranger wrote.
#[test]
fn messages_stay_short() {
    let long = "x".repeat(60_000);
    let config = |fields| config(&fields);
    let good = modules(["fc"]);
    let foreign = super::files::model(&[(&format!("{long}.alpha"), "F32", &[1, 1])]);
    let named = format!("base_model.model.fc.lora_A.{long}.weight");
    let named = super::files::model(&[(&named, "F32", &[1, 1])]);
    for (model, config) in [
        (named, config(json!({}))),
        (modules([&*long]), config(json!({"target_modules": ["fc"]}))),
        (
            modules([&*long]),
            config(json!({"target_modules": [&*long], "rank_pattern": {(&*long): 2}})),
        ),
        (foreign, config(json!({}))),
        (good.clone(), config(json!({"target_modules": ["fc", &*long]}))),
        (good.clone(), config(json!({"target_modules": format!("({long}")}))),
        (good.clone(), config(json!({"rank_pattern": {(format!("({long}")): 2}}))),
        (good.clone(), config(json!({"rank_pattern": {(&*long): "x"}}))),
        (good.clone(), config(json!({"exclude_modules": [1, &*long]}))),
        (good.clone(), config(json!({"use_new": &*long}))),
        (good, config(json!({"r": &*long}))),
    ] {
        let (_, reason) = reason(&model, &config);
        assert!(reason.len() < 1000, "{} bytes: {}…", reason.len(), &reason[..200]);
    }
}
