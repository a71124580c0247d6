// SPDX-License-Identifier: Apache-2.0
//! libbatchnorm for Rust: the functions of `batchnorm.h` on borrowed slices, without a copy of a tensor.
//!
//! A slice is as long as the shape says, or the call is an `Error::Length`: C would read past its end. The borrow
//! checker sees to it that no output overlaps another argument.

use std::ffi::CStr;
use std::fmt;
use std::mem::size_of;
use std::os::raw::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

/// Outer x channels x inner, dense, the inner index running fastest: NCHW is (N, C, H * W), NHWC is (N * H * W, C, 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub outer: usize,
    pub channels: usize,
    pub inner: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Added to the variance.
    pub eps: f64,
    /// The weight of the new batch in the running statistics.
    pub momentum: f64,
    /// The running variance takes the sum of squares / M in place of / (M - 1).
    pub biased_running_var: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { eps: 1e-5, momentum: 0.1, biased_running_var: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A slice has another number of elements than the shape says.
    Length { argument: &'static str, actual: usize, expected: usize },
    /// The library's own status, and its sentence.
    Library { status: i32, message: String },
    /// The library that was loaded is not one that this crate can use.
    Version(i32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Length { argument, actual, expected } => {
                write!(f, "{argument} has {actual} elements, expected {expected}")
            }
            Error::Library { message, .. } => f.write_str(message),
            Error::Version(v) => {
                let (major, minor, patch) = (v / 10000, v / 100 % 100, v % 100);
                write!(f, "libbatchnorm 2.0 or a later 2.x is needed, but libbatchnorm.so.2 is {major}.{minor}.{patch}")
            }
        }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// `f32` and `f64`. Sealed: another type would be read as one of them.
pub trait Element: Copy + sealed::Sealed {}
impl Element for f32 {}
impl Element for f64 {}

mod sealed {
    pub trait Sealed {
        const DTYPE: std::os::raw::c_int;
    }
    impl Sealed for f32 {
        const DTYPE: std::os::raw::c_int = 1;
    }
    impl Sealed for f64 {
        const DTYPE: std::os::raw::c_int = 2;
    }
}

/// The part of a forward call that `backward` needs: its shape, gamma and beta as they were, what x was normalized with,
/// and whether that was of the batch. Only a forward call makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved<T> {
    shape: Shape,
    gamma: Option<Vec<T>>,
    beta: Option<Vec<T>>,
    mean: Vec<f64>,
    invstd: Vec<f64>,
    frozen: bool,
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

    fn new(shape: Shape, gamma: Option<&[T]>, beta: Option<&[T]>, frozen: bool) -> Self {
        let row = || vec![0.0; shape.channels];
        let (gamma, beta) = (gamma.map(Vec::from), beta.map(Vec::from));
        Saved { shape, gamma, beta, mean: row(), invstd: row(), frozen }
    }
}

/// Normalizes `x` into `y` with the statistics of the batch, and moves the running ones, a mean and a variance.
/// Returns what `backward` needs.
pub fn forward_training<T: Element>(
    shape: Shape,
    x: &[T],
    gamma: Option<&[T]>,
    beta: Option<&[T]>,
    running: Option<(&mut [T], &mut [T])>,
    y: &mut [T],
    options: &Options,
) -> Result<Saved<T>> {
    let (px, py) = (shape.tensor("x", x)?, shape.tensor_mut("y", y)?);
    let (pgamma, pbeta) = (shape.row("gamma", gamma)?, shape.row("beta", beta)?);
    let (running_mean, running_var) = shape.rows_mut("running_mean", "running_var", running)?;
    let mut saved = Saved::new(shape, gamma, beta, false);
    let (mean, invstd) = (saved.mean.as_mut_ptr(), saved.invstd.as_mut_ptr());
    let (shape, options) = (shape.to_c(), options.to_c(false));
    call(|| unsafe {
        bn_forward_training(&shape, T::DTYPE, px, pgamma, pbeta, running_mean, running_var, py, mean, invstd, &options)
    })?;
    Ok(saved)
}

/// Like `forward_training`, but normalizes with the running statistics, which stay as they are, and are constants to
/// the gradient.
pub fn forward_inference<T: Element>(
    shape: Shape,
    x: &[T],
    gamma: Option<&[T]>,
    beta: Option<&[T]>,
    running: (&[T], &[T]),
    y: &mut [T],
    options: &Options,
) -> Result<Saved<T>> {
    let (px, py) = (shape.tensor("x", x)?, shape.tensor_mut("y", y)?);
    let (pgamma, pbeta) = (shape.row("gamma", gamma)?, shape.row("beta", beta)?);
    let running_mean = shape.row("running_mean", Some(running.0))?;
    let running_var = shape.row("running_var", Some(running.1))?;
    let mut saved = Saved::new(shape, gamma, beta, true);
    let (mean, invstd) = (saved.mean.as_mut_ptr(), saved.invstd.as_mut_ptr());
    let (shape, options) = (shape.to_c(), options.to_c(false));
    call(|| unsafe {
        bn_forward_inference(&shape, T::DTYPE, px, pgamma, pbeta, running_mean, running_var, py, mean, invstd, &options)
    })?;
    Ok(saved)
}

/// The gradients with respect to x, gamma and beta, as far as they are wanted, of a loss whose gradient with respect to
/// y is `dy`. `x` is that of the forward call that gave `saved`, as it was then.
pub fn backward<T: Element>(
    dy: &[T],
    x: &[T],
    saved: &Saved<T>,
    dx: Option<&mut [T]>,
    dgamma: Option<&mut [T]>,
    dbeta: Option<&mut [T]>,
) -> Result<()> {
    let Saved { shape, gamma, beta, mean, invstd, frozen } = saved;
    let (dy, x) = (shape.tensor("dy", dy)?, shape.tensor("x", x)?);
    let gamma = shape.row("gamma", gamma.as_deref())?;
    let beta = shape.row("beta", beta.as_deref())?;
    let dx = dx.map_or(Ok(null_mut()), |dx| shape.tensor_mut("dx", dx))?;
    let (dgamma, dbeta) = (shape.row_mut("dgamma", dgamma)?, shape.row_mut("dbeta", dbeta)?);
    let (mean, invstd) = (mean.as_ptr(), invstd.as_ptr());
    let (shape, options) = (shape.to_c(), Options::default().to_c(*frozen));
    call(|| unsafe { bn_backward(&shape, T::DTYPE, dy, x, gamma, beta, mean, invstd, dx, dgamma, dbeta, &options) })
}

/// Number of values, mean, and sum of squared deviations from it, per channel.
pub fn moments<T: Element>(shape: Shape, x: &[T], count: &mut [f64], mean: &mut [f64], m2: &mut [f64]) -> Result<()> {
    let x = shape.tensor("x", x)?;
    let count = shape.row_mut("count", Some(count))?;
    let (mean, m2) = (shape.row_mut("mean", Some(mean))?, shape.row_mut("m2", Some(m2))?);
    let shape = shape.to_c();
    call(|| unsafe { bn_moments(&shape, T::DTYPE, x, count.cast(), mean.cast(), m2.cast()) })
}

/// The number of threads that later calls may use: 1 to 1024, or 0 for the default.
pub fn set_num_threads(threads: i32) -> Result<()> {
    call(|| unsafe { bn_set_num_threads(threads) })
}

/// major * 10000 + minor * 100 + patch of the library that was loaded.
pub fn version() -> i32 {
    unsafe { bn_version() }
}

/// bn_last_error() is of this thread, and good until its next failure: it is copied at once.
fn call(function: impl FnOnce() -> c_int) -> Result<()> {
    let version = version();
    if version / 10000 != 2 || version < 20000 {
        return Err(Error::Version(version));
    }
    match function() {
        0 => Ok(()),
        status => {
            let message = unsafe { CStr::from_ptr(bn_last_error()) }.to_string_lossy().into_owned();
            Err(Error::Library { status, message })
        }
    }
}

/// Slices become pointers here, after their length is checked, and nowhere else.
impl Shape {
    fn tensor<T>(self, argument: &'static str, slice: &[T]) -> Result<*const c_void> {
        // A number of elements that overflows is more than any slice has.
        let size = self.outer.saturating_mul(self.channels).saturating_mul(self.inner);
        checked(argument, slice.len(), size)?;
        Ok(slice.as_ptr().cast())
    }

    fn tensor_mut<T>(self, argument: &'static str, slice: &mut [T]) -> Result<*mut c_void> {
        self.tensor(argument, slice)?;
        Ok(slice.as_mut_ptr().cast())
    }

    fn row<T>(self, argument: &'static str, slice: Option<&[T]>) -> Result<*const c_void> {
        slice.map_or(Ok(null()), |row| {
            checked(argument, row.len(), self.channels)?;
            Ok(row.as_ptr().cast())
        })
    }

    fn row_mut<T>(self, argument: &'static str, slice: Option<&mut [T]>) -> Result<*mut c_void> {
        slice.map_or(Ok(null_mut()), |row| {
            checked(argument, row.len(), self.channels)?;
            Ok(row.as_mut_ptr().cast())
        })
    }

    fn rows_mut<T>(
        self,
        first: &'static str,
        second: &'static str,
        rows: Option<(&mut [T], &mut [T])>,
    ) -> Result<(*mut c_void, *mut c_void)> {
        let (a, b) = rows.map_or((None, None), |(a, b)| (Some(a), Some(b)));
        Ok((self.row_mut(first, a)?, self.row_mut(second, b)?))
    }

    fn to_c(self) -> bn_shape {
        let Shape { outer, channels, inner } = self;
        bn_shape { struct_size: size_of::<bn_shape>(), outer, channels, inner, strides: [0; 3], weights: null() }
    }
}

impl Options {
    fn to_c(self, frozen: bool) -> bn_options {
        bn_options {
            struct_size: size_of::<bn_options>(),
            eps: self.eps,
            momentum: self.momentum,
            biased_running_var: self.biased_running_var.into(),
            frozen: frozen.into(),
            param_dtype: 0,
            reserved: 0,
            descriptors: [null(); 4],
        }
    }
}

fn checked(argument: &'static str, actual: usize, expected: usize) -> Result<()> {
    if actual == expected {
        Ok(())
    } else {
        Err(Error::Length { argument, actual, expected })
    }
}

#[repr(C)]
#[allow(non_camel_case_types)]
struct bn_shape {
    struct_size: usize,
    outer: usize,
    channels: usize,
    inner: usize,
    strides: [usize; 3], // of x, y and dx: 0 is dense
    weights: *const c_void,
}

#[repr(C)]
#[allow(non_camel_case_types)]
struct bn_options {
    struct_size: usize,
    eps: f64,
    momentum: f64,
    biased_running_var: i32,
    frozen: i32,
    param_dtype: c_int,
    reserved: i32,
    descriptors: [*const c_void; 4], // epilogue, running, source and groups: none
}

const _: () = assert!(size_of::<bn_shape>() == 64 && size_of::<bn_options>() == 72);

#[link(name = "batchnorm")]
extern "C" {
    fn bn_forward_training(
        shape: *const bn_shape,
        dtype: c_int,
        x: *const c_void,
        gamma: *const c_void,
        beta: *const c_void,
        running_mean: *mut c_void,
        running_var: *mut c_void,
        y: *mut c_void,
        saved_mean: *mut f64,
        saved_invstd: *mut f64,
        options: *const bn_options,
    ) -> c_int;
    fn bn_forward_inference(
        shape: *const bn_shape,
        dtype: c_int,
        x: *const c_void,
        gamma: *const c_void,
        beta: *const c_void,
        running_mean: *const c_void,
        running_var: *const c_void,
        y: *mut c_void,
        saved_mean: *mut f64,
        saved_invstd: *mut f64,
        options: *const bn_options,
    ) -> c_int;
    fn bn_backward(
        shape: *const bn_shape,
        dtype: c_int,
        dy: *const c_void,
        x: *const c_void,
        gamma: *const c_void,
        beta: *const c_void,
        saved_mean: *const f64,
        saved_invstd: *const f64,
        dx: *mut c_void,
        dgamma: *mut c_void,
        dbeta: *mut c_void,
        options: *const bn_options,
    ) -> c_int;
    fn bn_moments(
        shape: *const bn_shape,
        dtype: c_int,
        x: *const c_void,
        count: *mut f64,
        mean: *mut f64,
        m2: *mut f64,
    ) -> c_int;
    fn bn_version() -> c_int;
    fn bn_last_error() -> *const c_char;
    fn bn_set_num_threads(threads: c_int) -> c_int;
}
