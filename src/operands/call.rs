//! A call of an executor as a value: what `Device` maps onto the buffers of whichever executor it is.

use super::{
    Adapter, Backward, BackwardGain, Factor, FactorGradients, Forward, Matrix, Merge, Norm,
};
use crate::{Executor, Operand, Result};

/// One call with its operands.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once a call, on which nothing is allocated")]
pub(crate) enum Call<I, O> {
    Forward(Forward<I, O>),
    Backward(Backward<I, O>),
    Merge(Merge<I, O>),
    Unmerge(Merge<I, O>),
    Norm(Norm<I, O>),
    BackwardGain(BackwardGain<I, O>),
}

impl<I, O> Call<I, O> {
    /// The same call over other handles to its buffers.
    pub(crate) fn try_map<J, P>(
        self,
        mut read: impl FnMut(Operand, I) -> Result<J>,
        mut written: impl FnMut(Operand, O) -> Result<P>,
    ) -> Result<Call<J, P>> {
        Ok(match self {
            Call::Forward(of) => Call::Forward(of.try_map(&mut read, &mut written)?),
            Call::Backward(of) => Call::Backward(of.try_map(&mut read, &mut written)?),
            Call::Merge(of) => Call::Merge(of.try_map(&mut read, &mut written)?),
            Call::Unmerge(of) => Call::Unmerge(of.try_map(&mut read, &mut written)?),
            Call::Norm(of) => Call::Norm(of.try_map(&mut read, &mut written)?),
            Call::BackwardGain(of) => Call::BackwardGain(of.try_map(&mut read, &mut written)?),
        })
    }
}

/// Calls `executor` with it.
pub(crate) fn call<'a, E: Executor>(
    executor: &E,
    queue: E::Queue<'_>,
    call: Call<E::Slice<'a>, E::SliceMut<'a>>,
) -> Result<()> {
    match call {
        Call::Forward(of) => executor.forward(queue, of),
        Call::Backward(of) => executor.backward(queue, of),
        Call::Merge(of) => executor.merge(queue, of),
        Call::Unmerge(of) => executor.unmerge(queue, of),
        Call::Norm(of) => executor.norm(queue, of),
        Call::BackwardGain(of) => executor.backward_gain(queue, of),
    }
}

fn adapter<I, J>(
    of: Option<Adapter<I>>,
    mut read: impl FnMut(Operand, I) -> Result<J>,
) -> Result<Option<Adapter<J>>> {
    let mut map = |operand, of: Matrix<I>| of.try_map(|of| read(operand, of));
    let mut factor = |of, [whole, a, b]: [Operand; 3]| {
        Ok(match of {
            Factor::Whole(of) => Factor::Whole(map(whole, of)?),
            Factor::Low(of_a, of_b) => Factor::Low(map(a, of_a)?, map(b, of_b)?),
        })
    };
    let of = match of {
        None => return Ok(None),
        Some(Adapter::Lokr { w1, w2 }) => Adapter::Lokr {
            w1: factor(w1, [Operand::W1, Operand::W1a, Operand::W1b])?,
            w2: factor(w2, [Operand::W2, Operand::W2a, Operand::W2b])?,
        },
        Some(Adapter::Lora { a, b }) => {
            Adapter::Lora { a: map(Operand::A, a)?, b: map(Operand::B, b)? }
        }
        Some(Adapter::Tucker { down, core, up }) => Adapter::Tucker {
            down: map(Operand::Down, down)?,
            core: map(Operand::Core, core)?,
            up: map(Operand::Up, up)?,
        },
        Some(Adapter::Loha { w1a, w1b, w2a, w2b }) => Adapter::Loha {
            w1a: map(Operand::W1a, w1a)?,
            w1b: map(Operand::W1b, w1b)?,
            w2a: map(Operand::W2a, w2a)?,
            w2b: map(Operand::W2b, w2b)?,
        },
    };
    Ok(Some(of))
}

fn optional<I, J>(
    operand: Operand,
    of: Option<Matrix<I>>,
    mut map: impl FnMut(Operand, I) -> Result<J>,
) -> Result<Option<Matrix<J>>> {
    of.map(|of| of.try_map(|of| map(operand, of))).transpose()
}

impl<I, O> Forward<I, O> {
    fn try_map<J, P>(
        self,
        mut read: impl FnMut(Operand, I) -> Result<J>,
        mut written: impl FnMut(Operand, O) -> Result<P>,
    ) -> Result<Forward<J, P>> {
        Ok(Forward {
            x: self.x.try_map(|of| read(Operand::X, of))?,
            w: self.w.try_map(|of| read(Operand::W, of))?,
            bias: optional(Operand::Bias, self.bias, &mut read)?,
            gain: optional(Operand::Gain, self.gain, &mut read)?,
            adapter: adapter(self.adapter, &mut read)?,
            y: self.y.try_map(|of| written(Operand::Y, of))?,
            shrunk: optional(Operand::Shrunk, self.shrunk, &mut written)?,
            options: self.options,
        })
    }
}

impl<I, O> Backward<I, O> {
    /// The same operands over other handles to their buffers.
    pub(crate) fn try_map<J, P>(
        self,
        mut read: impl FnMut(Operand, I) -> Result<J>,
        mut written: impl FnMut(Operand, O) -> Result<P>,
    ) -> Result<Backward<J, P>> {
        Ok(Backward {
            x: self.x.try_map(|of| read(Operand::X, of))?,
            w: self.w.try_map(|of| read(Operand::W, of))?,
            dy: self.dy.try_map(|of| read(Operand::Dy, of))?,
            adapter: adapter(self.adapter, &mut read)?,
            shrunk: optional(Operand::Shrunk, self.shrunk, &mut read)?,
            dx: optional(Operand::Dx, self.dx, &mut written)?,
            da: optional(Operand::Da, self.da, &mut written)?,
            db: optional(Operand::Db, self.db, &mut written)?,
            factors: FactorGradients {
                dw1: optional(Operand::Dw1, self.factors.dw1, &mut written)?,
                dw1a: optional(Operand::Dw1a, self.factors.dw1a, &mut written)?,
                dw1b: optional(Operand::Dw1b, self.factors.dw1b, &mut written)?,
                dw2: optional(Operand::Dw2, self.factors.dw2, &mut written)?,
                dw2a: optional(Operand::Dw2a, self.factors.dw2a, &mut written)?,
                dw2b: optional(Operand::Dw2b, self.factors.dw2b, &mut written)?,
                ddown: optional(Operand::Ddown, self.factors.ddown, &mut written)?,
                dcore: optional(Operand::Dcore, self.factors.dcore, &mut written)?,
                dup: optional(Operand::Dup, self.factors.dup, &mut written)?,
            },
            options: self.options,
        })
    }
}

impl<I, O> Merge<I, O> {
    fn try_map<J, P>(
        self,
        mut read: impl FnMut(Operand, I) -> Result<J>,
        mut written: impl FnMut(Operand, O) -> Result<P>,
    ) -> Result<Merge<J, P>> {
        let w = self.w.try_map(|of| written(Operand::W, of))?;
        Ok(Merge { w, adapter: adapter(self.adapter, &mut read)?, options: self.options })
    }
}

impl<I, O> Norm<I, O> {
    fn try_map<J, P>(
        self,
        mut read: impl FnMut(Operand, I) -> Result<J>,
        mut written: impl FnMut(Operand, O) -> Result<P>,
    ) -> Result<Norm<J, P>> {
        Ok(Norm {
            w: self.w.try_map(|of| read(Operand::W, of))?,
            adapter: adapter(self.adapter, &mut read)?,
            magnitude: self.magnitude.try_map(|of| read(Operand::Magnitude, of))?,
            gain: self.gain.try_map(|of| written(Operand::Gain, of))?,
            options: self.options,
        })
    }
}

impl<I, O> BackwardGain<I, O> {
    fn try_map<J, P>(
        self,
        mut read: impl FnMut(Operand, I) -> Result<J>,
        mut written: impl FnMut(Operand, O) -> Result<P>,
    ) -> Result<BackwardGain<J, P>> {
        Ok(BackwardGain {
            dy: self.dy.try_map(|of| read(Operand::Dy, of))?,
            y: self.y.try_map(|of| read(Operand::Y, of))?,
            bias: optional(Operand::Bias, self.bias, &mut read)?,
            gain: self.gain.try_map(|of| read(Operand::Gain, of))?,
            magnitude: self.magnitude.try_map(|of| read(Operand::Magnitude, of))?,
            scaled_dy: self.scaled_dy.try_map(|of| written(Operand::ScaledDy, of))?,
            dmagnitude: self.dmagnitude.try_map(|of| written(Operand::Dmagnitude, of))?,
            options: self.options,
        })
    }
}
