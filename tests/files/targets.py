#!/usr/bin/env python3
"""Which modules PEFT adapts under which configuration, for tests/files/targets.rs (by hand; venv of corpus.py).

    venv/bin/python tests/files/targets.py

Writes targets.json: paths; for each configuration its fields and a hexadecimal number whose bit i says
that peft.tuners.tuners_utils.check_target_module_exists takes path i; null: PEFT refuses it.
"""

import itertools
import json
import pathlib
import random
import warnings

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists

HERE = pathlib.Path(__file__).resolve().parent
warnings.simplefilter("ignore")

PATHS = (
    [f"model.layers.{i}.{m}" for i in (0, 1, 2, 11) for m in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")]
    + [f"model.layers.{i}.mlp.experts.{j}.w1" for i in (1, 2) for j in (0, 1)]
    + ["layers.1.q_proj", "q_proj", "xq_proj", "h.1.q_proj", "m.h.1.q_proj", "m.h.01.q_proj", "a.b.c.1.2.q_proj", "model.layers.1"]
    + ["score", "model.score.q_proj", "lm_head", "model.norm", "model.layers.2x.q_proj", "model.layers..1.q_proj", "Model.Q_PROJ"]
)
TARGETS = [
    ["q_proj"], ["q_proj", "v_proj"], ["self_attn.q_proj", "w1"], ["model.layers.1.self_attn.q_proj", "v_proj"], [], ["proj"], [""], ["q.proj"],
    "q_proj", ".*q_proj", r".*\.(q|v)_proj", r"model\.layers\.[12]\..*", r"(?i).*q_proj", "lm_head|score", ".*", "",
]
EXCLUDES = [None, [], ["v_proj"], ["layers.1.self_attn.q_proj", "score"], ["model.layers.2.self_attn.q_proj"], "v_proj", r".*\.1\..*", ".*q_proj$", ""]
LAYERS = [(None, None), (1, None), ([0, 2], None), ([], None), (0, "layers"), ([1], ["layers"]), ([1], ["h", "layers"]), ([0, 1], "experts"), ([1], ""), ([1], r"(h|c)"), (None, "layers")]
SAVED = [None, [], ["score"], ["norm", "mlp"], ["layers.1"], ["l.*s"]]


def answer(fields):
    try:
        config = LoraConfig(**fields)
    except ValueError:
        return None
    return f"{sum(1 << i for i, path in enumerate(PATHS) if check_target_module_exists(config, path)):x}"


def worth(target, exclude, layers, pattern, saved):
    """Beside a pattern PEFT refuses layers, empty ones too, which here are as good as absent."""
    if isinstance(target, str) and (layers, pattern) != (None, None):
        return layers != [] and pattern != "" and random.random() < 0.1
    return True


def main():
    random.seed(19)
    every = [(t, e, *l, s) for t, e, l, s in itertools.product(TARGETS, EXCLUDES, LAYERS, SAVED)]
    every = [case for case in every if worth(*case)]
    names = "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"
    rows = []
    for case in random.sample(every, 500):
        fields = {name: value for name, value in zip(names, case) if value is not None}
        rows.append([fields, answer(json.loads(json.dumps(fields)))])
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "targets.json").write_text('{"paths": ' + json.dumps(PATHS) + ',\n"configs": [\n' + lines + "\n]}\n")
    print(len(PATHS), "paths,", len(rows), "configurations,", sum(row[1] is None for row in rows), "refused by PEFT")


if __name__ == "__main__":
    main()
