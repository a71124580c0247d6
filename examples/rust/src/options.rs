// SPDX-License-Identifier: Apache-2.0
//! The options of a call.
use crate::tensor::{Element, Tensor};

#[derive(Clone, Copy, Debug)]
pub struct Options<'a, T: Element> {
    /// Added to the variance.
    pub eps: f64,
    /// The weight of the new batch in the running statistics.
    pub momentum: f64,
    /// The running variance takes the sum of squares / M in place of / (M - 1).
    pub biased_running_var: bool,
    pub activation: Activation,
    /// Added before the activation.
    pub residual: Option<Tensor<'a, T>>,
    /// Keeps a bit for each element, by which `backward` needs no residual. Not for `HardSwish` and `Silu`.
    pub save_mask: bool,
    pub groups: Option<Groups<'a>>,
    /// The weights of the positions, outer x inner, in the statistics.
    pub weights: Option<&'a [T::Parameter]>,
    pub masked: Masked,
}

impl<T: Element> Default for Options<'_, T> {
    fn default() -> Self {
        Options {
            eps: 1e-5,
            momentum: 0.1,
            biased_running_var: false,
            activation: Activation::Identity,
            residual: None,
            save_mask: false,
            groups: None,
            weights: None,
            masked: Masked::Normalize,
        }
    }
}

/// y = activation(u), where u = gamma * x_hat + beta + residual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Identity,
    Relu,
    LeakyRelu {
        slope: f64,
    },
    /// Between two limits; `RELU6` is 0 and 6.
    Clip {
        low: f64,
        high: f64,
    },
    HardSwish,
    Silu,
}

impl Activation {
    pub const RELU6: Activation = Activation::Clip { low: 0.0, high: 6.0 };

    /// The number of the activation, its slope and its limits, or their defaults.
    pub(crate) fn to_c(self) -> (i32, f64, f64, f64) {
        match self {
            Activation::Identity => (0, 0.01, 0.0, 6.0),
            Activation::Relu => (1, 0.01, 0.0, 6.0),
            Activation::LeakyRelu { slope } => (2, slope, 0.0, 6.0),
            Activation::Clip { low, high } => (3, 0.01, low, high),
            Activation::HardSwish => (4, 0.01, 0.0, 6.0),
            Activation::Silu => (5, 0.01, 0.0, 6.0),
        }
    }
}

/// y at positions of weight 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masked {
    /// As anywhere else.
    Normalize = 0,
    Zero = 1,
    /// x.
    Keep = 2,
}

/// Samples in groups: ghost batches, segments, or a class for each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups<'a> {
    pub count: usize,
    /// The number of samples; `None` takes each outer index, or each index of the first axis, for one.
    pub samples: Option<usize>,
    /// The group of each sample; `None` for groups of equal size.
    pub index: Option<&'a [i32]>,
    pub per_group: PerGroup,
    /// Without index: sample i is in group i % count.
    pub interleaved: bool,
    /// The running statistics move once, to the average of the groups'.
    pub averaged: bool,
}

impl Groups<'_> {
    /// Ghost batches: so many groups of neighbours, each normalized by itself.
    pub fn new(count: usize) -> Self {
        let per_group = PerGroup { statistics: true, running: false, parameters: false };
        Groups { count, samples: None, index: None, per_group, interleaved: false, averaged: false }
    }
}

/// The arrays that have a row for each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerGroup {
    pub statistics: bool,
    pub running: bool,
    /// gamma, beta and their gradients.
    pub parameters: bool,
}
