//! The least that a problem costs, whoever runs it: operations, and bytes moved.

use super::{Access, Gradients, Kronecker, Method, Operation, Problem};

pub(super) fn saturating_product(factors: [u64; 3]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

impl Problem {
    /// Multiplications and additions of the fused operation; a multiply-add counts two.
    pub fn flops(&self) -> u64 {
        let [m, k, n, r] =
            [self.tokens, self.in_features, self.out_features, self.rank].map(|size| size as u64);
        if let Some(of) = self.method.kronecker() {
            return self.multiply_adds_of_kronecker(of).saturating_mul(2);
        }
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
            (Operation::Norm, _) => saturating_product([n, k, r.saturating_add(1)]),
            (Operation::BackwardGain, _) => saturating_product([m, n, 2]),
            (Operation::Compose | Operation::Chain, _) => self.multiply_adds_of_factors(),
        };
        multiply_adds.saturating_mul(2)
    }

    /// Of a LoKr with a whole w2. That a layer's w + s·w1 ⊗ w2 is formed while it is read is not counted, one addition
    /// an element of w; gradients sum over what w2 leaves of dy, and over what w1 leaves.
    fn multiply_adds_of_kronecker(&self, of: Kronecker) -> u64 {
        let [m, k, n, r, rows, columns] =
            [self.tokens, self.in_features, self.out_features, self.rank, of.rows, of.columns]
                .map(|size| size as u64);
        let formed = saturating_product([n, k, 1]);
        let layer = saturating_product([m, n, k]);
        let of_w1 = (layer / columns.max(1)).saturating_add(saturating_product([m, k, rows]));
        let of_w2 = (layer / rows.max(1)).saturating_add(saturating_product([m, n, columns]));
        match (self.operation, self.gradients) {
            (Operation::Forward | Operation::BackwardInput, _) => layer,
            (Operation::BackwardAdapter, Gradients::Both) => of_w1.saturating_add(of_w2),
            (Operation::BackwardAdapter, Gradients::A) => of_w1,
            (Operation::BackwardAdapter, Gradients::B) => of_w2,
            (Operation::Compose, _) => saturating_product([rows, columns, r]),
            (Operation::Chain, _) => saturating_product([rows, columns, r]).saturating_mul(2),
            (Operation::Norm, _) => formed.saturating_mul(2),
            _ => formed,
        }
    }

    /// Of [`Operation::Compose`], each element of `a` and `b` once; of [`Operation::Chain`], each element of `da`
    /// and `db` once for either factor.
    fn multiply_adds_of_factors(&self) -> u64 {
        let [k, n, r, inner] = [self.in_features, self.out_features, self.rank, self.inner_rank()]
            .map(|size| size as u64);
        let times = if self.operation == Operation::Compose { 1 } else { 2 };
        let of_a = match self.method {
            Method::Tucker(_) => saturating_product([r * times, r, k]),
            _ => saturating_product([inner, k, times]),
        };
        let (of_b, of_w1) = match self.method {
            Method::Lokr(of) => {
                let w1 = [of.rows as u64, of.columns as u64, r * times];
                (saturating_product([n, r, 1]), if of.low { saturating_product(w1) } else { 0 })
            }
            // Its sums go over the rank; up is b.
            Method::Tucker(_) => (saturating_product([n, r, 1]), 0),
            _ => (saturating_product([inner, n, times]), 0),
        };
        let (has_a, has_b) = match (self.operation, self.gradients) {
            (Operation::Compose, _) | (_, Gradients::Both) => (true, true),
            (_, Gradients::A) => (true, false),
            (_, Gradients::B) => (false, true),
        };
        let of_a = of_a.saturating_add(of_w1);
        (if has_a { of_a } else { 0 }).saturating_add(if has_b { of_b } else { 0 })
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
