// SPDX-License-Identifier: Apache-2.0

package batchnorm

// Activation is what follows normalization: y = activation(gamma * x_hat + beta + residual).
type Activation int

// The activations. LeakyReLU has a Slope, and Clip the limits Low and High: 0 and 6 for ReLU6.
const (
	Identity Activation = iota
	ReLU
	LeakyReLU
	Clip
	HardSwish
	SiLU
)

// Masked is y at positions of weight 0.
type Masked int

// As anywhere else, 0, or x.
const (
	Normalize Masked = iota
	Zero
	Keep
)

// PerGroup is a sum of the arrays that have a row for each group.
type PerGroup int

// Parameters are gamma, beta and their gradients.
const (
	Statistics PerGroup = 1 << iota
	Running
	Parameters
)

// Groups of samples: ghost batches, segments, or a class for each sample.
type Groups struct {
	Count       int
	Samples     int      // 0 stands for the number of outer indices, or the length of the first axis
	Index       []int32  // the group of each sample; nil: groups of equal size
	PerGroup    PerGroup // 0 stands for Statistics
	Interleaved bool     // without Index: sample i is in group i % Count
	Averaged    bool     // the running statistics move once, to the average of the groups'
}

func (g *Groups) copied() *Groups {
	if g == nil {
		return nil
	}
	other := *g
	if g.Index != nil {
		other.Index = append([]int32{}, g.Index...)
	}
	if other.PerGroup == 0 {
		other.PerGroup = Statistics
	}
	return &other
}

// Settings are the options that backward needs as well.
type Settings struct {
	Activation Activation
	Slope      float64 // of LeakyReLU
	Low, High  float64 // of Clip
	Masked     Masked
	Groups     *Groups
}

// Options are what a call may be told. A nil *Options stands for DefaultOptions.
type Options[T Element] struct {
	Settings
	Eps              float64   // added to the variance
	Momentum         float64   // the weight of the new batch in the running statistics
	BiasedRunningVar bool      // the running variance takes the sum of squares / M in place of / (M - 1)
	Residual         Tensor[T] // added before the activation
	SaveMask         bool      // keep a bit for each element in place of the residual; not for HardSwish and SiLU
	Weights          []float64 // of the positions, outer x inner, in the statistics
}

// DefaultOptions returns the library's defaults, to change one of them.
func DefaultOptions[T Element]() *Options[T] {
	return &Options[T]{Eps: 1e-5, Momentum: 0.1, Settings: Settings{Slope: 0.01, High: 6}}
}

// Saved is what Backward has to know of a forward call: its shape and options, copies of gamma and beta as they were,
// what x was normalized with, and whether that was of the batch. A forward call fills it; one that fails leaves it as it
// was.
type Saved[T Element, P Float] struct {
	settings     Settings
	layout       layout
	gamma, beta  []P // of no elements, if there was none
	mean, invstd []float64
	mask         []byte
	weights      []float64
	residual     Tensor[T]
	frozen       bool
}

// Mean returns a copy of the means that x was normalized with.
func (s *Saved[T, P]) Mean() []float64 { return append([]float64(nil), s.mean...) }

// InvStd returns a copy of the factors, 1 / sqrt(variance + eps), that x was normalized with.
func (s *Saved[T, P]) InvStd() []float64 { return append([]float64(nil), s.invstd...) }

// Mask returns a copy of the bits that tell for each element if the gradient passes, if there was SaveMask.
func (s *Saved[T, P]) Mask() []byte { return append([]byte(nil), s.mask...) }
