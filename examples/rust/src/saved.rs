// SPDX-License-Identifier: Apache-2.0
//! What a forward call leaves for backward, and the structures of both.
use crate::options::{Activation, Masked, Options, PerGroup};
use crate::sys::{bn_epilogue, bn_groups, bn_options, bn_weights};
use crate::tensor::{check, Element, Form, Shape};
use crate::Result;
use std::mem::size_of;
use std::os::raw::c_void;
use std::ptr::null;

/// The part of a forward call that `backward` needs: its shape, options, gamma and beta as they were, what x was
/// normalized with, and whether that was of the batch. Only a forward call makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved<T: Element> {
    pub(crate) form: Form,
    pub(crate) extents: Shape,
    pub(crate) gamma: Option<Vec<T::Parameter>>,
    pub(crate) beta: Option<Vec<T::Parameter>>,
    pub(crate) mean: Vec<f64>,
    pub(crate) invstd: Vec<f64>,
    pub(crate) mask: Option<Vec<u8>>,
    pub(crate) has_residual: bool,
    pub(crate) frozen: bool,
    pub(crate) activation: Activation,
    weights: Option<Vec<T::Parameter>>,
    masked: Masked,
    groups: Option<Owned>,
}

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    count: usize,
    samples: usize,
    index: Option<Vec<i32>>,
    per_group: PerGroup,
    interleaved: bool,
    averaged: bool,
}

/// The residual and its gradient, with their outer strides, and the mask.
pub(crate) struct Added {
    pub mask: *mut u8,
    pub z: *const c_void,
    pub z_stride: usize,
    pub dz: *mut c_void,
    pub dz_stride: usize,
}

impl<T: Element> Saved<T> {
    /// The means that x was normalized with.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The factors that x was normalized with: 1 / sqrt(variance + eps).
    pub fn invstd(&self) -> &[f64] {
        &self.invstd
    }

    /// A bit for each element that tells if the gradient passes, if `save_mask` was set.
    pub fn mask(&self) -> Option<&[u8]> {
        self.mask.as_deref()
    }

    pub(crate) fn new(
        form: Form,
        extents: Shape,
        gamma: Option<&[T::Parameter]>,
        beta: Option<&[T::Parameter]>,
        options: &Options<'_, T>,
        frozen: bool,
    ) -> Result<Self> {
        let Shape { outer, channels, inner } = extents;
        if let Some(weights) = options.weights {
            check("weights", weights.len(), outer.saturating_mul(inner))?;
        }
        let groups = options.groups.map(|groups| Owned {
            count: groups.count,
            samples: groups.samples.unwrap_or_else(|| form.samples()),
            index: groups.index.map(Vec::from),
            per_group: groups.per_group,
            interleaved: groups.interleaved,
            averaged: groups.averaged,
        });
        if let Some(Owned { index: Some(index), samples, .. }) = &groups {
            check("index", index.len(), *samples)?;
        }
        let mut saved = Saved {
            form,
            extents,
            gamma: gamma.map(Vec::from),
            beta: beta.map(Vec::from),
            mean: Vec::new(),
            invstd: Vec::new(),
            // As many as x has, which is checked before.
            mask: options.save_mask.then(|| vec![0; (outer * channels * inner + 7) / 8]),
            has_residual: options.residual.is_some(),
            frozen,
            activation: options.activation,
            weights: options.weights.map(Vec::from),
            masked: options.masked,
            groups,
        };
        let rows = saved.rows(|of| of.statistics);
        (saved.mean, saved.invstd) = (vec![0.0; rows], vec![0.0; rows]);
        Ok(saved)
    }

    pub(crate) fn has_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// The elements of an array that has a row for each group if `per_group` says so.
    pub(crate) fn rows(&self, per_group: impl Fn(&PerGroup) -> bool) -> usize {
        let count = self.groups.as_ref().filter(|of| per_group(&of.per_group)).map_or(1, |of| of.count);
        self.extents.channels.saturating_mul(count)
    }

    /// Makes a call with the structures of the library, which do not outlive it. `options` has what backward does not
    /// know.
    pub(crate) fn with_structs<R>(
        &self,
        added: Added,
        options: Option<&Options<'_, T>>,
        function: impl FnOnce(*const bn_weights, &bn_options) -> R,
    ) -> R {
        let Added { mask, z, z_stride, dz, dz_stride } = added;
        let (activation, slope, low, high) = self.activation.to_c();
        let struct_size = size_of::<bn_epilogue>();
        let from_output = 0;
        let epilogue =
            bn_epilogue { struct_size, activation, from_output, slope, low, high, z, z_stride, dz, dz_stride, mask };
        let weights = self.weights.as_ref().map(|values| bn_weights {
            struct_size: size_of::<bn_weights>(),
            values: values.as_ptr().cast(),
            masked: self.masked as i32,
            reserved: 0,
        });
        let groups = self.groups.as_ref().map(|of| bn_groups {
            struct_size: size_of::<bn_groups>(),
            samples: of.samples,
            groups: of.count,
            index: of.index.as_ref().map_or(null(), |index| index.as_ptr()),
            interleaved: of.interleaved.into(),
            per_group: i32::from(of.per_group.statistics)
                + 2 * i32::from(of.per_group.running)
                + 4 * i32::from(of.per_group.parameters),
            averaged: of.averaged.into(),
            reserved: 0,
        });
        let options = bn_options {
            struct_size: size_of::<bn_options>(),
            eps: options.map_or(1e-5, |options| options.eps),
            momentum: options.map_or(0.1, |options| options.momentum),
            biased_running_var: options.map_or(0, |options| options.biased_running_var.into()),
            frozen: self.frozen.into(),
            param_dtype: 0,
            reserved: 0,
            epilogue: &epilogue,
            running: null(),
            source: null(),
            groups: groups.as_ref().map_or(null(), |groups| groups),
        };
        function(weights.as_ref().map_or(null(), |weights| weights), &options)
    }
}
