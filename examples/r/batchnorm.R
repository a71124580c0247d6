# SPDX-License-Identifier: Apache-2.0

# libbatchnorm through .Call: arrays have the dimensions inner, channels, outer, and results are lists.
#
#     bn <- load_batchnorm("batchnorm.so")
#     trained <- bn$forward_training(x, gamma = c(1, 2, 0.5), eps = 1e-3)
#     trained$y
#     bn$backward(dy, x, trained$saved)$dx

# shim: batchnorm.c, as R CMD SHLIB makes it. Its symbols are bound when they are called, so that a library which is too
# old for some of them is told by its version.
load_batchnorm <- function(shim) {
  dll <- tryCatch(dyn.load(shim, now = FALSE), error = function(e) {
    message <- conditionMessage(e)
    missing <- regmatches(message, regexpr("libbatchnorm\\.so\\.2: .*", message))
    needed <- "libbatchnorm 2.0 or a later 2.x is needed, but cannot be loaded:"
    stop(if (length(missing)) paste(needed, missing) else message, call. = FALSE)
  })
  routines <- lapply(getDLLRegisteredRoutines(dll)$.Call, identity)

  # Integers and logicals are numbers, too: they become doubles, by a copy. NULL stays NULL.
  double <- function(v) {
    if (is.integer(v) || is.logical(v)) storage.mode(v) <- "double"
    v
  }

  # y, and as saved what backward has to know of the call: the dimensions, gamma and beta, what x was normalized with,
  # and whether that was of the batch.
  results <- function(computed, x, gamma, beta, frozen) {
    saved <- list(dim = dim(x), gamma = gamma, beta = beta, mean = computed$mean, invstd = computed$invstd,
                  frozen = frozen)
    c(computed["y"], list(saved = structure(saved, class = "batchnorm_saved")))
  }

  list(
    # y and saved, and the updated running_mean and running_var.
    forward_training = function(x, gamma = NULL, beta = NULL, running_mean = NULL, running_var = NULL, eps = 1e-5,
                                momentum = 0.1, biased_running_var = FALSE) {
      computed <- .Call(routines$forward_training, double(x), double(gamma), double(beta), double(running_mean),
                        double(running_var), eps, momentum, biased_running_var)
      c(results(computed, x, gamma, beta, frozen = FALSE), computed[c("running_mean", "running_var")])
    },

    # y and saved: the running statistics are constants to the gradient.
    forward_inference = function(x, running_mean, running_var, gamma = NULL, beta = NULL, eps = 1e-5) {
      computed <- .Call(routines$forward_inference, double(x), double(gamma), double(beta), double(running_mean),
                        double(running_var), eps)
      results(computed, x, gamma, beta, frozen = TRUE)
    },

    # dx, dgamma and dbeta. x is that of the forward call that returned saved.
    backward = function(dy, x, saved) {
      if (!inherits(saved, "batchnorm_saved")) stop("saved is not what a forward call returned as saved", call. = FALSE)
      if (!identical(dim(x), saved$dim)) stop("x has other dimensions than in the forward call", call. = FALSE)
      .Call(routines$backward, double(dy), double(x), saved$mean, saved$invstd, double(saved$gamma),
            double(saved$beta), saved$frozen)
    },

    # count, mean and m2, the sum of squared deviations from it.
    moments = function(x) .Call(routines$moments, double(x)),

    set_num_threads = function(threads) invisible(.Call(routines$set_num_threads, threads))
  )
}
