// SPDX-License-Identifier: Apache-2.0

// Package batchnorm calls libbatchnorm on Go's own slices, without a copy, and without an allocation once a Saved has
// its size.
//
// The arguments are those of batchnorm.h, in its order; what a forward call was told, Backward has from Saved. A slice
// is as long as the shape says, or the call is a
// LengthError: C would read past its end. Where the header lets a pointer be NULL, the slice may be nil.
package batchnorm

/*
#cgo LDFLAGS: -lbatchnorm
#include <batchnorm.h>

// Tensors go by char *, which cgo knows to hold no pointers. For a void * it looks for them in the whole Go object that
// the slice is a part of, and panics where it finds one.

static bn_status forward_training(const bn_shape *shape, bn_dtype dtype, const char *x, const char *gamma,
                                  const char *beta, char *running_mean, char *running_var, char *y, double *mean,
                                  double *invstd, const bn_options *options)
{
    return bn_forward_training(shape, dtype, x, gamma, beta, running_mean, running_var, y, mean, invstd, options);
}

static bn_status forward_inference(const bn_shape *shape, bn_dtype dtype, const char *x, const char *gamma,
                                   const char *beta, const char *running_mean, const char *running_var, char *y,
                                   double *mean, double *invstd, const bn_options *options)
{
    return bn_forward_inference(shape, dtype, x, gamma, beta, running_mean, running_var, y, mean, invstd, options);
}

static bn_status backward(const bn_shape *shape, bn_dtype dtype, const char *dy, const char *x, const char *gamma,
                          const char *beta, const double *mean, const double *invstd, char *dx, char *dgamma,
                          char *dbeta, const bn_options *options)
{
    return bn_backward(shape, dtype, dy, x, gamma, beta, mean, invstd, dx, dgamma, dbeta, options);
}

static bn_status moments(const bn_shape *shape, bn_dtype dtype, const char *x, double *count, double *mean, double *m2)
{
    return bn_moments(shape, dtype, x, count, mean, m2);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"unsafe"
)

// Float is an element type of the tensors, and of gamma, beta and the running statistics.
type Float interface{ float32 | float64 }

// Shape is outer x channels x inner, dense, the inner index running fastest: NCHW is (N, C, H*W), NHWC (N*H*W, C, 1).
type Shape struct{ Outer, Channels, Inner int }

// Options are what a call may be told. A nil *Options stands for DefaultOptions.
type Options struct {
	Eps              float64 // added to the variance
	Momentum         float64 // the weight of the new batch in the running statistics
	BiasedRunningVar bool    // the running variance takes the sum of squares / M in place of / (M - 1)
}

// DefaultOptions returns the library's defaults, to change one of them.
func DefaultOptions() *Options { return &Options{Eps: 1e-5, Momentum: 0.1} }

// Saved is what Backward has to know of a forward call: its shape, copies of gamma and beta as they were, what x was
// normalized with, and whether that was of the batch. A forward call fills it, with the memory that it has if that is
// enough; one that fails leaves it as it was.
type Saved[T Float] struct {
	shape        Shape
	gamma, beta  []T // of no elements, if there was none
	mean, invstd []float64
	frozen       bool
}

// Mean returns a copy of the means that x was normalized with.
func (s *Saved[T]) Mean() []float64 { return append([]float64(nil), s.mean...) }

// InvStd returns a copy of the factors, 1 / sqrt(variance + eps), that x was normalized with.
func (s *Saved[T]) InvStd() []float64 { return append([]float64(nil), s.invstd...) }

// LengthError says that a slice has another number of elements than the shape; Wanted is -1 if that is no number at
// all.
type LengthError struct {
	Argument       string
	Actual, Wanted int
}

func (e *LengthError) Error() string {
	if e.Wanted < 0 {
		return fmt.Sprintf("batchnorm: the shape of %s is negative, or beyond what can be addressed", e.Argument)
	}
	return fmt.Sprintf("batchnorm: %s has %d elements, expected %d", e.Argument, e.Actual, e.Wanted)
}

// Error is a status of the library, other than BN_OK, and its sentence.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return "batchnorm: " + e.Message }

// ForwardTraining normalizes x into y, which may be x, with the statistics of the batch, and moves the running ones.
// saved takes what Backward needs, or is nil.
func ForwardTraining[T Float](shape Shape, x, gamma, beta, runningMean, runningVar, y []T, saved *Saved[T],
	options *Options) error {
	return forward(shape, x, gamma, beta, runningMean, runningVar, y, saved, options, false)
}

// ForwardInference is like ForwardTraining, but normalizes with the running statistics, which stay as they are, and are
// constants to the gradient.
func ForwardInference[T Float](shape Shape, x, gamma, beta, runningMean, runningVar, y []T, saved *Saved[T],
	options *Options) error {
	return forward(shape, x, gamma, beta, runningMean, runningVar, y, saved, options, true)
}

func forward[T Float](shape Shape, x, gamma, beta, runningMean, runningVar, y []T, saved *Saved[T], options *Options,
	frozen bool) error {
	a := arguments{shape: shape}
	px, pgamma, pbeta := tensor(&a, "x", x), row(&a, "gamma", gamma), row(&a, "beta", beta)
	prunningMean, prunningVar := row(&a, "running mean", runningMean), row(&a, "running var", runningVar)
	py := output(&a, "y", y)
	var mean, invstd []float64
	if saved != nil && a.err == nil {
		mean, invstd = sized(saved.mean, shape.Channels), sized(saved.invstd, shape.Channels)
	}
	pmean, pinvstd := doubles(&a, "mean", mean), doubles(&a, "invstd", invstd)
	err := a.call(options, frozen, func(s *C.bn_shape, o *C.bn_options) C.bn_status {
		if frozen {
			return C.forward_inference(s, dtype[T](), px, pgamma, pbeta, prunningMean, prunningVar, py, pmean, pinvstd, o)
		}
		return C.forward_training(s, dtype[T](), px, pgamma, pbeta, prunningMean, prunningVar, py, pmean, pinvstd, o)
	})
	if err == nil && saved != nil {
		*saved = Saved[T]{shape, append(saved.gamma[:0], gamma...), append(saved.beta[:0], beta...), mean, invstd, frozen}
	}
	return err
}

// Backward computes the gradients with respect to x, gamma and beta, as far as they are wanted, of a loss whose
// gradient with respect to y is dy. x is that of the forward call that filled saved, as it was then: if y took its
// place, a copy. dx may be dy.
func Backward[T Float](dy, x []T, saved *Saved[T], dx, dgamma, dbeta []T) error {
	if saved == nil || len(saved.mean) == 0 {
		return errors.New("batchnorm: saved is empty; expected what a forward call has filled")
	}
	a := arguments{shape: saved.shape}
	pdy, px := tensor(&a, "dy", dy), tensor(&a, "x", x)
	pgamma, pbeta := row(&a, "gamma", given(saved.gamma)), row(&a, "beta", given(saved.beta))
	pmean, pinvstd := doubles(&a, "mean", saved.mean), doubles(&a, "invstd", saved.invstd)
	pdx, pdgamma, pdbeta := output(&a, "dx", dx), row(&a, "dgamma", dgamma), row(&a, "dbeta", dbeta)
	return a.call(nil, saved.frozen, func(s *C.bn_shape, o *C.bn_options) C.bn_status {
		return C.backward(s, dtype[T](), pdy, px, pgamma, pbeta, pmean, pinvstd, pdx, pdgamma, pdbeta, o)
	})
}

// sized returns the slice with another length, of the same memory if that is enough.
func sized(slice []float64, length int) []float64 {
	if cap(slice) < length {
		return make([]float64, length)
	}
	return slice[:length]
}

// given is nil for a slice of no elements.
func given[T Float](slice []T) []T {
	if len(slice) == 0 {
		return nil
	}
	return slice
}

// Moments computes the number of values, the mean, and the sum of squared deviations from it, per channel.
func Moments[T Float](shape Shape, x []T, count, mean, m2 []float64) error {
	a := arguments{shape: shape}
	px := tensor(&a, "x", x)
	pcount, pmean, pm2 := doubles(&a, "count", count), doubles(&a, "mean", mean), doubles(&a, "m2", m2)
	return a.call(nil, false, func(s *C.bn_shape, _ *C.bn_options) C.bn_status {
		return C.moments(s, dtype[T](), px, pcount, pmean, pm2)
	})
}

// SetNumThreads sets the number of threads that later calls may use: 1 to 1024, or 0 for the default.
func SetNumThreads(threads int32) error {
	return call(func() C.bn_status { return C.bn_set_num_threads(C.int(threads)) })
}

// Version is major*10000 + minor*100 + patch of the library that was loaded.
func Version() int { return int(C.bn_version()) }

func call(function func() C.bn_status) error {
	if v := Version(); v/10000 != 2 || v < 20000 {
		return fmt.Errorf("libbatchnorm 2.0 or a later 2.x is needed, but libbatchnorm.so.2 is %d.%d.%d",
			v/10000, v/100%100, v%100)
	}
	// bn_last_error is of the thread that failed, which between two calls need not be this goroutine's any more.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if status := function(); status != C.BN_OK {
		return &Error{int(status), C.GoString(C.bn_last_error())}
	}
	return nil
}

// arguments turns slices into pointers, and keeps the first error.
type arguments struct {
	shape Shape
	err   error
}

func (a *arguments) call(options *Options, frozen bool, function func(*C.bn_shape, *C.bn_options) C.bn_status) error {
	if a.err != nil {
		return a.err
	}
	if options == nil {
		options = DefaultOptions()
	}
	shape := C.bn_shape{struct_size: C.sizeof_bn_shape, outer: C.size_t(a.shape.Outer),
		channels: C.size_t(a.shape.Channels), inner: C.size_t(a.shape.Inner)}
	o := C.bn_options{struct_size: C.sizeof_bn_options, eps: C.double(options.Eps), momentum: C.double(options.Momentum)}
	if options.BiasedRunningVar {
		o.biased_running_var = 1
	}
	if frozen {
		o.frozen = 1
	}
	return call(func() C.bn_status { return function(&shape, &o) })
}

// size is the number of elements of a tensor, or -1, which no slice has, if there is none.
func (s Shape) size() int {
	if s.Outer < 0 || s.Channels < 0 || s.Inner < 0 {
		return -1
	}
	high, low := bits.Mul(uint(s.Outer), uint(s.Channels))
	higher, size := bits.Mul(low, uint(s.Inner))
	if high != 0 || higher != 0 || int(size) < 0 {
		return -1
	}
	return int(size)
}

// tensor is the address of an input, which an empty batch has, too.
func tensor[T Float](a *arguments, name string, slice []T) *C.char {
	if slice == nil {
		slice = []T{}
	}
	return (*C.char)(pointer(a, name, slice, a.shape.size()))
}

// output is the address of a tensor that is not wanted if it is nil.
func output[T Float](a *arguments, name string, slice []T) *C.char {
	return (*C.char)(pointer(a, name, slice, a.shape.size()))
}

func row[T Float](a *arguments, name string, slice []T) *C.char {
	return (*C.char)(pointer(a, name, slice, a.shape.Channels))
}

func doubles(a *arguments, name string, slice []float64) *C.double {
	return (*C.double)(pointer(a, name, slice, a.shape.Channels))
}

func pointer[T Float](a *arguments, name string, slice []T, size int) unsafe.Pointer {
	if slice == nil {
		return nil
	}
	if len(slice) != size && a.err == nil {
		a.err = &LengthError{name, len(slice), size}
	}
	if len(slice) == 0 {
		slice = make([]T, 1) // Any address will do, but for nil.
	}
	return unsafe.Pointer(&slice[0])
}

func dtype[T Float]() C.bn_dtype {
	var element T
	if unsafe.Sizeof(element) == 4 {
		return C.BN_FLOAT32
	}
	return C.BN_FLOAT64
}
