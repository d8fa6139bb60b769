//! What strangers' files hold instead of a plain LoRA adapter of PEFT's: each by its own name, with what to
//! do about it. Called by `names` for a tensor's name, by `read` and `folder` for a whole file.

/// Where in a tensor's name its mark stands.
enum At {
    Begin,
    End,
    Anywhere,
}
use At::{Anywhere, Begin, End};

const MERGE: &str = "merge it into the base model with the library that wrote it, or train LoRA";
const CONVERT: &str = "save it with PEFT's save_pretrained, or rename its tensors to \
                       `base_model.model.<module>.lora_A.weight` and `lora_B.weight` and write \
                       alpha into adapter_config.json";
const UNWRAP: &str =
    "save the model that is inside the wrapper, or take that part out of the names";

/// Place, mark, what it is, what to do. The first that is found counts: the particular before the general.
const TENSORS: &[(At, &str, &str, &str)] = &[
    (
        Begin,
        "base_model.model.base_model.model.",
        "an adapter upon an adapter (PEFT's prefix twice)",
        "save from the first PeftModel (add_adapter), or take the second prefix out",
    ),
    (Anywhere, "._orig_mod.", "the model was compiled (`torch.compile`)", UNWRAP),
    (Begin, "_orig_mod.", "the model was compiled (`torch.compile`)", UNWRAP),
    (Anywhere, "_fsdp_wrapped_module.", "the model was wrapped by FSDP", UNWRAP),
    (
        Anywhere,
        "_checkpoint_wrapped_module.",
        "the model was wrapped for activation checkpoints",
        UNWRAP,
    ),
    (Begin, "module.", "the model was wrapped by DataParallel", UNWRAP),
    (Anywhere, ".modules_to_save.", "a raw state dict, with PEFT's wrappers in its names", CONVERT),
    (Anywhere, ".original_module.", "a raw state dict, with PEFT's wrappers in its names", CONVERT),
    (Anywhere, ".token_adapter.", "PEFT's trainable tokens are not supported", MERGE),
    (Anywhere, "trainable_tokens_", "PEFT's trainable tokens are not supported", MERGE),
    (Anywhere, "lora_magnitude_vector", "DoRA's magnitude is not supported", MERGE),
    (Anywhere, "dora_scale", "DoRA's magnitude (kohya, LyCORIS, ComfyUI) is not supported", MERGE),
    (Anywhere, ".hada_", "a factor of LoHa is not supported", MERGE),
    (Anywhere, ".lokr_", "a factor of LoKr is not supported", MERGE),
    (Anywhere, ".oft_", "a block of OFT is not supported", MERGE),
    (Anywhere, ".boft_", "a block of BOFT is not supported", MERGE),
    (Anywhere, "vera_A", "a shared factor of VeRA is not supported", MERGE),
    (Anywhere, "vera_B", "a shared factor of VeRA is not supported", MERGE),
    (Anywhere, ".vera_lambda", "a scale of VeRA is not supported", MERGE),
    (Anywhere, ".ia3_", "a scale of IA³ is not supported", MERGE),
    (Anywhere, ".on_input", "a scale of IA³ (LyCORIS) is not supported", MERGE),
    (Anywhere, ".lora_embedding_", "adapters of embeddings are not supported", MERGE),
    (Anywhere, ".lora_E", "a part of AdaLoRA is not supported", MERGE),
    (Anywhere, ".lora_ranknum", "a part of AdaLoRA is not supported", MERGE),
    (Anywhere, ".lora_diag", "the diagonal of KaSA is not supported", MERGE),
    (Anywhere, ".lora_mid", "a Tucker core (LoCon) is not supported", MERGE),
    (Anywhere, ".lora_B.bias", "a bias on lora_B is not supported", MERGE),
    (Anywhere, "prompt_embeddings", "PEFT's prompt tuning is not LoRA", MERGE),
    (Anywhere, "prompt_encoder", "PEFT's prompt tuning is not LoRA", MERGE),
    (Anywhere, ".adaption_", "PEFT's adaption prompts are not LoRA", MERGE),
    (Anywhere, ".fourierft_", "FourierFT is not LoRA", MERGE),
    (Anywhere, ".hra_", "HRA is not LoRA", MERGE),
    (Anywhere, "vblora_", "VB-LoRA shares its factors: not supported", MERGE),
    (Anywhere, "randlora_", "RandLoRA shares its factors: not supported", MERGE),
    (Anywhere, ".shira_", "SHiRA is not LoRA", MERGE),
    (Anywhere, ".bone_", "Bone is not LoRA", MERGE),
    (Anywhere, ".miss_", "MiSS is not LoRA", MERGE),
    (Anywhere, ".road_", "RoAd is not LoRA", MERGE),
    (Anywhere, ".c3a_", "C3A is not LoRA", MERGE),
    (Anywhere, ".delora_", "DeLoRA rescales its factors: not supported", MERGE),
    (Anywhere, ".waveft_", "WaveFT is not LoRA", MERGE),
    (Anywhere, ".ln_tuning", "LayerNorm tuning is not LoRA", MERGE),
    (Begin, "lora_unet_", "kohya's layout (sd-scripts), not PEFT's", CONVERT),
    (Begin, "lora_te", "kohya's layout (sd-scripts), not PEFT's", CONVERT),
    (Begin, "lora_transformer_", "kohya's layout (sd-scripts), not PEFT's", CONVERT),
    (Begin, "lycoris_", "LyCORIS' layout, not PEFT's", CONVERT),
    (Begin, "diffusion_model.", "ComfyUI's layout, not PEFT's", CONVERT),
    (Begin, "model.diffusion_model.", "ComfyUI's layout, not PEFT's", CONVERT),
    (Begin, "text_encoders.", "ComfyUI's layout, not PEFT's", CONVERT),
    (Begin, "unet.", "diffusers' layout, not PEFT's", CONVERT),
    (Begin, "text_encoder", "diffusers' layout, not PEFT's", CONVERT),
    (Anywhere, ".processor.", "diffusers' layout, not PEFT's", CONVERT),
    (Anywhere, ".lora_linear_layer.", "diffusers' layout, not PEFT's", CONVERT),
    (Anywhere, ".lora.down.", "diffusers' layout, not PEFT's", CONVERT),
    (Anywhere, ".lora.up.", "diffusers' layout, not PEFT's", CONVERT),
    (
        End,
        ".alpha",
        "alpha as a tensor is kohya's, ComfyUI's or diffusers' way, not PEFT's",
        CONVERT,
    ),
    (Anywhere, ".lora_down.", "kohya's names of the factors, not PEFT's", CONVERT),
    (Anywhere, ".lora_up.", "kohya's names of the factors, not PEFT's", CONVERT),
    (End, ".lora_a", "MLX' layout, not PEFT's (and its factors are transposed)", CONVERT),
    (End, ".lora_b", "MLX' layout, not PEFT's (and its factors are transposed)", CONVERT),
    (End, ".lora_A", "the layout of loralib and LitGPT, not PEFT's", CONVERT),
    (End, ".lora_B", "the layout of loralib and LitGPT, not PEFT's", CONVERT),
    // Behind what has a name of its own: diffusers writes PEFT's names behind this one.
    (Begin, "transformer.", "diffusers' layout, not PEFT's", CONVERT),
];

/// What a tensor of this name is and what to do, where the name tells.
pub(super) fn tensor(name: &str) -> Option<String> {
    let found = TENSORS.iter().find(|(at, mark, ..)| match at {
        Begin => name.starts_with(mark),
        End => name.ends_with(mark),
        Anywhere => name.contains(mark),
    });
    found.map(|(_, _, what, remedy)| format!("{what}; {remedy}"))
}

/// How files begin that lie where an adapter's should.
const FILES: &[(&[u8], &str)] = &[
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    ),
    (
        b"PK\x03\x04",
        "a file of torch.save under another name: load it with torch and save it with safetensors",
    ),
    (b"GGUF", "a GGUF file: convert it to PEFT's layout"),
    (b"<", "a web page, not the file itself: download it again"),
    (b"{", "JSON, not tensors: are the two files exchanged?"),
];

/// What a file is that is no safetensors file, or no JSON, by how it begins.
pub(super) fn file(bytes: &[u8]) -> Option<String> {
    let pickle = matches!(bytes, [0x80, 2..=5, ..]);
    let begin = if pickle { b"PK\x03\x04" } else { bytes };
    let found = FILES.iter().find(|(mark, _)| begin.starts_with(mark));
    found.map(|(_, what)| (*what).to_owned())
}
