//! What a tensor's name says: the factor of a module, or a weight that PEFT saves beside the adapter.
//! Called by `read` for every tensor.

use super::work::Work;
use super::{PREFIX, foreign, shown};

/// What a tensor is.
pub(super) enum Role<'a> {
    /// lora_A (0) or lora_B (1) of the module at this path.
    Factor(&'a str, usize),
    /// A whole weight of the base model, by its name there.
    Whole(&'a str),
}

/// Input embeddings and output layers of transformers' models, by the last part of their path. PEFT saves
/// them unasked (`save_embedding_layers="auto"`) where the vocabulary was resized or one is a
/// target.
const EMBEDDINGS: &[&str] = &[
    "embed_tokens",
    "lm_head",
    "wte",
    "word_embeddings",
    "embed_in",
    "embed_out",
    "shared",
    "tok_embeddings",
    "embeddings",
    "embedding",
    "word_embedding",
    "embed",
    "tokens_embed",
    "output",
    "output_layer",
    "decoder",
    "proj_out",
];

/// `saved`: the names in `modules_to_save`, and for each whether it has met a tensor.
pub(super) fn role<'a>(
    name: &'a str,
    saved: &mut [(String, bool)],
    work: &mut Work,
) -> Result<Role<'a>, String> {
    let refuse = |why: &str| Err(format!("tensor `{}`: {why}", shown(name)));
    if name.contains('\n') {
        return refuse("a line break in a name, which no module has");
    }
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return refuse(&foreign::tensor(name).unwrap_or_else(|| {
            format!(
                "expected a name that begins with `{PREFIX}`: save it with PEFT's save_pretrained, or \
                 put that before all names"
            )
        }));
    };
    let after = rest.rsplit_once(".lora_").or(rest.strip_prefix("lora_").map(|of| ("", of)));
    if let Some((path, suffix)) = after
        && let Some(which) = ["A", "B"].iter().position(|letter| suffix.starts_with(letter))
        && let Some(adapter) = suffix[1..].strip_suffix(".weight")
    {
        // Wrappers may stand before a factor too.
        let marks = ["_orig_mod.", "_wrapped_module.", PREFIX];
        if marks.iter().any(|mark| path.contains(mark))
            && let Some(known) = foreign::tensor(name)
        {
            return refuse(&known);
        }
        return match adapter {
            _ if path.is_empty() => refuse("names no module"),
            // With the adapter's name in it the tensor comes from a raw state dict.
            "" | ".default" => Ok(Role::Factor(path, which)),
            _ => match adapter.strip_prefix('.') {
                Some(adapter) => refuse(&format!(
                    "expected lora_A.weight or lora_B.weight, got the adapter's name `{}` in between: \
                     save that adapter alone (save_pretrained with selected_adapters), or take the \
                     name out",
                    shown(adapter)
                )),
                None => refuse("expected lora_A.weight or lora_B.weight"),
            },
        };
    }
    // PEFT takes its wrappers out of the names when it saves.
    let wrapped = [".modules_to_save.", ".original_module."].iter().any(|mark| rest.contains(mark));
    work.spend(saved.len().saturating_mul(rest.len()))?;
    let mut whole = false;
    for (module, met) in saved.iter_mut().filter(|_| !wrapped) {
        // As PEFT finds them: modules whose path ends with it.
        let begins = |at: usize| rest[at + module.len()..].starts_with('.');
        if rest.match_indices(module.as_str()).any(|(at, _)| begins(at)) {
            (whole, *met) = (true, true);
        }
    }
    if whole {
        return Ok(Role::Whole(rest));
    }
    if let Some(known) = foreign::tensor(name) {
        return refuse(&known);
    }
    if rest.contains(".lora_") {
        return refuse("expected lora_A.weight or lora_B.weight");
    }
    let module = rest.strip_suffix(".weight").or(rest.strip_suffix(".bias"));
    let module = module.map(|module| module.strip_suffix(".base_layer").ok_or(module));
    let whole = match module {
        // A target's own frozen weight.
        Some(Ok(_)) => true,
        Some(Err(module)) => EMBEDDINGS.contains(&module.rsplit('.').next().unwrap_or(module)),
        None => false,
    };
    match whole {
        true => Ok(Role::Whole(rest)),
        false => refuse(
            "belongs to no lora_A or lora_B, and neither modules_to_save nor a resized embedding \
             explains it: name its module in modules_to_save, or take the tensor out",
        ),
    }
}
