// SPDX-License-Identifier: Apache-2.0

// Package batchnorm calls libbatchnorm on Go's own slices, without a copy of a tensor.
//
// The arguments are those of batchnorm.h, in its order; what a forward call was told, Backward has from Saved. A slice is
// as long as its shape says, or the call is a LengthError: C would read past its end. Where the header lets a pointer
// be NULL, the slice may be nil.
package batchnorm

import "errors"

// ForwardTraining normalizes x into y, which may be x, with the statistics of the batch, and moves the running ones.
// saved takes what Backward needs, or is nil.
func ForwardTraining[T Element, P Float](x Tensor[T], gamma, beta, runningMean, runningVar []P, y Tensor[T],
	saved *Saved[T, P], options *Options[T]) error {
	return forward(x, gamma, beta, runningMean, runningVar, y, saved, options, false)
}

// ForwardInference is like ForwardTraining, but normalizes with the running statistics, which stay as they are, and are
// constants to the gradient.
func ForwardInference[T Element, P Float](x Tensor[T], gamma, beta, runningMean, runningVar []P, y Tensor[T],
	saved *Saved[T, P], options *Options[T]) error {
	return forward(x, gamma, beta, runningMean, runningVar, y, saved, options, true)
}

func forward[T Element, P Float](x Tensor[T], gamma, beta, runningMean, runningVar []P, y Tensor[T],
	saved *Saved[T, P], options *Options[T], frozen bool) error {
	if options == nil {
		options = DefaultOptions[T]()
	}
	// Kept in a new one: a call that fails leaves saved as it was.
	kept := Saved[T, P]{gamma: append([]P(nil), gamma...), beta: append([]P(nil), beta...), layout: x.layout().copied(),
		settings: options.Settings, weights: append([]float64(nil), options.Weights...), frozen: frozen}
	kept.settings.Groups = options.Groups.copied()
	c := newCall[T](&kept.settings, kept.weights, x, y, Tensor[T]{}, options.Residual, Tensor[T]{})
	kept.mean, kept.invstd = c.statistics(), c.statistics()
	if options.SaveMask {
		kept.mask = c.mask()
	} else {
		kept.residual = options.Residual
	}
	c.options(options.Eps, options.Momentum, options.BiasedRunningVar, frozen, dtype[P]())
	err := c.forward(pointers{
		x: input(c, "x", x.Data, 0), y: output(c, "y", y.Data, 1), z: output(c, "residual", options.Residual.Data, 3),
		gamma: parameters(c, "gamma", gamma), beta: parameters(c, "beta", beta),
		runningMean: running(c, "running mean", runningMean), runningVar: running(c, "running var", runningVar),
		mean: of(kept.mean), invstd: of(kept.invstd), mask: of(kept.mask),
	})
	if err == nil && saved != nil {
		*saved = kept
	}
	return err
}

// Gradients are what Backward writes, as far as they are wanted. DX may be dy; DZ is with respect to the residual.
type Gradients[T Element, P Float] struct {
	DX, DZ        Tensor[T]
	DGamma, DBeta []P
}

// Backward computes the gradients of a loss whose gradient with respect to y is dy. x is that of the forward call that
// filled saved, as it was then: if y took its place, a copy. The residual has to be as it was, too, unless there is a
// mask: saved refers to it.
func Backward[T Element, P Float](dy, x Tensor[T], saved *Saved[T, P], gradients Gradients[T, P]) error {
	if saved == nil || len(saved.mean) == 0 {
		return errors.New("batchnorm: saved is empty; expected what a forward call has filled")
	}
	if !x.layout().isSame(saved.layout) {
		return errors.New("batchnorm: x has another shape than that of the forward call")
	}
	dx, dz := gradients.DX, gradients.DZ
	c := newCall[T](&saved.settings, saved.weights, x, dy, dx, saved.residual, dz)
	c.options(1e-5, 0.1, false, saved.frozen, dtype[P]())
	return c.backward(pointers{
		x: input(c, "x", x.Data, 0), y: input(c, "dy", dy.Data, 1), dx: output(c, "dx", dx.Data, 2),
		z: output(c, "residual", saved.residual.Data, 3), dz: output(c, "dz", dz.Data, 4),
		gamma: parameters(c, "gamma", given(saved.gamma)), beta: parameters(c, "beta", given(saved.beta)),
		dgamma: parameters(c, "dgamma", gradients.DGamma), dbeta: parameters(c, "dbeta", gradients.DBeta),
		mean: of(saved.mean), invstd: of(saved.invstd), mask: of(saved.mask),
	})
}

// given is nil for a slice of no elements.
func given[T any](slice []T) []T {
	if len(slice) == 0 {
		return nil
	}
	return slice
}

// Moments computes the number of values, the mean, and the sum of squared deviations from it, per channel.
func Moments[T Element](x Tensor[T], count, mean, m2 []float64) error {
	c := newCall[T](&Settings{}, nil, x, Tensor[T]{}, Tensor[T]{}, Tensor[T]{}, Tensor[T]{})
	return c.moments(input(c, "x", x.Data, 0), row(c, "count", count), row(c, "mean", mean), row(c, "m2", m2))
}
