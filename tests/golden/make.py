#!/usr/bin/env python3
"""Reference tensors for the Rust tests, computed by the real PEFT on the CPU.

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 peft==0.21.2 safetensors==0.8.0 numpy==2.4.6
    venv/bin/python tests/golden/make.py

Writes <case>.safetensors and adapter/ next to this script. Two runs on one
machine give the same bytes; on another CPU the last bits of y, dx, da and db
may differ, because torch picks its matrix kernels by CPU.

    y = x w^T + bias + s (x a^T) b^T        s = alpha / r, or alpha / sqrt(r) with rsLoRA
    x [M,K]  w [N,K]  bias [N]  a [r,K]  b [N,r]  y, dy [M,N]
"""

import json
import pathlib
import struct
import tempfile

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16

# name, (M, K, N), r, alpha, rsLoRA, bias, dtype of x/w/bias/dy/y/dx, dtype of a/b/da/db
CASES = [
    ("f32_r1", (5, 24, 40), 1, 2, False, True, F32, F32),
    ("f32_r4", (33, 70, 51), 4, 6, False, False, F32, F32),
    ("f32_r4_rs_m1", (1, 64, 48), 4, 6, True, True, F32, F32),
    ("f32_r7", (17, 31, 29), 7, 10, False, True, F32, F32),
    ("f32_r7_rs", (19, 45, 67), 7, 3, True, False, F32, F32),
    ("f32_r16", (17, 128, 96), 16, 40, False, True, F32, F32),
    ("f32_r16_tiny", (3, 5, 2), 16, 24, False, True, F32, F32),
    ("f32_r64_rs", (64, 96, 130), 64, 12, True, True, F32, F32),
    # half-precision model, f32 adapters: PEFT's default (autocast_adapter_dtype=True)
    ("bf16_af32_r1_rs", (5, 24, 40), 1, 3, True, False, BF16, F32),
    ("bf16_af32_r4", (21, 50, 37), 4, 8, False, True, BF16, F32),
    ("bf16_af32_r7", (1, 64, 48), 7, 16, False, True, BF16, F32),
    ("bf16_af32_r16_rs", (17, 96, 64), 16, 6, True, True, BF16, F32),
    ("bf16_af32_r64", (24, 56, 72), 64, 160, False, False, BF16, F32),
    # adapters in the model's own dtype (autocast_adapter_dtype=False)
    ("bf16_abf16_r4_rs", (33, 70, 51), 4, 2, True, True, BF16, BF16),
    ("bf16_abf16_r7", (9, 33, 65), 7, 5, False, False, BF16, BF16),
    ("bf16_abf16_r16", (32, 48, 80), 16, 24, False, True, BF16, BF16),
    ("f16_af32_r4", (14, 40, 23), 4, 8, False, True, F16, F32),
    ("f16_af16_r16_rs", (16, 64, 32), 16, 12, True, False, F16, F16),
]


def write(path, tensors, meta):
    """save_file, but with sorted metadata: the library writes it in random order."""
    blob = save({k: v.detach().contiguous() for k, v in tensors.items()})
    size = struct.unpack("<Q", blob[:8])[0]
    header = {"__metadata__": dict(sorted(meta.items())), **json.loads(blob[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + size :])


class One(nn.Module):
    def __init__(self, k, n, bias, dtype):
        super().__init__()
        self.fc = nn.Linear(k, n, bias=bias, dtype=dtype)

    def forward(self, x):
        return self.fc(x)


def run(inp, r, alpha, rs, dtype, adapter_dtype):
    """One forward and backward through PEFT; returns y, dx, da, db and PEFT's scale."""
    n, k = inp["w"].shape
    config = LoraConfig(r=r, lora_alpha=alpha, use_rslora=rs, lora_dropout=0.0, target_modules=["fc"])
    base = One(k, n, "bias" in inp, dtype)
    model = get_peft_model(base, config, autocast_adapter_dtype=adapter_dtype != dtype)
    fc = model.base_model.model.fc
    a, b = fc.lora_A["default"].weight, fc.lora_B["default"].weight
    assert (a.dtype, b.dtype) == (adapter_dtype, adapter_dtype)
    with torch.no_grad():
        fc.base_layer.weight.copy_(inp["w"])
        if "bias" in inp:
            fc.base_layer.bias.copy_(inp["bias"])
        a.copy_(inp["a"])
        b.copy_(inp["b"])
    x = inp["x"].to(dtype, copy=True).requires_grad_()
    y = model(x)
    y.backward(inp["dy"].to(dtype))
    return {"y": y, "dx": x.grad, "da": a.grad, "db": b.grad}, fc.scaling["default"]


def normal(gen, std, *shape):
    return torch.randn(*shape, generator=gen, dtype=torch.float64) * std


def case(seed, name, shape, r, alpha, rs, bias, dtype, adapter_dtype):
    m, k, n = shape
    gen = torch.Generator().manual_seed(seed)
    # w and a keep unit variance, so that x w^T and the adapter's part have like size
    inp = {
        "x": normal(gen, 1.0, m, k).to(dtype),
        "w": normal(gen, k**-0.5, n, k).to(dtype),
        "a": normal(gen, k**-0.5, r, k).to(adapter_dtype),
        "b": normal(gen, 0.5 * r**-0.5, n, r).to(adapter_dtype),
        "dy": normal(gen, 0.1, m, n).to(dtype),
    }
    if bias:
        inp["bias"] = normal(gen, 0.5, n).to(dtype)
    out, scale = run(inp, r, alpha, rs, dtype, adapter_dtype)
    exact, scale64 = run(inp, r, alpha, rs, torch.float64, torch.float64)
    assert scale == scale64
    assert out["y"].dtype == out["dx"].dtype == dtype
    assert out["da"].dtype == out["db"].dtype == adapter_dtype
    meta = {
        "r": str(r),
        "lora_alpha": str(alpha),
        "use_rslora": str(rs).lower(),
        "scale": repr(float(scale)),
        **VERSIONS,
    }
    write(HERE / f"{name}.safetensors", {**inp, **out, **{k + "_f64": v for k, v in exact.items()}}, meta)
    err = {k: ((out[k] - exact[k]).norm() / exact[k].norm()).item() for k in out}
    print(f"{name:18} {m:3}x{k:3}x{n:3} r={r:2} s={scale:<20} " + " ".join(f"{k} {e:.0e}" for k, e in err.items()))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(24, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def adapter():
    """PEFT's own files, for a model whose two layers differ in rank and alpha."""
    torch.manual_seed(1000)
    base = Two()
    weights = {k: v.clone() for k, v in base.state_dict().items()}
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["fc1", "fc2"],
        rank_pattern={"fc2": 6},
        alpha_pattern={"fc2": 9},
    )
    model = get_peft_model(base, config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_B" in key:
                p.normal_(0.0, 0.2)
    x = torch.randn(7, 24)
    y = model(x)
    # PEFT keeps these names as a set, and would save them in random order
    model.peft_config["default"].target_modules = ["fc1", "fc2"]
    dest = HERE / "adapter"
    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(tmp)
        dest.mkdir(exist_ok=True)
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            (dest / file).write_bytes((pathlib.Path(tmp) / file).read_bytes())
    # the saved files must give the same y when PEFT itself reads them
    again = Two()
    again.load_state_dict(weights)
    assert torch.equal(PeftModel.from_pretrained(again, dest)(x), y)
    y64 = model.double()(x.double())
    layers = model.base_model.model
    meta = {f"{f}.scale": repr(float(getattr(layers, f).scaling["default"])) for f in ("fc1", "fc2")}
    write(dest / "expected.safetensors", {"x": x, **weights, "y": y, "y_f64": y64}, {**meta, **VERSIONS})


VERSIONS = {"peft": peft.__version__, "torch": torch.__version__.split("+")[0]}

if __name__ == "__main__":
    torch.set_num_threads(1)  # a fixed order of summation
    for seed, c in enumerate(CASES):
        case(seed, *c)
    adapter()
