//! What passes the gate: the texts that `build.rs` renders, and the simulator's fixtures. A text
//! that is rendered is here; nothing is listed twice.

use std::fs;

/// A text under a name that no other has.
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Fields of the library's list, of texts that are in it: see [`Kernel::field`].
    pub(crate) listed: Option<String>,
}

impl Kernel {
    /// A number that the library's list says of the text: `threads`, `resident`, ….
    pub(crate) fn field(&self, name: &str) -> Option<u32> {
        let (_, rest) = self.listed.as_ref()?.split_once(&format!(" {name}: "))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

const RENDERED: &str = env!("OUT_DIR");

/// Every text of `kernels/`, by the list that the library embeds: a file that an earlier build
/// left in the folder is not in it.
pub(crate) fn rendered() -> Vec<Kernel> {
    let list = fs::read_to_string(format!("{RENDERED}/cuda_texts.rs")).expect("build.rs's list");
    let names = embedded(&list);
    let lengths = list.split(": [Variant; ").skip(1).map(|rest| rest.split_once(']'));
    let count: usize =
        lengths.map(|of| of.and_then(|(n, _)| n.parse::<usize>().ok()).expect("a length")).sum();
    assert_eq!(names.len(), count, "names of files, and lengths of the lists");
    let read = |name: &str| {
        let file = format!("{RENDERED}/{name}.ptx");
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let listed = |name: &str| {
        let row = format!("Variant::new(\"{name}\", ");
        list.lines().find(|line| line.contains(&row)).map(str::to_owned)
    };
    names
        .into_iter()
        .map(|name| Kernel { name: name.into(), text: read(name), listed: listed(name) })
        .collect()
}

/// The names of its rows.
fn embedded(list: &str) -> Vec<&str> {
    let rows = list.split("    Variant::new(\"").skip(1);
    rows.map(|row| row.split_once('"').expect("a name").0).collect()
}

/// All texts that pass the gate.
pub(crate) fn kernels() -> Vec<Kernel> {
    let fixture = |name: &str, text: &str| Kernel {
        name: format!("fixture/{name}"),
        text: text.into(),
        listed: None,
    };
    let mut all = rendered();
    all.extend([
        fixture("flags", include_str!("../../../crates/ptx-sim/tests/fixtures/flags.ptx")),
        fixture("gemm_bf16", include_str!("../../../crates/ptx-sim/tests/fixtures/gemm_bf16.ptx")),
        fixture("gemm_f16", include_str!("../../../crates/ptx-sim/tests/fixtures/gemm_f16.ptx")),
        fixture("gemm_f32", include_str!("../../../crates/ptx-sim/tests/fixtures/gemm_f32.ptx")),
        fixture("gemv", include_str!("../../../crates/ptx-sim/tests/fixtures/gemv.ptx")),
        fixture("histogram", include_str!("../../../crates/ptx-sim/tests/fixtures/histogram.ptx")),
        fixture("philox", include_str!("../../../crates/ptx-sim/tests/fixtures/philox.ptx")),
        fixture("scan", include_str!("../../../crates/ptx-sim/tests/fixtures/scan.ptx")),
        fixture("softmax", include_str!("../../../crates/ptx-sim/tests/fixtures/softmax.ptx")),
    ]);
    all
}
