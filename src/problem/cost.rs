//! The least that a problem costs, whoever runs it: operations, and bytes moved.

use super::{Access, Gradients, Operation, Problem};

pub(super) fn saturating_product(factors: [u64; 3]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

impl Problem {
    /// Multiplications and additions of the fused operation; a multiply-add counts two.
    pub fn flops(&self) -> u64 {
        let [m, k, n, r] =
            [self.tokens, self.in_features, self.out_features, self.rank].map(|size| size as u64);
        let multiply_adds = match (self.operation, self.gradients) {
            (Operation::Forward | Operation::BackwardInput, _) => saturating_product([m, n, k])
                .saturating_add(saturating_product([m, r, n.saturating_add(k)])),
            (Operation::BackwardShrink, _) => saturating_product([m, r, n]),
            (Operation::BackwardAdapter, Gradients::Both) => {
                saturating_product([m, r, n.saturating_add(k)])
            }
            (Operation::BackwardAdapter, Gradients::A) => saturating_product([m, r, k]),
            (Operation::BackwardAdapter, Gradients::B) => saturating_product([m, r, n]),
            (Operation::Merge | Operation::Unmerge, _) => saturating_product([n, k, r]),
        };
        multiply_adds.saturating_mul(2)
    }

    /// Bytes of the operands, each read and written as often as the operation must: the
    /// least that any kernel can move.
    pub fn bytes(&self) -> u64 {
        self.specs()
            .map(|(_, spec)| match spec.access {
                Access::Read | Access::Write => spec.bytes(),
                Access::Update => spec.bytes().saturating_mul(2),
            })
            .fold(0, u64::saturating_add)
    }
}
