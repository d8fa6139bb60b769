#!/usr/bin/env python3
"""What Python's re says of keys and paths, for tests/files/patterns.rs (by hand; needs Python 3.11 or later).

    python3 tests/files/patterns.py

Writes patterns.json: paths; for each key two hexadecimal numbers whose bit i is path i. `match`: PEFT's
get_pattern_key, re.match(rf"(.*\.)?({key})$", path). `full`: PEFT's target_modules,
re.fullmatch(key, path). null: Python refuses the key. `refused`: keys that Python takes and
that need more than a linear matcher, with the words by which they are refused.
"""

import json
import pathlib
import random
import re
import sys
import warnings

HERE = pathlib.Path(__file__).resolve().parent
assert sys.version_info >= (3, 11), "older versions take flags in the middle, and no possessive quantifiers"
warnings.simplefilter("ignore")  # Python's thoughts about [[a]

PATHS = (
    [f"model.layers.{i}.self_attn.{p}" for i in (0, 1, 3, 10, 13, 30, 31) for p in ("q_proj", "k_proj", "v_proj", "o_proj")]
    + [f"model.layers.{i}.mlp.{p}" for i in (0, 3, 13) for p in ("gate_proj", "up_proj", "down_proj")]
    + [f"model.layers.3.mlp.experts.{i}.w{j}" for i in (0, 3, 12) for j in (1, 2)]
    + [f"transformer.h.{i}.attn.{p}" for i in (0, 3, 11) for p in ("c_attn", "c_proj")]
    + [f"unet.down_blocks.{i}.attentions.0.transformer_blocks.0.attn{j}.to_{p}" for i in (1, 2) for j in (1, 2) for p in "qkv"]
    + [f"unet.mid_block.attentions.0.transformer_blocks.{i}.attn1.to_out.0" for i in (0, 1)]
    + ["bert.encoder.layer.3.attention.self.query", "bert.encoder.layer.3.output.dense", "bert.pooler.dense"]
    + ["lm_head", "q_proj", "fc1", "fc2", "fc2.inner", "block.fc2", "block.xfc2", "xfc2", "model", "3", "a.3.b", "layers.3.q"]
    + ["a", "b", "ab", "ba", "aab", "aaab", "aaaa", "abab", "a.b", "aXb", "a.b.c", "b.a", "A", "Q_PROJ", "Model.Layers.3.Q_proj"]
    + ["a+b", "a*b", "f(x)", "a[1]", "a{2}", "a|b", "a^b", "a$b", "a$", "^a", "a\\b", "a-b", "a b", "a\tb", "x-]y", "a/b#c"]
    + [".", "..", ".a", "a.", "a..b", "fc2.", " ", "_", "-", "]", "}", "0", "00", "007", "3a"]
    + ["größe.q_proj", "q_proj.größe", "層.3.q_proj", "model.٣.q_proj", "x²", "e\u0301", "ſ", "K", "İ", "ı", "a\u200db", "a\x1cb", "a\xa0b", "Ⅷ", "日本語", "a‿b", "𝟛.q"]
)

KEYS = [
    # What configurations have: names, whole paths, expressions.
    "q_proj", "k_proj", "fc2", "c2", "self_attn.q_proj", "layers.3.q", "layers.3", "layers", "model.layers.3.self_attn.q_proj",
    "model.layers.13.mlp.up_proj", "^fc2", "^model.layers.3.self_attn.q_proj", "fc2$", "^fc2$", "^", "$", "^$", "", "lm_head|q_proj",
    r".*\.layers\.3\..*(q_proj|k_proj)$", r".*\.layers\.(3|13)\..*(q_proj|k_proj)$", r"layers\.3\.self_attn\.q_proj", r".*layers.*",
    r"model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj", r"model\.layers\.[0-9]+\.mlp\..*", r"layers\.([0-9]|1[0-9])\..*_proj",
    r".*\.(q_proj|v_proj)", r"(?:.*\.)?(?:q|v)_proj", r".*attn1.*to_[qkv]$", r".*(down_blocks\.[12]|mid_block).*to_(q|out\.0)", r"h\.\d\.attn\.c_.*",
    r".*\.experts\.\d+\.w[12]", r"(?!x)?", r".*\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj", r"\w+_proj", r"[a-z]+_proj", r".*_proj",
    r"(?i)q_proj", r"(?i).*Q_PROJ", r"(?i:Q_proj)", r"(?i:MODEL)\.layers.*", r"q(?i:_PROJ)", r"layers\.(?:1|3)[^0-9].*", r"^(?:(?!mlp).)*$",
    # Every operator, with what it stands upon.
    "a*", "a+", "a?", "a*b", "a+b", "a?b", "a*?b", "a+?b", "a??b", "(ab)*", "(ab)+", "(a|b)*", "(a|ab)(b|a)?", "a|b", "a|", "|a", "|", "()", "(a)", "((a))",
    "(?:a)", "(?:)", "(?P<n>a)b", "a{2}", "a{2,}", "a{,2}", "a{1,3}b", "a{0}b", "a{0,0}b", "a{,}", "a{}", "a{", "a{x}", "a{1", "{", "}", "{2}", "a{2}{2}",
    "(?:a{2}){2}", "a{3,2}", "a{ 2}", "[ab]", "[ab]+", "[^ab]", "[^.]+", "[^.]*b", "[a-c]+", "[]a]", "[]", "[^]a]", "[a-]", "[-a]", "[a-c-e]", "[c-a]", "[a",
    "[[a]", "[a&&b]", "[a--b]", "[.]", "[*]", "[\\]]", r"[\w.]+", r"[^\W\d]+", r"[\d]", r"[\D]", r"[\s]", r"[\S]", r"[\w-]+", r"[\w-z]", r"[a-\w]", r"[\b]", r"[\x61]",
    ".", "..", ".*", ".+", ".?", ".*.*b", ".{3}", ".*a.*b.*", r"\.", r"a\.b", r"a\+b", r"a\*b", r"f\(x\)", r"a\[1\]", r"a\{2\}", r"a\|b", r"a\^b", r"a\$b", r"a\$",
    r"a\\b", r"a\-b", r"a\ b", r"a\/b\#c", r"\_", r"\]", r"\}", "]", "}", "a]", "f(x", "f(x)", "x)", "a)(b", "a)|(b", "(", ")", "*", "+", "?", "**", "a**", "a*+b", "a++b",
    "a?+b", "a{1,2}+b", "^*", "$*", "^a", "a^b", "a$b", "a$", "^^a", "a$$", "(^a)", "(a$)", "(^|x)a", "a(b|$)", r"\Aa", r"a\Z", r"\A", r"\Z", r"a\z", r"\ba", r"a\b", r"\Bb",
    r"a\B", r".*\bq_proj\b", r"\b", r"\bgröße", r"\d", r"\d+", r"\D+", r"\s", r"a\sb", r"a\Sb", r"\w", r"\w+", r"\W", r"\W+", r"a\Wb", r".*\.\d+\..*", r"\w\d*\w",
    r"\x61", r"\u0061", r"\U00000061", r"\x6", r"\u006", r"\N{DIGIT ONE}", r"\a", r"\f\n\r\t\v", r"a\tb", r"\0", r"\00", r"\061", r"\141", r"\e", r"\q", r"\y", r"\ü", "\\", "a\\",
    r"größe.*", "größe", r".*größe", "層", r"層\..*", r"\u5c64.*", "[ä-ö]+", "[^a-z]+", "x.", "e.", "K", "(?i)k", "(?i)s", "(?i)ſ", "(?i)[a-z]", "日.語", "...", "𝟛",
    r"(a)\1", r"(?P<n>a)(?P=n)", r"a(?=b)", r"a(?!b).*", r"(?<=a)b", r"(?<!a)b", r"(?>a+)b", r"(a)?(?(1)b|c)", "(?x) a b", "(?a)a", "(?L)a", "(?u)a", "(?s).*b", "(?m)^a$", "(?z)a",
    "a(?i)b", "(?i:a)b", "(?-i:a)b", "(?s:.)b", "(?i", "(?", "(?:", "(?P", "(?P<", "(?P<n", "(?P<n>", "(?P<1>a)", "(?P<n>a)(?P<n>b)", "(?#note)a", "a(?#note)*b", "(?#note", "(?<n>a)",
    # Of tests elsewhere, and what once was wrong.
    "layers.*.q", "layers.*.q_proj", "a.b", "a.*b", "model.layers..*", "(q|k)_proj", "^layers.3", "model$", "0", "3", "00?7", "(fc2|)$", "(|fc2)", "(.*)(.*)(.*)b", "(a*)*b", "(a|a)*b", "x*",
]

REFUSED = {
    r"(a)\1": "backreference", r"(?P<n>a)(?P=n)": "backreference", r"a(?=b)": "lookahead", r"a(?!b).*": "lookahead", r"(?!x)?": "lookahead",
    r"^(?:(?!mlp).)*$": "lookahead", r"(?<=a)b": "lookbehind", r"(?<!a)b": "lookbehind", r"(?>a+)b": "atomic group", r"(a)?(?(1)b|c)": "condition",
    "a*+b": "possessive", "a++b": "possessive", "a?+b": "possessive", "a{1,2}+b": "possessive", "(?x) a b": "verbose", "(?a)a": "ASCII flag", r"\N{DIGIT ONE}": "by name",
    "(?i)ſ": "outside ASCII",
}


def random_keys(count):
    """Expressions of few letters, so that they meet the short paths."""
    random.seed(19)
    atoms = ["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", "ab", "(a|b)", "(?:ab|b)", "a.", "3", r"\d"]
    ends = ["", "", "", "*", "+", "?", "{2}", "{0,1}", "*?", "+?"]
    for _ in range(count):
        yield "".join(random.choice(atoms) + random.choice(ends) for _ in range(random.randint(1, 4)))


def bits(matcher):
    try:
        return f"{sum(1 << i for i, path in enumerate(PATHS) if matcher(path)):x}"
    except (re.error, OverflowError):
        return None


def main():
    paths = list(dict.fromkeys(PATHS))
    assert paths == PATHS, "a path twice"
    keys = list(dict.fromkeys(KEYS + list(random_keys(60))))
    rows = []
    for key in keys:
        match = bits(lambda path: re.match(rf"(.*\.)?({key})$", path))
        rows.append([key, match, bits(lambda path: re.fullmatch(key, path))])
    lines = [json.dumps(row, ensure_ascii=True) for row in rows]
    with open(HERE / "patterns.json", "w") as file:
        file.write('{"paths": ' + json.dumps(PATHS) + ',\n"refused": ' + json.dumps(REFUSED) + ',\n"keys": [\n')
        file.write(",\n".join(lines) + "\n]}\n")
    print(len(PATHS), "paths,", len(keys), "keys:", len(PATHS) * len(keys), "pairs, each matched in two ways")


if __name__ == "__main__":
    main()
