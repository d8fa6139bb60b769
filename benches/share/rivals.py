#!/usr/bin/env python3
"""How much of a LoRA adapter's effect reaches y and dx in PyTorch with PEFT, on the CPU: the rivals of
`cargo bench --bench share`, on the same inputs to the bit.

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 peft==0.21.2 safetensors==0.8.0 numpy==2.4.6
    venv/bin/python benches/share/rivals.py

Writes rivals.csv next to this script. The share is <y - y0, z> / <z, z> with y0 = x w^T and
z = s (x a^T) b^T in double precision, of the inputs as they are stored; dx alike.
"""

import datetime
import math
import pathlib
import platform

import numpy as np
import peft
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent

# benches/share/main.rs has the same numbers.
TOKENS, IN, OUT, RANK, ALPHA = 512, 1280, 1280, 16, 32
SIZES = [1e-2, 3e-3, 1e-3, 3e-4, 1e-4]
X, W, A, B, DY = range(1, 6)
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


def uniform(seed, rows, cols, size):
    """benches/share/inputs.rs: splitmix64 of a counter, its upper 24 bits as an odd multiple of 2^-24 in -1 ... 1."""
    with np.errstate(over="ignore"):
        z = np.arange(rows * cols, dtype=np.uint64) + np.uint64(seed << 32)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    odd = 2 * (z >> np.uint64(40)).astype(np.int64) + 1 - (1 << 24)
    values = odd.astype(np.float32) * np.float32(2.0**-24) * np.float32(size)
    return torch.from_numpy(values.reshape(rows, cols))


class One(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.fc = nn.Linear(IN, OUT, bias=False, dtype=w.dtype)
        self.fc.weight.data.copy_(w)

    def forward(self, x):
        return self.fc(x)


def wrap(w, a, b, adapter_dtype):
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=["fc"])
    model = get_peft_model(One(w), config, autocast_adapter_dtype=adapter_dtype != w.dtype)
    fc = model.base_model.model.fc
    fc.lora_A["default"].weight.data.copy_(a)
    fc.lora_B["default"].weight.data.copy_(b)
    assert fc.lora_A["default"].weight.dtype == adapter_dtype and fc.scaling["default"] == ALPHA / RANK
    return model


def run(model, x, dy):
    x = x.clone().requires_grad_()
    y = model(x)
    y.backward(dy)
    return {"forward": y.detach(), "backward_input": x.grad}


def shares(results, x, dy, w, a, b):
    """Of both directions, against the exact terms of these operands."""
    x, dy, w, a, b = (of.double() for of in (x, dy, w, a, b))
    s = ALPHA / RANK
    exact = {
        "forward": (x @ w.T, s * (x @ a.T) @ b.T),
        "backward_input": (dy @ w, s * (dy @ b) @ a),
    }
    for direction, got in results.items():
        y0, z = exact[direction]
        yield direction, float(((got.double() - y0) * z).sum() / (z * z).sum())


def main():
    torch.set_num_threads(1)
    lines = []
    for name, dtype in DTYPES.items():
        bound = math.sqrt(3.0 / IN)
        x = uniform(X, TOKENS, IN, 1.0).to(dtype)
        dy = uniform(DY, TOKENS, OUT, 1.0).to(dtype)
        w = uniform(W, OUT, IN, bound).to(dtype)
        for size in SIZES:
            a = uniform(A, RANK, IN, bound)
            b = uniform(B, OUT, RANK, size * math.sqrt(3.0 / RANK) / (ALPHA / RANK))
            delta = (ALPHA / RANK) * (b.double() @ a.double())
            measured = float(delta.norm() / w.double().norm())
            for adapter, adapter_dtype in (("f32", torch.float32), (name, dtype)):
                stored = a.to(adapter_dtype), b.to(adapter_dtype)
                model = wrap(w, *stored, adapter_dtype)
                found = [("separate calls", of) for of in shares(run(model, x, dy), x, dy, w, *stored)]
                merged = model.merge_and_unload()
                assert type(merged.fc) is nn.Linear and merged.fc.weight.dtype == dtype
                found += [("merged weights", of) for of in shares(run(merged, x, dy), x, dy, w, *stored)]
                for path, (direction, share) in found:
                    lines.append(f"PEFT,{path},{direction},{name},{adapter},{size:g},{measured:.6f},{share:.4f}")
                    print(lines[-1])
    cpu = next(line.split(": ")[1] for line in open("/proc/cpuinfo") if line.startswith("model name"))
    head = {
        "device": f"one thread of {cpu.strip()}",
        "rival": f"torch {torch.__version__}, peft {peft.__version__}, Python {platform.python_version()}",
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "command": "`python benches/share/rivals.py`",
    }
    head = [f"# - {what}: {value}" for what, value in head.items()]
    head.append(f"# - {TOKENS} x {OUT} x {IN}, rank {RANK}, scale {ALPHA // RANK}")
    head.append("by,path,direction,dtype,adapter,size,measured_size,share")
    (HERE / "rivals.csv").write_text("\n".join(head + lines) + "\n")


if __name__ == "__main__":
    main()
