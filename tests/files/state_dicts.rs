//! Files of kohya, LyCORIS, ComfyUI and diffusers put together here: every name that a factor goes by, the rules for
//! alpha, and what is refused, each with its reason.

use fused_lora::DType;
use fused_lora::files::{Factor, Factors, Method, Module, Side, StateDict};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::delta::Random;
use super::files::{TensorOf, model, with_header};
use super::refusals::prefixes;

/// A file of tensors that are zero, and of scalars that are not.
fn file(tensors: &[TensorOf<'_>], alphas: &[(&str, Dtype, Vec<u8>)]) -> Vec<u8> {
    let zeros = vec![0u8; 1 << 16];
    let all = tensors.iter().map(|(name, dtype, shape)| {
        let (dtype, size) = match *dtype {
            "F16" => (Dtype::F16, 2),
            "BF16" => (Dtype::BF16, 2),
            "F64" => (Dtype::F64, 8),
            _ => (Dtype::F32, 4),
        };
        let len = size * shape.iter().product::<usize>();
        (*name, TensorView::new(dtype, shape.to_vec(), &zeros[..len]).unwrap())
    });
    let alphas = alphas
        .iter()
        .map(|(name, dtype, bytes)| (*name, TensorView::new(*dtype, Vec::new(), bytes).unwrap()));
    safetensors::serialize(all.chain(alphas), None).unwrap()
}

fn f32s(value: f32) -> (Dtype, Vec<u8>) {
    (Dtype::F32, value.to_le_bytes().to_vec())
}

#[track_caller]
fn refused(file: &[u8], words: &str) {
    let error = StateDict::from_bytes(file).unwrap_err().to_string();
    assert!(error.contains(words), "expected `{words}` in `{error}`");
    assert!(error.len() < 1000, "{} bytes", error.len());
}

#[test]
fn every_name_of_a_factor_is_known() {
    for (down, up, name) in [
        ("lora_unet_a_b.lora_down.weight", "lora_unet_a_b.lora_up.weight", "lora_unet_a_b"),
        ("lora_te1_a.lora_down.weight", "lora_te1_a.lora_up.weight", "lora_te1_a"),
        ("lycoris_a.lora_down.weight", "lycoris_a.lora_up.weight", "lycoris_a"),
        (
            "diffusion_model.a.0.lora_A.weight",
            "diffusion_model.a.0.lora_B.weight",
            "diffusion_model.a.0",
        ),
        (
            "transformer.a.lora_A.default.weight",
            "transformer.a.lora_B.default.weight",
            "transformer.a",
        ),
        ("unet.a.lora.down.weight", "unet.a.lora.up.weight", "unet.a"),
        (
            "text_encoder.q_proj.lora_linear_layer.down.weight",
            "text_encoder.q_proj.lora_linear_layer.up.weight",
            "text_encoder.q_proj",
        ),
        (
            "unet.attn1.processor.to_q_lora.down.weight",
            "unet.attn1.processor.to_q_lora.up.weight",
            "unet.attn1.to_q",
        ),
        (
            "attn1.processor.to_out_lora.down.weight",
            "attn1.processor.to_out_lora.up.weight",
            "attn1.to_out.0",
        ),
        ("_orig_mod.a.lora_A.weight", "_orig_mod.a.lora_B.weight", "a"),
        (
            "lora_unet__orig_mod_a.lora_down.weight",
            "lora_unet__orig_mod_a.lora_up.weight",
            "lora_unet_a",
        ),
    ] {
        let read = file(&[(down, "F16", &[2, 3]), (up, "F16", &[5, 2])], &[]);
        let read = StateDict::from_bytes(&read).unwrap_or_else(|error| panic!("{down}: {error}"));
        let names: Vec<_> = read.modules.keys().map(String::as_str).collect();
        assert_eq!(names, [name]);
        let module = &read.modules[name];
        assert_eq!(
            (module.rank(), module.out_features(), module.in_features()),
            (2, 5, 3),
            "{down}"
        );
    }
}

/// What each type of alpha gives, for rank 3.
#[test]
fn the_scale_is_alpha_over_the_rank() {
    let pair: [TensorOf<'_>; 2] =
        [("m.lora_down.weight", "F32", &[3, 4]), ("m.lora_up.weight", "F32", &[5, 3])];
    let bf16 = half::bf16::from_f32(1.3);
    for (dtype, bytes, alpha) in [
        (Dtype::F32, 1.3f32.to_le_bytes().to_vec(), f64::from(1.3f32)),
        (Dtype::F64, 1.3f64.to_le_bytes().to_vec(), 1.3),
        (Dtype::BF16, bf16.to_le_bytes().to_vec(), f64::from(bf16.to_f32())),
        (
            Dtype::F16,
            half::f16::from_f32(0.1).to_le_bytes().to_vec(),
            f64::from(half::f16::from_f32(0.1).to_f32()),
        ),
        (Dtype::I64, 16i64.to_le_bytes().to_vec(), 16.0),
        (Dtype::I32, (-2i32).to_le_bytes().to_vec(), -2.0),
    ] {
        let read = StateDict::from_bytes(&file(&pair, &[("m.alpha", dtype, bytes)])).unwrap();
        assert_eq!(read.modules["m"].scale, (alpha / 3.0) as f32, "{dtype:?}");
        // Written, it is the same to the last bit.
        assert_eq!(StateDict::from_bytes(&read.to_bytes().unwrap()).unwrap(), read);
    }
    assert_eq!(
        StateDict::from_bytes(&file(&pair, &[])).unwrap().modules["m"].scale,
        1.0,
        "no alpha"
    );

    let (dtype, bytes) = f32s(0.0);
    refused(
        &file(&pair, &[("m.alpha", dtype, bytes)]),
        "module `m`: alpha is 0, which kohya and LyCORIS take",
    );
    for wrong in [f32::NAN, f32::INFINITY] {
        let (dtype, bytes) = f32s(wrong);
        refused(
            &file(&pair, &[("m.alpha", dtype, bytes)]),
            "tensor `m.alpha`: expected a finite number, got",
        );
    }
    let huge = (Dtype::F64, 1e300f64.to_le_bytes().to_vec());
    refused(
        &file(&pair, &[("m.alpha", huge.0, huge.1)]),
        "module `m`: scale: expected a finite number",
    );
    refused(
        &file(&pair, &[("m.alpha", Dtype::U8, vec![1])]),
        "tensor `m.alpha`: expected a number, got U8",
    );
    let two: TensorOf<'_> = ("m.alpha", "F32", &[2]);
    refused(&file(&[pair[0], pair[1], two], &[]), "tensor `m.alpha`: expected one number, got [2]");
    refused(
        &file(&[], &[("m.alpha", Dtype::F32, f32s(1.0).1)]),
        "module `m`: alpha without factors",
    );
    let alone: TensorOf<'_> = ("m.dora_scale", "F32", &[4, 1]);
    refused(&file(&[alone], &[]), "module `m`: dora_scale without factors");
}

/// Of two full factors LyCORIS and ComfyUI take 1 for the scale whatever alpha is, and of one alpha / r.
#[test]
fn lokr_of_two_full_factors_has_no_alpha() {
    let full: [TensorOf<'_>; 2] = [("m.lokr_w1", "F32", &[2, 3]), ("m.lokr_w2", "F32", &[5, 7])];
    for alpha in [0.0, 16.0] {
        let (dtype, bytes) = f32s(alpha);
        let read = StateDict::from_bytes(&file(&full, &[("m.alpha", dtype, bytes)])).unwrap();
        let module = &read.modules["m"];
        assert_eq!((module.scale, module.rank(), module.inner_rank()), (1.0, 0, 0));
        assert_eq!((module.out_features(), module.in_features()), (10, 21));
    }
    let low: [TensorOf<'_>; 3] = [
        ("m.lokr_w1", "F32", &[2, 3]),
        ("m.lokr_w2_a", "F32", &[5, 4]),
        ("m.lokr_w2_b", "F32", &[4, 7]),
    ];
    let left: [TensorOf<'_>; 3] = [
        ("m.lokr_w1_a", "F32", &[2, 4]),
        ("m.lokr_w1_b", "F32", &[4, 3]),
        ("m.lokr_w2", "F32", &[5, 7]),
    ];
    for (tensors, inner) in [(&low, 8), (&left, 0)] {
        let (dtype, bytes) = f32s(2.0);
        let read = StateDict::from_bytes(&file(tensors, &[("m.alpha", dtype, bytes)])).unwrap();
        let module = &read.modules["m"];
        assert_eq!((module.scale, module.rank(), module.inner_rank()), (0.5, 4, inner));
    }
    // A scale beside them can only be folded in.
    let random = Random::new(1);
    let [w1, w2] =
        [(2, 3), (5, 7)].map(|(rows, cols)| Side::Full(random.factor(rows, cols, DType::Bf16)));
    let module = Module::lokr(w1, w2, 0.3).unwrap();
    let error =
        StateDict::new([("m".into(), module.clone())]).unwrap().to_bytes().unwrap_err().to_string();
    assert!(
        error.contains("no scale for LoKr of two full factors, got 0.3: Module::fold_scale"),
        "{error}"
    );
    StateDict::new([("m".into(), module.fold_scale().unwrap())]).unwrap().to_bytes().unwrap();
}

/// diffusers keeps PEFT's settings of each component in the header.
#[test]
fn diffusers_settings_give_the_scale() {
    let pair: [TensorOf<'_>; 4] = [
        ("unet.a.lora_A.weight", "F32", &[4, 3]),
        ("unet.a.lora_B.weight", "F32", &[2, 4]),
        ("unet.b.lora_A.weight", "F32", &[2, 3]),
        ("unet.b.lora_B.weight", "F32", &[2, 2]),
    ];
    let with = |settings: &Value| {
        let plain = file(&pair, &[]);
        let len = u64::from_le_bytes(plain[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&plain[8..8 + len]).unwrap();
        header["__metadata__"] =
            json!({"format": "pt", "lora_adapter_metadata": settings.to_string()});
        let data = plain.len() - 8 - len;
        with_header(&header.to_string(), data)
    };
    let settings = json!({
        "unet.peft_type": "LORA", "unet.r": 4, "unet.lora_alpha": 12, "unet.use_rslora": false,
        "unet.rank_pattern": {"b": 2}, "unet.alpha_pattern": {"b": 1}, "unet.task_type": null,
    });
    let read = StateDict::from_bytes(&with(&settings)).unwrap();
    assert_eq!((read.modules["unet.a"].scale, read.modules["unet.b"].scale), (3.0, 0.5));
    let mut changed = settings.clone();
    changed["unet.use_rslora"] = json!(true);
    assert_eq!(StateDict::from_bytes(&with(&changed)).unwrap().modules["unet.a"].scale, 6.0);
    for (field, value, words) in [
        (
            "unet.r",
            json!(3),
            "metadata `lora_adapter_metadata`: unet: expected LoRA of rank 3 at `a`, got LoRA of rank 4",
        ),
        ("unet.peft_type", json!("LOHA"), "metadata `lora_adapter_metadata`: unet: use_rslora"),
        ("unet.lora_bias", json!(true), "unet: lora_bias: true is not supported"),
        ("r", json!(3), "`r`: expected a component's name before it"),
    ] {
        let mut changed = settings.clone();
        changed[field] = value;
        if field == "unet.peft_type" {
            changed["unet.use_rslora"] = json!(true);
        }
        refused(&with(&changed), words);
    }
}

#[test]
fn what_is_not_served_is_refused_by_its_own_name() {
    let pair: [TensorOf<'_>; 2] =
        [("m.lora_down.weight", "F32", &[2, 3]), ("m.lora_up.weight", "F32", &[4, 2])];
    for (name, words) in [
        ("m.oft_blocks", "OFT or BOFT"),
        ("m.oft_diag", "OFT or BOFT"),
        ("m.rescale", "OFT's rescaling"),
        ("m.boft_R", "BOFT"),
        ("m.a1.weight", "GLoRA"),
        ("m.b2.weight", "GLoRA"),
        ("m.bm.weight", "GLoRA"),
        ("m.lambda_layer", "T-LoRA"),
        ("m.q_layer.weight", "T-LoRA"),
        ("m.p_layer.weight", "T-LoRA"),
        ("m.diff", "`diff`"),
        ("m.diff_b", "`diff_b`"),
        ("m.w_norm", "`w_norm`"),
        ("m.b_norm", "`b_norm`"),
        ("m.set_weight", "`set_weight`"),
        ("m.reshape_weight", "`reshape_weight`"),
        ("m.on_input", "IA³"),
        ("m.scalar", "save_weights"),
        ("m.lokr_t1", "a core on LoKr's w1"),
        ("m.bias_values", "a sparse bias"),
        ("m.lora_B.bias", "a bias on lora_B"),
        ("m.lora_E", "AdaLoRA"),
        ("bundle_emb.x.string_to_param.*", "an embedding beside the adapter"),
        ("m.lora_A", "loralib, LitGPT or Mochi"),
        ("m.lora_b", "MLX"),
        ("base_model.model.m.lora_A.weight", "read the folder with peft::AdapterFile"),
        ("base_model.model.m.hada_w1_a", "read the folder with peft::AdapterFile"),
        ("m.weight", "expected a name that ends as those of kohya"),
        ("lora_down.weight", "expected a name that ends as those of kohya"),
        (".lora_down.weight", "names no module"),
        ("", "expected a name that ends as those of kohya"),
    ] {
        let tensor: TensorOf<'_> = (name, "F32", &[2, 2]);
        refused(&file(&[pair[0], pair[1], tensor], &[]), words);
        refused(&file(&[tensor], &[]), &format!("tensor `{name}`"));
    }
}

#[test]
fn factors_that_do_not_fit_are_refused_by_module() {
    let table: &[(&[TensorOf<'_>], &str)] = &[
        (&[("m.lora_down.weight", "F32", &[2, 3])], "module `m`: lora_up.weight is missing"),
        (&[("m.lora_up.weight", "F32", &[2, 3])], "module `m`: lora_down.weight is missing"),
        (
            &[("m.lora_down.weight", "F32", &[2, 3]), ("m.lora_up.weight", "F32", &[4, 5])],
            "module `m`: lora_A has rank 2, lora_B rank 5; expected one rank",
        ),
        (
            &[("m.lora_down.weight", "F64", &[2, 3]), ("m.lora_up.weight", "F32", &[4, 2])],
            "tensor `m.lora_down.weight`: expected F32, F16 or BF16, got F64; convert it",
        ),
        (
            &[("m.lora_down.weight", "F32", &[6]), ("m.lora_up.weight", "F32", &[4, 2])],
            "expected two dimensions, got [6]: a part of ZeRO-3",
        ),
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3, 3, 3, 3]),
                ("m.lora_up.weight", "F32", &[4, 2]),
            ],
            "convolutions in three dimensions are not supported",
        ),
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3, 3, 3]),
                ("m.lora_up.weight", "F32", &[4, 2, 3, 1]),
            ],
            "tensor `m.lora_up.weight`: expected two dimensions, got [4, 2, 3, 1]",
        ),
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3, 1, 1]),
                ("m.lora_mid.weight", "F32", &[2, 3, 3, 3]),
                ("m.lora_up.weight", "F32", &[4, 2, 1, 1]),
            ],
            "module `m`: expected a core of [2, 2·taps], got",
        ),
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3]),
                ("m.lora_up.weight", "F32", &[4, 2]),
                ("m.lora_A.weight", "F32", &[2, 3]),
            ],
            "its module has this factor twice",
        ),
        (
            &[("_orig_mod.m.lora_up.weight", "F32", &[4, 2]), ("m.lora_up.weight", "F32", &[4, 2])],
            "its module has this factor twice",
        ),
        // Several methods in one module.
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3]),
                ("m.lora_up.weight", "F32", &[4, 2]),
                ("m.hada_w1_a", "F32", &[4, 2]),
            ],
            "module `m`: factors of LoRA and of LoHa: no method has both",
        ),
        (
            &[("m.lokr_w1", "F32", &[2, 3]), ("m.hada_w1_a", "F32", &[4, 2])],
            "module `m`: factors of LoHa and of LoKr: no method has both",
        ),
        // LoHa.
        (
            &[
                ("m.hada_w1_a", "F32", &[4, 2]),
                ("m.hada_w1_b", "F32", &[2, 3]),
                ("m.hada_w2_a", "F32", &[4, 2]),
            ],
            "module `m`: hada_w2_b is missing",
        ),
        (
            &[
                ("m.hada_w1_a", "F32", &[4, 2]),
                ("m.hada_w1_b", "F32", &[2, 3]),
                ("m.hada_w2_a", "F32", &[4, 3]),
                ("m.hada_w2_b", "F32", &[3, 3]),
            ],
            "module `m`: expected two sides of one rank and shape, got w1a [4, 2]",
        ),
        (
            &[
                ("m.hada_w1_a", "F32", &[2, 4]),
                ("m.hada_w1_b", "F32", &[2, 3]),
                ("m.hada_w2_a", "F32", &[2, 4]),
                ("m.hada_w2_b", "F32", &[2, 3]),
                ("m.hada_t1", "F32", &[2, 2, 3, 3]),
            ],
            "module `m`: hada_t2 is missing",
        ),
        (
            &[
                ("m.hada_w1_a", "F32", &[2, 4]),
                ("m.hada_w1_b", "F32", &[2, 3]),
                ("m.hada_w2_a", "F32", &[2, 4]),
                ("m.hada_w2_b", "F32", &[2, 3]),
                ("m.hada_t1", "F32", &[2, 2, 3, 1]),
                ("m.hada_t2", "F32", &[2, 2, 1, 3]),
            ],
            "expected two cores of one kernel, got [3, 1] and [1, 3]",
        ),
        // LoKr.
        (&[("m.lokr_w1", "F32", &[2, 3])], "module `m`: lokr_w2_a is missing"),
        (
            &[
                ("m.lokr_w1", "F32", &[2, 3]),
                ("m.lokr_w1_a", "F32", &[2, 1]),
                ("m.lokr_w2", "F32", &[2, 3]),
            ],
            "module `m`: lokr_w1 and lokr_w1_a both: take one out",
        ),
        (
            &[
                ("m.lokr_w1", "F32", &[2, 3]),
                ("m.lokr_w2", "F32", &[2, 3]),
                ("m.lokr_t2", "F32", &[2, 2, 3, 3]),
            ],
            "a core beside a low-rank w2 alone, got w1 [2, 3]",
        ),
        (
            &[
                ("m.lokr_w1_a", "F32", &[2, 3]),
                ("m.lokr_w1_b", "F32", &[3, 2]),
                ("m.lokr_w2_a", "F32", &[2, 1]),
                ("m.lokr_w2_b", "F32", &[1, 3]),
            ],
            "expected low-rank sides of one rank",
        ),
        // DoRA.
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3]),
                ("m.lora_up.weight", "F32", &[4, 2]),
                ("m.dora_scale", "F32", &[1, 3]),
            ],
            "tensor `m.dora_scale`: [1, 3] scales the inputs, not the 4 outputs",
        ),
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3]),
                ("m.lora_up.weight", "F32", &[4, 2]),
                ("m.dora_scale", "F32", &[4]),
            ],
            "tensor `m.dora_scale`: expected a magnitude for each of 4 outputs, got [4]",
        ),
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3]),
                ("m.lora_up.weight", "F32", &[4, 2]),
                ("m.lora_magnitude_vector", "F32", &[3]),
            ],
            "expected a magnitude for each of 4 outputs, got [3]",
        ),
        (
            &[
                ("m.lora_down.weight", "F32", &[2, 3]),
                ("m.lora_up.weight", "F32", &[4, 2]),
                ("m.lora_magnitude_vector", "F32", &[4]),
                ("m.dora_scale", "F32", &[4, 1]),
            ],
            "module `m`: dora_scale and lora_magnitude_vector both",
        ),
    ];
    for (tensors, words) in table {
        refused(&file(tensors, &[]), words);
    }
    refused(&file(&[], &[]), "no tensor in it");
}

#[test]
fn damaged_and_foreign_files_are_told() {
    let good = file(&[("m.lokr_w1", "F32", &[2, 3]), ("m.lokr_w2", "F32", &[2, 3])], &[]);
    prefixes(&good, |part| StateDict::from_bytes(part).is_err());
    refused(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer");
    refused(b"\x80\x02}q\x00X\x03\x00\x00\x00abcdef", "torch.save");
    refused(b"{\"peft_type\": \"LORA\"}", "JSON, not tensors");
    let long = "x".repeat(60_000);
    refused(&model(&[(&format!("{long}.oft_blocks"), "F32", &[1, 1])]), "OFT");
    refused(&model(&[(&format!("{long}.lokr_w1"), "F32", &[1, 1])]), "lokr_w2_a is missing");
    let missing = StateDict::read("no/such/file.safetensors").unwrap_err().to_string();
    assert!(missing.contains("no/such/file.safetensors"), "{missing}");
    // A list where texts by name belong.
    refused(&with_header(r#"{"__metadata__":[1]}"#, 0), "an object of texts");
}

/// Factors of any size that multiply to more than an address holds.
#[test]
fn sizes_that_only_multiply_are_no_allocation() {
    let of = |rows, cols| Factor::new(rows, cols, DType::Bf16, &vec![0.0; rows * cols]).unwrap();
    let (tall, wide) = (|| of(1 << 14, 1), || of(1, 1 << 14));
    let module = Module::lokr(Side::Full(of(1 << 14, 1)), Side::Low(tall(), wide()), 1.0).unwrap();
    assert_eq!((module.out_features(), module.inner_rank()), (1 << 28, 1 << 14));
    let (error, memory) = super::memory::measured(|| module.to_lora().unwrap_err().to_string());
    assert!(error.contains("expected an inner rank of at most 4096, got 16384"), "{error}");
    assert!(memory.peak < 1 << 16, "{memory:?}");
}

#[test]
fn modules_made_here_are_checked() {
    let of = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]).unwrap();
    let reason = |module: fused_lora::Result<Module>| module.unwrap_err().to_string();
    let lora = || Module::lora(of(2, 18), of(4, 2), 1.0);
    assert!(
        reason(Module::lora(of(2, 3), of(4, 3), 1.0)).contains("lora_A has rank 2, lora_B rank 3")
    );
    assert!(
        reason(Module::lora(of(2, 3), of(4, 2), f32::NAN)).contains("expected a finite number")
    );
    assert!(
        reason(lora().unwrap().with_magnitude(of(4, 1)))
            .contains("magnitude: expected [1, 4], got [4, 1]")
    );
    let conv = |kernel: &[usize], core: Option<Factor>| {
        Module::new(Factors::Lora { a: of(2, 18), b: of(4, 2), core }, 1.0, kernel)
    };
    assert_eq!(conv(&[3, 3], None).unwrap().kernel, [3, 3]);
    for (kernel, core, words) in [
        (&[4, 3][..], None, "kernel: [4, 3] does not divide a row of 18 elements"),
        (&[0, 3], None, "kernel: [0, 3] does not divide"),
        (&[1, 1, 1], None, "kernel: [1, 1, 1] does not divide"),
        (&[usize::MAX, 2], None, "does not divide"),
        (&[], Some(of(2, 18)), "kernel: [] does not divide a core of 9 elements"),
        (&[3, 1], Some(of(2, 18)), "kernel: [3, 1] does not divide a core of 9 elements"),
        (&[3, 3], Some(of(2, 17)), "expected a core of [2, 2·taps]"),
    ] {
        let error = reason(conv(kernel, core));
        assert!(error.contains(words), "{kernel:?}: {error}");
    }
    let named = |name: &str| (name.to_owned(), lora().unwrap());
    assert!(StateDict::new([named("")]).is_err());
    assert!(
        StateDict::new([named("m"), named("m")]).unwrap_err().to_string().contains("given twice")
    );
    assert!(
        StateDict::new([]).unwrap().to_bytes().unwrap_err().to_string().contains("no module in it")
    );
    let mut zero = lora().unwrap();
    zero.scale = 0.0;
    let error = StateDict::new([("m".into(), zero)]).unwrap().to_bytes().unwrap_err().to_string();
    assert!(error.contains("a scale of 0"), "{error}");
    assert_eq!(lora().unwrap().method(), Method::Lora);
    for (module, words) in [
        (Module::loha([of(4, 2), of(2, 3)], [of(4, 2), of(2, 3)], 1.0), "got LoHa"),
        (Module::lokr(Side::Full(of(4, 2)), Side::Full(of(2, 3)), 1.0), "got LoKr"),
        (lora().unwrap().with_magnitude(of(1, 4)), "got DoRA"),
        (conv(&[3, 3], Some(of(2, 18))), "got LoCon with a Tucker core"),
    ] {
        let error = module.unwrap().plain().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
