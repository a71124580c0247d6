# SPDX-License-Identifier: Apache-2.0

# libbatchnorm through .Call: arrays have the dimensions inner, channels, outer, and results are lists.
#
#     bn <- load_batchnorm("batchnorm.so")
#     trained <- bn$forward_training(x, gamma = c(1, 2, 0.5), eps = 1e-3)
#     trained$y

# shim: batchnorm.c, as R CMD SHLIB makes it. Its symbols are bound when they are called, so that a library which is too
# old for some of them is told by its version.
load_batchnorm <- function(shim) {
  dll <- tryCatch(dyn.load(shim, now = FALSE), error = function(e) {
    message <- conditionMessage(e)
    missing <- regmatches(message, regexpr("libbatchnorm\\.so\\.1: .*", message))
    needed <- "libbatchnorm 2.0 or a later 2.x is needed, but cannot be loaded:"
    stop(if (length(missing)) paste(needed, missing) else message, call. = FALSE)
  })
  routines <- lapply(getDLLRegisteredRoutines(dll)$.Call, identity)

  # Integers and logicals are numbers, too: they become doubles, by a copy. NULL stays NULL.
  double <- function(v) {
    if (is.integer(v) || is.logical(v)) storage.mode(v) <- "double"
    v
  }

  list(
    # y, mean, invstd, and the updated running_mean and running_var.
    forward_training = function(x, gamma = NULL, beta = NULL, running_mean = NULL, running_var = NULL, eps = 1e-5,
                                momentum = 0.1, biased_running_var = FALSE) {
      .Call(routines$forward_training, double(x), double(gamma), double(beta), double(running_mean),
            double(running_var), eps, momentum, biased_running_var)
    },

    # y, and mean and invstd for a backward call that is frozen.
    forward_inference = function(x, running_mean, running_var, gamma = NULL, beta = NULL, eps = 1e-5) {
      .Call(routines$forward_inference, double(x), double(gamma), double(beta), double(running_mean),
            double(running_var), eps)
    },

    # dx, dgamma and dbeta.
    backward = function(dy, x, mean, invstd, gamma = NULL, frozen = FALSE) {
      .Call(routines$backward, double(dy), double(x), double(mean), double(invstd), double(gamma), frozen)
    },

    # count, mean and m2, the sum of squared deviations from it.
    moments = function(x) .Call(routines$moments, double(x)),

    set_num_threads = function(threads) invisible(.Call(routines$set_num_threads, threads))
  )
}
