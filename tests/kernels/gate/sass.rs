//! What the machine code is made of, from `nvdisasm -json`: the main loop's instructions, how many of
//! them multiply matrices, what is issued once around it, and whether anything reaches for local
//! memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::issue::{Interior, Step};

/// Opcodes that multiply matrices.
const MMA: [&str; 5] = ["HMMA", "HGMMA", "IMMA", "QGMMA", "QMMA"];

/// Bytes of a machine instruction on every target from sm_70 on.
const INSTRUCTION: u64 = 16;

/// The innermost loop that multiplies matrices, the one that does most; without any the longest innermost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MainLoop {
    pub(crate) instructions: u32,
    pub(crate) mma: u32,
    /// The way around that loads and multiplies most.
    pub(crate) step: Step,
    /// The one that loads and multiplies less: in a loop that carries ranks, without them.
    pub(crate) bare: Option<Step>,
    /// Innermost loops without a branch that wait at a barrier, copy and multiply, the longest first: with
    /// and without ranks.
    pub(crate) interiors: [Option<Interior>; 2],
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sass {
    pub(crate) main_loop: MainLoop,
    /// Loads from and stores to local memory, anywhere.
    pub(crate) local: u32,
}

/// Disassembles `cubin`.
pub(crate) fn disassemble(nvdisasm: &Path, cubin: &Path) -> Result<Sass, String> {
    let run = Command::new(nvdisasm).arg("-json").arg(cubin).output();
    let run = run.map_err(|error| format!("{}: {error}", nvdisasm.display()))?;
    if !run.status.success() {
        return Err(format!("nvdisasm: {}", String::from_utf8_lossy(&run.stderr).trim()));
    }
    let tree: Value =
        serde_json::from_slice(&run.stdout).map_err(|error| format!("nvdisasm's JSON: {error}"))?;
    read(&tree).ok_or_else(|| "nvdisasm's JSON has another shape than expected".into())
}

/// `[header, [function, …]]`; a function's `sass-instructions` have opcode and operands.
fn read(tree: &Value) -> Option<Sass> {
    let mut out = Sass::default();
    for function in tree.get(1)?.as_array()? {
        let code = function.get("sass-instructions")?.as_array()?;
        let opcodes: Vec<&str> =
            code.iter().map(|inst| inst.get("opcode")?.as_str()).collect::<Option<_>>()?;
        let is =
            |opcode: &str, names: &[&str]| names.contains(&opcode.split('.').next().unwrap_or(""));
        out.local += opcodes.iter().filter(|o| is(o, &["LDL", "STL"])).count() as u32;
        let loops: Vec<(usize, usize)> = (0..code.len())
            .filter(|&at| is(opcodes[at], &["BRA"]))
            .filter_map(|at| Some((target(code[at].get("operands")?.as_str()?)?, at)))
            // A branch to itself is the padding behind the code.
            .filter(|&(to, at)| to < at)
            .collect();
        let mma = |&(from, to): &(usize, usize)| {
            opcodes[from..=to].iter().filter(|o| is(o, &MMA)).count() as u32
        };
        for outer in &loops {
            let instructions = (outer.1 - outer.0 + 1) as u32;
            let here = MainLoop { instructions, mma: mma(outer), ..MainLoop::default() };
            // A loop inside counts for itself, unless all the multiplying is around it.
            let inside = |l: &&(usize, usize)| l.0 >= outer.0 && l.1 <= outer.1 && *l != outer;
            if loops.iter().filter(inside).any(|l| here.mma == 0 || mma(l) > 0) {
                continue;
            }
            let best = out.main_loop;
            let interiors = with(best.interiors, interior(code, *outer));
            if (here.mma, here.instructions) > (best.mma, best.instructions) {
                let (step, bare) = ways(code, *outer);
                out.main_loop = MainLoop { step, bare, ..here };
            }
            out.main_loop.interiors = interiors;
        }
    }
    Some(out)
}

/// The two with most mma, in that order.
fn with(all: [Option<Interior>; 2], one: Option<Interior>) -> [Option<Interior>; 2] {
    let mut sorted: Vec<Interior> = all.into_iter().chain([one]).flatten().collect();
    sorted.sort_by_key(|of| core::cmp::Reverse((of.step.mma, of.step.instructions)));
    [sorted.first().copied(), sorted.get(1).copied()]
}

/// The loop as an interior, if it is one.
fn interior(code: &[Value], (from, to): (usize, usize)) -> Option<Interior> {
    let opcode = |at: usize| code[at].get("opcode").and_then(Value::as_str).unwrap_or("");
    let is =
        |at: usize, names: &[&str]| names.contains(&opcode(at).split('.').next().unwrap_or(""));
    let count = |names: &[&str]| (from..=to).filter(|at| is(*at, names)).count() as u32;
    if count(&["BRA", "CALL", "EXIT"]) > 1 || count(&["BAR"]) != 1 || count(&["LDGSTS"]) == 0 {
        return None;
    }
    let barrier = (from..=to).find(|at| is(*at, &["BAR"]))?;
    // Around the loop, once: what is behind the branch back is its beginning.
    let around = (barrier + 1..=to).chain(from..barrier);
    let wait = around.clone().position(|at| is(at, &MMA))? as u32;
    let (mut copies, mut row) = (0, 0);
    for at in around {
        row = if is(at, &MMA) { 0 } else { row + u32::from(is(at, &["LDGSTS"])) };
        copies = copies.max(row);
    }
    let step = Step { instructions: (to - from + 1) as u32, mma: count(&MMA) };
    Some(Interior { step, wait, copies })
}

/// The ways around a loop that matter. Of those with as many mma and loads the shortest counts:
/// what it leaves out is done now and then. Branches back, out, and calls are not followed.
fn ways(code: &[Value], (from, to): (usize, usize)) -> (Step, Option<Step>) {
    let text = |at: usize, key: &str| code[at].get(key).and_then(Value::as_str).unwrap_or("");
    let is = |at: usize, names: &[&str]| {
        names.contains(&text(at, "opcode").split('.').next().unwrap_or(""))
    };
    // Fewest instructions before each one, by the mma and the loads among them.
    let mut reached: Vec<BTreeMap<(u32, u32), u32>> = vec![BTreeMap::new(); to - from + 1];
    reached[0].insert((0, 0), 0);
    for at in from..to {
        let mma = u32::from(is(at, &MMA));
        // Of operands, 16 bytes or an element: not of flags.
        let loads = ["LDGSTS", "LDG.E.U16"].iter().any(|name| text(at, "opcode").starts_with(name));
        let loads = u32::from(loads);
        let branch = is(at, &["BRA"]);
        let aside =
            target(text(at, "operands")).filter(|aside| branch && (at + 1..=to).contains(aside));
        // Without a predicate nothing falls through a branch.
        let on = (!branch || !text(at, "predicate").is_empty()).then_some(at + 1);
        let here = std::mem::take(&mut reached[at - from]);
        for next in aside.into_iter().chain(on) {
            for (&(all_mma, all_loads), &instructions) in &here {
                let key = (all_mma + mma, all_loads + loads);
                let least = reached[next - from].entry(key).or_insert(u32::MAX);
                *least = (*least).min(instructions + 1);
            }
        }
    }
    let last = &reached[to - from];
    // The last one is the branch back.
    let step = |(&(mma, _), &instructions): (&(u32, u32), &u32)| Step {
        instructions: instructions + 1,
        mma,
    };
    let Some(most) = last.iter().next_back() else { return (Step::default(), None) };
    let (mma, loads) = *most.0;
    let less = |of: &(&(u32, u32), &u32)| of.0.0 < mma && (1..loads).contains(&of.0.1);
    (step(most), last.iter().rev().find(less).map(step))
}

/// `P1,0x6e0`: the index of the instruction at that address.
fn target(operands: &str) -> Option<usize> {
    let address = operands.rsplit(',').next()?.trim().strip_prefix("0x")?;
    Some((u64::from_str_radix(address, 16).ok()? / INSTRUCTION) as usize)
}

#[test]
fn loops_of_a_listing() {
    let inst =
        |opcode: &str, operands: &str| serde_json::json!({"opcode": opcode, "operands": operands});
    let code = serde_json::json!([{}, [{"sass-instructions": [
        inst("MOV", "R1"),
        inst("LDSM.16.M88.4", ""),
        inst("HMMA.16816.F32.BF16", ""),
        inst("BRA", "P1,0x10"),
        inst("LDL", "R2"),
        inst("BRA", "0x0"),
        inst("BRA", "0x60"),
    ]}]]);
    let main_loop = read(&code).unwrap().main_loop;
    assert_eq!((main_loop.instructions, main_loop.mma), (3, 1));
    assert_eq!(read(&code).unwrap().local, 1);
    // The inner loop only loads: the outer one is the main loop.
    let code = serde_json::json!([{}, [{"sass-instructions": [
        inst("LDGSTS", ""),
        inst("BRA", "P1,0x0"),
        inst("HMMA.16816.F32", ""),
        inst("BRA", "P2,0x0"),
    ]}]]);
    let main_loop = read(&code).unwrap().main_loop;
    assert_eq!((main_loop.instructions, main_loop.mma), (4, 1));
    assert_eq!(read(&serde_json::json!([{}])), None);
}

#[test]
fn ways_around_a_loop() {
    let inst = |predicate: &str, opcode: &str, operands: &str| serde_json::json!({"predicate": predicate, "opcode": opcode, "operands": operands});
    let code = [
        inst("@P0", "BRA", "0x30"), // at the end nothing is loaded
        inst("", "LDGSTS.E.BYPASS.128", ""),
        inst("@P1", "LDGSTS.E.BYPASS.128", ""),
        inst("", "HMMA.16816.F32", ""),
        inst("@P2", "BRA", "P3,0x90"), // no owner
        inst("", "HMMA.16816.F32", ""),
        inst("", "LDGSTS.E.BYPASS.128", ""),
        inst("", "BRA", "0x90"),
        inst("", "HMMA.16816.F32", ""),   // never reached
        inst("", "LDG.E.STRONG.GPU", ""), // a flag is no load
        inst("@P4", "BRA", "0x0"),
    ];
    let (step, bare) = ways(&code, (0, 10));
    assert_eq!(step, Step { instructions: 10, mma: 2 });
    assert_eq!(bare, Some(Step { instructions: 7, mma: 1 }));
}

#[test]
fn interiors_are_loops_without_a_branch() {
    let inst =
        |opcode: &str, operands: &str| serde_json::json!({"opcode": opcode, "operands": operands});
    let mut code = vec![
        inst("HMMA.16816.F32", ""),
        inst("BAR.SYNC.DEFER_BLOCKING", "0x0"),
        inst("LDSM.16.M88.4", ""),
        inst("HMMA.16816.F32", ""),
        inst("LDGSTS.E.BYPASS.128", ""),
        inst("IADD3", ""),
        inst("LDGSTS.E.BYPASS.128", ""),
        inst("BRA", "P1,0x0"),
    ];
    let step = Step { instructions: 8, mma: 2 };
    let found = interior(&code, (0, 7)).unwrap();
    assert_eq!(found, Interior { step, wait: 1, copies: 2 });
    assert_eq!(found.refused("plain_small_bf16"), None);
    let said = found.refused("plain_large_bf16").unwrap();
    assert!(said.contains("4.00 instructions for each mma"), "{said}");
    assert!(Interior { wait: 13, ..found }.refused("x").unwrap().contains("barrier"));
    let dense = Interior { step: Step { instructions: 4, ..step }, copies: 5, wait: 1 };
    assert!(dense.refused("plain_large_bf16").unwrap().contains("in a row"));
    assert!(dense.refused("leader_medium_r32_bf16_nmajor").unwrap().contains("in a row"));
    let sparse = Interior { step: Step { instructions: 9, ..step }, ..found };
    assert_eq!(sparse.refused("plain_large_bf16_nmajor"), None);
    let longest = Interior { step: Step { mma: 3, ..step }, ..found };
    let both = with(with([None; 2], Some(found)), Some(longest));
    assert_eq!(both, [Some(longest), Some(found)]);
    code[5] = inst("BRA", "P2,0x70");
    assert_eq!(interior(&code, (0, 7)), None);
}
