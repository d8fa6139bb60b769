#!/usr/bin/env python3
"""The digits data and the frozen base network of the fine-tuning example.

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 peft==0.21.2 scikit-learn==1.9.1 safetensors==0.8.0 numpy==2.4.6
    venv/bin/python examples/data/make.py           # writes digits.safetensors, base.safetensors
    venv/bin/python examples/data/make.py --check   # repeats the LoRA experiment with PEFT

Two runs on one machine give the same bytes; on another CPU the trained weights
may differ a little, because torch picks its matrix kernels by CPU.
"""

import argparse
import json
import pathlib
import struct

import numpy as np
import sklearn
import torch
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

HERE = pathlib.Path(__file__).resolve().parent
BATCH = 64


def write(path, tensors, meta):
    """save_file, but with sorted metadata: the library writes it in random order."""
    blob = save(tensors)
    size = struct.unpack("<Q", blob[:8])[0]
    header = {"__metadata__": dict(sorted(meta.items())), **json.loads(blob[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + size :])


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, 10)

    def forward(self, x):
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


def shift(x):
    """The page was fed in sideways and negative: a quarter turn counter-clockwise, then 1 - pixel:
    out[8 i + j] = 1 - in[8 j + 7 - i]."""
    return 1.0 - torch.rot90(x.reshape(-1, 8, 8), 1, (1, 2)).reshape(-1, 64)


def split(x, y):
    held = torch.arange(len(x)) % 5 == 4
    return x[~held], y[~held].long(), x[held], y[held].long()


def accuracy(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def train(model, x, y, lr, epochs):
    """Adam; lr falls linearly from its full value at the first step towards 0 after the last."""
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.Adam(params, lr=lr)
    steps = epochs * -(-len(x) // BATCH)  # the last batch of an epoch is short
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for i in torch.randperm(len(x)).split(BATCH):
            opt.zero_grad()
            cross_entropy(model(x[i]), y[i]).backward()
            opt.step()
            sched.step()


def make():
    digits = load_digits()
    images = torch.from_numpy(digits.data.astype(np.uint8))
    labels = torch.from_numpy(digits.target.astype(np.uint8))
    assert images.shape == (1797, 64) and images.max() == 16
    note = {"split": "sample i is held out when i % 5 == 4"}
    write(HERE / "digits.safetensors", {"images": images, "labels": labels}, {
        "source": "UCI Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998",
        "license": "CC BY 4.0",
        "scikit-learn": sklearn.__version__,
        **note,
    })
    torch.manual_seed(0)
    x, y, xt, yt = split(images.float() / 16, labels)
    model = Mlp()
    train(model, x, y, lr=1e-3, epochs=30)
    acc, bad = accuracy(model, xt, yt), accuracy(model, shift(xt), yt)
    print(f"base: held-out {acc:.4f}, shifted {bad:.4f}")
    write(HERE / "base.safetensors", model.state_dict(), {
        "input": "pixels / 16",
        "heldout_accuracy": f"{acc:.4f}",
        "heldout_accuracy_shifted": f"{bad:.4f}",
        "torch": torch.__version__.split("+")[0],
        **note,
    })


def check(args):
    """Train only LoRA adapters (W and biases frozen) on the shifted digits; f32, CPU."""
    from peft import LoraConfig, get_peft_model

    data = load_file(HERE / "digits.safetensors")
    x, y, xt, yt = split(shift(data["images"].float() / 16), data["labels"])
    config = LoraConfig(r=args.r, lora_alpha=args.alpha, target_modules=["fc1", "fc2", "fc3"])
    for seed in range(3):
        torch.manual_seed(seed)
        base = Mlp()
        base.load_state_dict(load_file(HERE / "base.safetensors"))
        before = accuracy(base, xt, yt)
        model = get_peft_model(base, config)
        train(model, x, y, args.lr, args.epochs)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        print(f"seed {seed}: {count} trained parameters, held-out shifted {before:.4f} -> "
              f"{accuracy(model, xt, yt):.4f} (train {accuracy(model, x, y):.4f})", flush=True)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--check", action="store_true")
    p.add_argument("--r", type=int, default=8)
    p.add_argument("--alpha", type=float, default=16)
    p.add_argument("--lr", type=float, default=1e-2)
    p.add_argument("--epochs", type=int, default=30)
    args = p.parse_args()
    torch.set_num_threads(1)  # a fixed order of summation
    check(args) if args.check else make()
