//! What the machine code is made of, from `nvdisasm -json`: the main loop's instructions, how many of
//! them multiply matrices, and whether anything reaches for local memory.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Bytes of a machine instruction on every target from sm_70 on.
const INSTRUCTION: u64 = 16;

/// The innermost loop that multiplies matrices, the one that does most; without any the longest innermost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MainLoop {
    pub(crate) instructions: u32,
    pub(crate) mma: u32,
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
        let names = ["HMMA", "HGMMA", "IMMA", "QGMMA", "QMMA"];
        let mma = |&(from, to): &(usize, usize)| {
            opcodes[from..=to].iter().filter(|o| is(o, &names)).count() as u32
        };
        for outer in &loops {
            let here = MainLoop { instructions: (outer.1 - outer.0 + 1) as u32, mma: mma(outer) };
            // A loop inside counts for itself, unless all the multiplying is around it.
            let inside = |l: &&(usize, usize)| l.0 >= outer.0 && l.1 <= outer.1 && *l != outer;
            if loops.iter().filter(inside).any(|l| here.mma == 0 || mma(l) > 0) {
                continue;
            }
            let best = out.main_loop;
            if (here.mma, here.instructions) > (best.mma, best.instructions) {
                out.main_loop = here;
            }
        }
    }
    Some(out)
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
    let main_loop = MainLoop { instructions: 3, mma: 1 };
    assert_eq!(read(&code), Some(Sass { main_loop, local: 1 }));
    // The inner loop only loads: the outer one is the main loop.
    let code = serde_json::json!([{}, [{"sass-instructions": [
        inst("LDGSTS", ""),
        inst("BRA", "P1,0x0"),
        inst("HMMA.16816.F32", ""),
        inst("BRA", "P2,0x0"),
    ]}]]);
    let main_loop = MainLoop { instructions: 4, mma: 1 };
    assert_eq!(read(&code), Some(Sass { main_loop, local: 0 }));
    assert_eq!(read(&serde_json::json!([{}])), None);
}
