//! Which fields of `adapter_config.json` make of the adapter something that this crate's formula is
//! not. Asked by `config` for every field.

use super::super::Method;
use super::json::{is_off, shown};

/// Fields that make of an adapter something else than plain LoRA, unless they are switched off.
const REFUSED: &[(&str, &str)] = &[
    (
        "rank_dropout",
        "it drops rows of ΔW while training, which is not served; write 0.0 where the adapter is not trained on",
    ),
    ("use_qalora", "QALoRA pools the input; merge the adapter with PEFT"),
    ("use_bdlora", "BD-LoRA's factors are block-diagonal; merge the adapter with PEFT"),
    ("lora_bias", "lora_B has a bias; train without it, or merge the adapter with PEFT"),
    (
        "trainable_token_indices",
        "the file replaces rows of the embedding; merge the adapter with PEFT",
    ),
    ("layer_replication", "the base model's layers are repeated; merge the adapter with PEFT"),
    ("target_parameters", "bare parameters are adapted, not layers; merge the adapter with PEFT"),
    ("alora_invocation_tokens", "aLoRA is active on some tokens only; train without it"),
    ("arrow_config", "Arrow routes between adapters; read them one by one"),
    ("velora_config", "VeLoRA has another backward pass; train without it"),
    ("monteclora_config", "MonteCLoRA samples its factors; train without it"),
    ("kasa_config", "KaSA changes the frozen weight; merge the adapter with PEFT"),
    (
        "enable_lora",
        "PEFT's old MergedLinear adapts some blocks of a fused layer, with factors for each; merge the \
         adapter with the PEFT that saved it (0.3 or older)",
    ),
];

/// Fields ending in `_config` that say how the adapter was initialised or how the base model is
/// split over machines, and nothing about the formula.
const HARMLESS: &[&str] = &[
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "runtime_config",
];

/// Whether a field makes the adapter something that the formula is not.
pub(super) fn refuse(method: Method, name: &str, raw: &str) -> Result<(), String> {
    let because = |why: &str| Err(format!("{name}: {} is not supported: {why}", shown(raw)));
    match name {
        "bias" if !is_off(raw) && raw != "\"none\"" => {
            because("the file replaces biases of the model; merge the adapter with PEFT")
        }
        "init_lora_weights" => initialisation(raw),
        "use_rslora" | "use_dora" if method == Method::Lora => Ok(()),
        "use_effective_conv2d" if method != Method::Lora => Ok(()),
        "rank_dropout" if raw.parse() == Ok(0.0) => Ok(()),
        _ if is_off(raw) => Ok(()),
        _ => match REFUSED.iter().find(|(field, _)| *field == name) {
            Some((_, why)) => because(why),
            // PEFT's variants are named like this; one that is not known here may change anything.
            None if HARMLESS.contains(&name) => Ok(()),
            None if name.starts_with("use_") || name.ends_with("_config") => {
                because("an option that is not known here; where it is harmless, take it out")
            }
            None => Ok(()),
        },
    }
}

/// `init_lora_weights`: how the factors began does not matter, unless the frozen weight was changed for
/// it; PEFT repeats that change on loading.
fn initialisation(raw: &str) -> Result<(), String> {
    if serde_json::from_str::<Option<bool>>(raw).is_ok() {
        return Ok(());
    }
    let name: String = serde_json::from_str(raw).unwrap_or_default();
    let lower = name.to_lowercase();
    // PEFT's own comparisons: these two in any case, those two as they are.
    if ["gaussian", "mica"].contains(&&*lower) || ["eva", "orthogonal"].contains(&&*name) {
        return Ok(());
    }
    let changing = ["pissa", "corda", "olora", "loftq", "lora_ga"];
    let got = format!("init_lora_weights: {} is not supported", shown(raw));
    Err(match changing.iter().any(|of| lower.starts_with(of)) {
        true => format!(
            "{got}: this initialisation changes the frozen weight; save with \
             path_initial_model_for_weight_conversion, which makes plain LoRA of it"
        ),
        false => format!(
            "{got}: an initialisation that is not known here (known: true, false, gaussian, eva, \
             orthogonal, mica); where it leaves the base weight alone, write true"
        ),
    })
}
