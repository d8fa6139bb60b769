#!/usr/bin/env python3
"""Reference tensors of the LyCORIS family for the Rust tests, computed by the real LyCORIS and PEFT on the CPU.

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 peft==0.21.2 safetensors==0.8.0 numpy==2.4.6 \
        lycoris-lora==4.1.3 einops toml tqdm
    venv/bin/python tests/golden/make_lycoris.py            # writes family/ and adapters/ next to this script
    venv/bin/python tests/golden/make_lycoris.py --share    # and family/share.txt: two minutes

family/<case>.safetensors is one layer: inputs, factors, y and every gradient, by the package in the case's types
and in f64. adapters/ has files as both packages save them, and in expected.safetensors the weight differences
that they stand for, in f64. Two runs on one machine give the same bytes.
"""

import os

os.environ["LYCORIS_KERNEL_BACKEND"] = "torch"

import json
import pathlib
import sys
import tempfile

import lycoris
import peft
import torch
from lycoris import create_lycoris
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import nn

from make import normal, write

HERE = pathlib.Path(__file__).resolve().parent
F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
VERSIONS = {
    "lycoris": "4.1.3",
    "peft": peft.__version__,
    "torch": torch.__version__.split("+")[0],
}
MODULES = {"lora": LoConModule, "loha": LohaModule, "lokr": LokrModule}

# kernel, stride, padding of the layer; None: linear
LINEAR, ONE, S1, S2 = None, (1, 1, 0), (3, 1, 1), (3, 2, 1)
# name, layer, method, rank, alpha, further arguments
CASES = [
    ("lora_linear", LINEAR, "lora", 5, 8, {}),
    ("lora_conv3", S1, "lora", 3, 4, {}),
    ("lora_conv3_s2", S2, "lora", 3, 4, {}),
    ("lora_conv1", ONE, "lora", 3, 2, {}),
    ("lora_tucker", S1, "lora", 3, 5, {"use_tucker": True}),
    ("loha_linear", LINEAR, "loha", 3, 5, {}),
    ("loha_conv3", S1, "loha", 2, 3, {}),
    ("loha_conv3_s2", S2, "loha", 2, 3, {}),
    ("loha_conv1", ONE, "loha", 2, 3, {}),
    ("loha_tucker", S2, "loha", 2, 3, {"use_tucker": True}),
    ("lokr_low_linear", LINEAR, "lokr", 2, 3, {"factor": 4}),
    ("lokr_both_low_linear", LINEAR, "lokr", 1, 3, {"factor": 6, "decompose_both": True}),
    ("lokr_full_linear", LINEAR, "lokr", 2, 3, {"factor": 4, "full_matrix": True}),
    ("lokr_low_conv3", S1, "lokr", 1, 2, {"factor": 2}),
    ("lokr_full_conv3_s2", S2, "lokr", 1, 2, {"factor": 2, "full_matrix": True}),
    ("lokr_low_conv1", ONE, "lokr", 1, 2, {"factor": 2}),
    ("lokr_tucker", S1, "lokr", 1, 2, {"factor": 2, "use_tucker": True}),
]


def base(layer, dtype):
    """in, out of linear: 30, 44 (4·11, 5·6 at factor 4 → 44 = 4·11, 30 = 5·6); of a convolution: 6, 10."""
    if layer is None:
        return nn.Linear(30, 44, dtype=dtype)
    kernel, stride, padding = layer
    return nn.Conv2d(6, 10, kernel, stride, padding, dtype=dtype)


def inputs(gen, layer, module):
    like = base(layer, F64)
    k = like.weight[0].numel()
    x = normal(gen, 1.0, 21, 30) if layer is None else normal(gen, 1.0, 2, 6, 7, 5)
    inp = {
        "x": x,
        "w": normal(gen, k**-0.5, *like.weight.shape),
        "bias": normal(gen, 0.5, *like.bias.shape),
    }
    inp["dy"] = normal(gen, 0.1, *like(x).shape)
    for name, of in module.named_parameters():
        inp[name] = normal(gen, 0.7, *of.shape)
    return inp


def made(layer, method, r, alpha, kwargs, dtype, adapter):
    layer = base(layer, dtype)
    module = MODULES[method]("case", layer, 1.0, r, alpha, **kwargs).to(adapter)
    return layer, module


def run(spec, inp, dtype, adapter):
    """One forward and backward through LyCORIS' rebuild; y, dx and the gradient of each factor."""
    layer, module = made(*spec, dtype, adapter)
    with torch.no_grad():
        layer.weight.copy_(inp["w"])
        layer.bias.copy_(inp["bias"])
        for name, of in module.named_parameters():
            of.copy_(inp[name])
    module.apply_to()
    x = inp["x"].to(dtype, copy=True).requires_grad_()
    y = layer(x)
    y.backward(inp["dy"].to(dtype))
    grads = {f"d_{name}": of.grad for name, of in module.named_parameters()}
    return {"y": y, "dx": x.grad, **grads}, module


def family():
    (HERE / "family").mkdir(exist_ok=True)
    for seed, (name, *spec) in enumerate(CASES):
        for label, dtype, adapter in [("f32", F32, F32), ("bf16_af32", BF16, F32), ("bf16_abf16", BF16, BF16)]:
            if label == "bf16_abf16" and spec[0] is not LINEAR:
                continue
            gen = torch.Generator().manual_seed(seed)
            inp = inputs(gen, spec[0], made(*spec, F64, F64)[1])
            inp = {k: v.to(dtype if k in ("x", "w", "bias", "dy") else adapter) for k, v in inp.items()}
            out, module = run(spec, inp, dtype, adapter)
            exact, _ = run(spec, inp, F64, F64)
            layer, method, r, alpha, kwargs = spec
            meta = {
                "method": method,
                "kernel": json.dumps([] if layer is None else [layer[0]] * 2),
                "stride": str(1 if layer is None else layer[1]),
                "padding": str(0 if layer is None else layer[2]),
                "rank": str(r),
                "alpha": str(alpha),
                "scale": repr(float(module.scale)),
                **VERSIONS,
            }
            tensors = {**inp, **out, **{f"{k}_f64": v for k, v in exact.items()}}
            path = HERE / "family" / f"{name}_{label}.safetensors"
            write(path, tensors, meta)
            assert path.stat().st_size <= 60_000, (path, path.stat().st_size)
            err = {k: ((out[k] - exact[k]).norm() / exact[k].norm()).item() for k in out}
            print(f"{name + '_' + label:32} s={module.scale:<8.3} {path.stat().st_size:6} B " + " ".join(f"{k} {e:.0e}" for k, e in err.items()))
    dora()
    lokr_of_peft()


def lokr_of_peft():
    """LoKr on a linear layer with both factors whole by PEFT, whose scale is alpha/r where LyCORIS' is 1."""
    for seed, (label, dtype, adapter) in enumerate([("f32", F32, F32), ("bf16_af32", BF16, F32), ("bf16_abf16", BF16, BF16)]):
        gen = torch.Generator().manual_seed(200 + seed)
        r, alpha = 32, 24

        def of(dtype, adapter, inp=None):
            net = nn.Sequential(nn.Linear(30, 44, dtype=dtype))
            # So large a rank that neither factor is of low rank.
            config = peft.LoKrConfig(r=r, alpha=alpha, decompose_factor=4, target_modules=["0"])
            net = peft.get_peft_model(net, config, autocast_adapter_dtype=adapter != dtype)
            fc = net.base_model.model[0]
            parts = {name: getattr(fc, name)["default"] for name in ("lokr_w1", "lokr_w2")}
            if inp is None:
                return {name: part.shape for name, part in parts.items()}, fc.scaling["default"]
            with torch.no_grad():
                fc.base_layer.weight.copy_(inp["w"])
                fc.base_layer.bias.copy_(inp["bias"])
                for name, part in parts.items():
                    assert part.dtype == adapter, (name, part.dtype)
                    part.copy_(inp[name])
            x = inp["x"].to(dtype, copy=True).requires_grad_()
            y = net(x)
            y.backward(inp["dy"].to(dtype))
            return {"y": y, "dx": x.grad, **{f"d_{name}": part.grad for name, part in parts.items()}}

        shapes, scale = of(F64, F64)
        assert scale == alpha / r, scale
        inp = {
            "x": normal(gen, 1.0, 21, 30).to(dtype),
            "w": normal(gen, 30**-0.5, 44, 30).to(dtype),
            "bias": normal(gen, 0.5, 44).to(dtype),
            "dy": normal(gen, 0.1, 21, 44).to(dtype),
            **{name: normal(gen, 0.7, *shape).to(adapter) for name, shape in shapes.items()},
        }
        out, exact = of(dtype, adapter, inp), of(F64, F64, inp)
        meta = {"method": "lokr", "rank": str(r), "alpha": str(alpha), "scale": repr(scale), **VERSIONS}
        meta |= {"kernel": "[]", "stride": "1", "padding": "0"}
        write(HERE / "family" / f"lokr_full_peft_linear_{label}.safetensors", {**inp, **out, **{f"{k}_f64": v for k, v in exact.items()}}, meta)
        err = {k: ((out[k] - exact[k]).norm() / exact[k].norm()).item() for k in out}
        print(f"lokr_full_peft_linear_{label:20} s={scale} {[tuple(of) for of in shapes.values()]} " + " ".join(f"{k} {e:.0e}" for k, e in err.items()))


def dora():
    """DoRA on a linear layer by PEFT, which detaches the norm: the gradient that the paper's §4.3 has."""
    for seed, (label, dtype, adapter) in enumerate([("f32", F32, F32), ("bf16_af32", BF16, F32)]):
        gen = torch.Generator().manual_seed(100 + seed)
        r, alpha = 4, 6
        inp = {
            "x": normal(gen, 1.0, 21, 30).to(dtype),
            "w": normal(gen, 30**-0.5, 44, 30).to(dtype),
            "bias": normal(gen, 0.5, 44).to(dtype),
            "dy": normal(gen, 0.1, 21, 44).to(dtype),
            "lora_A.weight": normal(gen, 30**-0.5, r, 30).to(adapter),
            "lora_B.weight": normal(gen, 0.5, 44, r).to(adapter),
            "lora_magnitude_vector": (1.0 + normal(gen, 0.1, 44)).to(adapter),
        }

        def of(dtype, adapter):
            net = nn.Sequential(nn.Linear(30, 44, dtype=dtype))
            config = peft.LoraConfig(r=r, lora_alpha=alpha, use_dora=True, target_modules=["0"])
            net = peft.get_peft_model(net, config, autocast_adapter_dtype=adapter != dtype)
            fc = net.base_model.model[0]
            parts = {
                "lora_A.weight": fc.lora_A["default"].weight,
                "lora_B.weight": fc.lora_B["default"].weight,
                "lora_magnitude_vector": fc.lora_magnitude_vector["default"].weight,
            }
            with torch.no_grad():
                fc.base_layer.weight.copy_(inp["w"])
                fc.base_layer.bias.copy_(inp["bias"])
                for name, part in parts.items():
                    assert part.dtype == adapter, (name, part.dtype)
                    part.copy_(inp[name])
            x = inp["x"].to(dtype, copy=True).requires_grad_()
            y = net(x)
            y.backward(inp["dy"].to(dtype))
            return {"y": y, "dx": x.grad, **{f"d_{name}": part.grad for name, part in parts.items()}}

        out, exact = of(dtype, adapter), of(F64, F64)
        meta = {"method": "dora", "rank": str(r), "alpha": str(alpha), "scale": repr(alpha / r), **VERSIONS}
        meta |= {"kernel": "[]", "stride": "1", "padding": "0"}
        write(HERE / "family" / f"dora_linear_{label}.safetensors", {**inp, **out, **{f"{k}_f64": v for k, v in exact.items()}}, meta)
        err = {k: ((out[k] - exact[k]).norm() / exact[k].norm()).item() for k in out}
        print(f"dora_linear_{label:20} " + " ".join(f"{k} {e:.0e}" for k, e in err.items()))


class Net(nn.Module):
    """A linear layer, a 3×3 and a 1×1 convolution."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(30, 44)
        self.conv = nn.Conv2d(6, 10, 3, padding=1)
        self.proj = nn.Conv2d(6, 10, 1)


# file, arguments of create_lycoris, dtype it is saved in
SAVED = [
    ("lora", {"algo": "lora", "linear_dim": 4, "linear_alpha": 6, "conv_dim": 3, "conv_alpha": 1}, F32),
    ("lora_bf16", {"algo": "lora", "linear_dim": 3, "linear_alpha": 1.3, "conv_dim": 3, "conv_alpha": 1}, BF16),
    ("lora_tucker", {"algo": "lora", "linear_dim": 4, "linear_alpha": 6, "use_tucker": True}, F32),
    ("lora_dora", {"algo": "lora", "linear_dim": 4, "linear_alpha": 6, "dora_wd": True}, F32),
    ("loha", {"algo": "loha", "linear_dim": 3, "linear_alpha": 2}, F32),
    ("loha_tucker", {"algo": "loha", "linear_dim": 3, "linear_alpha": 2, "use_tucker": True}, F32),
    ("lokr", {"algo": "lokr", "linear_dim": 2, "linear_alpha": 1, "factor": 2}, F32),
    ("lokr_both", {"algo": "lokr", "linear_dim": 1, "linear_alpha": 3, "factor": 6, "decompose_both": True}, F32),
    ("lokr_tucker", {"algo": "lokr", "linear_dim": 2, "linear_alpha": 1, "factor": 2, "use_tucker": True}, F32),
    ("lokr_full", {"algo": "lokr", "linear_dim": 2, "linear_alpha": 8, "factor": 4, "full_matrix": True}, F32),
]
# folder, PEFT's configuration
TARGETS = ["fc", "conv", "proj"]
FOLDERS = [
    ("lora", peft.LoraConfig(r=4, lora_alpha=6, rank_pattern={"conv": 3}, target_modules=TARGETS)),
    ("dora", peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=TARGETS)),
    ("loha", peft.LoHaConfig(r=3, alpha=2, target_modules=TARGETS)),
    ("loha_tucker", peft.LoHaConfig(r=3, alpha=2, use_effective_conv2d=True, target_modules=TARGETS)),
    ("lokr", peft.LoKrConfig(r=2, alpha=1, decompose_factor=2, target_modules=TARGETS)),
    ("lokr_both", peft.LoKrConfig(r=1, alpha=3, decompose_factor=6, decompose_both=True, target_modules=TARGETS)),
    ("lokr_tucker", peft.LoKrConfig(r=2, alpha=1, decompose_factor=2, use_effective_conv2d=True, target_modules=TARGETS)),
    ("lokr_full", peft.LoKrConfig(r=32, alpha=8, decompose_factor=4, alpha_pattern={"conv": 4}, target_modules=TARGETS)),
]


def lycoris_delta(module):
    """ΔW with the scale once, as LyCORIS' forward has it (get_diff_weight has it twice for LoHa and LoKr)."""
    if isinstance(module, LoConModule):
        return module.make_weight() * module.scale
    return module.get_weight(module.shape)


def fill(parameters, seed):
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, of in sorted(parameters, key=lambda of: of[0]):
            of.copy_(normal(gen, 0.5, *of.shape))


def adapters():
    folder = HERE / "adapters"
    folder.mkdir(exist_ok=True)
    expected, scales = {}, {}
    for seed, (name, kwargs, dtype) in enumerate(SAVED):
        torch.manual_seed(seed)
        net = create_lycoris(Net(), 1.0, **kwargs)
        net.apply_to()
        fill(net.named_parameters(), seed)
        path = folder / f"{name}.safetensors"
        with tempfile.TemporaryDirectory() as tmp:
            file = pathlib.Path(tmp) / "a.safetensors"
            net.save_weights(str(file), dtype, {})
            resorted(file, path)
        net.to(dtype).double()
        for module in net.loras:
            key = f"{name}/{module.lora_name}"
            expected[key] = lycoris_delta(module)
            # What is left of alpha in the type of the file.
            alpha = module.alpha.to(dtype).double().item()
            one = isinstance(module, LokrModule) and module.use_w1 and module.use_w2
            scale = 1.0 if one else alpha / module.lora_dim
            expected[key] = (expected[key] / module.scale * scale).detach()
            scales[key] = repr(scale)
        print(f"{path.name:28} {path.stat().st_size:6} B {[type(m).__name__ for m in net.loras]}")
    for seed, (name, config) in enumerate(FOLDERS):
        torch.manual_seed(seed)
        net = peft.get_peft_model(Net(), config)
        fill([of for of in net.named_parameters() if of[1].requires_grad], 50 + seed)
        net.peft_config["default"].target_modules = TARGETS
        dest = folder / f"peft_{name}"
        dest.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as tmp:
            net.save_pretrained(tmp)
            for file in ("adapter_model.safetensors", "adapter_config.json"):
                (dest / file).write_bytes((pathlib.Path(tmp) / file).read_bytes())
        net.double()
        for target in TARGETS:
            layer = getattr(net.base_model.model, target)
            key = f"peft_{name}/{target}"
            expected[key] = layer.get_delta_weight("default").detach()
            scales[key] = repr(float(layer.scaling["default"]))
        print(f"{dest.name:28} {(dest / 'adapter_model.safetensors').stat().st_size:6} B")
    write(folder / "expected.safetensors", {k: v.reshape(v.shape[0], -1) for k, v in expected.items()}, scales | VERSIONS)


def resorted(file, path):
    """The file that LyCORIS saved, with its metadata in order: it writes them in random order."""
    import struct

    blob = file.read_bytes()
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8 : 8 + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + size :])


def share():
    """What of the adapter's term reaches y in bf16 through LyCORIS' rebuild, at |ΔW|/|W| = 1e-3."""
    lines = [
        "What of an adapter arrives in y through LyCORIS' rebuild of the weight, by make_lycoris.py --share:",
        "<y - x w^T, z> / <z, z> with z = x dW^T in f64 on the same bf16 inputs; bf16 base, x 512 x 1280, w 1280 x 1280;",
        f"lycoris-lora 4.1.3, torch {VERSIONS['torch']}, CPU. 1 is all of it.",
        "",
        "method      |dW|/|W|   factors   share   bypass mode",
    ]
    for method, r in [("lora", 16), ("loha", 8), ("lokr", 16)]:
        for size in (1e-2, 1e-3):
            for label, adapter in [("f32", F32), ("bf16", BF16)]:
                row = []
                for bypass in (False, True):
                    torch.manual_seed(0)
                    layer = nn.Linear(1280, 1280, bias=False, dtype=BF16)
                    kwargs = {"factor": 8} if method == "lokr" else {}
                    module = MODULES[method]("case", layer, 1.0, r, r, bypass_mode=bypass, **kwargs).to(adapter)
                    gen = torch.Generator().manual_seed(1)
                    with torch.no_grad():
                        layer.weight.copy_(normal(gen, 1280**-0.5, 1280, 1280))
                        for _, of in module.named_parameters():
                            of.copy_(normal(gen, 0.3, *of.shape))
                        delta = lycoris_delta(module.to(F64))
                        last = list(module.named_parameters())[0][1]
                        last.mul_(size * layer.weight.double().norm() / delta.norm())
                        module.to(adapter)
                        delta = lycoris_delta(module.to(F64)).reshape(1280, 1280)
                        module.to(adapter)
                        x = normal(gen, 1.0, 512, 1280).to(BF16)
                        base = x.double() @ layer.weight.double().T
                        module.apply_to()
                        y = layer(x).double()
                        z = x.double() @ delta.T
                        row.append(((y - base) * z).sum().item() / (z * z).sum().item())
                lines.append(f"{method + ' r=' + str(r):11} {size:<10} {label:9} {row[0]:5.2f}   {row[1]:5.2f}")
                print(lines[-1])
    (HERE / "family" / "share.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)  # a fixed order of summation
    if "--share" in sys.argv:
        share()
    else:
        family()
        adapters()
