//! What README promises of itself: that it is short, that its first example is as short as it says and runs
//! (as a documentation test of the crate), and that its figures are those of the files that were measured.

const README: &str = include_str!("../../README.md");
const SHARE: &str = include_str!("../../docs/share.md");
const BENCHMARKS: &str = include_str!("../../BENCHMARKS.md");

/// Lines between the fences of the first block of Rust.
fn first_example() -> Vec<&'static str> {
    let block = README.split("```rust\n").nth(1).expect("an example");
    block.split("```").next().expect("its end").lines().collect()
}

#[test]
fn it_is_short() {
    assert!(README.lines().count() <= 130, "{} lines", README.lines().count());
    let lines = first_example();
    let said = lines.iter().filter(|line| !line.trim().is_empty()).count();
    assert!(said <= 12, "{said} lines from nothing to y");
    for word in ["forward(", ".adapter(", ".scale(", "assert_eq!"] {
        assert!(lines.iter().any(|line| line.contains(word)), "{word} is not in the example");
    }
}

/// Cells of the rows whose first cell is `first`, without the markup.
fn row(of: &str, first: &str) -> Vec<String> {
    let is_row = |line: &&str| line.split('|').nth(1).is_some_and(|cell| cell.trim() == first);
    let line = of.lines().find(is_row).unwrap_or_else(|| panic!("no row {first}"));
    let cells = line.trim_matches('|').split('|').skip(1);
    cells.map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn its_shares_are_those_that_were_measured() {
    for size in ["1e-2", "3e-3", "1e-3", "3e-4", "1e-4"] {
        assert_eq!(row(README, size), row(SHARE, size), "{size}");
    }
}

#[test]
fn its_ratios_are_those_that_were_measured() {
    let ratio = |direction: &str, dtype: &str| {
        let is_row = |line: &&str| line.starts_with(&format!("| cpu | {direction} | {dtype} |"));
        let line = BENCHMARKS.lines().find(is_row).expect("a row of the table");
        line.split('|').nth(5).expect("1 to 64 tokens").trim().to_owned()
    };
    let [f, f16, b, b16] =
        [("forward", "f32"), ("forward", "bf16"), ("backward", "f32"), ("backward", "bf16")]
            .map(|(direction, dtype)| ratio(direction, dtype));
    let said = format!("CPU forward {f} (f32), {f16} (bf16), backward {b}, {b16}");
    assert!(README.contains(&said), "README should say: {said}");
}
