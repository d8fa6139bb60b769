//! What a call says beside its operands. The builders of `named` set it; `problem` reads it for planning,
//! and every run takes its numbers from it.

use super::Operands;
use crate::{Convolution, Error, Result, Scaled};

/// Options of a call; what is `None` is what the plan says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Options {
    /// s.
    pub(crate) scale: Option<f32>,
    /// β.
    pub(crate) beta: Option<f32>,
    /// [`Problem::with_precise`](crate::Problem::with_precise).
    pub(crate) precise: bool,
    /// [`Problem::with_tf32`](crate::Problem::with_tf32).
    pub(crate) tf32: bool,
    /// [`Problem::with_batch_invariant`](crate::Problem::with_batch_invariant).
    pub(crate) batch_invariant: bool,
    /// [`Problem::with_convolution`](crate::Problem::with_convolution).
    pub(crate) convolution: Option<Convolution>,
    /// [`Problem::with_input_shrunk`](crate::Problem::with_input_shrunk).
    pub(crate) of_input: bool,
}

impl<I, O> Operands<I, O> {
    /// `plan` with the numbers that these operands say; with its own where they say nothing.
    ///
    /// # Errors
    /// As [`Plan::with_scalars`](crate::Plan::with_scalars); [`Error::Option`] where the plan is without what
    /// they ask for.
    pub(crate) fn on<'p>(&self, plan: impl Into<Scaled<'p>>) -> Result<Scaled<'p>> {
        let scaled = plan.into();
        let Options { scale, beta, precise, tf32, batch_invariant, convolution, .. } = self.options;
        let planned = scaled.plan().problem().asked();
        let asked = [precise, tf32, batch_invariant];
        for ((option, planned), asked) in planned.into_iter().zip(asked) {
            if asked && !planned {
                return Err(Error::Option { option });
            }
        }
        if convolution.is_some() && convolution != scaled.plan().problem().convolution() {
            return Err(Error::Option { option: "convolution" });
        }
        if scale.is_none() && beta.is_none() {
            return Ok(scaled);
        }
        let scale = scale.unwrap_or(scaled.scale());
        scaled.plan().with_scalars(scale, beta.unwrap_or(scaled.beta()))
    }
}

/// The builder's methods for options, on a struct with a field `options`.
macro_rules! options {
    (@scale) => {
        /// s: alpha / r, or alpha / √r for rsLoRA; the same forward and backward. Defaults to 1, or to that
        /// of a plan that the caller made.
        pub fn scale(mut self, scale: f32) -> Self {
            self.options.scale = Some(scale);
            self
        }
    };
    (@beta) => {
        /// β of `β·old + new`: old values are read where it is not 0. Defaults to 0, or to that of a plan
        /// that the caller made.
        pub fn beta(mut self, beta: f32) -> Self {
            self.options.beta = Some(beta);
            self
        }
    };
    (@precise) => {
        /// Whether `shrunk` (`dshrunk`) is kept in two parts:
        /// [`Problem::with_precise`](crate::Problem::with_precise).
        pub fn precise(mut self, precise: bool) -> Self {
            self.options.precise = precise;
            self
        }
    };
    (@batch_invariant) => {
        /// Whether a row's bits do not depend on other rows, nor on how many there are:
        /// [`Problem::with_batch_invariant`](crate::Problem::with_batch_invariant).
        pub fn batch_invariant(mut self, batch_invariant: bool) -> Self {
            self.options.batch_invariant = batch_invariant;
            self
        }
    };
    (@convolution) => {
        /// On images: operands and weights are then shaped as
        /// [`Channels`](crate::Channels) says.
        pub fn convolution(mut self, convolution: impl Into<Option<crate::Convolution>>) -> Self {
            self.options.convolution = convolution.into();
            self
        }
    };
    (@tf32) => {
        /// Whether f32 factors may be rounded to tf32 on CUDA:
        /// [`Problem::with_tf32`](crate::Problem::with_tf32).
        pub fn tf32(mut self, tf32: bool) -> Self {
            self.options.tf32 = tf32;
            self
        }
    };
    ($($type:ident: $($option:ident)*;)*) => {$(
        impl<I, O> $type<I, O> {
            $(options!(@$option);)*
        }
    )*};
}

pub(super) use options;
