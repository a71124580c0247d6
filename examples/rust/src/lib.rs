// SPDX-License-Identifier: Apache-2.0
//! libbatchnorm for Rust: the functions of `batchnorm.h` on borrowed slices, without a copy of a tensor.
//!
//! A slice is as long as the shape says, or the call is an `Error::Length`: C would read past its end. The borrow
//! checker sees to it that no output overlaps another argument. Tensors with strides have `Axes` for a shape.

mod error;
mod options;
mod saved;
mod sys;
mod tensor;

pub use error::{Error, Result};
pub use options::{Activation, Groups, Masked, Options, PerGroup};
pub use saved::Saved;
pub use tensor::{Axes, Bf16, Element, Form, Shape, Tensor, TensorMut, F16};

use saved::Added;
use std::os::raw::c_void;
use std::ptr::{null, null_mut};
use tensor::{row, row_mut};

/// Normalizes `x` into `y` with the statistics of the batch, and moves the running ones, a mean and a variance.
/// Returns what `backward` needs.
pub fn forward_training<'a, T: Element>(
    shape: impl Into<Form>,
    x: impl Into<Tensor<'a, T>>,
    gamma: Option<&[T::Parameter]>,
    beta: Option<&[T::Parameter]>,
    running: Option<(&mut [T::Parameter], &mut [T::Parameter])>,
    y: impl Into<TensorMut<'a, T>>,
    options: &Options<'_, T>,
) -> Result<Saved<T>> {
    let (mean, var) = running.map_or((None, None), |(mean, var)| (Some(mean), Some(var)));
    forward(shape.into(), x.into(), gamma, beta, y.into(), options, false, |len| {
        Ok((row_mut("running_mean", mean, len)?, row_mut("running_var", var, len)?))
    })
}

/// Like `forward_training`, but normalizes with the running statistics, which stay as they are, and are constants to
/// the gradient.
pub fn forward_inference<'a, T: Element>(
    shape: impl Into<Form>,
    x: impl Into<Tensor<'a, T>>,
    gamma: Option<&[T::Parameter]>,
    beta: Option<&[T::Parameter]>,
    running: (&[T::Parameter], &[T::Parameter]),
    y: impl Into<TensorMut<'a, T>>,
    options: &Options<'_, T>,
) -> Result<Saved<T>> {
    forward(shape.into(), x.into(), gamma, beta, y.into(), options, true, |len| {
        // The library does not write to them.
        let (mean, var) = (row("running_mean", Some(running.0), len)?, row("running_var", Some(running.1), len)?);
        Ok((mean as *mut c_void, var as *mut c_void))
    })
}

#[allow(clippy::too_many_arguments)] // those of C
fn forward<T: Element>(
    mut form: Form,
    x: Tensor<'_, T>,
    gamma: Option<&[T::Parameter]>,
    beta: Option<&[T::Parameter]>,
    y: TensorMut<'_, T>,
    options: &Options<'_, T>,
    frozen: bool,
    running: impl FnOnce(usize) -> Result<(*mut c_void, *mut c_void)>,
) -> Result<Saved<T>> {
    form.remember(x.strides);
    let of_z = options.residual.and_then(|z| z.strides);
    let tensors = [("x", x.strides), ("y", y.strides), ("residual", of_z)];
    let (extents, [of_x, of_y, z_stride]) = form.extents(tensors, options.groups.is_some())?;
    let strided = matches!(form, Form::Strided { .. });
    let px = extents.tensor("x", x.data, strided, of_x)?;
    let py = extents.tensor_mut("y", Some(y), strided, of_y)?;
    let z = options.residual.map_or(Ok(null()), |z| extents.tensor("residual", z.data, strided, z_stride))?;
    let mut saved = Saved::new(form, extents, gamma, beta, options, frozen)?;
    let (running_mean, running_var) = running(saved.rows(|of| of.running))?;
    let parameters = saved.rows(|of| of.parameters);
    let (pgamma, pbeta) = (row("gamma", gamma, parameters)?, row("beta", beta, parameters)?);
    let (mean, invstd) = (saved.mean.as_mut_ptr(), saved.invstd.as_mut_ptr());
    let mask = saved.mask.as_mut().map_or(null_mut(), |mask| mask.as_mut_ptr());
    let added = Added { mask, z, z_stride, dz: null_mut(), dz_stride: 0 };
    saved.with_structs(added, Some(options), |weights, options| {
        let (shape, dtype) = (extents.to_c([of_x, of_y, 0], weights), T::DTYPE);
        let (m, v) = (running_mean, running_var);
        sys::call(|| unsafe {
            if frozen {
                sys::bn_forward_inference(&shape, dtype, px, pgamma, pbeta, m, v, py, mean, invstd, options)
            } else {
                sys::bn_forward_training(&shape, dtype, px, pgamma, pbeta, m, v, py, mean, invstd, options)
            }
        })
    })?;
    Ok(saved)
}

/// The gradients that `backward` is to write, as far as they are wanted.
#[derive(Debug)]
pub struct Gradients<'a, T: Element> {
    pub dx: Option<TensorMut<'a, T>>,
    pub dgamma: Option<&'a mut [T::Parameter]>,
    pub dbeta: Option<&'a mut [T::Parameter]>,
    /// With respect to the residual.
    pub dz: Option<TensorMut<'a, T>>,
}

impl<T: Element> Default for Gradients<'_, T> {
    fn default() -> Self {
        Gradients { dx: None, dgamma: None, dbeta: None, dz: None }
    }
}

/// The gradients of a loss whose gradient with respect to y is `dy`. `x` is that of the forward call that gave `saved`,
/// as it was then, and so is the residual, if there was one without a mask.
pub fn backward<'a, T: Element>(
    dy: impl Into<Tensor<'a, T>>,
    x: impl Into<Tensor<'a, T>>,
    residual: Option<Tensor<'_, T>>,
    saved: &Saved<T>,
    gradients: Gradients<'_, T>,
) -> Result<()> {
    let (dy, x) = (dy.into(), x.into());
    let Gradients { dx, dgamma, dbeta, dz } = gradients;
    let is_needed = saved.has_residual && saved.mask.is_none() && saved.activation != Activation::Identity;
    if residual.is_none() && is_needed || residual.is_some() && !saved.has_residual {
        return Err(Error::Residual);
    }
    let tensors = [
        ("x", x.strides),
        ("dy", dy.strides),
        ("dx", dx.as_ref().and_then(|dx| dx.strides)),
        ("residual", residual.and_then(|z| z.strides)),
        ("dz", dz.as_ref().and_then(|dz| dz.strides)),
    ];
    let (shape, [x_stride, y_stride, dx_stride, z_stride, dz_stride]) =
        saved.form.extents(tensors, saved.has_groups())?;
    let strided = matches!(saved.form, Form::Strided { .. });
    let (pdy, px) = (shape.tensor("dy", dy.data, strided, y_stride)?, shape.tensor("x", x.data, strided, x_stride)?);
    let pdx = shape.tensor_mut("dx", dx, strided, dx_stride)?;
    let z = residual.map_or(Ok(null()), |z| shape.tensor("residual", z.data, strided, z_stride))?;
    let dz = shape.tensor_mut("dz", dz, strided, dz_stride)?;
    let parameters = saved.rows(|of| of.parameters);
    let (pdgamma, pdbeta) = (row_mut("dgamma", dgamma, parameters)?, row_mut("dbeta", dbeta, parameters)?);
    // It is only read.
    let mask = saved.mask().map_or(null_mut(), |mask| mask.as_ptr() as *mut u8);
    saved.with_structs(Added { mask, z, z_stride, dz, dz_stride }, None, |weights, options| {
        let shape = shape.to_c([x_stride, y_stride, dx_stride], weights);
        let (gamma, beta) = (saved.gamma.as_deref(), saved.beta.as_deref());
        let (gamma, beta) = (row("gamma", gamma, parameters)?, row("beta", beta, parameters)?);
        let (mean, invstd) = (saved.mean.as_ptr(), saved.invstd.as_ptr());
        sys::call(|| unsafe {
            sys::bn_backward(&shape, T::DTYPE, pdy, px, gamma, beta, mean, invstd, pdx, pdgamma, pdbeta, options)
        })
    })
}

/// Number of values, mean, and sum of squared deviations from it, per channel.
pub fn moments<'a, T: Element>(
    shape: impl Into<Form>,
    x: impl Into<Tensor<'a, T>>,
    count: &mut [f64],
    mean: &mut [f64],
    m2: &mut [f64],
) -> Result<()> {
    let (mut form, x) = (shape.into(), x.into());
    form.remember(x.strides);
    let (shape, [stride]) = form.extents([("x", x.strides)], false)?;
    let x = shape.tensor("x", x.data, matches!(form, Form::Strided { .. }), stride)?;
    let row = |name, array| row_mut(name, Some(array), shape.channels);
    let (count, mean, m2) = (row("count", count)?, row("mean", mean)?, row("m2", m2)?);
    let shape = shape.to_c([stride, 0, 0], null());
    sys::call(|| unsafe {
        sys::bn_moments(&shape, T::DTYPE, x, count.cast(), mean.cast(), m2.cast(), 0, null())
    })
}

/// The number of threads that later calls may use: 1 to 1024, or 0 for the default.
pub fn set_num_threads(threads: i32) -> Result<()> {
    sys::call(|| unsafe { sys::bn_set_num_threads(threads) })
}

/// major * 10000 + minor * 100 + patch of the library that was loaded.
pub fn version() -> i32 {
    unsafe { sys::bn_version() }
}
