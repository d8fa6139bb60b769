//! `Error::Overlap`: which operands share bytes. Safe slices cannot, other executors' handles
//! can, so a buffer that is nothing but an address goes through `Operands::check`. And what
//! `Operands::problem_with_layouts` takes from addresses.

use fused_lora::{
    Buffer, DType, Error, Layout, Matrix, Operand, Operands, Operation, Place, Problem,
};

/// Allocation, byte and length of a buffer that is nowhere.
#[derive(Debug, Clone, Copy)]
struct At(u64, u64, usize);

impl Buffer for At {
    fn dtype(&self) -> DType {
        DType::F32
    }
    fn len(&self) -> usize {
        self.2
    }
    fn place(&self) -> Place {
        Place { allocation: self.0, byte: self.1 }
    }
}

/// `y = x·wᵀ` with 4 tokens, 3 in, 5 out: x and y in an arena of rows `stride` apart, w far.
fn arena(stride: usize, x: (u64, u64), y: (u64, u64)) -> Result<(), Error> {
    let layout = Layout { stride: Some(stride), ..Layout::default() };
    let problem = Problem::forward(4, 3, 5, 0)
        .with_layout(Operand::X, layout)
        .with_layout(Operand::Y, layout);
    let far = At(7, 0, 100);
    Operands::new(Operation::Forward)
        .read(Operand::X, Matrix::new(At(x.0, x.1, 1000), 4, 3).strided(stride))
        .read(Operand::W, Matrix::new(far, 5, 3))
        .written(Operand::Y, Matrix::new(At(y.0, y.1, 1000), 4, 5).strided(stride))
        .check(&problem)
        .map_err(|error| error.cause().clone())
}

#[test]
fn overlap() {
    let error = Error::Overlap { output: Operand::Y, other: Operand::X };
    assert!(error.to_string().starts_with("y: must not overlap x; "), "{error}");
    let clash = Err(error);
    // Rows of 3 and of 5 in an arena of 8 columns: byte addresses.
    let at = |row: u64, col: u64| (0, 4096 + 4 * (8 * row + col));
    assert_eq!(arena(8, at(0, 0), at(0, 0)), clash, "the same place");
    assert_eq!(arena(8, at(0, 0), at(0, 3)), Ok(()), "side by side, x first");
    assert_eq!(arena(8, at(0, 5), at(0, 0)), Ok(()), "side by side, y first");
    assert_eq!(arena(8, at(0, 0), at(0, 2)), clash, "one column too near");
    assert_eq!(arena(8, at(0, 4), at(0, 0)), clash, "one column too near, y first");
    assert_eq!(arena(8, at(0, 0), at(0, 4)), clash, "y wraps into the next row of x");
    assert_eq!(arena(8, at(0, 6), at(0, 0)), clash, "x wraps into the next row of y");
    assert_eq!(arena(8, at(0, 0), at(1, 3)), Ok(()), "side by side, a row further");
    assert_eq!(arena(8, at(0, 0), at(4, 0)), Ok(()), "one after the other");
    assert_eq!(arena(8, at(0, 0), at(3, 2)), clash, "the last row of x");
    assert_eq!(arena(8, at(0, 0), (1, at(0, 0).1)), Ok(()), "another allocation");
    // A byte apart is apart; a byte shared is shared.
    let gap = |bytes: u64| arena(8, (0, 0), (0, bytes));
    assert_eq!((gap(12), gap(11)), (Ok(()), clash.clone()));
    // What reaches beyond the last address has none.
    let error = Error::Overflow { operand: Operand::X };
    assert_eq!(arena(8, (0, u64::MAX - 50), (0, 0)), Err(error));
    // At the end of the address space nothing wraps around.
    let top = u64::MAX - 1023;
    assert_eq!(arena(8, (0, top), (0, 0)), Ok(()));
    assert_eq!(arena(8, (0, 0), (0, top)), Ok(()));
    assert_eq!(arena(8, (0, top), (0, top)), clash);
}

/// Different strides of one allocation are not told apart: touching ranges are refused.
#[test]
fn overlap_of_different_strides() {
    let layout = Layout { stride: Some(20), ..Layout::default() };
    let problem = Problem::forward(4, 3, 5, 0).with_layout(Operand::Y, layout);
    let check = |byte| {
        Operands::new(Operation::Forward)
            .read(Operand::X, Matrix::new(At(0, byte, 100), 4, 3))
            .read(Operand::W, Matrix::new(At(7, 0, 100), 5, 3))
            .written(Operand::Y, Matrix::new(At(0, 0, 100), 4, 5).strided(20))
            .check(&problem)
            .map_err(|error| error.cause().clone())
    };
    // y spans 65 elements.
    assert_eq!(check(4 * 65), Ok(()));
    let clash = Error::Overlap { output: Operand::Y, other: Operand::X };
    assert_eq!(check(4 * 64), Err(clash));
}

/// Two outputs may not meet either, and empty operands meet nothing.
#[test]
fn overlap_of_outputs_and_of_nothing() {
    let operands = |tokens: usize| {
        Operands::new(Operation::Forward)
            .read(Operand::X, Matrix::new(At(1, 0, 100), tokens, 3))
            .read(Operand::W, Matrix::new(At(2, 0, 100), 5, 3))
            .read(Operand::A, Matrix::new(At(3, 0, 100), 2, 3))
            .read(Operand::B, Matrix::new(At(4, 0, 100), 5, 2))
            .written(Operand::Y, Matrix::new(At(0, 0, 100), tokens, 5))
            .written(Operand::Shrunk, Matrix::new(At(0, 16, 100), tokens, 8))
    };
    let clash = Error::Overlap { output: Operand::Y, other: Operand::Shrunk };
    let error = operands(4).check(&Problem::forward(4, 3, 5, 2)).unwrap_err();
    assert_eq!(error.cause(), &clash);
    assert_eq!(operands(0).check(&Problem::forward(0, 3, 5, 2)), Ok(()));
}

/// One plan for all buffers of an allocator: what is promised is what kernels ask for, not what
/// the first address happened to be; and the 16 bytes of nearly all of them are said by saying nothing.
#[test]
fn a_layout_says_less_than_16_bytes_alone() {
    let operands = |x: u64| {
        Operands::new(Operation::Forward)
            .read(Operand::X, Matrix::new(At(0, x, 100), 4, 3).strided(9))
            .read(Operand::W, Matrix::transposed(At(1, 512, 100), 5, 3))
            .written(Operand::Y, Matrix::new(At(2, 0, 100), 4, 5))
    };
    let problem = Problem::forward(4, 3, 5, 0);
    let laid_out = |x| operands(x).problem_with_layouts(problem);
    let of_x = |align| Layout { stride: Some(9), align, ..Layout::default() };
    for (x, align) in [(4096, 0), (16, 0), (8, 8), (4, 4), (6, 2), (7, 1)] {
        let spec = laid_out(x).spec(Operand::X).unwrap();
        assert_eq!((spec.stride, spec.align), (9, align), "{x}");
        assert_eq!(operands(x).check(&laid_out(x)), Ok(()));
    }
    assert_eq!(laid_out(4096), laid_out(16), "one key for one plan");
    assert_eq!(operands(16).check(&laid_out(4096)), Ok(()));
    assert_eq!(laid_out(8).with_layout(Operand::X, of_x(0)), laid_out(16));
    let (operand, expected, got) = (Operand::X, 8, 4);
    let error = Error::Misaligned { operand, expected, got };
    assert_eq!(operands(4).check(&laid_out(8)).unwrap_err().cause(), &error);
}
