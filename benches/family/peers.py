#!/usr/bin/env python3
"""Times a training step of PEFT's and LyCORIS' layers in PyTorch on the CPU, over forward and dx of the plain layer.

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 peft==0.21.2 lycoris-lora==4.1.3 einops toml tqdm
    venv/bin/python benches/family/peers.py > benches/family/peers.csv

A step is forward, dx and the gradient of every factor, by autograd, in f32 on all threads; the plain layer is
torch's own linear with a frozen weight, forward and dx. Both in alternating pairs; the median of the ratios and its 95 %
interval. The shapes are those of main.rs. LyCORIS rebuilds the weight, as it does by default on a CPU.
"""

import os

os.environ["LYCORIS_KERNEL_BACKEND"] = "torch"

import argparse
import logging
import math
import platform
import time

import lycoris
import peft
import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import nn

RANK, FACTOR = 8, 8
CELLS = [(512, 640), (64, 1280), (512, 1280), (64, 4096), (256, 4096)]
PEFT = {
    "lora": lambda: peft.LoraConfig(r=RANK, lora_alpha=4, target_modules=["layer"]),
    "dora": lambda: peft.LoraConfig(r=RANK, lora_alpha=4, target_modules=["layer"], use_dora=True),
    "loha": lambda: peft.LoHaConfig(r=RANK, alpha=4, target_modules=["layer"], rank_dropout=0.0, module_dropout=0.0),
    "lokr": lambda: peft.LoKrConfig(r=RANK, alpha=4, target_modules=["layer"], decompose_factor=FACTOR),
    "lokr-full": lambda: peft.LoKrConfig(r=100_000, alpha=4, target_modules=["layer"], decompose_factor=FACTOR),
}
LYCORIS = {
    "lora": lambda layer: LoConModule("x", layer, lora_dim=RANK, alpha=4),
    "dora": lambda layer: LoConModule("x", layer, lora_dim=RANK, alpha=4, weight_decompose=True),
    "loha": lambda layer: LohaModule("x", layer, lora_dim=RANK, alpha=4),
    "lokr": lambda layer: LokrModule("x", layer, lora_dim=RANK, alpha=4, factor=FACTOR),
    "lokr-full": lambda layer: LokrModule("x", layer, lora_dim=100_000, alpha=4, factor=FACTOR),
}


class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size, bias=False)
        self.layer.weight.requires_grad_(False)

    def forward(self, x):
        return self.layer(x)


def step(forward, x, dy):
    x.grad = None
    forward(x).backward(dy)


def timed(way, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        way()
    return time.perf_counter() - start


def median(values):
    """Of the values, with the order statistics that enclose it with 95 %."""
    values = sorted(values)
    low = max(math.floor((len(values) - 1.96 * math.sqrt(len(values))) / 2), 1)
    return values[len(values) // 2], values[low - 1], values[len(values) - low]


def measure(model, forward, tokens, size, pairs):
    """Of `forward`, over that of the plain layer."""
    x, dy = torch.randn(tokens, size, requires_grad=True), torch.randn(tokens, size)
    weight = torch.randn(size, size) / math.sqrt(size)
    plain = lambda: step(lambda x: nn.functional.linear(x, weight), x, dy)

    def adapted():
        for parameter in model.parameters():
            parameter.grad = None
        step(forward, x, dy)

    adapted(), plain()
    repeats = max(1, int(5e-3 / timed(adapted, 1)))
    ratios = []
    for pair in range(pairs):
        ways = [adapted, plain]
        times = {way: timed(way, repeats) for way in (ways if pair % 2 else ways[::-1])}
        ratios.append(times[adapted] / times[plain])
    return median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=41)
    parser.add_argument("--smoke", action="store_true", help="one small shape, to see that it works")
    options = parser.parse_args()
    torch.manual_seed(0)
    # LyCORIS writes to standard output that rank 100,000 means whole factors, which is what is meant.
    logging.disable(logging.WARNING)
    print(f"# torch {torch.__version__}, peft {peft.__version__}, lycoris-lora 4.1.3, {torch.get_num_threads()} threads")
    print(f"# {platform.processor() or platform.machine()}; {options.pairs} pairs; python3 benches/family/peers.py")
    print("package,method,tokens,features,median,low,high")
    for tokens, size in [(16, 64)] if options.smoke else CELLS:
        for method in PEFT:
            model = peft.get_peft_model(Model(size), PEFT[method]())
            row("peft", method, tokens, size, measure(model, model, tokens, size, options.pairs))
        for method in LYCORIS:
            base = Model(size)
            module = LYCORIS[method](base.layer)
            module.apply_to()
            row("lycoris", method, tokens, size, measure(module, base, tokens, size, options.pairs))


def row(package, method, tokens, size, of):
    print(f"{package},{method},{tokens},{size}," + ",".join(f"{value:.3f}" for value in of), flush=True)


if __name__ == "__main__":
    main()
