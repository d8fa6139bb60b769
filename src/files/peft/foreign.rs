//! What strangers' folders hold instead of an adapter in PEFT's layout: each by its own name, with what to
//! do about it. Called by `names` and `read` for a tensor's name.

use super::super::refuse::At::{Anywhere, Begin, End};
use super::super::refuse::{self, Row};

const CONVERT: &str = "read it with files::StateDict, or save it with PEFT's save_pretrained";
const RAW: &str = "save it with PEFT's save_pretrained";
const RENAME: &str = "rename its tensors to `base_model.model.<module>.lora_A.weight` and `lora_B.weight`, \
                      and write alpha into adapter_config.json";
const UNWRAP: &str =
    "save the model that is inside the wrapper, or take that part out of the names";

/// Place, mark, what it is, what to do. The first that is found counts: the particular before the general.
const WRAPPERS: &[Row] = &[
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
    (Anywhere, ".modules_to_save.", "a raw state dict, with PEFT's wrappers in its names", RAW),
    (Anywhere, ".original_module.", "a raw state dict, with PEFT's wrappers in its names", RAW),
];

/// Other layouts; behind the methods, which have names of their own in all of them.
const LAYOUTS: &[Row] = &[
    (Anywhere, "dora_scale", "DoRA's magnitude by kohya, LyCORIS or ComfyUI, not PEFT's", CONVERT),
    (Anywhere, ".lora_mid", "a Tucker core (LoCon), which PEFT does not have", CONVERT),
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
    (End, ".lora_a", "MLX' layout, not PEFT's (and its factors are transposed)", RENAME),
    (End, ".lora_b", "MLX' layout, not PEFT's (and its factors are transposed)", RENAME),
    (End, ".lora_A", "the layout of loralib and LitGPT, not PEFT's", RENAME),
    (End, ".lora_B", "the layout of loralib and LitGPT, not PEFT's", RENAME),
    // Behind what has a name of its own: diffusers writes PEFT's names behind this one.
    (Begin, "transformer.", "diffusers' layout, not PEFT's", CONVERT),
];

/// What a tensor of this name is and what to do, where the name tells.
pub(super) fn tensor(name: &str) -> Option<String> {
    refuse::find(name, WRAPPERS.iter().chain(refuse::METHODS).chain(LAYOUTS))
}
