//! How operands are written down: the short form for the common case, and a method for each thing more.

use super::options::{Options, options};
use super::{
    Adapter, Backward, BackwardAdapter, BackwardGain, BackwardInput, BackwardShrink, Buffer,
    Factor, FactorGradients, Forward, GradientA, GradientB, Matrix, Merge, Norm,
};
use crate::Problem;

impl<I, O> Forward<I, O> {
    /// The plain layer.
    pub fn new(
        x: impl Into<Matrix<I>>,
        w: impl Into<Matrix<I>>,
        y: impl Into<Matrix<O>>,
    ) -> Forward<I, O> {
        let (x, w, y) = (x.into(), w.into(), y.into());
        let (bias, gain, adapter, shrunk) = (None, None, None, None);
        Forward { x, w, bias, gain, adapter, y, shrunk, options: Options::default() }
    }

    /// With a bias.
    pub fn bias(self, bias: impl Into<Matrix<I>>) -> Self {
        self.with_bias(Some(bias.into()))
    }

    /// With a factor of each output column: [`Problem::with_gain`].
    pub fn gain(self, gain: impl Into<Matrix<I>>) -> Self {
        self.with_gain(Some(gain.into()))
    }

    /// With `shrunk` kept for the backward pass.
    pub fn shrunk(self, shrunk: impl Into<Matrix<O>>) -> Self {
        self.with_shrunk(Some(shrunk.into()))
    }

    /// With a bias, or without.
    pub fn with_bias(self, bias: Option<Matrix<I>>) -> Self {
        Forward { bias, ..self }
    }

    /// With a factor of each output column, or without.
    pub fn with_gain(self, gain: Option<Matrix<I>>) -> Self {
        Forward { gain, ..self }
    }

    /// With `shrunk` kept, or not.
    pub fn with_shrunk(self, shrunk: Option<Matrix<O>>) -> Self {
        Forward { shrunk, ..self }
    }
}

impl<I: Buffer, O> Forward<I, O> {
    /// `[tokens, shrunk_stride]`: the shape of [`Forward::shrunk`] for these operands, once adapter and
    /// options are said. Columns are 0 without an adapter.
    pub fn shrunk_shape(&self) -> [usize; 2] {
        let rank = self.adapter.as_ref().map_or(0, Adapter::inner_rank);
        let tokens = self.options.convolution.map_or(self.x.rows, |of| of.tokens());
        let problem = Problem::forward(tokens, self.w.cols, self.w.rows, rank)
            .with_activation(self.x.buffer.dtype())
            .with_precise(self.options.precise);
        [tokens, problem.shrunk_stride()]
    }
}

impl<I, O> Backward<I, O> {
    /// With nothing wanted yet: [`Backward::dx`], [`Backward::da`] and [`Backward::db`] say what.
    pub fn new(
        x: impl Into<Matrix<I>>,
        w: impl Into<Matrix<I>>,
        dy: impl Into<Matrix<I>>,
    ) -> Backward<I, O> {
        let (x, w, dy) = (x.into(), w.into(), dy.into());
        let (options, factors) = (Options::default(), FactorGradients::default());
        let (adapter, shrunk, dx, da, db) = (None, None, None, None, None);
        Backward { x, w, dy, adapter, shrunk, dx, da, db, factors, options }
    }

    /// With what the forward pass kept.
    pub fn shrunk(self, shrunk: impl Into<Matrix<I>>) -> Self {
        self.with_shrunk(Some(shrunk.into()))
    }

    /// With what the forward pass kept, or without.
    pub fn with_shrunk(self, shrunk: Option<Matrix<I>>) -> Self {
        Backward { shrunk, ..self }
    }

    /// With the gradient of the input; it is overwritten.
    pub fn dx(self, dx: impl Into<Matrix<O>>) -> Self {
        self.with_dx(Some(dx.into()))
    }

    /// With the gradient of the input, or without.
    pub fn with_dx(self, dx: Option<Matrix<O>>) -> Self {
        Backward { dx, ..self }
    }

    /// With the gradient of lora_A.
    pub fn da(self, da: impl Into<Matrix<O>>) -> Self {
        self.with_da(Some(da.into()))
    }

    /// With the gradient of lora_A, or without.
    pub fn with_da(self, da: Option<Matrix<O>>) -> Self {
        Backward { da, ..self }
    }

    /// With the gradient of lora_B.
    pub fn db(self, db: impl Into<Matrix<O>>) -> Self {
        self.with_db(Some(db.into()))
    }

    /// With the gradient of lora_B, or without.
    pub fn with_db(self, db: Option<Matrix<O>>) -> Self {
        Backward { db, ..self }
    }

    /// With the gradient of LoKr's w1, where that is stored whole.
    pub fn dw1(mut self, dw1: impl Into<Matrix<O>>) -> Self {
        self.factors.dw1 = Some(dw1.into());
        self
    }

    /// With the gradient of w1a.
    pub fn dw1a(mut self, dw1a: impl Into<Matrix<O>>) -> Self {
        self.factors.dw1a = Some(dw1a.into());
        self
    }

    /// With the gradient of w1b.
    pub fn dw1b(mut self, dw1b: impl Into<Matrix<O>>) -> Self {
        self.factors.dw1b = Some(dw1b.into());
        self
    }

    /// With the gradient of LoKr's w2, where that is stored whole.
    pub fn dw2(mut self, dw2: impl Into<Matrix<O>>) -> Self {
        self.factors.dw2 = Some(dw2.into());
        self
    }

    /// With the gradient of w2a.
    pub fn dw2a(mut self, dw2a: impl Into<Matrix<O>>) -> Self {
        self.factors.dw2a = Some(dw2a.into());
        self
    }

    /// With the gradient of w2b.
    pub fn dw2b(mut self, dw2b: impl Into<Matrix<O>>) -> Self {
        self.factors.dw2b = Some(dw2b.into());
        self
    }

    /// With the gradient of LoCon's lora_down beside a core.
    pub fn ddown(mut self, ddown: impl Into<Matrix<O>>) -> Self {
        self.factors.ddown = Some(ddown.into());
        self
    }

    /// With the gradient of LoCon's core.
    pub fn dcore(mut self, dcore: impl Into<Matrix<O>>) -> Self {
        self.factors.dcore = Some(dcore.into());
        self
    }

    /// With the gradient of LoCon's lora_up beside a core.
    pub fn dup(mut self, dup: impl Into<Matrix<O>>) -> Self {
        self.factors.dup = Some(dup.into());
        self
    }

    /// β of `β·old + new` on `da` and `db`, or on the gradients of factors, so that gradients accumulate in
    /// place. Defaults to 0. `dx` is overwritten whatever it is.
    pub fn beta(mut self, beta: f32) -> Self {
        self.options.beta = Some(beta);
        self
    }
}

impl<I, O> BackwardInput<I, O> {
    /// That of the plain layer.
    pub fn new(
        dy: impl Into<Matrix<I>>,
        w: impl Into<Matrix<I>>,
        dx: impl Into<Matrix<O>>,
    ) -> BackwardInput<I, O> {
        let (dy, w, dx) = (dy.into(), w.into(), dx.into());
        BackwardInput { dy, w, adapter: None, dx, dshrunk: None, options: Options::default() }
    }

    /// With `dshrunk` kept for the adapter's gradients.
    pub fn dshrunk(self, dshrunk: impl Into<Matrix<O>>) -> Self {
        self.with_dshrunk(Some(dshrunk.into()))
    }

    /// With `dshrunk` kept, or not.
    pub fn with_dshrunk(self, dshrunk: Option<Matrix<O>>) -> Self {
        BackwardInput { dshrunk, ..self }
    }
}

impl<I, O> BackwardShrink<I, O> {
    /// Of its operands.
    pub fn new(
        dy: impl Into<Matrix<I>>,
        b: impl Into<Matrix<I>>,
        dshrunk: impl Into<Matrix<O>>,
    ) -> BackwardShrink<I, O> {
        let (dy, b, dshrunk) = (dy.into(), b.into(), dshrunk.into());
        BackwardShrink { dy, b, dshrunk, options: Options::default() }
    }
}

impl<I, O> BackwardAdapter<I, O> {
    /// With the gradients that are wanted.
    pub fn new(a: Option<GradientA<I, O>>, b: Option<GradientB<I, O>>) -> BackwardAdapter<I, O> {
        BackwardAdapter { a, b, options: Options::default() }
    }
}

impl<I, O> GradientA<I, O> {
    /// Of its operands.
    pub fn new(
        x: impl Into<Matrix<I>>,
        dshrunk: impl Into<Matrix<I>>,
        da: impl Into<Matrix<O>>,
    ) -> GradientA<I, O> {
        GradientA { x: x.into(), dshrunk: dshrunk.into(), da: da.into() }
    }
}

impl<I, O> GradientB<I, O> {
    /// Of its operands.
    pub fn new(
        dy: impl Into<Matrix<I>>,
        shrunk: impl Into<Matrix<I>>,
        db: impl Into<Matrix<O>>,
    ) -> GradientB<I, O> {
        GradientB { dy: dy.into(), shrunk: shrunk.into(), db: db.into() }
    }
}

impl<I, O> Merge<I, O> {
    /// Of a weight; without an adapter there is nothing to do.
    pub fn new(w: impl Into<Matrix<O>>) -> Merge<I, O> {
        Merge { w: w.into(), adapter: None, options: Options::default() }
    }
}

impl<I, O> Norm<I, O> {
    /// Of a weight alone.
    pub fn new(
        w: impl Into<Matrix<I>>,
        magnitude: impl Into<Matrix<I>>,
        gain: impl Into<Matrix<O>>,
    ) -> Norm<I, O> {
        let (w, magnitude, gain) = (w.into(), magnitude.into(), gain.into());
        Norm { w, adapter: None, magnitude, gain, options: Options::default() }
    }
}

impl<I, O> BackwardGain<I, O> {
    /// Of a layer without a bias.
    pub fn new(
        [dy, y]: [impl Into<Matrix<I>>; 2],
        [gain, magnitude]: [impl Into<Matrix<I>>; 2],
        scaled_dy: impl Into<Matrix<O>>,
        dmagnitude: impl Into<Matrix<O>>,
    ) -> BackwardGain<I, O> {
        let (dy, y, gain, magnitude) = (dy.into(), y.into(), gain.into(), magnitude.into());
        let (scaled_dy, dmagnitude) = (scaled_dy.into(), dmagnitude.into());
        let options = Options::default();
        BackwardGain { dy, y, bias: None, gain, magnitude, scaled_dy, dmagnitude, options }
    }

    /// With the bias that forward added.
    pub fn bias(self, bias: impl Into<Matrix<I>>) -> Self {
        self.with_bias(Some(bias.into()))
    }

    /// With a bias, or without.
    pub fn with_bias(self, bias: Option<Matrix<I>>) -> Self {
        BackwardGain { bias, ..self }
    }
}

macro_rules! adapters {
    ($($type:ident)*) => {$(
        impl<I, O> $type<I, O> {
            /// With an adapter, of its factors.
            pub fn adapter(self, a: impl Into<Matrix<I>>, b: impl Into<Matrix<I>>) -> Self {
                self.with_adapter(Some(Adapter::new(a, b)))
            }

            /// With an adapter, or without.
            pub fn with_adapter(self, adapter: Option<Adapter<I>>) -> Self {
                $type { adapter, ..self }
            }
        }
    )*};
}

adapters!(Forward Backward BackwardInput Merge Norm);

macro_rules! factors {
    ($($type:ident)*) => {$(
        impl<I, O> $type<I, O> {
            /// With a LoHa adapter: [`Method::Loha`](crate::Method::Loha).
            pub fn loha(
                self,
                w1a: impl Into<Matrix<I>>,
                w1b: impl Into<Matrix<I>>,
                w2a: impl Into<Matrix<I>>,
                w2b: impl Into<Matrix<I>>,
            ) -> Self {
                self.with_adapter(Some(Adapter::loha(w1a, w1b, w2a, w2b)))
            }

            /// With a LoCon adapter that has a core: [`Method::Tucker`](crate::Method::Tucker).
            pub fn tucker(
                self,
                down: impl Into<Matrix<I>>,
                core: impl Into<Matrix<I>>,
                up: impl Into<Matrix<I>>,
            ) -> Self {
                self.with_adapter(Some(Adapter::tucker(down, core, up)))
            }

            /// With a LoKr adapter: [`Method::Lokr`](crate::Method::Lokr).
            pub fn lokr(self, w1: Factor<I>, w2: Factor<I>) -> Self {
                self.with_adapter(Some(Adapter::lokr(w1, w2)))
            }
        }
    )*};
}

factors!(Forward Backward Merge Norm);

options! {
    Forward: scale beta precise tf32 batch_invariant convolution;
    Backward: scale precise tf32 batch_invariant convolution;
    BackwardInput: scale beta precise tf32 batch_invariant convolution;
    BackwardShrink: scale precise batch_invariant convolution;
    BackwardAdapter: beta convolution;
    Merge: scale convolution;
    Norm: scale convolution;
    BackwardGain: beta convolution;
}
