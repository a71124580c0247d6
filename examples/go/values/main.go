// SPDX-License-Identifier: Apache-2.0

// Three steps of training and one inference, on the data that values/make.py describes, compared with its results.
package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"batchnorm"
)

const size = 4 * 3 * 6

var shape = batchnorm.Shape{Outer: 4, Channels: 3, Inner: 6}

func of(data []float32) batchnorm.Tensor[float32] { return batchnorm.Dense(shape, data) }

func onlyX(dx []float32) batchnorm.Gradients[float32, float32] {
	return batchnorm.Gradients[float32, float32]{DX: of(dx)}
}

func batch(k int) []float32 {
	x := make([]float32, size)
	for i := range x {
		x[i] = float32((i*37+k*11)%101)/8 - 5
	}
	return x
}

// near is false for NaN, too.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-4*math.Max(1, math.Abs(b)) }

// descend goes along the gradients, in place.
func descend(parameters, gradients []float32) {
	for c := range parameters {
		parameters[c] -= 0.01 * gradients[c]
	}
}

func train() (map[string][]float32, error) {
	dy := make([]float32, size)
	for i := range dy {
		dy[i] = float32((i*53+7)%17)/4 - 2
	}
	gamma, beta := []float32{1, 2, 0.5}, []float32{0, -1, 3}
	runningMean, runningVar := []float32{0, 0, 0}, []float32{1, 1, 1}
	y, dx, dgamma, dbeta := make([]float32, size), make([]float32, size), make([]float32, 3), make([]float32, 3)
	gradients := batchnorm.Gradients[float32, float32]{DX: of(dx), DGamma: dgamma, DBeta: dbeta}
	var saved batchnorm.Saved[float32, float32]

	for k := 0; k < 3; k++ {
		x := batch(k)
		err := batchnorm.ForwardTraining(of(x), gamma, beta, runningMean, runningVar, of(y), &saved, nil)
		if err != nil {
			return nil, err
		}
		if err := batchnorm.Backward(of(dy), of(x), &saved, gradients); err != nil {
			return nil, err
		}
		descend(gamma, dgamma)
		descend(beta, dbeta)
	}
	inferred := batch(0) // In place.
	err := batchnorm.ForwardInference(of(inferred), gamma, beta, runningMean, runningVar, of(inferred), nil, nil)
	return map[string][]float32{
		"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta, "gamma": gamma, "beta": beta,
		"running_mean": runningMean, "running_var": runningVar, "inferred": inferred,
	}, err
}

// compare returns how many values agree with those of the file, whose lines are a name, a number, and so many values.
func compare(results map[string][]float32, path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != len(results) {
		return 0, fmt.Errorf("%s has %d lines, expected %d", path, len(lines), len(results))
	}
	compared := 0
	for _, line := range lines {
		words := strings.Fields(line)
		name, wanted := words[0], words[2:]
		if len(results[name]) != len(wanted) {
			return 0, fmt.Errorf("%s has %d values, expected %d", name, len(results[name]), len(wanted))
		}
		for i, value := range results[name] {
			number, err := strconv.ParseFloat(wanted[i], 64)
			if err != nil {
				return 0, err
			}
			if !near(float64(value), number) {
				return 0, fmt.Errorf("%s[%d] is %g, expected %g", name, i, value, number)
			}
		}
		compared += len(wanted)
	}
	return compared, nil
}

// checkOptions is about what values.txt does not tell: at momentum 1 the running statistics are the batch's, which are
// its moments.
func checkOptions() error {
	x, dy, gamma := batch(1), batch(2), []float32{1.5, 2, 0.5}
	runningMean, runningVar := make([]float32, 3), make([]float32, 3)
	count, batchMean, m2 := make([]float64, 3), make([]float64, 3), make([]float64, 3)
	options := &batchnorm.Options[float32]{Eps: 0.5, Momentum: 1, BiasedRunningVar: true}
	var trained, inferred batchnorm.Saved[float32, float32]

	err := batchnorm.ForwardTraining(of(x), nil, nil, runningMean, runningVar, of(nil), &trained, options)
	if err != nil {
		return err
	}
	if err := batchnorm.Moments(of(x), count, batchMean, m2); err != nil {
		return err
	}
	dx, y := make([]float32, size), make([]float32, size)
	err = batchnorm.ForwardInference(of(x), gamma, nil, runningMean, runningVar, of(y), &inferred, options)
	if err != nil {
		return err
	}
	if err := batchnorm.Backward(of(dy), of(x), &inferred, onlyX(dx)); err != nil {
		return err
	}
	invstd := trained.InvStd()
	for c := range count {
		variance := m2[c] / count[c]
		if !near(float64(runningMean[c]), batchMean[c]) || !near(float64(runningVar[c]), variance) ||
			!near(invstd[c], 1/math.Sqrt(variance+options.Eps)) {
			return errors.New("running statistics and moments differ")
		}
	}
	for i := range dx {
		c := i / shape.Inner % shape.Channels
		if !near(float64(dx[i]), float64(gamma[c]*dy[i])*invstd[c]) {
			return fmt.Errorf("frozen: dx[%d] is %g", i, dx[i])
		}
	}
	return nil
}

// checkSaved is about what Backward has from the forward call: gamma and beta as they were, and no others.
func checkSaved() error {
	x, dy, gamma, beta := batch(1), batch(2), []float32{1.5, 2, 0.5}, []float32{1, 2, 3}
	y, before, after := make([]float32, size), make([]float32, size), make([]float32, size)
	var saved batchnorm.Saved[float32, float32]
	if err := batchnorm.Backward(of(dy), of(x), &saved, onlyX(before)); err == nil {
		return errors.New("an empty saved was accepted")
	}
	if err := batchnorm.ForwardTraining(of(x), gamma, beta, nil, nil, of(y), &saved, nil); err != nil {
		return err
	}
	if err := batchnorm.Backward(of(dy), of(x), &saved, onlyX(before)); err != nil {
		return err
	}
	for c := range gamma {
		gamma[c], beta[c] = -7, 7
	}
	// A call that fails leaves it as it was, too.
	wrong := batchnorm.DefaultOptions[float32]()
	wrong.Eps = -1
	if err := batchnorm.ForwardTraining(of(dy), gamma, nil, nil, nil, of(y), &saved, wrong); err == nil {
		return errors.New("an eps of -1 was accepted")
	}
	if err := batchnorm.Backward(of(dy), of(x), &saved, onlyX(after)); err != nil {
		return err
	}
	for i := range before {
		if before[i] != after[i] {
			return fmt.Errorf("saved has changed: dx[%d] is %g, expected %g", i, after[i], before[i])
		}
	}
	// Tensors of another shape than x had, and shorter ones.
	small := batchnorm.Shape{Outer: 4, Channels: 2, Inner: 6}
	if err := batchnorm.Backward(batchnorm.Dense(small, dy[:48]), batchnorm.Dense(small, x[:48]), &saved,
		onlyX(after)); err == nil {
		return errors.New("tensors of another shape were accepted")
	}
	var length *batchnorm.LengthError
	err := batchnorm.Backward(of(dy[1:]), of(x), &saved, onlyX(after))
	if !errors.As(err, &length) || length.Argument != "dy" || length.Wanted != 72 {
		return fmt.Errorf("a short dy: %v", err)
	}
	return nil
}

// checkErrors makes a call that the library has to refuse, in its words, and one that it must not see.
func checkErrors() error {
	var refused *batchnorm.Error
	nothing := batchnorm.Dense(batchnorm.Shape{Outer: 4, Inner: 6}, []float32{})
	err := batchnorm.Moments(nothing, []float64{}, []float64{}, []float64{})
	if !errors.As(err, &refused) || !strings.Contains(refused.Message, "channels") {
		return fmt.Errorf("0 channels: %v", err)
	}
	var length *batchnorm.LengthError
	err = batchnorm.Moments(of(batch(0)[1:]), make([]float64, 3), make([]float64, 3), make([]float64, 3))
	if !errors.As(err, &length) || length.Argument != "x" {
		return fmt.Errorf("a short slice: %v", err)
	}
	return batchnorm.SetNumThreads(0)
}

func run(path string) (int, error) {
	results, err := train()
	if err != nil {
		return 0, err
	}
	compared, err := compare(results, path)
	if err != nil {
		return 0, err
	}
	if err := checkOptions(); err != nil {
		return 0, err
	}
	if err := checkSaved(); err != nil {
		return 0, err
	}
	return compared, checkErrors()
}

func main() {
	path := "../values/values.txt"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	compared, err := run(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
	fmt.Printf("go: %d values agree\n", compared)
}
