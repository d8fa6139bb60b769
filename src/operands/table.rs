//! Operands by name, few of many: what [`Operands`](super::Operands) holds of each kind.

use super::Matrix;
use crate::Operand;

/// More than any operation has of either kind.
const MOST: usize = 14;
const NOWHERE: u8 = u8::MAX;

/// Up to [`MOST`] matrices, each found by its name at once. Names are many and most are not there, and this
/// is filled on the way to every kernel: so a place is a byte a name.
#[derive(Debug)]
pub(super) struct Table<B> {
    places: [u8; Operand::COUNT],
    used: u8,
    matrices: [Option<Matrix<B>>; MOST],
    /// One more than there is room for, which no operation has.
    excess: Option<Operand>,
}

impl<B> Table<B> {
    pub(super) const fn new() -> Table<B> {
        let (places, matrices) = ([NOWHERE; Operand::COUNT], [const { None }; MOST]);
        Table { places, used: 0, matrices, excess: None }
    }

    pub(super) fn get(&self, operand: Operand) -> Option<&Matrix<B>> {
        self.matrices.get(usize::from(self.places[operand as usize]))?.as_ref()
    }

    pub(super) fn set(&mut self, operand: Operand, matrix: Option<Matrix<B>>) {
        let place = &mut self.places[operand as usize];
        if *place == NOWHERE {
            if matrix.is_none() {
                return;
            }
            if usize::from(self.used) == MOST {
                self.excess = Some(operand);
                return;
            }
            *place = self.used;
            self.used += 1;
        }
        self.matrices[usize::from(*place)] = matrix;
    }

    pub(super) fn take(&mut self, operand: Operand) -> Option<Matrix<B>> {
        self.matrices.get_mut(usize::from(self.places[operand as usize]))?.take()
    }

    pub(super) fn excess(&self) -> Option<Operand> {
        self.excess
    }
}
