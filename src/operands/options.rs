//! What a call says beside its operands. The builders of `named` set it, planning and running read it.

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
}

/// The builder's methods for options, on a struct with a field `options`.
macro_rules! options {
    (@scale) => {
        /// s: alpha / r, or alpha / √r for rsLoRA. 1 where nothing is said; for a plan that the caller
        /// made, the plan's.
        pub fn scale(mut self, scale: f32) -> Self {
            self.options.scale = Some(scale);
            self
        }
    };
    (@beta) => {
        /// β of `β·old + new`: old values are read where it is not 0. 0 where nothing is said; for a plan
        /// that the caller made, the plan's.
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
