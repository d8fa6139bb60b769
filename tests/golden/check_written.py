#!/usr/bin/env python3
"""Has the real PEFT load the adapter that the crate wrote, and compares (by hand; see README.md).

    cargo test --features files --test files write_for_peft
    venv/bin/python tests/golden/check_written.py target/tmp/written-adapter
"""

import pathlib
import sys

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

from make import HERE, Two


def main():
    torch.set_num_threads(1)
    with safe_open(HERE / "adapter" / "expected.safetensors", "pt") as file:
        expected = {k: file.get_tensor(k) for k in file.keys()}
        meta = file.metadata()
    folders = HERE / "adapter", pathlib.Path(sys.argv[1])
    ys = []
    for folder in folders:
        base = Two()
        base.load_state_dict({k: v for k, v in expected.items() if k.startswith("fc")})
        model = PeftModel.from_pretrained(base, folder)
        for name in ("fc1", "fc2"):
            scale = float(getattr(model.base_model.model, name).scaling["default"])
            assert repr(scale) == meta[f"{name}.scale"], (name, scale)
        with torch.no_grad():
            ys.append(model(expected["x"]))
    own, written = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert written.keys() == own.keys() and all(torch.equal(written[k], own[k]) for k in own)
    assert torch.equal(*ys)
    print(f"PEFT computes the same bits with {folders[1]} as with {folders[0]}")


if __name__ == "__main__":
    main()
