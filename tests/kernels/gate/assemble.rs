//! One text through one ptxas for one target: the resources that it reports, or every reason to
//! refuse. ptxas exits with 0 on much that ruins a kernel, so its words are read, not its status alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::tools::Ptxas;

/// What ptxas says that a launch needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) registers: u32,
    /// Bytes of static shared memory.
    pub(crate) shared: u32,
}

/// Assembles `text` into `cubin`.
pub(crate) fn assemble(
    ptxas: &Ptxas,
    text: &Path,
    target: &str,
    cubin: &Path,
) -> Result<Resources, Vec<String>> {
    let run = Command::new(&ptxas.path)
        .args(["-v", "-Werror", "--warn-on-spills", "--warn-on-local-memory-usage"])
        .arg(format!("-arch={target}"))
        .arg(text)
        .arg("-o")
        .arg(cubin)
        .output()
        .map_err(|error| vec![format!("{}: {error}", ptxas.path.display())])?;
    let said = [run.stdout, run.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let (resources, mut refused) = read(&said);
    if !run.status.success() && refused.is_empty() {
        refused.push(format!("{}: {}", run.status, said.trim()));
    }
    if refused.is_empty() && fs::metadata(cubin).map_or(0, |m| m.len()) == 0 {
        refused.push("ptxas wrote nothing".into());
    }
    match resources {
        Some(resources) if refused.is_empty() => Ok(resources),
        None if refused.is_empty() => Err(vec![format!("ptxas reports no registers: {said}")]),
        _ => Err(refused),
    }
}

/// The number before `unit` in a line of several.
fn count(line: &str, unit: &str) -> Option<u32> {
    let (before, _) = line.split_once(unit)?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// All that ptxas printed, weighed.
fn read(said: &str) -> (Option<Resources>, Vec<String>) {
    let (mut resources, mut refused) = (None, Vec::new());
    let (mut spilled, mut stack) = ((0, 0), 0);
    for line in said.lines().map(str::trim) {
        if line.contains("Used ")
            && let Some(registers) = count(line, " registers")
        {
            // The largest entry of a module counts.
            let here: &mut Resources = resources.get_or_insert_default();
            here.registers = here.registers.max(registers);
            here.shared = here.shared.max(count(line, " bytes smem").unwrap_or(0));
            continue;
        }
        // Said twice, as a warning and among the properties.
        let number = |unit| count(line, unit).unwrap_or(0);
        let (stores, loads) = (number(" bytes spill stores"), number(" bytes spill loads"));
        if stores + loads > 0 || line.contains("spilled") {
            spilled = (spilled.0.max(stores), spilled.1.max(loads));
        } else if line.contains("Local memory used") {
            stack = stack.max(number(" bytes"));
        } else if line.contains("bytes stack frame") {
            stack = stack.max(number(" bytes stack frame"));
        } else if ["(C75", "error", "warning", "fatal"].iter().any(|word| line.contains(word)) {
            // C75xx is information to ptxas and a ruined kernel to us: wgmma that is serialised,
            // setmaxnreg that is ignored.
            refused.push(line.to_owned());
        }
    }
    match (spilled, stack) {
        ((0, 0), 0) => {}
        ((0, 0), stack) => refused.push(format!("{stack} bytes of local memory")),
        ((stores, loads), _) => {
            refused.push(format!("registers spill: {stores} bytes stored, {loads} loaded"));
        }
    }
    (resources, refused)
}

#[test]
fn words_of_ptxas() {
    let clean =
        "ptxas info    : Used 124 registers, used 1 barriers, 2048 bytes smem, 388 bytes cmem[0]";
    assert_eq!(read(clean), (Some(Resources { registers: 124, shared: 2048 }), vec![]));
    let old = "ptxas info    : Used 36 registers, 384 bytes cmem[0]";
    assert_eq!(read(old), (Some(Resources { registers: 36, shared: 0 }), vec![]));
    let spill = "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads";
    assert_eq!(read(spill).1, ["registers spill: 4 bytes stored, 12 loaded"]);
    assert_eq!(
        read("    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads").1.len(),
        0
    );
    assert_eq!(
        read("    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads").1.len(),
        1
    );
    // Printed as information, with exit code 0.
    let info = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized";
    assert_eq!(read(info).1, [info]);
}
