// SPDX-License-Identifier: Apache-2.0
//! Elements, tensors and their shape. Slices become pointers here, after their length is checked, and nowhere else.
use crate::sys::{self, bn_shape, bn_weights};
use crate::{Error, Result};
use std::mem::{size_of, MaybeUninit};
use std::os::raw::{c_int, c_void};
use std::ptr::{null, null_mut};

/// `f32`, `f64`, `F16` and `Bf16`. Sealed: another type would be read as one of them.
pub trait Element: Copy + Clone + PartialEq + std::fmt::Debug + sealed::Sealed + 'static {
    /// That of gamma, beta, the running statistics, and weights.
    type Parameter: Element;
}

/// The bits of an IEEE 754 binary16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(pub u16);

/// The bits of a bfloat16, the upper half of an `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

mod sealed {
    pub trait Sealed {
        const DTYPE: std::os::raw::c_int;
    }
}

macro_rules! elements {
    ($($element:ty, $parameter:ty, $dtype:literal;)*) => {$(
        impl Element for $element {
            type Parameter = $parameter;
        }
        impl sealed::Sealed for $element {
            const DTYPE: c_int = $dtype;
        }
    )*};
}
elements! { f32, f32, 1; f64, f64, 2; F16, f32, 3; Bf16, f32, 4; }

/// Outer x channels x inner, dense, the inner index running fastest: NCHW is (N, C, H * W), NHWC is (N * H * W, C, 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub outer: usize,
    pub channels: usize,
    pub inner: usize,
}

/// The axes of tensors with strides: the length of each, and which is that of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes<'a> {
    pub sizes: &'a [usize],
    pub channels: usize,
}

/// A slice that begins with a tensor's first element; its strides, in elements, if the shape of the call is `Axes`.
/// Beside x, a tensor without strides lies as x does.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a, T> {
    pub data: &'a [T],
    pub strides: Option<&'a [isize]>,
}

/// A tensor that is written. The gaps between its slices are not.
#[derive(Debug)]
pub struct TensorMut<'a, T> {
    pub data: &'a mut [T],
    pub strides: Option<&'a [isize]>,
}

impl<'a, T, S: AsRef<[T]> + ?Sized> From<&'a S> for Tensor<'a, T> {
    fn from(data: &'a S) -> Self {
        Tensor { data: data.as_ref(), strides: None }
    }
}

impl<'a, T, S: AsMut<[T]> + ?Sized> From<&'a mut S> for TensorMut<'a, T> {
    fn from(data: &'a mut S) -> Self {
        TensorMut { data: data.as_mut(), strides: None }
    }
}

/// The numbers of a call's shape, kept for backward.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    Dense(Shape),
    Strided { sizes: Vec<i64>, channels: usize, of_x: Vec<isize> },
}

impl From<Shape> for Form {
    fn from(shape: Shape) -> Self {
        Form::Dense(shape)
    }
}

impl From<Axes<'_>> for Form {
    fn from(Axes { sizes, channels }: Axes<'_>) -> Self {
        // A length beyond i64 is negative here, which the library refuses.
        Form::Strided { sizes: sizes.iter().map(|&size| size as i64).collect(), channels, of_x: Vec::new() }
    }
}

impl Form {
    pub(crate) fn remember(&mut self, strides: Option<&[isize]>) {
        if let (Form::Strided { of_x, .. }, Some(strides)) = (self, strides) {
            *of_x = strides.to_vec();
        }
    }

    /// The samples, which groups are made of.
    pub(crate) fn samples(&self) -> usize {
        match self {
            Form::Dense(shape) => shape.outer,
            Form::Strided { sizes, .. } => sizes.first().map_or(0, |&size| size as usize),
        }
    }

    /// The extents of a call by the library, and the outer stride of each tensor; absent ones have any.
    pub(crate) fn extents<const N: usize>(
        &self,
        tensors: [(&'static str, Option<&[isize]>); N],
        samples_outermost: bool,
    ) -> Result<(Shape, [usize; N])> {
        let (sizes, channels, of_x) = match self {
            Form::Dense(shape) => {
                return match tensors.iter().find(|tensor| tensor.1.is_some()) {
                    Some(&(argument, _)) => Err(Error::Strides { argument }),
                    None => Ok((*shape, [0; N])),
                };
            }
            Form::Strided { sizes, channels, of_x } => (sizes, *channels, of_x),
        };
        let mut strides = Vec::with_capacity(N * sizes.len());
        for (argument, own) in tensors {
            let own = own.unwrap_or(of_x);
            if own.len() != sizes.len() {
                return Err(Error::Strides { argument });
            }
            strides.extend(own.iter().map(|&stride| stride as i64));
        }
        let (mut found, mut outer) = (MaybeUninit::<bn_shape>::uninit(), [0; N]);
        let (sizes_at, strides_at) = (sizes.as_ptr(), strides.as_ptr());
        let (rank, ordered, at) = (sizes.len(), c_int::from(samples_outermost), outer.as_mut_ptr());
        sys::call(|| unsafe {
            let found = found.as_mut_ptr();
            sys::bn_shape_from_strides(rank, sizes_at, channels, 1, N, strides_at, ordered, found, at)
        })?;
        let bn_shape { outer: count, channels, inner, .. } = unsafe { found.assume_init() };
        Ok((Shape { outer: count, channels, inner }, outer))
    }
}

impl Shape {
    /// The number of elements of a tensor from its first to its last. One that overflows is more than any slice has.
    fn span(self, stride: usize) -> usize {
        let slice = self.channels.saturating_mul(self.inner);
        if self.outer == 0 || slice == 0 {
            return 0;
        }
        (self.outer - 1).saturating_mul(if stride == 0 { slice } else { stride }).saturating_add(slice)
    }

    /// One with strides may be longer than what they reach.
    fn check_tensor(self, argument: &'static str, len: usize, strided: bool, stride: usize) -> Result<()> {
        let span = self.span(stride);
        check(argument, if strided { len.min(span) } else { len }, span)
    }

    pub(crate) fn tensor<T>(
        self,
        name: &'static str,
        data: &[T],
        strided: bool,
        stride: usize,
    ) -> Result<*const c_void> {
        self.check_tensor(name, data.len(), strided, stride)?;
        Ok(data.as_ptr().cast())
    }

    pub(crate) fn tensor_mut<T>(
        self,
        name: &'static str,
        tensor: Option<TensorMut<'_, T>>,
        strided: bool,
        stride: usize,
    ) -> Result<*mut c_void> {
        tensor.map_or(Ok(null_mut()), |tensor| {
            self.check_tensor(name, tensor.data.len(), strided, stride)?;
            Ok(tensor.data.as_mut_ptr().cast())
        })
    }

    pub(crate) fn to_c(self, [x_stride, y_stride, dx_stride]: [usize; 3], weights: *const bn_weights) -> bn_shape {
        let Shape { outer, channels, inner } = self;
        bn_shape { struct_size: size_of::<bn_shape>(), outer, channels, inner, x_stride, y_stride, dx_stride, weights }
    }
}

pub(crate) fn row<T>(argument: &'static str, slice: Option<&[T]>, len: usize) -> Result<*const c_void> {
    slice.map_or(Ok(null()), |row| check(argument, row.len(), len).map(|()| row.as_ptr().cast()))
}

pub(crate) fn row_mut<T>(argument: &'static str, slice: Option<&mut [T]>, len: usize) -> Result<*mut c_void> {
    slice.map_or(Ok(null_mut()), |row| check(argument, row.len(), len).map(|()| row.as_mut_ptr().cast()))
}

pub(crate) fn check(argument: &'static str, actual: usize, expected: usize) -> Result<()> {
    if actual == expected {
        Ok(())
    } else {
        Err(Error::Length { argument, actual, expected })
    }
}
