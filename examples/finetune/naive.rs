//! The same step as frameworks run it, one call a product, for the comparison of times: three
//! calls forward, five backward (three for the first layer, which needs no dx). Every product
//! is a plain layer (rank 0) of this crate on the same device, so what differs is the fusing
//! alone. Called by `main`, `compare` and the page in `examples/browser`.

use std::cell::RefCell;

use fused_lora::{
    BackwardAdapter, BackwardInput, Device, Forward, GradientA, GradientB, Gradients, Layout,
    Matrix, Operand, Operation, Plan, Problem, Result, Tensor,
};

use crate::layer::{Layer, Pass, Run};

/// A layer's separate calls. Copies of the adapter in the activations' type, and with the scale
/// already in it, are made beforehand: their time is not counted.
struct Calls {
    /// `s·dy·b`, which the fused calls keep to themselves.
    dshrunk: RefCell<Tensor>,
    a: Tensor,
    a_scaled: Tensor,
    b: Tensor,
    b_scaled: Tensor,
    wide: Plan,
    shrink: Plan,
    expand: Plan,
    wide_back: Plan,
    shrink_back: Plan,
    expand_back: Plan,
    da: Plan,
    db: Plan,
}

/// For every layer of a network, and one number of tokens.
pub struct Naive {
    layers: Vec<Calls>,
}

impl Naive {
    pub fn new(device: &Device, layers: &[Layer], tokens: usize) -> Result<Naive> {
        let calls = layers.iter().map(|layer| Calls::new(device, layer, tokens));
        Ok(Naive { layers: calls.collect::<Result<_>>()? })
    }
}

impl Calls {
    fn new(device: &Device, layer: &Layer, tokens: usize) -> Result<Calls> {
        let (k, n, r) = (layer.in_features, layer.out_features, layer.rank);
        let dtype = layer.w.dtype();
        let whole = Problem::forward(tokens, k, n, r).with_activation(dtype);
        let back = |problem: Problem| problem.with_operation(Operation::BackwardInput);
        // shrunk's rows are a little apart where the rank is no multiple of 8.
        let apart = Layout { stride: Some(whole.shrunk_stride()), ..Layout::default() };
        let shrink = Problem::forward(tokens, k, r, 0).with_activation(dtype);
        let expand = Problem::forward(tokens, r, n, 0).with_activation(dtype);
        let gradient = |of| whole.with_operation(Operation::BackwardAdapter).with_gradients(of);
        let (a, b) = layer.factors();
        let copy = |of: &[f32], cols: usize, scale: f32| {
            let values: Vec<f32> = of.iter().map(|value| scale * value).collect();
            device.tensor(of.len() / cols, cols, dtype, &values)
        };
        Ok(Calls {
            dshrunk: RefCell::new(device.zeros(tokens, whole.shrunk_stride(), dtype)?),
            a: copy(a, k, 1.0)?,
            a_scaled: copy(a, k, layer.scale)?,
            b: copy(b, r, 1.0)?,
            b_scaled: copy(b, r, layer.scale)?,
            wide: device.plan(&whole.plain().with_bias(true))?,
            shrink: device.plan(&shrink.with_layout(Operand::Y, apart))?,
            expand: device.plan(&expand.with_layout(Operand::X, apart).with_beta(1.0))?,
            wide_back: device.plan(&back(whole.plain()))?,
            // backward_input of a layer of weight b, and of one of weight a.
            shrink_back: device.plan(&back(expand).with_layout(Operand::Dx, apart))?,
            expand_back: device
                .plan(&back(shrink).with_layout(Operand::Dy, apart).with_beta(1.0))?,
            da: device.plan(&gradient(Gradients::A))?,
            db: device.plan(&gradient(Gradients::B))?,
        })
    }
}

impl Calls {
    /// Brings the copies up to what training has made of the adapter.
    fn refresh(&mut self, layer: &Layer) -> Result<()> {
        let scaled = |of: &[f32]| of.iter().map(|value| layer.scale * value).collect::<Vec<f32>>();
        let (a, b) = layer.factors();
        self.a.write(a)?;
        self.a_scaled.write(&scaled(a))?;
        self.b.write(b)?;
        self.b_scaled.write(&scaled(b))
    }
}

/// The first `rank` columns of `shrunk`: what is beyond them is zero and stays so.
fn narrow<B>(shrunk: Matrix<B>, rank: usize) -> Matrix<B> {
    Matrix { cols: rank, ..shrunk }
}

/// `y = x·wᵀ (+ bias)`, or onto what y holds.
fn plain<I, O>(x: Matrix<I>, w: Matrix<I>, bias: Option<Matrix<I>>, y: Matrix<O>) -> Forward<I, O> {
    Forward::new(x, w, y).with_bias(bias)
}

/// `dx = dy·w`, or onto what dx holds.
fn plain_back<I, O>(dy: Matrix<I>, w: Matrix<I>, dx: Matrix<O>) -> BackwardInput<I, O> {
    BackwardInput::new(dy, w, dx)
}

impl Run for Naive {
    fn refresh(&mut self, layers: &[Layer]) -> Result<()> {
        self.layers.iter_mut().zip(layers).try_for_each(|(calls, layer)| calls.refresh(layer))
    }

    fn forward(&self, device: &Device, at: usize, layer: &Layer, pass: &mut Pass) -> Result<()> {
        let (calls, r) = (&self.layers[at], layer.rank);
        let bias = Some(layer.bias.matrix());
        let y = plain(pass.x.matrix(), layer.w.matrix(), bias, pass.y.matrix_mut());
        device.run(&calls.wide, y)?;
        let shrunk = narrow(pass.shrunk.matrix_mut(), r);
        device.run(&calls.shrink, plain(pass.x.matrix(), calls.a_scaled.matrix(), None, shrunk))?;
        let shrunk = narrow(pass.shrunk.matrix(), r);
        let y = plain(shrunk, calls.b.matrix(), None, pass.y.matrix_mut());
        device.run(&calls.expand, y)
    }

    fn backward(
        &self,
        device: &Device,
        at: usize,
        layer: &mut Layer,
        pass: &mut Pass,
    ) -> Result<()> {
        let (calls, r) = (&self.layers[at], layer.rank);
        if pass.needs_dx {
            let dx = plain_back(pass.dy.matrix(), layer.w.matrix(), pass.dx.matrix_mut());
            device.run(&calls.wide_back, dx)?;
        }
        let dshrunk = &mut *calls.dshrunk.borrow_mut();
        device.run(
            &calls.shrink_back,
            plain_back(pass.dy.matrix(), calls.b_scaled.matrix(), narrow(dshrunk.matrix_mut(), r)),
        )?;
        if pass.needs_dx {
            let dx =
                plain_back(narrow(dshrunk.matrix(), r), calls.a.matrix(), pass.dx.matrix_mut());
            device.run(&calls.expand_back, dx)?;
        }
        let (x, dshrunk, da) = (pass.x.matrix(), dshrunk.matrix(), layer.da.matrix_mut());
        let a = Some(GradientA::new(x, dshrunk, da));
        device.run(&calls.da, BackwardAdapter::new(a, None))?;
        let (dy, shrunk, db) = (pass.dy.matrix(), pass.shrunk.matrix(), layer.db.matrix_mut());
        let b = Some(GradientB::new(dy, shrunk, db));
        device.run(&calls.db, BackwardAdapter::new(None, b))
    }
}
