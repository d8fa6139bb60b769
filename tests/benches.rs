//! What the benches for cards rest on and no card is needed for: the unfused ways compute the
//! layer, also when they are said in BLAS's columns; the rows of the design are measured; sets
//! of buffers overflow the cache; tables say what was measured.

// Shared with the benches, which use all of it.
#![allow(dead_code, missing_docs, unreachable_pub)]

#[path = "../benches/cuda/cells.rs"]
mod cells;
#[path = "../benches/cuda/column.rs"]
mod column;
#[path = "../benches/common/mod.rs"]
mod common;
#[path = "../benches/cuda/products.rs"]
mod products;
#[path = "../benches/cuda/report.rs"]
mod report;

use cells::{goal_of, goals, sets, table, tiny, title};
use column::Gemm;
use common::Cost;
use common::shapes::{Cell, Direction, Shape};
use common::statistics::Interval;
use fused_lora::DType;
use products::{Form, Name, Product, View, Way, allocated, outputs, part, products};
use report::{RIVALS, Rival, Row, Table};

/// s.
const SCALE: f64 = 2.0;

/// The matrices of a cell as whole numbers, so that every sum is exact.
struct Matrices {
    cell: Cell,
    elements: Vec<Vec<f64>>,
}

impl Matrices {
    fn new(cell: Cell) -> Matrices {
        let size = |name| allocated(cell, name).map_or(0, |[rows, cols]| rows * cols);
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % 7) as f64 - 3.0
        };
        let mut fill = |name| (0..size(name)).map(|_| next()).collect();
        let elements = Name::ALL.into_iter().map(&mut fill).collect();
        let mut of = Matrices { cell, elements };
        of.prepare();
        of
    }

    fn view(&self, name: Name) -> View {
        let [rows, cols] = allocated(self.cell, name).expect("a matrix of this direction");
        View { name, rows, cols, offset: 0, stride: cols }
    }

    fn get(&self, view: View, row: usize, col: usize) -> f64 {
        self.elements[view.name as usize][view.offset + row * view.stride + col]
    }

    fn set(&mut self, view: View, row: usize, col: usize, value: f64) {
        self.elements[view.name as usize][view.offset + row * view.stride + col] = value;
    }

    /// The paddings are zero, s·b is made of b, and the extended way gets its copies.
    fn prepare(&mut self) {
        let (cell, part) = (self.cell, part(self.cell));
        let [a, b, scaled] = [Name::A, Name::B, Name::ScaledB].map(|name| self.view(name));
        for row in cell.rank..part {
            (0..a.cols).for_each(|col| self.set(a, row, col, 0.0));
        }
        for row in 0..scaled.rows {
            for col in 0..part {
                let value = if col < cell.rank { SCALE * self.get(b, row, col) } else { 0.0 };
                self.set(scaled, row, col, value);
            }
        }
        let backward = cell.direction == Direction::Backward;
        let [input, w] =
            [if backward { Name::Dy } else { Name::X }, Name::W].map(|of| self.view(of));
        let [beside, bordered] = [Name::Beside, Name::Bordered].map(|name| self.view(name));
        self.copy(input, beside, [0, 0]);
        self.copy(w, bordered, [0, 0]);
        match backward {
            true => self.copy(a, bordered, [w.rows, 0]),
            false => self.copy(scaled, bordered, [0, w.cols]),
        }
        if backward {
            let shrunk = self.view(Name::Shrunk);
            for row in 0..shrunk.rows {
                (cell.rank..part).for_each(|col| self.set(shrunk, row, col, 0.0));
            }
        }
    }

    fn copy(&mut self, from: View, to: View, [down, right]: [usize; 2]) {
        for row in 0..from.rows {
            for col in 0..from.cols {
                self.set(to, row + down, col + right, self.get(from, row, col));
            }
        }
    }

    /// The product by its own words.
    fn multiply(&self, product: &Product) -> Vec<f64> {
        let Product { form, lhs, rhs, out, add } = *product;
        let [rows, cols, sum] = product.size();
        let mut results = Vec::new();
        for row in 0..rows {
            for col in 0..cols {
                let term = |k| {
                    let left = match form {
                        Form::Nt | Form::Nn => self.get(lhs, row, k),
                        Form::Tn => self.get(lhs, k, row),
                    };
                    let right = match form {
                        Form::Nt => self.get(rhs, col, k),
                        Form::Nn | Form::Tn => self.get(rhs, k, col),
                    };
                    left * right
                };
                let before = if add { self.get(out, row, col) } else { 0.0 };
                results.push(before + (0..sum).map(term).sum::<f64>());
            }
        }
        results
    }

    /// The same as BLAS reads it: column by column, with leading dimensions.
    fn multiply_in_columns(&self, product: &Product) -> Vec<f64> {
        let Gemm { transposed, size: [m, n, k], leading } = Gemm::of(product);
        let views = [product.rhs, product.lhs, product.out];
        let at = |which: usize, row: usize, col: usize| {
            let View { name, offset, .. } = views[which];
            self.elements[name as usize][offset + row + col * leading[which]]
        };
        let a = |row, col| if transposed[0] { at(0, col, row) } else { at(0, row, col) };
        let b = |row, col| if transposed[1] { at(1, col, row) } else { at(1, row, col) };
        let mut results = Vec::new();
        // C's columns are the rows of the product.
        for col in 0..n {
            for row in 0..m {
                let before = if product.add { at(2, row, col) } else { 0.0 };
                results.push(before + (0..k).map(|k| a(row, k) * b(k, col)).sum::<f64>());
            }
        }
        results
    }

    fn store(&mut self, out: View, values: &[f64]) {
        for (at, &value) in values.iter().enumerate() {
            self.set(out, at / out.cols, at % out.cols, value);
        }
    }
}

/// The definition, element by element.
fn expected(of: &Matrices, way: Way) -> Vec<Vec<f64>> {
    let Cell { shape, tokens: m, rank: r, direction, .. } = of.cell;
    let (k, n) = (shape.in_features, shape.out_features);
    let s = if way == Way::Plain { 0.0 } else { SCALE };
    let view = |name| of.view(name);
    let sum = |len: usize, term: &dyn Fn(usize) -> f64| (0..len).map(term).sum::<f64>();
    let matrix = |rows: usize, cols: usize, element: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..rows * cols).map(|at| element(at / cols, at % cols)).collect()
    };
    let get = |name, row, col| of.get(view(name), row, col);
    if direction == Direction::Forward {
        return vec![matrix(m, n, &|i, j| {
            let shrunk = |q| sum(k, &|c| get(Name::X, i, c) * get(Name::A, q, c));
            sum(k, &|c| get(Name::X, i, c) * get(Name::W, j, c))
                + s * sum(r, &|q| shrunk(q) * get(Name::B, j, q))
        })];
    }
    let dshrunk = |i, q| s * sum(n, &|c| get(Name::Dy, i, c) * get(Name::B, c, q));
    let mut all = vec![matrix(m, k, &|i, j| {
        sum(n, &|c| get(Name::Dy, i, c) * get(Name::W, c, j))
            + sum(r, &|q| dshrunk(i, q) * get(Name::A, q, j))
    })];
    if way != Way::Plain {
        all.push(matrix(r, k, &|q, j| sum(m, &|i| dshrunk(i, q) * get(Name::X, i, j))));
        all.push(matrix(n, r, &|c, q| sum(m, &|i| get(Name::Dy, i, c) * get(Name::Shrunk, i, q))));
    }
    all
}

#[test]
fn every_way_computes_the_layer() {
    let shape = Shape { name: "test", out_features: 11, in_features: 6 };
    for direction in [Direction::Forward, Direction::Backward] {
        for rank in [3, 8] {
            let cell = Cell { shape, tokens: 5, rank, dtype: DType::F32, direction };
            for way in [Way::Plain, Way::Separate, Way::Extended] {
                let mut matrices = Matrices::new(cell);
                let expected = expected(&matrices, way);
                for product in products(cell, way) {
                    let results = matrices.multiply(&product);
                    let in_columns = matrices.multiply_in_columns(&product);
                    assert_eq!(results, in_columns, "{cell} {way:?}: {product:?}");
                    assert_eq!(
                        Gemm::of(&product).stored().map(|[rows, _]| rows),
                        [product.rhs.cols, product.lhs.cols, product.out.cols],
                    );
                    matrices.store(product.out, &results);
                }
                let outputs = outputs(cell, way != Way::Plain, part(cell));
                assert_eq!(outputs.len(), expected.len(), "{cell} {way:?}");
                for ((operand, view), expected) in outputs.into_iter().zip(expected) {
                    let found: Vec<f64> = (0..view.rows * view.cols)
                        .map(|at| matrices.get(view, at / view.cols, at % view.cols))
                        .collect();
                    assert_eq!(found, expected, "{cell} {way:?}: {operand}");
                }
            }
        }
    }
}

#[test]
fn ways_have_the_calls_that_their_names_say() {
    for (direction, calls) in [(Direction::Forward, [1, 3, 2]), (Direction::Backward, [1, 5, 4])] {
        let (_, cells) = tiny(DType::Bf16, direction);
        let ways = [Way::Plain, Way::Separate, Way::Extended];
        assert_eq!(ways.map(|way| products(cells[0], way).len()), calls);
    }
}

/// The design's table, row by row; a goal is a cell of the tables, too.
#[test]
fn every_goal_is_measured() {
    let (name, cells) = goals();
    let cells: Vec<String> = cells.into_iter().map(|cell| title(&name, cell)).collect();
    let expected = [
        "goals-bf16: llama-q/o 4096x4096 m8192 r16 bf16 forward goal forward r=16",
        "goals-bf16: llama-q/o 4096x4096 m8192 r64 bf16 forward goal forward r=64",
        "goals-bf16: llama-q/o 4096x4096 m1 r16 bf16 forward goal decode",
        "goals-bf16: llama-q/o 4096x4096 m8 r16 bf16 forward goal decode",
        "goals-bf16: llama-q/o 4096x4096 m16 r16 bf16 forward goal decode",
        "goals-bf16: sdxl-1280 1280x1280 m4096 r16 bf16 forward goal sdxl attention",
        "goals-bf16: llama-q/o 4096x4096 m8192 r16 bf16 backward goal backward",
    ];
    assert_eq!(cells, expected);
    for cell in goals().1 {
        let (_, all) = table(cell.dtype, cell.direction);
        assert!(all.contains(&cell), "{cell}");
        assert!(goal_of(cell).is_some_and(|goal| goal.most < 1.2));
        assert_eq!(goal_of(Cell { dtype: DType::F16, ..cell }), None);
    }
}

#[test]
fn sets_overflow_the_cache_twice() {
    let l2 = 50 << 20;
    for bytes in [1 << 20, 40 << 20, 100 << 20] {
        let sets = sets(bytes, l2) as u64;
        // Whoever comes back has seen twice the cache go by since.
        assert!((sets - 1) * bytes >= 2 * l2, "{sets} sets of {bytes} bytes");
        assert!((sets - 2) * bytes <= 2 * l2, "{sets} sets of {bytes} bytes");
    }
    assert_eq!(sets((100 << 20) + 1, l2), 1, "it pushes itself out");
    assert_eq!(sets(1, l2), 256, "no end of copies");
    assert_eq!(sets(0, l2), 256);
}

/// A row whose medians over the rivals, in [`RIVALS`]' order, are these; `None`: not there.
fn row(cell: Cell, medians: [Option<f64>; RIVALS.len()]) -> Row {
    let cost = Cost { launches: 1, bytes: 300, flops: 360, least: 200, least_flops: 330 };
    let rival = |median: f64| Rival {
        over: Interval { low: median - 0.01, median, high: median + 0.01 },
        one_by_one: None,
        micros: 7.0,
        cost,
        choices: "direct/large + direct/small".to_owned(),
    };
    Row {
        cell,
        pairs: 20,
        sets: 5,
        runs: 10,
        micros: 6.5,
        cost,
        plain: Cost { least_flops: 300, least: 160, ..cost },
        choices: "leader/large".to_owned(),
        rivals: medians.map(|median| median.map(rival)),
        notes: Vec::new(),
    }
}

fn table_of(row: Row) -> Table {
    Table { title: "cuda-card".to_owned(), rows: vec![row], ..Table::default() }
}

#[test]
fn tables_say_what_is_met() {
    let cell = goals().1[0];
    let ours = [Some(1.2), Some(0.9), Some(0.95)];
    // Median over plain cuBLAS, over its three calls, over its two; what the row says.
    let cases = [
        (
            [Some(0.99), Some(0.8), Some(0.9)],
            "| not slower |",
            "forward r=16 1.00, first 1.03: met",
        ),
        ([Some(1.005), Some(0.8), Some(0.9)], "| not slower |", ": first met"),
        ([Some(1.04), Some(0.8), Some(1.02)], "| slower ", ": not met"),
        ([None, None, None], "| not slower than ours |", "forward r=16 1.00, first 1.03 |"),
    ];
    for (cublas, verdict, goal) in cases {
        let mut medians = [None; RIVALS.len()];
        medians[..3].copy_from_slice(&cublas);
        medians[3..].copy_from_slice(&ours);
        let table = table_of(row(cell, medians));
        let text = table.text();
        assert!(text.contains(verdict) && text.contains(goal), "{text}");
        // Operations: 330 over 300. Bytes: 200 over 160. Moved over least: 300 over 200.
        for figure in ["| 1.100 ", "| 1.250 ", "| 1.500 ", "| 1 : 1 : 1 "] {
            assert!(text.contains(figure), "{figure}: {text}");
        }
        let mean = "- geometric mean of fused over cublas-plain";
        assert_eq!(text.contains(mean), cublas[0].is_some(), "{text}");
    }
    // 1.02 is within the limit of 1.03, but its interval does not reach 1.00.
    assert!(!Interval { low: 1.01, median: 1.02, high: 1.03 }.not_slower());
}

#[test]
fn files_have_a_field_for_every_head() {
    let folder = std::env::temp_dir().join(format!("fused-lora-benches-{}", std::process::id()));
    for medians in [[Some(1.0); RIVALS.len()], [None, None, None, Some(1.0), Some(1.0), Some(1.0)]]
    {
        let mut table = table_of(row(goals().1[0], medians));
        table.simulated = true;
        table.left_out.push("a cell: a reason".to_owned());
        table.write(&folder, "table", "a card").expect("a folder for temporary files");
        let csv = std::fs::read_to_string(folder.join("table.csv")).expect("a file");
        let fields: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(fields.len(), 2, "{csv}");
        assert_eq!(fields[0].len(), fields[1].len(), "{csv}");
        let value = |head| fields[1][fields[0].iter().position(|of| *of == head).expect(head)];
        assert_eq!(value("tokens"), "8192");
        assert_eq!(value("fused_over_cublas_plain").is_empty(), medians[0].is_none());
        assert_eq!(value("fused_over_naive2"), "1.0000");
        assert_eq!(value("naive3_kernels"), "direct/large + direct/small");
        let page = std::fs::read_to_string(folder.join("table.md")).expect("a file");
        for words in ["left out: a cell: a reason", "A simulated card", "a card", "command"] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }
    std::fs::remove_dir_all(&folder).expect("a folder of this test");
}
