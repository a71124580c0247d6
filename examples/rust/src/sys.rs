// SPDX-License-Identifier: Apache-2.0
//! `batchnorm.h`, as far as this crate uses it.
#![allow(non_camel_case_types)]

use crate::{Error, Result};
use std::ffi::CStr;
use std::mem::size_of;
use std::os::raw::{c_char, c_int, c_void};

/// bn_last_error() is of this thread, and good until its next failure: it is copied at once.
pub fn call(function: impl FnOnce() -> c_int) -> Result<()> {
    let version = unsafe { bn_version() };
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

#[repr(C)]
pub struct bn_shape {
    pub struct_size: usize,
    pub outer: usize,
    pub channels: usize,
    pub inner: usize,
    pub x_stride: usize,
    pub y_stride: usize,
    pub dx_stride: usize,
    pub weights: *const bn_weights,
}

#[repr(C)]
pub struct bn_weights {
    pub struct_size: usize,
    pub values: *const c_void,
    pub masked: c_int,
    pub reserved: i32,
}

#[repr(C)]
pub struct bn_epilogue {
    pub struct_size: usize,
    pub activation: c_int,
    pub from_output: i32,
    pub slope: f64,
    pub low: f64,
    pub high: f64,
    pub z: *const c_void,
    pub z_stride: usize,
    pub dz: *mut c_void,
    pub dz_stride: usize,
    pub mask: *mut u8,
}

#[repr(C)]
pub struct bn_groups {
    pub struct_size: usize,
    pub samples: usize,
    pub groups: usize,
    pub index: *const i32,
    pub interleaved: i32,
    pub per_group: i32,
    pub averaged: i32,
    pub reserved: i32,
}

#[repr(C)]
pub struct bn_options {
    pub struct_size: usize,
    pub eps: f64,
    pub momentum: f64,
    pub biased_running_var: i32,
    pub frozen: i32,
    pub param_dtype: c_int,
    pub reserved: i32,
    pub epilogue: *const bn_epilogue,
    pub running: *const c_void,
    pub source: *const c_void,
    pub groups: *const bn_groups,
}

const _: () = assert!(size_of::<bn_shape>() == 64 && size_of::<bn_options>() == 72 && size_of::<bn_weights>() == 24);
const _: () = assert!(size_of::<bn_epilogue>() == 80 && size_of::<bn_groups>() == 48);

#[link(name = "batchnorm")]
extern "C" {
    pub fn bn_forward_training(
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
    pub fn bn_forward_inference(
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
    pub fn bn_backward(
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
    pub fn bn_moments(
        shape: *const bn_shape,
        dtype: c_int,
        x: *const c_void,
        count: *mut f64,
        mean: *mut f64,
        m2: *mut f64,
        stride: usize,
        options: *const bn_options,
    ) -> c_int;
    pub fn bn_shape_from_strides(
        rank: usize,
        sizes: *const i64,
        channel_axis: usize,
        channel_axes: usize,
        tensors: usize,
        strides: *const i64,
        samples_outermost: c_int,
        shape: *mut bn_shape,
        outer_strides: *mut usize,
    ) -> c_int;
    pub fn bn_version() -> c_int;
    pub fn bn_last_error() -> *const c_char;
    pub fn bn_set_num_threads(threads: c_int) -> c_int;
}
