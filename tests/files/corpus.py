#!/usr/bin/env python3
"""Small adapters as the real PEFT saves them, for tests/files/corpus.rs and mutations.rs (by hand).

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 peft==0.21.2 transformers==5.24.0 safetensors==0.8.0
    venv/bin/python tests/files/corpus.py

Writes corpus/<case>/ (the two files) and corpus/expected.json: for each case what PEFT made of it,
module: [rank, scale], and the linear layers of the base model.
"""

import json
import pathlib
import shutil
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

HERE = pathlib.Path(__file__).resolve().parent / "corpus"
FILES = "adapter_model.safetensors", "adapter_config.json"
QK = r".*\.layers\.3\..*(q_proj|k_proj)$"


def full_paths(suffixes, ranks):
    paths = [f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in suffixes]
    return dict(zip(paths, ranks))


CASES = {
    "plain": dict(target_modules=["q_proj", "v_proj"]),
    "more_names_than_paths": dict(target_modules=["self_attn.q_proj", "q_proj", "down_proj"]),
    "full_paths": dict(
        target_modules=["q_proj", "v_proj"],
        rank_pattern=full_paths(["q_proj", "v_proj"], [1, 2, 3, 4]),
        alpha_pattern=full_paths(["q_proj", "v_proj"], [2, 4.5, 6, 8]),
    ),
    "expressions": dict(
        layers=4, r=8, lora_alpha=16, target_modules=["q_proj", "k_proj"], rank_pattern={QK: 32}, alpha_pattern={QK: 128}
    ),
    "regex_target": dict(target_modules=r".*\.(q|k)_proj", exclude_modules=r".*\.0\..*"),
    "regex_case": dict(target_modules=r"(?i)model\.LAYERS\.\d+\.mlp\.(?:up|down)_proj"),
    "excluded": dict(target_modules=["q_proj", "v_proj", "up_proj"], exclude_modules=["layers.1.self_attn.q_proj"]),
    "excluded_name": dict(target_modules=["q_proj", "v_proj"], exclude_modules=["v_proj"]),
    "layers": dict(layers=4, target_modules=["q_proj", "o_proj"], layers_to_transform=[1, 3], layers_pattern="layers"),
    "one_layer": dict(layers=3, target_modules=["gate_proj"], layers_to_transform=2),
    "rslora": dict(r=4, lora_alpha=6, target_modules=["o_proj"], use_rslora=True, init_lora_weights="Gaussian"),
    "all_linear": dict(target_modules="all-linear", init_lora_weights="orthogonal"),
    "mica": dict(target_modules=["q_proj"], init_lora_weights="mica"),
    "head": dict(kind=LlamaForSequenceClassification, target_modules=["q_proj"], task_type="SEQ_CLS"),
    "output_layer": dict(target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"),
    "resized": dict(target_modules=["v_proj"], save_embedding_layers=True),
    "saved_norm": dict(target_modules=["v_proj"], modules_to_save=["input_layernorm"]),
}


def base(kind, layers):
    config = LlamaConfig(
        vocab_size=7,
        hidden_size=4,
        intermediate_size=6,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    torch.manual_seed(layers)
    return kind(config).to(torch.bfloat16)


def make(name, kind=LlamaForCausalLM, layers=2, save_embedding_layers="auto", **config):
    config = LoraConfig(**{"r": 2, "lora_alpha": 4, **config})
    linear = [n for n, m in base(kind, layers).named_modules() if isinstance(m, torch.nn.Linear)]
    model = get_peft_model(base(kind, layers), config, autocast_adapter_dtype=False)
    torch.manual_seed(0)
    for key, value in model.state_dict().items():
        if "lora_" in key:
            value.normal_()
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, save_embedding_layers=save_embedding_layers)
        for file in FILES:
            shutil.copy(pathlib.Path(temporary) / file, folder)
    # As PEFT reads it again.
    model = PeftModel.from_pretrained(base(kind, layers), folder)
    modules = {}
    for path, module in model.base_model.model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            modules[path] = [module.r["default"], float(module.scaling["default"])]
    return {"linear": linear, "modules": modules}


def main():
    torch.set_num_threads(1)
    expected = {name: make(name, **case) for name, case in CASES.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(of)}" for name, of in expected.items()]
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
