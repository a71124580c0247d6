// SPDX-License-Identifier: Apache-2.0

package batchnorm

import (
	"fmt"
	"math/bits"
)

// Float is an element type of gamma, beta and the running statistics.
type Float interface{ float32 | float64 }

// Float16 is the bits of an IEEE 754 binary16.
type Float16 uint16

// BFloat16 is the bits of a bfloat16, the upper half of a float32.
type BFloat16 uint16

// Element is an element type of the tensors.
type Element interface {
	float32 | float64 | Float16 | BFloat16
}

// Shape is outer x channels x inner, dense, the inner index running fastest: NCHW is (N, C, H*W), NHWC (N*H*W, C, 1).
type Shape struct{ Outer, Channels, Inner int }

// Tensor is a slice, and how its elements lie: Dense makes one of a Shape. With Strides, in elements, Data begins with
// the first element and may be longer than what the strides reach, and Axis is that of the channels. The library
// refuses what has to be copied. No data stand for no tensor.
type Tensor[T Element] struct {
	Data           []T
	Shape, Strides []int
	Axis           int
	dense          Shape
}

// Dense is a tensor without strides.
func Dense[T Element](shape Shape, data []T) Tensor[T] { return Tensor[T]{Data: data, dense: shape} }

// layout is what all tensors of a call have in common.
type layout struct {
	dense Shape
	sizes []int
	axis  int
}

func (t Tensor[T]) layout() layout { return layout{t.dense, t.Shape, t.Axis} }

func (l layout) copied() layout { return layout{l.dense, append([]int(nil), l.sizes...), l.axis} }

func (l layout) isSame(other layout) bool {
	if len(l.sizes) != len(other.sizes) {
		return false
	}
	for i, size := range l.sizes {
		if size != other.sizes[i] {
			return false
		}
	}
	return l.dense == other.dense && l.axis == other.axis
}

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

// product is -1, which no slice has, if there is none.
func product(factors ...int) int {
	result := uint(1)
	for _, factor := range factors {
		high, low := bits.Mul(result, uint(factor))
		if factor < 0 || high != 0 || int(low) < 0 {
			return -1
		}
		result = low
	}
	return int(result)
}

// span is the number of elements of a tensor from its first to its last, or -1.
func (s Shape) span(stride int) int {
	slice := product(s.Channels, s.Inner)
	if stride == 0 {
		return product(s.Outer, s.Channels, s.Inner)
	}
	before := product(s.Outer-1, stride)
	if s.Outer == 0 || slice == 0 {
		return 0
	}
	if before < 0 || slice < 0 || before+slice < 0 {
		return -1
	}
	return before + slice
}
