#!/usr/bin/env python3
"""Has the real LyCORIS and PEFT load what the crate wrote, and compares the weight differences (by hand; see README.md).

    cargo test --features files --test files write_for_the_packages
    venv/bin/python tests/golden/check_lycoris_written.py FOLDER > tests/results/written-adapters.txt

FOLDER is where the test left them: `written-family` in cargo's folder for the files of tests.
"""

import os

os.environ["LYCORIS_KERNEL_BACKEND"] = "torch"

import logging
import pathlib
import sys

import torch
from lycoris import create_lycoris, create_lycoris_from_weights
from lycoris.functional.lokr import diff_weight as lokr_weight
from peft import PeftModel
from safetensors.torch import load_file

from make_lycoris import HERE, SAVED, TARGETS, Net, lycoris_delta


def lycoris(path):
    """ΔW of each layer, by LyCORIS' own way from a file to modules; how it was loaded."""
    base = Net()
    weights = load_file(path)
    # Its reader takes the wrong size for the rank of a Tucker LoKr (w2_a.shape[1], which is its output there), and
    # would copy into a leaf that wants a gradient: so modules are made from the same arguments, then filled.
    name = path.stem.removeprefix("to_lycoris_peft_")
    if name in ("dora",):
        name = "lora_dora"
    kwargs = {of: kwargs for of, kwargs, _ in SAVED}[name]
    try:
        with torch.no_grad():
            net, _ = create_lycoris_from_weights(1.0, None, base, weights_sd=weights)
        how = "create_lycoris_from_weights"
        assert len(net.loras) == 3
    except Exception as error:
        net = create_lycoris(base, 1.0, **kwargs)
        net.apply_to()
        if any(weights[key].shape != of.shape for key, of in net.state_dict().items() if key in weights):
            # LyCORIS sorts the pair that a size is split in, PEFT does not: no module of LyCORIS has these shapes,
            # its functions have no such wish.
            names = ["w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"]
            def delta(target):
                of = [weights.get(f"lycoris_{target}.lokr_{name}") for name in names]
                of = [None if part is None else part.double() for part in of]
                return lokr_weight(*of, gamma=float(weights[f"lycoris_{target}.alpha"]))

            return {target: delta(target) for target in TARGETS}, "functional.lokr.diff_weight (its modules sort the sizes)"
        missing = net.load_state_dict(weights, strict=False)
        assert not missing.unexpected_keys, missing
        assert not [key for key in missing.missing_keys if "scalar" not in key], missing
        for module in net.loras:
            module.scale = scale_of(module, weights)
        how = f"load_state_dict ({type(error).__name__} in create_lycoris_from_weights)"
    return {module.lora_name.removeprefix("lycoris_"): lycoris_delta(module.double()) for module in net.loras}, how


def scale_of(module, weights):
    if getattr(module, "use_w1", False) and getattr(module, "use_w2", False):
        return 1.0
    return float(weights[f"{module.lora_name}.alpha"]) / module.lora_dim


def peft(folder):
    net = PeftModel.from_pretrained(Net(), folder).double()
    layers = net.base_model.model
    return {of: getattr(layers, of).get_delta_weight("default") for of in TARGETS}, "from_pretrained"


def main():
    logging.disable(logging.WARNING)
    expected = load_file(HERE / "adapters" / "expected.safetensors")
    print("file written by the crate         loaded by                                    largest difference of dW / largest dW")
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        name = path.stem
        if path.is_dir():
            deltas, how = peft(path)
            how = "PEFT, " + how
        else:
            deltas, how = lycoris(path)
            how = "LyCORIS, " + how
        far = 0.0
        for target in TARGETS:
            of = name.removeprefix("to_peft_").removeprefix("to_lycoris_")
            key = f"{of}/{target}" if of.startswith("peft_") else f"{of}/lycoris_{target}"
            want = expected[key]
            got = deltas[target].detach().reshape(want.shape)
            far = max(far, ((got - want).abs().max() / want.abs().max()).item())
        print(f"{name:33} {how:60} {far:.1e}")
        assert far < 2e-6, (name, far)


if __name__ == "__main__":
    main()
