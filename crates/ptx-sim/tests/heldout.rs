//! Kernels in other idioms than the fixtures, written from the ISA's text and from how compilers and others'
//! kernels write them: each is run clean in every order, and with seeded defects that must be noticed. And
//! probes of single forms, with results worked out in Rust.

#[allow(dead_code)] // the gate in the root package uses all of it
#[path = "../../../tests/kernels/gate/tools.rs"]
mod tools;

#[path = "heldout/ampere.rs"]
mod ampere;
#[path = "heldout/case.rs"]
mod case;
#[path = "heldout/forms.rs"]
mod forms;
#[path = "heldout/hopper.rs"]
mod hopper;
#[path = "heldout/probes.rs"]
mod probes;
#[path = "heldout/refused.rs"]
mod refused;

use std::fs;
use std::path::Path;
use std::process::Command;

use case::Case;

fn all() -> Vec<Case> {
    ampere::cases().into_iter().chain(hopper::cases()).collect()
}

#[test]
fn clean_kernels_are_right_in_every_order() {
    let accused: Vec<String> = all().iter().flat_map(Case::accused).collect();
    assert!(accused.is_empty(), "{}", accused.join("\n"));
}

#[test]
fn seeded_defects_are_noticed() {
    let missed: Vec<String> = all().iter().flat_map(Case::missed).collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn single_forms_do_what_the_isa_says() {
    let wrong = probes::wrong();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_simulated_is_refused_by_name_and_line() {
    let wrong = probes::not_refused();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_text_assembles_for_its_target() {
    let Some(tools) = tools::Tools::find() else { return };
    let kernels = all().into_iter().map(|c| (c.name.to_owned(), c.text.to_owned()));
    let wrong: Vec<String> = kernels
        .chain(probes::texts())
        .filter_map(|(name, text)| {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("heldout-{name}.ptx"));
            fs::write(&file, &text).unwrap();
            let target = case::target(&text);
            let run = Command::new(&tools.newest.path)
                .args([&format!("-arch={target}"), "-o"])
                .args([&file.with_extension("cubin"), &file])
                .output()
                .unwrap();
            let _ = fs::remove_file(&file);
            let _ = fs::remove_file(file.with_extension("cubin"));
            let said = String::from_utf8_lossy(&run.stderr);
            (!run.status.success()).then(|| format!("{name} ({target}): {said}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
