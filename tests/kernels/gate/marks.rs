//! The build's own check (`FUSED_LORA_CHECK=1`): what it writes into templates comes out again, and
//! what ptxas refuses is told by the template's line.

#[path = "../../../build/check.rs"]
#[allow(dead_code)]
mod check;

use std::fs;
use std::path::{Path, PathBuf};

use check::{Check, located, with_marks, without_marks};

use super::tools::Tools;

/// Every template of `kernels/`.
fn templates(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => templates(&path, all),
            false if path.extension().is_some_and(|of| of == "ptx") => all.push(path),
            false => {}
        }
    }
}

#[test]
fn marks_come_out_again() {
    let mut all = Vec::new();
    templates(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"), &mut all);
    assert!(!all.is_empty());
    for path in all {
        let source = fs::read_to_string(&path).unwrap();
        let marked = with_marks("a/b.ptx", &source);
        assert!(marked.contains("/*@a/b.ptx:"), "{}: no mark", path.display());
        assert!(without_marks(&marked) == source, "{} comes out otherwise", path.display());
    }
}

#[test]
fn the_statement_before_a_line_is_its_place() {
    let marked = with_marks("a.ptx", "{# one\n   two; #}\n    ret;   // last\n}\n");
    assert_eq!(marked, "{# one\n   two; #}\n    ret;/*@a.ptx:3*/   // last\n}\n");
    let said = |line: usize| format!("ptxas k.ptx, line {line}; error   : Unknown symbol 'b'");
    assert_eq!(located(&said(3), &marked), "kernels/a.ptx:3: error   : Unknown symbol 'b'");
    assert_eq!(located(&said(4), &marked), "kernels/a.ptx:3: error   : Unknown symbol 'b'");
    assert_eq!(located("ptxas fatal   : aborted", &marked), "ptxas fatal   : aborted");
}

#[test]
fn a_refused_text_is_named_by_template_and_line() {
    let Some(tools) = Tools::find() else { return };
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("marks-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut check = Check::new(tools.newest.path.clone());
    let good =
        ".version 7.4\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n    ret;\n}\n";
    let marked = with_marks("sm80/good.ptx", good);
    assert_eq!(check.add(&folder, "good", &marked).unwrap(), good);
    let passed = check.run();
    let bad = good.replace("    ret;", "    bogus.u32 a;\n    ret;");
    check.add(&folder, "bad", &with_marks("sm80/bad.ptx", &bad)).unwrap();
    let refused = check.run();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(passed, Ok(()));
    let refused = refused.unwrap_err();
    assert!(refused.contains("kernels/sm80/bad.ptx:6: error"), "{refused}");
    assert!(refused.contains("(in bad)") && !refused.contains("good"), "{refused}");
}
