//! Operands in memory the way callers hold them: an offset into the buffer, gaps between
//! stored rows, either major, and guard elements wherever no operand is.

use fused_lora::cpu::{Slice, SliceMut};
use fused_lora::reference::Dense;
use fused_lora::{Access, DType, Element, Major, Matrix, Operand, Operands, Operation, Spec};
use half::{bf16, f16};

/// Guard elements on either side of an operand.
const GUARD: usize = 16;

/// Elements of one storage type.
#[derive(Debug, Clone)]
pub enum Data {
    /// Single precision.
    F32(Vec<f32>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

impl Data {
    /// `len` guards: NaNs that no arithmetic makes, so that a kernel that reads one shows it
    /// in its result and one that writes there shows it in the bits.
    pub fn guards(dtype: DType, len: usize) -> Data {
        match dtype {
            DType::F32 => Data::F32(vec![f32::from_bits(0x7fd5_a5a5); len]),
            DType::F16 => Data::F16(vec![f16::from_bits(0x7e5a); len]),
            DType::Bf16 => Data::Bf16(vec![bf16::from_bits(0x7fd5); len]),
        }
    }

    /// How many elements.
    #[expect(clippy::len_without_is_empty, reason = "there are guards in every buffer")]
    pub fn len(&self) -> usize {
        match self {
            Data::F32(of) => of.len(),
            Data::F16(of) => of.len(),
            Data::Bf16(of) => of.len(),
        }
    }

    /// Their type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::Bf16(_) => DType::Bf16,
        }
    }

    /// Element `at`, widened.
    pub fn get(&self, at: usize) -> f32 {
        match self {
            Data::F32(of) => of[at],
            Data::F16(of) => of[at].to_f32(),
            Data::Bf16(of) => of[at].to_f32(),
        }
    }

    /// Sets element `at`, rounded to storage.
    pub fn set(&mut self, at: usize, value: f32) {
        match self {
            Data::F32(of) => of[at] = value,
            Data::F16(of) => of[at] = Element::from_f32(value),
            Data::Bf16(of) => of[at] = Element::from_f32(value),
        }
    }

    /// Element `at`, bit for bit.
    pub fn bits(&self, at: usize) -> u32 {
        match self {
            Data::F32(of) => of[at].to_bits(),
            Data::F16(of) => u32::from(of[at].to_bits()),
            Data::Bf16(of) => u32::from(of[at].to_bits()),
        }
    }

    /// As they lie in memory.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::F32(of) => bytemuck::cast_slice(of),
            Data::F16(of) => bytemuck::cast_slice(of),
            Data::Bf16(of) => bytemuck::cast_slice(of),
        }
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Data::F32(of) => bytemuck::cast_slice_mut(of),
            Data::F16(of) => bytemuck::cast_slice_mut(of),
            Data::Bf16(of) => bytemuck::cast_slice_mut(of),
        }
    }

    /// As the CPU reads them.
    pub fn slice(&self) -> Slice<'_> {
        match self {
            Data::F32(of) => of.into(),
            Data::F16(of) => of.into(),
            Data::Bf16(of) => of.into(),
        }
    }

    /// As the CPU writes them.
    pub fn slice_mut(&mut self) -> SliceMut<'_> {
        match self {
            Data::F32(of) => of.into(),
            Data::F16(of) => of.into(),
            Data::Bf16(of) => of.into(),
        }
    }
}

/// One operand and the buffer it lies in.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Which one.
    pub operand: Operand,
    /// Its shape, storage and access.
    pub spec: Spec,
    /// Elements before it in its buffer.
    pub offset: usize,
    /// The whole buffer.
    pub data: Data,
}

impl Stored {
    /// Guards everywhere; `shift` moves the operand off any alignment.
    pub fn new(operand: Operand, spec: Spec, shift: usize) -> Stored {
        let offset = GUARD + shift;
        let extent = spec.extent().expect("a size that fits");
        let data = Data::guards(spec.dtype, offset + extent + GUARD);
        Stored { operand, spec, offset, data }
    }

    /// Where element (row, col) of the operand's shape lies.
    pub fn index(&self, row: usize, col: usize) -> usize {
        let (outer, inner) = match self.spec.major {
            Major::Row => (row, col),
            Major::Col => (col, row),
        };
        self.offset + outer * self.spec.stride + inner
    }

    /// Element (row, col), widened.
    pub fn get(&self, row: usize, col: usize) -> f32 {
        self.data.get(self.index(row, col))
    }

    /// Sets element (row, col), rounded to storage.
    pub fn set(&mut self, row: usize, col: usize, value: f32) {
        self.data.set(self.index(row, col), value);
    }

    /// Calls `value` row by row and keeps what it returns, rounded to storage.
    pub fn fill(&mut self, mut value: impl FnMut(usize, usize) -> f32) {
        for row in 0..self.spec.rows {
            for col in 0..self.spec.cols {
                self.set(row, col, value(row, col));
            }
        }
    }

    /// The matrix with its buffer left out.
    pub fn shape(&self) -> Matrix<()> {
        let Spec { rows, cols, major, stride, .. } = self.spec;
        Matrix { buffer: (), rows, cols, offset: self.offset, stride, major }
    }

    /// All of it, for the reference.
    pub fn dense(&self) -> Dense {
        match self.data.slice() {
            Slice::F32(of) => Dense::read(&self.shape().map(|()| of)),
            Slice::F16(of) => Dense::read(&self.shape().map(|()| of)),
            Slice::Bf16(of) => Dense::read(&self.shape().map(|()| of)),
        }
    }

    /// For every element of the buffer, whether it belongs to the operand.
    fn members(&self) -> Vec<bool> {
        let mut members = vec![false; self.data.len()];
        for row in 0..self.spec.rows {
            for col in 0..self.spec.cols {
                members[self.index(row, col)] = true;
            }
        }
        members
    }
}

/// All operands of one problem.
#[derive(Debug, Clone)]
pub struct Buffers {
    /// What they are the operands of.
    pub operation: Operation,
    /// In the order of the problem.
    pub stored: Vec<Stored>,
}

impl Buffers {
    /// One of them.
    pub fn at(&self, operand: Operand) -> &Stored {
        self.stored.iter().find(|of| of.operand == operand).expect("an operand of the problem")
    }

    /// One of them, to change it.
    pub fn at_mut(&mut self, operand: Operand) -> &mut Stored {
        let mut all = self.stored.iter_mut();
        all.find(|of| of.operand == operand).expect("an operand of the problem")
    }

    /// The operands that the operation writes.
    pub fn outputs(&self) -> impl Iterator<Item = &Stored> {
        self.stored.iter().filter(|of| of.spec.access != Access::Read)
    }

    /// As the CPU takes them.
    pub fn operands(&mut self) -> Operands<Slice<'_>, SliceMut<'_>> {
        self.altered(|_, shape| Some(shape))
    }

    /// As the CPU takes them, each changed or left out by `alter`.
    pub fn altered(
        &mut self,
        mut alter: impl FnMut(Operand, Matrix<()>) -> Option<Matrix<()>>,
    ) -> Operands<Slice<'_>, SliceMut<'_>> {
        let mut operands = Operands::new(self.operation);
        for of in &mut self.stored {
            let Some(shape) = alter(of.operand, of.shape()) else { continue };
            operands = match of.spec.access {
                Access::Read => operands.read(of.operand, shape.map(|()| of.data.slice())),
                _ => operands.written(of.operand, shape.map(|()| of.data.slice_mut())),
            };
        }
        operands
    }

    /// Inputs as they were, and nothing written beside the outputs.
    pub fn assert_guards(&self, before: &Buffers) {
        for (now, was) in self.stored.iter().zip(&before.stored) {
            let writable = match now.spec.access {
                Access::Read => vec![false; now.data.len()],
                Access::Write | Access::Update => now.members(),
            };
            for (at, writable) in writable.into_iter().enumerate() {
                let (new, old) = (now.data.bits(at), was.data.bits(at));
                assert!(
                    writable || new == old,
                    "{}: element {at} of the buffer ({:?}, offset {}) is not an output, and was \
                     overwritten: {old:#x} became {new:#x}",
                    now.operand,
                    now.spec,
                    now.offset,
                );
            }
        }
    }

    /// Not a bit has changed, outputs included.
    pub fn assert_untouched(&self, before: &Buffers) {
        for (now, was) in self.stored.iter().zip(&before.stored) {
            for at in 0..now.data.len() {
                let same = now.data.bits(at) == was.data.bits(at);
                assert!(same, "{}: element {at} was written beside an error", now.operand);
            }
        }
    }

    /// Outputs of two runs, bit for bit.
    pub fn assert_same_bits(&self, other: &Buffers, what: &str) {
        for (one, two) in self.outputs().zip(other.outputs()) {
            for at in 0..one.data.len() {
                let (left, right) = (one.data.bits(at), two.data.bits(at));
                assert!(left == right, "{what}: {} differs at element {at}", one.operand);
            }
        }
    }
}
