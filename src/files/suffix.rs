//! What a tensor is by the end of its name, in the layouts that keep an adapter in one file. Called by
//! `state_dict` for every tensor; PEFT's folders have `peft::names`.

/// A tensor of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Down,
    Up,
    Mid,
    HadaW1a,
    HadaW1b,
    HadaW2a,
    HadaW2b,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1a,
    LokrW1b,
    LokrW2,
    LokrW2a,
    LokrW2b,
    LokrT2,
    /// DoRA's magnitude by kohya and LyCORIS: `[N, 1, …]`, or `[1, K, …]` for one on the inputs.
    DoraScale,
    /// The same by PEFT: `[N]` or `[1, N, 1, 1]`.
    MagnitudeVector,
    Alpha,
}

/// Each part by its name in LyCORIS and in PEFT.
const NAMES: &[(Part, &str, &str)] = &[
    (Part::Down, "lora_down.weight", "lora_A.weight"),
    (Part::Up, "lora_up.weight", "lora_B.weight"),
    (Part::Mid, "lora_mid.weight", "lora_mid.weight"),
    (Part::HadaW1a, "hada_w1_a", "hada_w1_a"),
    (Part::HadaW1b, "hada_w1_b", "hada_w1_b"),
    (Part::HadaW2a, "hada_w2_a", "hada_w2_a"),
    (Part::HadaW2b, "hada_w2_b", "hada_w2_b"),
    (Part::HadaT1, "hada_t1", "hada_t1"),
    (Part::HadaT2, "hada_t2", "hada_t2"),
    (Part::LokrW1, "lokr_w1", "lokr_w1"),
    (Part::LokrW1a, "lokr_w1_a", "lokr_w1_a"),
    (Part::LokrW1b, "lokr_w1_b", "lokr_w1_b"),
    (Part::LokrW2, "lokr_w2", "lokr_w2"),
    (Part::LokrW2a, "lokr_w2_a", "lokr_w2_a"),
    (Part::LokrW2b, "lokr_w2_b", "lokr_w2_b"),
    (Part::LokrT2, "lokr_t2", "lokr_t2"),
    (Part::DoraScale, "dora_scale", "dora_scale"),
    (Part::MagnitudeVector, "lora_magnitude_vector", "lora_magnitude_vector"),
    (Part::Alpha, "alpha", "alpha"),
];

/// Whose names and shapes a tensor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// kohya's, LyCORIS' and ComfyUI's.
    Lycoris,
    Peft,
}

impl Part {
    /// Its name behind the module's.
    pub(super) fn name(self, layout: Layout) -> &'static str {
        let of = NAMES.iter().find(|(part, ..)| *part == self);
        of.map_or("", |(_, lycoris, peft)| if layout == Layout::Peft { peft } else { lycoris })
    }

    /// The part that PEFT calls so, without a suffix `.weight`.
    pub(super) fn of_peft(name: &str) -> Option<Part> {
        let bare = |of: &'static str| of.strip_suffix(".weight").unwrap_or(of);
        NAMES.iter().find(|(_, _, peft)| bare(peft) == name).map(|(part, ..)| *part)
    }
}

/// Other names: diffusers' of several ages, and PEFT's without its prefix, as ComfyUI and diffusers have them.
const OTHERS: &[(&str, Part)] = &[
    ("lora_A.weight", Part::Down),
    ("lora_B.weight", Part::Up),
    ("lora_A.default.weight", Part::Down),
    ("lora_B.default.weight", Part::Up),
    ("lora.down.weight", Part::Down),
    ("lora.up.weight", Part::Up),
    ("lora_linear_layer.down.weight", Part::Down),
    ("lora_linear_layer.up.weight", Part::Up),
    ("lora_magnitude_vector.weight", Part::MagnitudeVector),
];

/// diffusers' oldest: `attn1.processor.to_q_lora.down.weight` belongs to `attn1.to_q`.
const PROCESSOR: &[(&str, Part)] = &[
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    ("_lora.alpha", Part::Alpha),
];

/// The module's name and what the tensor is there, where the end of its name is known.
pub(super) fn part(tensor: &str) -> Option<(String, Part)> {
    let names = NAMES.iter().map(|(part, name, _)| (*name, *part));
    let module = |suffix: &str| tensor.strip_suffix(suffix)?.strip_suffix('.');
    if let Some((path, part)) = PROCESSOR.iter().find_map(|(suffix, part)| {
        Some((tensor.strip_suffix(suffix)?.rsplit_once(".processor."), *part))
    }) && let Some((block, linear)) = path
        && !linear.contains('.')
    {
        let inner = if linear == "to_out" { ".0" } else { "" };
        return Some((unwrapped(&format!("{block}.{linear}{inner}")), part));
    }
    let known = names.chain(OTHERS.iter().copied());
    known.into_iter().find_map(|(suffix, part)| Some((unwrapped(module(suffix)?), part)))
}

/// Without what `torch.compile` puts into the names of a model, written with dots or with kohya's underscores.
fn unwrapped(module: &str) -> String {
    module.replace("_orig_mod.", "").replace("_orig_mod_", "")
}
