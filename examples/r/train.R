# SPDX-License-Identifier: Apache-2.0

# Three steps of training and an inference, compared with what examples/values/make.py computes.
# Arguments: batchnorm.so as R CMD SHLIB makes it, and values.txt.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
given <- commandArgs(trailingOnly = TRUE)
source(file.path(here, "batchnorm.R"))
bn <- load_batchnorm(given[1])

dims <- c(inner = 6, channels = 3, outer = 4)
index <- seq_len(prod(dims)) - 1
rate <- 0.01

batch <- function(k) array((index * 37 + k * 11) %% 101 / 8 - 5, dims)

agree <- function(name, values, expected) {
  stopifnot(length(values) == length(expected))
  within <- abs(values - expected) <= 1e-4 * pmax(1, abs(expected))
  i <- which(!within | is.na(within))[1]
  if (!is.na(i)) stop(sprintf("%s[%d] is %.9g, not %.9g", name, i, values[i], expected[i]), call. = FALSE)
}

fails <- function(message, call) {
  found <- tryCatch({
    call
    "no error"
  }, error = conditionMessage)
  if (!grepl(message, found, fixed = TRUE)) stop("not the error \"", message, "\": ", found, call. = FALSE)
}

bn$set_num_threads(1)
dy <- array((index * 53 + 7) %% 17 / 4 - 2, dims)
gamma <- c(1, 2, 0.5)
beta <- c(0, -1, 3)
running_mean <- c(0, 0, 0)
running_var <- c(1, 1, 1)
for (k in 0:2) {
  x <- batch(k)
  trained <- bn$forward_training(x, gamma, beta, running_mean, running_var)
  gradients <- bn$backward(dy, x, trained$saved)
  running_mean <- trained$running_mean
  running_var <- trained$running_var
  gamma <- gamma - rate * gradients$dgamma
  beta <- beta - rate * gradients$dbeta
}
x <- batch(0)
inferred <- bn$forward_inference(x, running_mean, running_var, gamma, beta)

results <- c(trained["y"], gradients, list(gamma = gamma, beta = beta, running_mean = running_mean,
                                           running_var = running_var, inferred = inferred$y))
lines <- strsplit(readLines(if (length(given) > 1) given[2] else file.path(here, "../values/values.txt")), " ")
expected <- setNames(lapply(lines, function(words) as.numeric(words[-(1:2)])), sapply(lines, `[`, 1))
stopifnot(setequal(names(results), names(expected)))
for (name in names(results)) agree(name, results[[name]], expected[[name]])

# Frozen statistics are constants: dx = gamma * invstd * dy.
frozen <- bn$backward(dy, x, inferred$saved)
agree("frozen dx", frozen$dx, sweep(dy, 2, gamma * inferred$saved$invstd, `*`))

# With momentum 1 and the biased variance, the running statistics are the moments of the batch.
replaced <- bn$forward_training(x, NULL, NULL, running_mean, running_var, eps = 1, momentum = 1,
                                biased_running_var = TRUE)
moments <- bn$moments(x)
var <- moments$m2 / moments$count
agree("momentum 1", c(replaced$running_mean, replaced$running_var), c(moments$mean, var))
agree("eps 1", replaced$saved$invstd, 1 / sqrt(var + 1))

# Backward uses gamma and beta as they were in the forward call.
saved <- bn$forward_training(x, gamma, beta)$saved
before <- bn$backward(dy, x, saved)
gamma[] <- -7
agree("dx of a gamma that was changed", bn$backward(dy, x, saved)$dx, before$dx)
fails("saved is not what a forward call returned", bn$backward(dy, x, list(mean = saved$mean, invstd = saved$invstd)))
fails("x has other dimensions", bn$backward(dy, x[, , 1:2], saved))
fails("dy has other dimensions than x", bn$backward(dy[, , 1:2], x, saved))
fails("unused argument", bn$backward(dy, x, saved, frozen = TRUE))

fails("bn_moments: channels is 0", bn$moments(array(0, c(6, 0, 4))))
fails("gamma has 2 elements", bn$forward_training(x, gamma[-1]))

cat(sprintf("R: %d values agree\n", sum(lengths(results))))
