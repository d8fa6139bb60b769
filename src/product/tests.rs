//! The products of every operation, written down, and what they say in numbers: each is evaluated
//! as it stands, and held against the formulas of `reference`.

use super::*;
use crate::problem::Scalars;
use crate::reference::{Dense, Sums, expected};
use crate::{Channels, Convolution, DType, Gradients, Layout, Major, Operand};

/// Where there are some.
const IMAGES: usize = 2;

/// 5 tokens through a layer of 6 × 4 (in × out), rank 3.
fn problem(operation: Operation) -> Problem {
    Problem::new(operation, 5, 6, 4, 3).with_scale(0.5)
}

fn product(problem: &Problem) -> Product {
    Product::new(problem, &problem.all_specs())
}

/// Operand and whether the sum runs along its stored rows.
fn name(load: &Load) -> (Operand, bool) {
    (load.operand, load.k_major)
}

fn bordered(product: Product) -> Bordered {
    match product {
        Product::Layer(of) | Product::Shrink(of) | Product::Merge(of) => of,
        other => panic!("{other:?}"),
    }
}

#[test]
fn forward() {
    let problem = problem(Operation::Forward).with_gain(true).with_bias(true).with_beta(2.0);
    let of = product(&problem);
    assert_eq!(of.kind(), Some(Kind::Layer));
    let steps: Vec<_> = of.finish_steps().collect();
    assert_eq!(steps, [FinishStep::Gain, FinishStep::Bias, FinishStep::Beta]);
    let of = bordered(of);
    assert_eq!((of.rows, of.depth, of.columns(), of.rank()), (5, 6, 4, 3));
    assert_eq!(name(&of.left), (Operand::X, true));
    let Body { right, finish, .. } = of.body.unwrap();
    assert_eq!(name(&right), (Operand::W, true));
    assert_eq!((finish.out.operand, finish.out.major), (Operand::Y, Major::Row));
    assert_eq!((finish.factor, finish.old), (Multiplier::One, Old::Beta));
    let columnwise = [finish.gain, finish.bias].map(|of| of.unwrap().operand);
    assert_eq!(columnwise, [Operand::Gain, Operand::Bias]);
    let Border { down, up, shrunk, .. } = of.border.unwrap();
    assert_eq!((name(&down), name(&up.unwrap())), ((Operand::A, true), (Operand::B, true)));
    assert_eq!(shrunk.kept.unwrap().operand, Operand::Shrunk);
    assert_eq!((shrunk.padded_rank, shrunk.parts(), shrunk.row()), (8, 1, 8));
}

#[test]
fn backward_input_is_forward_transposed() {
    let of = bordered(product(&problem(Operation::BackwardInput)));
    assert_eq!((of.rows, of.depth, of.columns(), of.rank()), (5, 4, 6, 3));
    assert_eq!(name(&of.left), (Operand::Dy, true));
    let Body { right, finish, .. } = of.body.unwrap();
    assert_eq!(name(&right), (Operand::W, false));
    assert_eq!((finish.out.operand, finish.bias), (Operand::Dx, None));
    let Border { down, up, shrunk, .. } = of.border.unwrap();
    assert_eq!((name(&down), name(&up.unwrap())), ((Operand::B, false), (Operand::A, false)));
    assert_eq!(shrunk.kept.unwrap().operand, Operand::Dshrunk);
}

#[test]
fn backward_shrink_is_a_border_without_a_body() {
    let of = product(&problem(Operation::BackwardShrink));
    assert_eq!(of.kind(), Some(Kind::Shrink));
    let of = bordered(of);
    assert_eq!((of.rows, of.depth, of.columns(), of.rank()), (5, 4, 0, 3));
    assert_eq!((name(&of.left), of.body), ((Operand::Dy, true), None));
    let Border { down, up, .. } = of.border.unwrap();
    assert_eq!((name(&down), up), ((Operand::B, false), None));
}

#[test]
fn merge_is_a_body_onto_w() {
    let merge = problem(Operation::Merge);
    let of = product(&merge);
    assert_eq!(of.kind(), Some(Kind::Merge));
    let of = bordered(of);
    assert_eq!((of.rows, of.depth, of.columns()), (4, 3, 6));
    let body = of.body.unwrap();
    assert_eq!((name(&of.left), name(&body.right)), ((Operand::B, true), (Operand::A, false)));
    assert_eq!((body.finish.factor, body.finish.old), (Multiplier::Scale, Old::Added));
    assert_eq!(of.along_storage(), of);
    let of = bordered(product(&merge.with_layout(Operand::W, Layout::TRANSPOSED)));
    assert_eq!((of.rows, of.depth, of.columns()), (4, 3, 6));
    assert_eq!(of.body.unwrap().finish.out.major, Major::Col);
    let of = of.along_storage();
    assert_eq!((of.rows, of.depth, of.columns()), (6, 3, 4));
    let body = of.body.unwrap();
    assert_eq!((name(&of.left), name(&body.right)), ((Operand::A, false), (Operand::B, true)));
    assert_eq!(body.finish.out.major, Major::Row);
    let of = bordered(product(&problem(Operation::Unmerge)));
    assert_eq!(of.body.unwrap().finish.factor, Multiplier::MinusScale);
}

#[test]
fn gradients_are_sums_over_tokens() {
    let problem = problem(Operation::BackwardAdapter).with_dtype(DType::Bf16).with_precise(true);
    let Product::Gradients([Some(da), Some(db)]) = product(&problem) else { panic!() };
    assert_eq!((da.tokens, da.rank, da.columns), (5, 3, 6));
    assert_eq!((name(&da.left), name(&da.right)), ((Operand::Dshrunk, false), (Operand::X, false)));
    assert_eq!((da.finish.out.operand, da.finish.out.major), (Operand::Da, Major::Row));
    assert_eq!((db.tokens, db.rank, db.columns), (5, 3, 4));
    assert_eq!((name(&db.left), name(&db.right)), ((Operand::Shrunk, false), (Operand::Dy, false)));
    assert_eq!((db.finish.out.operand, db.finish.out.major), (Operand::Db, Major::Col));
    assert_eq!((da.padded_rank, da.parts()), (8, 2));
    let one = |of| product(&problem.with_gradients(of));
    assert!(matches!(one(Gradients::A), Product::Gradients([Some(_), None])));
    assert!(matches!(one(Gradients::B), Product::Gradients([None, Some(_)])));
}

#[test]
fn a_column_major_operand_is_summed_the_other_way() {
    let turn = |operation, operand| {
        bordered(product(&problem(operation).with_layout(operand, Layout::TRANSPOSED)))
    };
    for (operation, k_major) in [(Operation::Forward, false), (Operation::BackwardInput, true)] {
        assert_eq!(turn(operation, Operand::W).body.unwrap().right.k_major, k_major);
        let of = [Operand::A, Operand::B].map(|of| turn(operation, of).border.unwrap());
        let by_name = |border: &Border, operand| match border.down.operand == operand {
            true => border.down.k_major,
            false => border.up.unwrap().k_major,
        };
        assert_eq!([by_name(&of[0], Operand::A), by_name(&of[1], Operand::B)], [k_major; 2]);
    }
    let db = problem(Operation::BackwardAdapter).with_layout(Operand::Db, Layout::TRANSPOSED);
    let Product::Gradients([_, Some(db)]) = product(&db) else { panic!() };
    assert_eq!(db.finish.out.major, Major::Row);
}

#[test]
fn nothing_to_do_is_nothing() {
    for (operation, tokens, rank, kind) in [
        (Operation::Forward, 0, 3, None),
        (Operation::Forward, 0, 0, None),
        (Operation::Forward, 1, 0, Some(Kind::Layer)),
        (Operation::BackwardInput, 0, 3, None),
        (Operation::BackwardShrink, 0, 3, None),
        (Operation::BackwardShrink, 1, 0, None),
        (Operation::BackwardAdapter, 0, 3, Some(Kind::Gradients)),
        (Operation::BackwardAdapter, 1, 0, None),
        (Operation::Merge, 0, 3, Some(Kind::Merge)),
        (Operation::Merge, 1, 0, None),
        (Operation::Unmerge, 1, 0, None),
    ] {
        let problem = Problem::new(operation, tokens, 6, 4, rank);
        assert_eq!(product(&problem).kind(), kind, "{operation}, {tokens} tokens, rank {rank}");
    }
}

/// An operand as it is stored: small integers, all different enough.
fn stored(load: &Load) -> Dense {
    let (rows, cols) = load.spec.stored();
    let seed = load.operand as usize + 1;
    Dense::from_fn(rows, cols, |row, col| ((seed * 7 + row * 5 + col * 3) % 11) as f64 - 5.0)
}

/// The operand as the formulas of `reference` have it.
fn operand(load: &Load) -> Dense {
    match load.spec.major {
        Major::Row => stored(load),
        Major::Col => stored(load).transposed(),
    }
}

/// What `window` sees of images that are stored so, `rows` of it.
fn seen(stored: &Dense, window: &Window, rows: usize) -> Dense {
    Dense::from_fn(rows, window.channels * window.taps(), |row, column| {
        let [of_rows, of_cols] = window.pixels;
        let (image, p, q) = (row / of_cols / of_rows, row / of_cols % of_rows, row % of_cols);
        let (channel, tap) = window.column(column);
        let (u, v) = (tap / window.kernel[1], tap % window.kernel[1]);
        let [height, width] = window.image;
        let place = window.axis(0, p, u).zip(window.axis(1, q, v));
        place.map_or(0.0, |(p, q)| match window.order {
            Channels::First => stored.at(image * window.channels + channel, p * width + q),
            Channels::Last => stored.at((image * height + p) * width + q, channel),
        })
    })
}

/// The load as its product has it, `[rows or columns, depth]`.
fn side(load: &Load) -> Dense {
    if let Some(window) = &load.window {
        let rows = IMAGES * window.pixels[0] * window.pixels[1];
        let seen = seen(&stored(load), window, rows);
        return if load.k_major { seen } else { seen.transposed() };
    }
    if load.k_major { stored(load) } else { stored(load).transposed() }
}

/// Each product, evaluated by nothing but its own fields, is what the formulas say.
#[test]
fn products_are_the_formulas() {
    let images = Convolution::new(IMAGES, [2, 3], [1, 2]);
    let images = images.padding([1, 1]).stride([2, 1]).dilation([1, 2]);
    let images = [None, Some(images), Some(images.channels(Channels::Last))];
    let all = images.into_iter().flat_map(|of| [(of, false), (of, true)]);
    let operations = Operation::ALL.iter().flat_map(|&of| all.clone().map(move |with| (of, with)));
    for (operation, (images, transposed)) in operations {
        let problem = problem(operation).with_convolution(images);
        let tokens = images.map_or(5, |of| of.tokens());
        let mut problem = problem.with_tokens(tokens).with_gain(true).with_bias(true);
        for &operand in Operand::ALL.iter().filter(|of| transposed && of.either_major()) {
            problem = problem.with_layout(operand, Layout::TRANSPOSED);
        }
        let (product, scalars) = (product(&problem), Scalars::of(&problem));
        let loads: Vec<Load> = product.loads().copied().collect();
        let given = |wanted: Operand| {
            let load = loads.iter().find(|of| of.operand == wanted);
            // Merge reads what it writes.
            load.map_or_else(|| Dense::from_fn(4, 6, |_, _| 1.0), operand)
        };
        let results = expected(&problem, Sums::F32, given);
        let wanted = |of: Operand| &results.iter().find(|(name, _)| *name == of).unwrap().1.value;
        let check = |store: &Store, got: Dense| {
            let wanted = wanted(store.operand);
            // The product's rows are stored rows, or stored columns.
            let rows_are_rows = (store.major == Major::Row) == (store.spec.major == Major::Row);
            let got = if rows_are_rows { got } else { got.transposed() };
            let got = match store.planes {
                None => got,
                Some(Planes { pixels, columns }) => {
                    Dense::from_fn(IMAGES * columns, pixels, |row, pixel| {
                        got.at(row / columns * pixels + pixel, row % columns)
                    })
                }
            };
            assert_eq!(&got, wanted, "{operation} {} {transposed}", store.operand);
        };
        match &product {
            Product::Layer(of) | Product::Shrink(of) | Product::Merge(of) => {
                let left = side(&of.left);
                let border = of.border.map(|border| {
                    let shrunk = left.times_transposed(&side(&border.down));
                    (border, shrunk.map(|sum| f64::from(scalars.scale) * sum))
                });
                if let Some((border, shrunk)) = &border {
                    check(&border.shrunk.kept.unwrap(), shrunk.clone());
                }
                let Some(body) = of.body else { continue };
                let finish = body.finish;
                let sums = left.times_transposed(&side(&body.right));
                let up = border.and_then(|(border, shrunk)| {
                    border.up.map(|up| shrunk.times_transposed(&side(&up)))
                });
                let [gain, bias] = [finish.gain, finish.bias].map(|of| of.map(|of| stored(&of)));
                let y = Dense::from_fn(of.rows, body.columns, |row, col| {
                    let sum = sums.at(row, col) + up.as_ref().map_or(0.0, |up| up.at(row, col));
                    let gain = gain.as_ref().map_or(1.0, |gain| gain.at(0, col));
                    let bias = bias.as_ref().map_or(0.0, |bias| bias.at(0, col));
                    f64::from(finish.factor.value(scalars)) * gain * sum
                        + bias
                        + f64::from(finish.old.value(scalars))
                });
                check(&finish.out, y);
            }
            Product::Gradients(of) => {
                for of in of.iter().flatten() {
                    // The pad of shrunk is no rank.
                    let left = side(&of.left);
                    let left = Dense::from_fn(of.rank, of.tokens, |row, col| left.at(row, col));
                    check(&of.finish.out, left.times_transposed(&side(&of.right)));
                }
            }
            Product::Transposed(of) => {
                let (neighbours, rows) = (of.neighbours, of.rows);
                let shrunk = of.shrink.as_ref().map(|of| {
                    let border = of.border.unwrap();
                    let sums = side(&of.left).times_transposed(&side(&border.down));
                    let shrunk = sums.map(|sum| f64::from(scalars.scale) * sum);
                    check(&border.shrunk.kept.unwrap(), shrunk.clone());
                    seen(&shrunk, &neighbours, rows)
                });
                let of_taps = |load: &Load, seen: Dense, depth: usize| {
                    let factor = side(load);
                    let [of_channel, of_tap] = of.steps;
                    Dense::from_fn(of.rows, of.columns, |row, channel| {
                        let terms = (0..of.taps * depth).map(|at| {
                            let column = channel * of_channel + at / depth * of_tap;
                            seen.at(row, at) * factor.at(column, at % depth)
                        });
                        terms.sum()
                    })
                };
                let body = of_taps(&of.w, side(&of.dy), of.depth);
                // The same token by token: what each tap of it sees is where its product goes.
                let products = side(&of.of_tokens).times_transposed(&side(&of.w));
                let one_by_one = Dense::from_fn(of.rows, of.columns, |pixel, channel| {
                    let one = |row, col| f64::from((row, col) == (pixel, channel));
                    let image = Dense::from_fn(of.rows, of.columns, one);
                    let window = Window { order: Channels::Last, ..of.window };
                    let sees = seen(&image, &window, tokens);
                    let pairs = sees.values().iter().zip(products.values());
                    pairs.map(|(sees, product)| sees * product).sum()
                });
                assert_eq!(one_by_one, body, "{operation} {transposed}");
                let up = shrunk.zip(of.a).map(|(shrunk, a)| of_taps(&a, shrunk, of.rank()));
                let dx = Dense::from_fn(of.rows, of.columns, |row, col| {
                    body.at(row, col) + up.as_ref().map_or(0.0, |up| up.at(row, col))
                });
                check(&of.finish.out, dx);
            }
            Product::Nothing => panic!("{operation}: nothing to do"),
            Product::Factors(_)
            | Product::Kronecker(_)
            | Product::Norm(_)
            | Product::GainGradient(_) => {
                panic!("{operation}: no operation on a layer alone")
            }
        }
    }
}
