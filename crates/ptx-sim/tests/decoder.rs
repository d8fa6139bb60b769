//! The decoder against ptxas itself, form by form: what ptxas refuses, the decoder refuses too, so that no
//! kernel runs here that cannot be assembled; what ptxas accepts and the decoder does not stands in
//! `forms.txt` with its reason. `FUSED_LORA_FORMS_ONE_IN=8` asks ptxas about one form in eight.

#[allow(dead_code)] // the gate in the root package uses all of it
#[path = "../../../tests/kernels/gate/tools.rs"]
mod tools;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use ptx_sim::Module;
use tools::Tools;

/// Forms that the decoder accepts for each target: a change without ptxas at hand shows here.
const ACCEPTED: [(&str, usize); 4] =
    [("sm_80", 7933), ("sm_89", 7957), ("sm_90", 9233), ("sm_90a", 9419)];

fn head(target: &str) -> String {
    format!(
        ".version 8.7\n.target {target}\n.address_size 64\n.const .u32 cc[4] = {{1, 2, 3, 4}};\n\
         .global .u32 gg[4] = {{1, 2, 3, 4}};\n.visible .entry k(.param .u64 x) {{\n\
         .reg .b32 %r<10>; .reg .b64 %d<10>; .reg .f32 %f<10>; .reg .f64 %g<10>; .reg .b16 %h<10>; .reg .pred %p<6>;\n\
         .shared .align 16 .b8 tile[64]; .local .align 16 .b8 loc[64];\n"
    )
}

/// Every `(a|b)` of a pattern written out; `lists` holds the named ones.
fn expand(pattern: &str, lists: &HashMap<&str, &str>) -> Vec<String> {
    let Some(open) = pattern.find('(') else { return vec![pattern.into()] };
    let close = open + pattern[open..].find(')').expect("a closing bracket");
    let inner = &pattern[open + 1..close];
    let choices = lists.get(inner).copied().unwrap_or(inner);
    let tails = expand(&pattern[close + 1..], lists);
    choices
        .split('|')
        .flat_map(|c| tails.iter().map(move |tail| format!("{}{c}{tail}", &pattern[..open])))
        .collect()
}

/// The register file of a type, by its letter.
fn letter(ty: &str) -> Option<char> {
    Some(match ty {
        "b8" | "u8" | "s8" | "b16" | "u16" | "s16" | "f16" | "bf16" | "e4m3x2" | "e5m2x2" => 'h',
        "b32" | "u32" | "s32" | "f16x2" | "bf16x2" | "tf32" => 'r',
        "f32" => 'f',
        "b64" | "u64" | "s64" => 'd',
        "f64" => 'g',
        "pred" => 'p',
        _ => return None,
    })
}

/// `%D0`, `%S0`, `@` and `@A` replaced.
fn operands(form: &str) -> String {
    let (op, rest) = form.split_once(' ').unwrap_or((form, ""));
    let types: Vec<char> = op.trim_end_matches(';').split('.').filter_map(letter).collect();
    let (Some(first), Some(last)) = (types.first(), types.last()) else { return form.into() };
    let has = |space: &str| op.split('.').any(|word| word == space);
    let address = if has("param") {
        "[x]"
    } else if has("shared")
        || has("shared::cluster")
        || has("shared::cta")
        || has("local")
        || has("const")
    {
        "[%r1+32]"
    } else {
        "[%d1+32]"
    };
    let n =
        [("v2", 2), ("v4", 4), ("v8", 8)].into_iter().find(|(v, _)| has(v)).map_or(1, |(_, n)| n);
    let list: Vec<String> =
        (0..n).map(|i| format!("%{last}{}", if last == &'p' { i % 6 } else { i + 1 })).collect();
    let value = if n == 1 { format!("%{last}2") } else { format!("{{{}}}", list.join(", ")) };
    let access = if op.starts_with("ld") {
        format!("{value}, {address}")
    } else {
        format!("{address}, {value}")
    };
    let rest = rest
        .replace("%D", &format!("%{first}"))
        .replace("%S", &format!("%{last}"))
        .replace("@A", address);
    let rest = if rest == "@;" { format!("{access};") } else { rest };
    // There are six predicates.
    let rest = ["6", "7", "8", "9"].iter().fold(rest, |r, n| r.replace(&format!("%p{n}"), "%p5"));
    format!("{op} {rest}")
}

/// `*`, `?` and `[abc]`, nothing more.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, _) => text.is_empty(),
        (Some(b'*'), _) => {
            like(&pattern[1..], text) || (!text.is_empty() && like(pattern, &text[1..]))
        }
        (Some(b'['), Some(c)) => {
            let close = pattern.iter().position(|&p| p == b']').expect("a closing bracket");
            pattern[1..close].contains(c) && like(&pattern[close + 1..], &text[1..])
        }
        (Some(b'?'), Some(_)) => like(&pattern[1..], &text[1..]),
        (Some(p), Some(c)) => p == c && like(&pattern[1..], &text[1..]),
        (Some(_), None) => false,
    }
}

/// All forms, and the exceptions with their reasons.
fn forms() -> (Vec<String>, Vec<(&'static str, &'static str)>) {
    let (mut lists, mut out, mut except, mut seen) =
        (HashMap::new(), Vec::new(), Vec::new(), HashSet::new());
    for line in include_str!("forms.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(line) = line.strip_prefix("! ") {
            except.push(line.split_once(" = ").expect("a reason"));
        } else if let Some((name, list)) = line.split_once(" = ").filter(|(n, _)| !n.contains(' '))
        {
            lists.insert(name, list);
        } else {
            let new = expand(line, &lists).into_iter().map(|form| operands(&form));
            out.extend(new.filter(|form| seen.insert(form.clone())));
        }
    }
    (out, except)
}

/// Why the decoder refuses each form, if it does.
fn decoder(forms: &[String], target: &str) -> Vec<Option<String>> {
    let head = head(target);
    let parse = |form: &String| Module::parse("k", &format!("{head}{form}\nret;\n}}\n"));
    forms.iter().map(|form| parse(form).err().map(|e| e.message)).collect()
}

/// Why ptxas refuses them. It checks in phases and an error in one keeps the later ones from running,
/// so it is asked until what is left passes. The virtual target makes it check without generating code.
fn ptxas(tools: &Tools, forms: &[String], target: &str) -> Vec<Option<String>> {
    let head = head(target);
    let before = head.lines().count();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut out = vec![None; forms.len()];
    for part in 0..forms.len().div_ceil(4000) {
        let file = dir.join(format!("forms-{target}-{part}.ptx"));
        let mut left: Vec<usize> = (part * 4000..forms.len().min((part + 1) * 4000)).collect();
        loop {
            let body: String = left.iter().map(|&i| format!("{}\n", forms[i])).collect();
            fs::write(&file, format!("{head}{body}ret;\n}}\n")).unwrap();
            let run = Command::new(&tools.newest.path)
                .args([&format!("-arch={}", target.replace("sm", "compute")), "-o"])
                .args([&file.with_extension("cubin"), &file])
                .output()
                .unwrap();
            if run.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            let refused: HashMap<usize, &str> = said
                .lines()
                .filter_map(|line| line.split_once(", line ")?.1.split_once(';'))
                // What it only advises against, it takes.
                .filter(|(_, why)| !why.trim_start().starts_with("warning"))
                .filter_map(|(line, why)| Some((line.parse::<usize>().ok()? - before - 1, why)))
                .collect();
            assert!(!refused.is_empty(), "{}: {said}", run.status);
            for (&at, &why) in &refused {
                out[left[at]] = Some(why.to_owned());
            }
            let mut at = 0..;
            left.retain(|_| at.next().is_none_or(|at: usize| !refused.contains_key(&at)));
        }
        let _ = fs::remove_file(&file);
        let _ = fs::remove_file(file.with_extension("cubin"));
    }
    out
}

#[test]
fn as_many_forms_are_accepted_as_were() {
    let (forms, _) = forms();
    let count = |target| decoder(&forms, target).iter().filter(|e| e.is_none()).count();
    let got = ACCEPTED.map(|(target, _)| (target, count(target)));
    assert_eq!(got, ACCEPTED, "of {} forms", forms.len());
}

#[test]
fn the_decoder_is_as_strict_as_ptxas() {
    let Some(tools) = Tools::find() else { return };
    if tools.newest.release != tools::PINNED {
        return tools::say("decoder NOT compared: not the pinned ptxas");
    }
    let one_in = std::env::var("FUSED_LORA_FORMS_ONE_IN").ok();
    let one_in =
        one_in.map_or(1, |n| n.parse().expect("FUSED_LORA_FORMS_ONE_IN: a number above 0"));
    let (forms, except) = forms();
    // Neighbours are alike: each part of the list has its share.
    let forms: Vec<String> = forms.into_iter().step_by(one_in).collect();
    let (mut wrong, mut used) = (Vec::new(), BTreeMap::new());
    for (target, _) in ACCEPTED {
        let (here, there) = (decoder(&forms, target), ptxas(&tools, &forms, target));
        for ((form, here), there) in forms.iter().zip(here).zip(there) {
            match (here, there) {
                (None, Some(why)) => wrong.push(format!("{target}: ptxas refuses `{form}`:{why}")),
                (Some(why), None) => {
                    match except.iter().find(|(p, _)| like(p.as_bytes(), form.as_bytes())) {
                        Some((pattern, _)) => *used.entry(*pattern).or_insert(0) += 1,
                        None => wrong.push(format!("{target}: ptxas accepts `{form}`: {why}")),
                    }
                }
                _ => {}
            }
        }
    }
    // A sample may have no form of an exception's.
    wrong.extend(
        except
            .iter()
            .filter(|(p, _)| one_in == 1 && !used.contains_key(p))
            .map(|(p, _)| format!("no form needs `{p}`")),
    );
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), forms.len(), wrong.join("\n"));
}
