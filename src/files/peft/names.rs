//! What a tensor's name says: the factor of a module, or a weight that PEFT saves beside the adapter.
//! Called by `read` for every tensor.

use super::super::shown;
use super::super::suffix::{Layout, Part};
use super::work::Work;
use super::{PREFIX, foreign};

/// What a tensor is.
pub(super) enum Role<'a> {
    /// A factor, or the magnitude, of the module at this path.
    Factor(&'a str, Part),
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
    if let Some((path, factor, part)) = factor(rest)
        && let Some(adapter) = adapter(part, factor)
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
            "" | "default" => Ok(Role::Factor(path, part)),
            adapter => refuse(&format!(
                "expected {}, got the adapter's name `{}` in between: save that adapter alone \
                 (save_pretrained with selected_adapters), or take the name out",
                part.name(Layout::Peft),
                shown(adapter)
            )),
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
    if [".lora_", ".hada_", ".lokr_"].iter().any(|mark| rest.contains(mark)) {
        return refuse(
            "expected a name that PEFT gives: lora_A.weight, lora_B.weight, hada_w1_a, lokr_w1, …",
        );
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
            "belongs to no factor, and neither modules_to_save nor a resized embedding \
             explains it: name its module in modules_to_save, or take the tensor out",
        ),
    }
}

/// The module's path, what stands behind it, and which factor that begins with, by the last name of PEFT's in it.
fn factor(rest: &str) -> Option<(&str, &str, Part)> {
    let marks = ["lora_", "hada_", "lokr_"];
    let begin = marks.iter().filter_map(|mark| {
        let inner = rest.rmatch_indices(mark).map(|(at, _)| at);
        inner.into_iter().find(|&at| at == 0 || rest[..at].ends_with('.'))
    });
    let at = begin.max()?;
    let (path, factor) = (rest[..at].strip_suffix('.').unwrap_or_default(), &rest[at..]);
    let part = Part::of_peft(factor.split('.').next().unwrap_or(factor))?;
    // LyCORIS' alone.
    (part != Part::Mid).then_some((path, factor, part))
}

/// What stands between the factor's name and its end; `None` where it ends otherwise.
fn adapter(part: Part, factor: &str) -> Option<&str> {
    let (_, behind) = factor.split_once('.').unwrap_or((factor, ""));
    let inner = match behind.strip_suffix("weight") {
        Some("") => Some(""),
        Some(inner) => inner.strip_suffix('.'),
        None => None,
    };
    match part {
        Part::Down | Part::Up => inner,
        // Parameters, which have no `.weight`; PEFT's magnitude had one for a while.
        _ => Some(inner.unwrap_or(behind)),
    }
}
