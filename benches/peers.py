#!/usr/bin/env python3
"""Times what a PyTorch user would run for one LoRA layer, against the plain product in the same run.

    python3 benches/peers.py                       every shape, bf16, forward and backward, CSV to stdout
    python3 benches/peers.py --quick               three shapes
    python3 benches/peers.py --device cpu --smoke  a tiny shape, to see that the script works

Needs PyTorch; peft is timed where it is installed. Columns: operation, way, tokens, in_features,
out_features, rank, microseconds (median), ratio to the plain product of the same operation.

Operands rotate over more than twice the L2 cache, inputs are random, and every way is timed as a CUDA
graph. Forward: plain, x·wᵀ; eager, plain + s·((x·aᵀ)·bᵀ); addmm, three cuBLAS calls; kext, two, with
shrunk in spare columns of x and b in those of w; compile, eager through torch.compile; peft, its own
layer. Backward, dx, da and db of dy: plain, dy·w alone; eager, six products; addmm, dx in place.
"""

import argparse
import statistics
import sys
import time

import torch
import torch.nn.functional as F

SHAPES = [(m, k, n) for k, n in ((4096, 4096), (4096, 14336), (14336, 4096)) for m in (1, 8, 16, 64, 512, 4096, 8192)]
SHAPES += [(m, d, d) for d in (640, 1280) for m in (1024, 4096)]
QUICK = [(8192, 4096, 4096), (4096, 1280, 1280), (8, 4096, 4096)]
SMOKE = [(8, 64, 96)]
RANKS = (16, 64)
# Bytes of all sets of operands together, at least.
ROTATED = 130e6


def timer(way, sets, device, repeats):
    """Median microseconds of way(i), with i rotating over so many sets of operands."""
    if device == "cpu":
        times = []
        for at in range(repeats):
            start = time.perf_counter()
            way(at % sets)
            times.append((time.perf_counter() - start) * 1e6)
        return statistics.median(times)
    for at in range(sets):
        way(at)
    torch.cuda.synchronize()
    graphs = []
    for at in range(sets):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            way(at)
        graphs.append(graph)
    for graph in 3 * graphs:
        graph.replay()
    times = []
    for at in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graphs[at % sets].replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def operands(m, k, n, r, device, dtype, sets):
    def random(*size):
        return torch.randn(*size, device=device, dtype=dtype) / 8

    def one():
        of = {"x": random(m, k), "w": random(n, k), "a": random(r, k), "b": random(n, r), "dy": random(m, n)}
        # With room for the border.
        of["xk"], of["wk"] = random(m, k + r), random(n, k + r)
        return of

    return [one() for _ in range(sets)]


def forward_ways(o, s, k):
    def plain(i):
        return F.linear(o[i]["x"], o[i]["w"])

    def eager(i):
        return plain(i) + s * F.linear(F.linear(o[i]["x"], o[i]["a"]), o[i]["b"])

    def addmm(i):
        return plain(i).addmm_(F.linear(o[i]["x"], o[i]["a"]), o[i]["b"].T, alpha=s)

    def kext(i):
        torch.mm(o[i]["xk"][:, :k], o[i]["a"].T, out=o[i]["xk"][:, k:])
        return F.linear(o[i]["xk"], o[i]["wk"])

    return {"plain": plain, "eager": eager, "addmm": addmm, "kext": kext}


def compiled(o, s):
    def layer(x, w, a, b):
        return F.linear(x, w) + s * F.linear(F.linear(x, a), b)

    of = torch.compile(layer, dynamic=False)
    return lambda i: of(o[i]["x"], o[i]["w"], o[i]["a"], o[i]["b"])


def peft_way(o, k, n, r, device, dtype):
    try:
        from peft import LoraConfig, get_peft_model

        layers = []
        for _ in o:
            net = torch.nn.Module()
            net.lin = torch.nn.Linear(k, n, bias=False, device=device, dtype=dtype)
            config = LoraConfig(r=r, lora_alpha=2 * r, target_modules=["lin"])
            get_peft_model(net, config, autocast_adapter_dtype=False)
            layers.append(net.lin.eval())
        layers[0](o[0]["x"])
    except Exception as error:  # another peft, or none
        print(f"# peft not timed: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return lambda i: layers[i](o[i]["x"])


def backward_ways(o, s):
    def plain(i):
        return o[i]["dy"] @ o[i]["w"]

    def eager(i):
        p = o[i]
        shrunk, dshrunk = p["x"] @ p["a"].T, s * (p["dy"] @ p["b"])
        return plain(i) + dshrunk @ p["a"], dshrunk.T @ p["x"], s * (p["dy"].T @ shrunk)

    def addmm(i):
        p = o[i]
        shrunk, dshrunk = p["x"] @ p["a"].T, (p["dy"] @ p["b"]).mul_(s)
        return plain(i).addmm_(dshrunk, p["a"]), dshrunk.T @ p["x"], (p["dy"].T @ shrunk).mul_(s)

    return {"plain": plain, "eager": eager, "addmm": addmm}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--dtype", default="bfloat16")
    of = parser.parse_args()
    torch.manual_seed(0)
    dtype = getattr(torch, of.dtype)
    shapes = SMOKE if of.smoke else QUICK if of.quick else SHAPES
    name = torch.cuda.get_device_name() if of.device == "cuda" else "cpu"
    print(f"# {name}, torch {torch.__version__}, {of.dtype}, random data, medians of {of.repeats}")
    print("operation,way,tokens,in_features,out_features,rank,us,over_plain")
    with torch.no_grad():
        for m, k, n in shapes:
            for r in RANKS:
                sets = 2 if of.device == "cpu" else max(2, min(24, int(ROTATED // (4 * (m * k + n * k + m * n))) + 1))
                o = operands(m, k, n, r, of.device, dtype, sets)
                forward = forward_ways(o, 2.0, k)
                if not of.quick and not of.smoke:
                    forward["compile"] = compiled(o, 2.0)
                if peft := peft_way(o, k, n, r, of.device, dtype):
                    forward["peft"] = peft
                for operation, ways in (("forward", forward), ("backward", backward_ways(o, 2.0))):
                    base = None
                    for way, run in ways.items():
                        try:
                            micros = timer(run, sets, of.device, of.repeats)
                        except Exception as error:
                            what = f"{operation} {way} {m}x{k}x{n} r{r}"
                            print(f"# {what}: {type(error).__name__}: {str(error)[:120]}", file=sys.stderr)
                            continue
                        base = base or micros
                        print(f"{operation},{way},{m},{k},{n},{r},{micros:.2f},{micros / base:.3f}", flush=True)
                del o, forward
                if of.device == "cuda":
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
