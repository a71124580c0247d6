// SPDX-License-Identifier: Apache-2.0
// As watch.js has them (stills.mjs sees to it): 80 bins of equal width in asinh(value), from -8 to 8.
const BINS = 80;
const RANGE = 8;
