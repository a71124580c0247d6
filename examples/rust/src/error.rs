// SPDX-License-Identifier: Apache-2.0
//! What can go wrong.
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A slice has another number of elements than the shape says.
    Length { argument: &'static str, actual: usize, expected: usize },
    /// Strides where the shape has no axes, or none of x where it has, or not one for each axis.
    Strides { argument: &'static str },
    /// The residual is none where backward needs it, or one where the forward call had none.
    Residual,
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
            Error::Strides { argument } => write!(f, "{argument} has other strides than the shape has axes"),
            Error::Residual => f.write_str("the residual is not that of the forward call; save_mask does without it"),
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
