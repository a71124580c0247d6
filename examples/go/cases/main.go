// SPDX-License-Identifier: Apache-2.0

// The cases of values/cases.txt, which values/cases.py describes: every option, compared with its results.
package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"batchnorm"
)

// A testCase has the words of each line by its name, where expect and strides have an array's name as well.
type testCase map[string][]string

func parse(text string) (names []string, cases []testCase) {
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		words := strings.Fields(line)
		switch words[0] {
		case "case":
			names, cases = append(names, strings.Join(words[1:], " ")), append(cases, testCase{})
		case "expect", "strides":
			cases[len(cases)-1][words[0]+" "+words[1]] = words[2:]
		default:
			cases[len(cases)-1][words[0]] = words[1:]
		}
	}
	return names, cases
}

// numbers are nil where there is no such line.
func numbers[T batchnorm.Element | int | int32 | byte](c testCase, name string) []T {
	words, isThere := c[name]
	if !isThere {
		return nil
	}
	result := make([]T, len(words))
	for i, word := range words {
		number, err := strconv.ParseFloat(word, 64)
		if err != nil {
			panic(err)
		}
		result[i] = T(number)
	}
	return result
}

func number(c testCase, name string, otherwise float64) float64 {
	if c[name] == nil {
		return otherwise
	}
	return numbers[float64](c, name)[0]
}

func compare[T batchnorm.Element | byte](c testCase, name string, found []T, tolerance float64) error {
	wanted, isThere := c["expect "+name]
	if !isThere {
		return nil
	}
	if len(found) != len(wanted) {
		return fmt.Errorf("%s has %d values, expected %d", name, len(found), len(wanted))
	}
	for i, value := range numbers[float64](c, "expect "+name) {
		// False for NaN, too.
		if near := math.Abs(float64(found[i])-value) <= tolerance*math.Max(1, math.Abs(value)); !near {
			return fmt.Errorf("%s[%d] is %v, expected %v", name, i, found[i], value)
		}
	}
	return nil
}

var activations = map[string]batchnorm.Activation{
	"relu": batchnorm.ReLU, "leaky_relu": batchnorm.LeakyReLU, "clip": batchnorm.Clip,
	"hard_swish": batchnorm.HardSwish, "silu": batchnorm.SiLU,
}
var masked = map[string]batchnorm.Masked{"zero": batchnorm.Zero, "keep": batchnorm.Keep}
var perGroup = map[string]batchnorm.PerGroup{
	"statistics": batchnorm.Statistics, "running": batchnorm.Running, "parameters": batchnorm.Parameters,
}

func optionsOf[T batchnorm.Element](c testCase) *batchnorm.Options[T] {
	options := batchnorm.DefaultOptions[T]()
	options.Eps, options.Momentum = number(c, "eps", options.Eps), number(c, "momentum", options.Momentum)
	options.Slope, options.Low = number(c, "slope", options.Slope), number(c, "low", options.Low)
	options.High = number(c, "high", options.High)
	options.BiasedRunningVar, options.SaveMask = c["biased"] != nil, c["mask"] != nil
	options.Weights = numbers[float64](c, "weights")
	if words := c["activation"]; words != nil {
		options.Activation = activations[words[0]]
	}
	if words := c["masked"]; words != nil {
		options.Masked = masked[words[0]]
	}
	if c["groups"] != nil {
		options.Groups = &batchnorm.Groups{Count: numbers[int](c, "groups")[0], Index: numbers[int32](c, "index")}
		for _, word := range c["per_group"] {
			options.Groups.PerGroup |= perGroup[word]
		}
	}
	return options
}

// run makes the calls of a case. Values of 16 bits have no tolerance.
func run[T batchnorm.Element, P batchnorm.Float](c testCase, tolerance, ofParameters float64) error {
	sizes := numbers[int](c, "sizes")
	tensor := func(name string, data []T) batchnorm.Tensor[T] {
		if c["strides x"] == nil {
			inner := 1
			for _, size := range sizes[2:] {
				inner *= size
			}
			return batchnorm.Dense(batchnorm.Shape{Outer: sizes[0], Channels: sizes[1], Inner: inner}, data)
		}
		strides := numbers[int](c, "strides "+name)
		if strides == nil {
			strides = numbers[int](c, "strides x")
		}
		return batchnorm.Tensor[T]{Data: data, Shape: sizes, Strides: strides, Axis: numbers[int](c, "axis")[0]}
	}
	room := func(name string) []T {
		length := len(c["x"])
		if wanted := c["expect "+name]; wanted != nil {
			length = len(wanted)
		}
		data := make([]T, length)
		for i := range data {
			data[i] = 7
		}
		return data
	}
	x, y, dx := tensor("x", numbers[T](c, "x")), tensor("y", room("y")), tensor("dx", room("dx"))
	gamma, beta := numbers[P](c, "gamma"), numbers[P](c, "beta")
	runningMean, runningVar := numbers[P](c, "running_mean"), numbers[P](c, "running_var")
	options, residual := optionsOf[T](c), numbers[T](c, "residual")
	if residual != nil {
		options.Residual = tensor("residual", residual)
	}
	forward := batchnorm.ForwardTraining[T, P]
	if c["call"][0] == "inference" {
		forward = batchnorm.ForwardInference[T, P]
	}
	var saved batchnorm.Saved[T, P]
	err := forward(x, gamma, beta, runningMean, runningVar, y, &saved, options)
	if word := c["refused"]; word != nil {
		if err == nil || !strings.Contains(err.Error(), word[0]) {
			return fmt.Errorf("expected an error that has %s, not %v", word[0], err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	fill(gamma)
	fill(beta)
	fill(options.Weights)
	if options.Groups != nil {
		fill(options.Groups.Index)
		options.Groups.PerGroup = 0
	}
	if options.SaveMask {
		fill(residual)
	}
	gradients := batchnorm.Gradients[T, P]{DX: dx, DGamma: make([]P, len(c["expect dgamma"])),
		DBeta: make([]P, len(c["expect dbeta"]))}
	if residual != nil {
		gradients.DZ = tensor("dy", room("dz"))
	}
	if err := batchnorm.Backward(tensor("dy", numbers[T](c, "dy")), x, &saved, gradients); err != nil {
		return err
	}
	for _, err := range []error{
		compare(c, "y", y.Data, tolerance), compare(c, "dx", dx.Data, tolerance),
		compare(c, "dz", gradients.DZ.Data, tolerance), compare(c, "dgamma", gradients.DGamma, ofParameters),
		compare(c, "dbeta", gradients.DBeta, ofParameters), compare(c, "running_mean", runningMean, ofParameters),
		compare(c, "running_var", runningVar, ofParameters), compare(c, "mean", saved.Mean(), 1e-11),
		compare(c, "invstd", saved.InvStd(), 1e-11), compare(c, "mask", saved.Mask(), 0),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func fill[T batchnorm.Element | int32](slice []T) {
	for i := range slice {
		slice[i] = 77
	}
}

func runAll(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	names, cases := parse(string(text))
	for i, c := range cases {
		switch c["dtype"][0] {
		case "float32":
			err = run[float32, float32](c, 2e-5, 2e-5)
		case "float64":
			err = run[float64, float64](c, 1e-11, 1e-11)
		case "float16":
			err = run[batchnorm.Float16, float32](c, 0, 2e-5)
		default:
			err = run[batchnorm.BFloat16, float32](c, 0, 2e-5)
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", names[i], err)
		}
	}
	return len(cases), checkErrors()
}

// checkErrors makes calls that the library must not see.
func checkErrors() error {
	data := make([]float32, 24)
	x := batchnorm.Tensor[float32]{Data: data, Shape: []int{2, 3, 4}, Strides: []int{12, 1, 3}, Axis: 1}
	refused := func(expected string, change func(x, y *batchnorm.Tensor[float32], o *batchnorm.Options[float32])) error {
		x, y, options := x, x, batchnorm.DefaultOptions[float32]()
		change(&x, &y, options)
		err := batchnorm.ForwardTraining[float32, float32](x, nil, nil, nil, nil, y, nil, options)
		if err == nil || !strings.Contains(err.Error(), expected) {
			return fmt.Errorf("expected an error that has %s, not %v", expected, err)
		}
		return nil
	}
	type tensor = batchnorm.Tensor[float32]
	type options = batchnorm.Options[float32]
	for _, err := range []error{
		refused("x has 23 elements, expected 24", func(x, _ *tensor, _ *options) { x.Data = data[1:] }),
		refused("several shapes", func(_, y *tensor, _ *options) { y.Shape = []int{2, 4, 3} }),
		refused("1 strides, expected 3", func(_, y *tensor, _ *options) { y.Strides = []int{1} }),
		refused("axis -1", func(x, y *tensor, _ *options) { x.Axis, y.Axis = -1, -1 }),
		refused("weights has 9 elements, expected 8", func(_, _ *tensor, o *options) { o.Weights = make([]float64, 9) }),
		refused("index has 3 elements, expected 2", func(_, _ *tensor, o *options) {
			o.Groups = &batchnorm.Groups{Count: 2, Index: make([]int32, 3)}
		}),
		refused("groups are 0", func(_, _ *tensor, o *options) { o.Groups = &batchnorm.Groups{} }),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func main() {
	path := "../values/cases.txt"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	agree, err := runAll(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
	fmt.Printf("go: %d cases agree\n", agree)
}
