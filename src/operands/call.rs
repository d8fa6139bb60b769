//! A call of an executor as a value: what `Device` maps onto the buffers of whichever executor it is.

use super::{Adapter, Backward, Forward, Matrix, Merge};
use crate::{Executor, Operand, Result};

/// One call with its operands.
#[derive(Debug)]
pub(crate) enum Call<I, O> {
    Forward(Forward<I, O>),
    Backward(Backward<I, O>),
    Merge(Merge<I, O>),
    Unmerge(Merge<I, O>),
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
    }
}

fn adapter<I, J>(
    of: Option<Adapter<I>>,
    mut read: impl FnMut(Operand, I) -> Result<J>,
) -> Result<Option<Adapter<J>>> {
    let Some(Adapter { a, b }) = of else { return Ok(None) };
    let a = a.try_map(|of| read(Operand::A, of))?;
    Ok(Some(Adapter { a, b: b.try_map(|of| read(Operand::B, of))? }))
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
