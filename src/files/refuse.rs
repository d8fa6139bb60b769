//! What an adapter file may hold that none of the methods here is: each by its own name, with what to do about it.
//! Asked by `state_dict` and, for PEFT's folders, by `peft::foreign`.

/// Where in a tensor's name a mark stands.
pub(super) enum At {
    Begin,
    End,
    Anywhere,
}
use At::{Anywhere, Begin, End};

pub(super) const MERGE: &str =
    "merge it into the base model with the library that wrote it, or train LoRA, LoHa or LoKr";
const UNMERGED: &str = "merge it into the base model with the library that wrote it";
const RENAME: &str =
    "rename its tensors to `<module>.lora_down.weight` and `<module>.lora_up.weight`";

/// Place, mark, what it is, what to do.
pub(super) type Row = (At, &'static str, &'static str, &'static str);

/// Methods and parts that change the formula, whatever the layout.
pub(super) const METHODS: &[Row] = &[
    (Anywhere, ".token_adapter.", "PEFT's trainable tokens are not supported", MERGE),
    (Anywhere, "trainable_tokens_", "PEFT's trainable tokens are not supported", MERGE),
    // LyCORIS tells BOFT from OFT by the shape of the same tensor.
    (Anywhere, ".oft_", "a block of OFT or BOFT is not supported", MERGE),
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
];

/// Beside them, what files of one piece hold.
const STATE_DICTS: &[Row] = &[
    (
        Begin,
        "base_model.model.",
        "PEFT's layout, whose alpha is in adapter_config.json",
        "read the folder with peft::AdapterFile",
    ),
    (End, ".rescale", "OFT's rescaling is not supported", MERGE),
    (End, ".lambda_layer", "T-LoRA's ranks depend on the time step: not supported", MERGE),
    (End, ".q_layer.weight", "a factor of T-LoRA is not supported", MERGE),
    (End, ".p_layer.weight", "a factor of T-LoRA is not supported", MERGE),
    (End, ".a1.weight", "a factor of GLoRA, whose ΔW depends on w, is not supported", MERGE),
    (End, ".a2.weight", "a factor of GLoRA, whose ΔW depends on w, is not supported", MERGE),
    (End, ".b1.weight", "a factor of GLoRA, whose ΔW depends on w, is not supported", MERGE),
    (End, ".b2.weight", "a factor of GLoRA, whose ΔW depends on w, is not supported", MERGE),
    (End, ".bm.weight", "a factor of GLoRA, whose ΔW depends on w, is not supported", MERGE),
    (End, ".diff", "a whole difference of a weight (`diff`) is no adapter", UNMERGED),
    (End, ".diff_b", "a difference of a bias (`diff_b`) is no adapter", UNMERGED),
    (End, ".w_norm", "a difference of a norm's weight (`w_norm`) is no adapter", UNMERGED),
    (End, ".b_norm", "a difference of a norm's bias (`b_norm`) is no adapter", UNMERGED),
    (
        End,
        ".set_weight",
        "a weight that replaces the base's (`set_weight`) is no adapter",
        UNMERGED,
    ),
    (
        End,
        ".reshape_weight",
        "the base's weight is padded (`reshape_weight`): not supported",
        UNMERGED,
    ),
    (
        End,
        ".scalar",
        "a scalar that LyCORIS has not folded into a factor",
        "save it with save_weights",
    ),
    (End, ".lokr_t1", "a core on LoKr's w1, which no library writes, is not supported", UNMERGED),
    (Anywhere, ".bias_", "a sparse bias of an old LyCORIS is not supported", UNMERGED),
    (Begin, "bundle_emb.", "an embedding beside the adapter is not supported", "take it out"),
    (
        End,
        ".lora_A",
        "without `.weight` a factor of loralib, LitGPT or Mochi, and no alpha",
        RENAME,
    ),
    (
        End,
        ".lora_B",
        "without `.weight` a factor of loralib, LitGPT or Mochi, and no alpha",
        RENAME,
    ),
    (End, ".lora_a", "MLX' layout, whose factors are transposed", RENAME),
    (End, ".lora_b", "MLX' layout, whose factors are transposed", RENAME),
    (End, ".bias", "a bias is no adapter", UNMERGED),
];

/// The first of the rows that the name is of, in words.
pub(super) fn find<'a>(name: &str, mut rows: impl Iterator<Item = &'a Row>) -> Option<String> {
    let found = rows.find(|(at, mark, ..)| match at {
        Begin => name.starts_with(mark),
        End => name.ends_with(mark),
        Anywhere => name.contains(mark),
    });
    found.map(|(_, _, what, remedy)| format!("{what}; {remedy}"))
}

/// Why a tensor of a file of one piece is none of an adapter's that is served.
pub(super) fn state_dict(name: &str) -> String {
    find(name, METHODS.iter().chain(STATE_DICTS)).unwrap_or_else(|| {
        "expected a name that ends as those of kohya, LyCORIS, ComfyUI or diffusers do \
         (`.lora_down.weight`, `.hada_w1_a`, `.lokr_w1`, `.alpha`, …): it is no part of an adapter known \
         here; take it out, or save it again with one of these"
            .into()
    })
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
    (b"GGUF", "a GGUF file: convert it to safetensors"),
    (b"<", "a web page, not the file itself: download it again"),
    (b"{", "JSON, not tensors: are two files exchanged?"),
];

/// The reason for a file that could not be read at all, unless it is known by how it begins. `own`: how the
/// right file begins.
pub(super) fn known(file: &[u8], reason: String, own: u8) -> String {
    let pickle = matches!(file, [0x80, 2..=5, ..]);
    let begin = if pickle { b"PK\x03\x04" } else { file };
    let found = FILES.iter().find(|(mark, _)| begin.starts_with(mark));
    let found = found.filter(|_| file.first() != Some(&own));
    found.map_or(reason, |(_, what)| (*what).to_owned())
}
