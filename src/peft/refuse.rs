//! Which fields of `adapter_config.json` make of the adapter something that this crate's formula is
//! not. Asked by `config` for every field.

use serde_json::Value;

/// Fields that make of an adapter something else than plain LoRA, unless they are absent, null,
/// false or empty.
const REFUSED: &[(&str, &str)] = &[
    ("use_dora", "DoRA rescales every output"),
    ("use_qalora", "QALoRA pools the input"),
    ("use_bdlora", "BD-LoRA's factors are block-diagonal"),
    ("lora_bias", "lora_B has a bias"),
    ("modules_to_save", "the file replaces modules of the base model"),
    ("trainable_token_indices", "the file replaces rows of the embedding"),
    ("layer_replication", "the base model's layers are repeated"),
    ("target_parameters", "bare parameters are adapted, not layers"),
    ("alora_invocation_tokens", "aLoRA is active on some tokens only"),
    ("arrow_config", "Arrow routes between adapters"),
    ("velora_config", "VeLoRA has another backward pass"),
    ("monteclora_config", "MonteCLoRA samples its factors"),
    ("kasa_config", "KaSA changes the frozen weight"),
];

/// Fields ending in `_config` that say how the adapter was initialised or how the base model is
/// split over machines, and nothing about the formula.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "runtime_config",
];

/// Initialisations that leave the frozen weight as it is. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA
/// do not: PEFT repeats them on loading.
const INITIALISATIONS: &[&str] = &["gaussian", "eva", "orthogonal"];

/// Whether a field makes the adapter something that the formula is not.
pub(super) fn refuse(name: &str, value: &Value) -> Result<(), String> {
    let empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(of) => of.is_empty(),
        Value::Object(of) => of.is_empty(),
        _ => false,
    };
    let because = |why: &str| Err(format!("{name}: {value} is not supported: {why}"));
    match name {
        "peft_type" if value != "LORA" => because("only LORA is"),
        "bias" if !empty && value != "none" => because("the file replaces biases of the model"),
        "init_lora_weights" => match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::String(of) if INITIALISATIONS.contains(&of.as_str()) => Ok(()),
            _ => because("this initialisation changes the frozen weight"),
        },
        "use_rslora" => Ok(()),
        _ if empty => Ok(()),
        _ => match REFUSED.iter().find(|(field, _)| *field == name) {
            Some((_, why)) => because(why),
            // PEFT's variants are named like this; one that is not known here may change anything.
            None if HARMLESS.contains(&name) => Ok(()),
            None if name.starts_with("use_") || name.ends_with("_config") => {
                because("an option that is not known here")
            }
            None => Ok(()),
        },
    }
}
