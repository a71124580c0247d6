// SPDX-License-Identifier: Apache-2.0

package batchnorm

/*
#cgo LDFLAGS: -lbatchnorm
#include <batchnorm.h>

// The options of a call without its arrays. Those go by char *, which cgo knows to hold no pointers: for a void * it
// looks for them in the whole Go object that the slice is a part of, and panics where it finds one.
typedef struct settings {
    bn_dtype dtype, param_dtype;
    size_t outer, channels, inner, strides[5]; // of x, y or dy, dx, z and dz
    double eps, momentum, slope, low, high;
    int32_t biased_running_var, frozen;
    bn_activation activation;
    bn_masked masked;
    size_t samples, groups;
    int32_t per_group, interleaved, averaged;
} settings;

typedef struct structures {
    bn_shape shape;
    bn_weights weights;
    bn_epilogue epilogue;
    bn_groups groups;
    bn_options options;
} structures;

static void fill(structures *to, const settings *s, const char *z, char *dz, char *mask, const char *weights,
                 const char *index)
{
    to->shape = (bn_shape){sizeof to->shape, s->outer, s->channels, s->inner, s->strides[0], s->strides[1], s->strides[2],
                           weights ? &to->weights : NULL};
    to->weights = (bn_weights){sizeof to->weights, weights, s->masked, 0};
    to->epilogue = (bn_epilogue){sizeof to->epilogue, s->activation, 0, s->slope, s->low, s->high, z, s->strides[3], dz,
                                 s->strides[4], (uint8_t *)mask};
    to->groups = (bn_groups){sizeof to->groups, s->samples, s->groups, (const int32_t *)index, s->interleaved,
                             s->per_group, s->averaged, 0};
    to->options = (bn_options){sizeof to->options, s->eps, s->momentum, s->biased_running_var, s->frozen, s->param_dtype,
                               0, &to->epilogue, NULL, NULL, s->groups ? &to->groups : NULL};
}

static bn_status forward(const settings *s, const char *x, const char *gamma, const char *beta, char *running_mean,
                         char *running_var, char *y, char *mean, char *invstd, const char *z, char *mask,
                         const char *weights, const char *index)
{
    structures t;
    fill(&t, s, z, NULL, mask, weights, index);
    if (s->frozen)
        return bn_forward_inference(&t.shape, s->dtype, x, gamma, beta, running_mean, running_var, y, (double *)mean,
                                    (double *)invstd, &t.options);
    return bn_forward_training(&t.shape, s->dtype, x, gamma, beta, running_mean, running_var, y, (double *)mean,
                               (double *)invstd, &t.options);
}

static bn_status backward(const settings *s, const char *dy, const char *x, const char *gamma, const char *beta,
                          const char *mean, const char *invstd, char *dx, char *dgamma, char *dbeta, const char *z,
                          char *dz, char *mask, const char *weights, const char *index)
{
    structures t;
    fill(&t, s, z, dz, mask, weights, index);
    return bn_backward(&t.shape, s->dtype, dy, x, gamma, beta, (const double *)mean, (const double *)invstd, dx, dgamma,
                       dbeta, &t.options);
}

static bn_status moments(const settings *s, const char *x, char *count, char *mean, char *m2)
{
    bn_shape shape = {sizeof shape, s->outer, s->channels, s->inner, s->strides[0], 0, 0, NULL};
    return bn_moments(&shape, s->dtype, x, (double *)count, (double *)mean, (double *)m2, 0, NULL);
}

static bn_status extents(settings *s, size_t rank, const int64_t *sizes, size_t axis, const int64_t *strides, int ordered)
{
    bn_shape shape;
    bn_status status = bn_shape_from_strides(rank, sizes, axis, 1, 5, strides, ordered, &shape, s->strides);
    if (status == BN_OK)
        s->outer = shape.outer, s->channels = shape.channels, s->inner = shape.inner;
    return status;
}
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// SetNumThreads sets the number of threads that later calls may use: 1 to 1024, or 0 for the default.
func SetNumThreads(threads int32) error {
	return inC(func() C.bn_status { return C.bn_set_num_threads(C.int(threads)) })
}

// Version is major*10000 + minor*100 + patch of the library that was loaded.
func Version() int { return int(C.bn_version()) }

func inC(function func() C.bn_status) error {
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

// call has the settings of a call, the addresses that outlive none, and the first error.
type call struct {
	c              C.settings
	shape          Shape
	isStrided      bool
	settings       *Settings
	weights, index *C.char
	err            error
}

// pointers are the arrays of a call; y is dy in backward.
type pointers struct {
	x, y, dx, z, dz, gamma, beta, runningMean, runningVar, dgamma, dbeta, mean, invstd, mask *C.char
}

// newCall takes x, y or dy, dx, the residual and dz. A tensor without data lies as x does.
func newCall[T Element](s *Settings, weights []float64, tensors ...Tensor[T]) *call {
	c := &call{settings: s, shape: tensors[0].dense, isStrided: tensors[0].Strides != nil}
	c.c.dtype = dtype[T]()
	for _, tensor := range tensors {
		if tensor.Data != nil && !tensor.layout().isSame(tensors[0].layout()) && c.err == nil {
			c.err = fmt.Errorf("batchnorm: the tensors of a call have several shapes")
		}
	}
	if c.isStrided {
		findExtents(c, tensors)
	}
	c.c.outer, c.c.channels, c.c.inner = C.size_t(c.shape.Outer), C.size_t(c.shape.Channels), C.size_t(c.shape.Inner)
	c.c.activation, c.c.masked = C.bn_activation(s.Activation), C.bn_masked(s.Masked)
	// The zero of Options has no limits, which only Clip needs.
	c.c.slope, c.c.low, c.c.high = C.double(s.Slope), 0, 6
	if s.Activation == Clip {
		c.c.low, c.c.high = C.double(s.Low), C.double(s.High)
	}
	if g := s.Groups; g != nil {
		c.group(g, tensors[0].Shape)
	}
	c.weigh(weights)
	return c
}

func findExtents[T Element](c *call, tensors []Tensor[T]) {
	x := tensors[0]
	sizes, strides := longs(x.Shape), []C.int64_t{}
	for _, tensor := range tensors {
		if tensor.Data == nil {
			tensor = x
		}
		if len(tensor.Strides) != len(x.Shape) && c.err == nil {
			c.err = fmt.Errorf("batchnorm: a tensor has %d strides, expected %d", len(tensor.Strides), len(x.Shape))
		}
		strides = append(strides, longs(tensor.Strides)...)
	}
	if c.err == nil && (len(sizes) == 0 || x.Axis < 0) {
		c.err = fmt.Errorf("batchnorm: axis %d is not one of %d", x.Axis, len(sizes))
	}
	if c.err != nil {
		return
	}
	ordered := flag(c.settings.Groups != nil)
	c.err = inC(func() C.bn_status {
		return C.extents(&c.c, C.size_t(len(sizes)), &sizes[0], C.size_t(x.Axis), &strides[0], C.int(ordered))
	})
	c.shape = Shape{int(c.c.outer), int(c.c.channels), int(c.c.inner)}
}

func (c *call) group(g *Groups, sizes []int) {
	samples := g.Samples
	if samples == 0 {
		samples = c.shape.Outer
		if c.isStrided {
			samples = sizes[0]
		}
	}
	if g.Count < 1 && c.err == nil {
		c.err = fmt.Errorf("batchnorm: groups are %d, expected at least 1", g.Count)
	}
	c.c.samples, c.c.groups, c.c.per_group = C.size_t(samples), C.size_t(g.Count), C.int32_t(g.PerGroup)
	c.c.interleaved, c.c.averaged = flag(g.Interleaved), flag(g.Averaged)
	c.index = sized(c, "index", g.Index, samples)
}

// weigh gives the weights the type that the tensors are computed with.
func (c *call) weigh(weights []float64) {
	length := product(c.shape.Outer, c.shape.Inner)
	if c.c.dtype == C.BN_FLOAT64 {
		c.weights = sized(c, "weights", given(weights), length)
		return
	}
	singles := make([]float32, len(weights))
	for i, weight := range weights {
		singles[i] = float32(weight)
	}
	c.weights = sized(c, "weights", given(singles), length)
}

func (c *call) options(eps, momentum float64, biased, frozen bool, parameters C.bn_dtype) {
	c.c.eps, c.c.momentum, c.c.param_dtype = C.double(eps), C.double(momentum), parameters
	c.c.biased_running_var, c.c.frozen = flag(biased), flag(frozen)
}

func (c *call) forward(p pointers) error {
	return c.make(func() C.bn_status {
		return C.forward(&c.c, p.x, p.gamma, p.beta, p.runningMean, p.runningVar, p.y, p.mean, p.invstd, p.z, p.mask,
			c.weights, c.index)
	})
}

func (c *call) backward(p pointers) error {
	return c.make(func() C.bn_status {
		return C.backward(&c.c, p.y, p.x, p.gamma, p.beta, p.mean, p.invstd, p.dx, p.dgamma, p.dbeta, p.z, p.dz, p.mask,
			c.weights, c.index)
	})
}

func (c *call) moments(x, count, mean, m2 *C.char) error {
	return c.make(func() C.bn_status { return C.moments(&c.c, x, count, mean, m2) })
}

func (c *call) make(function func() C.bn_status) error {
	if c.err != nil {
		return c.err
	}
	return inC(function)
}

// rows is the number of elements of an array that has a row for each group if it is one of these.
func (c *call) rows(kind PerGroup) int {
	if g := c.settings.Groups; g != nil && g.PerGroup&kind != 0 {
		return product(c.shape.Channels, g.Count)
	}
	return c.shape.Channels
}

func (c *call) statistics() []float64 {
	if c.err != nil || c.rows(Statistics) < 0 {
		return nil
	}
	return make([]float64, c.rows(Statistics))
}

func (c *call) mask() []byte {
	size := product(c.shape.Outer, c.shape.Channels, c.shape.Inner)
	if c.err != nil || size < 0 {
		return nil
	}
	return make([]byte, (size+7)/8)
}

// input is the address of a tensor, which an empty batch has, too.
func input[T Element](c *call, name string, slice []T, place int) *C.char {
	if slice == nil {
		slice = []T{}
	}
	return output(c, name, slice, place)
}

// output is the address of a tensor that is not wanted if it is nil. One with strides may be longer than what they reach.
func output[T Element](c *call, name string, slice []T, place int) *C.char {
	length := c.shape.span(int(c.c.strides[place]))
	if c.isStrided && length >= 0 && len(slice) > length {
		slice = slice[:length]
	}
	return sized(c, name, slice, length)
}

func parameters[P Float](c *call, name string, slice []P) *C.char {
	return sized(c, name, slice, c.rows(Parameters))
}
func running[P Float](c *call, name string, slice []P) *C.char {
	return sized(c, name, slice, c.rows(Running))
}
func row(c *call, name string, slice []float64) *C.char {
	return sized(c, name, slice, c.shape.Channels)
}

// sized is the address of a slice of so many elements; nil for none.
func sized[T any](c *call, name string, slice []T, size int) *C.char {
	if slice != nil && len(slice) != size && c.err == nil {
		c.err = &LengthError{name, len(slice), size}
	}
	return of(slice)
}

func of[T any](slice []T) *C.char {
	if slice == nil {
		return nil
	}
	if len(slice) == 0 {
		slice = make([]T, 1) // Any address will do, but for nil.
	}
	return (*C.char)(unsafe.Pointer(&slice[0]))
}

func longs(numbers []int) []C.int64_t {
	result := make([]C.int64_t, len(numbers))
	for i, number := range numbers {
		result[i] = C.int64_t(number)
	}
	return result
}

func flag(is bool) C.int32_t {
	if is {
		return 1
	}
	return 0
}

func dtype[T Element]() C.bn_dtype {
	var element T
	switch any(element).(type) {
	case float32:
		return C.BN_FLOAT32
	case float64:
		return C.BN_FLOAT64
	case Float16:
		return C.BN_FLOAT16
	}
	return C.BN_BFLOAT16
}
