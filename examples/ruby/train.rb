# SPDX-License-Identifier: Apache-2.0

# Three steps of training and an inference, compared with what examples/values/make.py computes.

begin
  require_relative "batchnorm"
rescue LoadError => e
  abort e.message
end

Floats = BatchNorm::Floats
SHAPE = [4, 3, 6].freeze # outer, channels, inner
SIZE = SHAPE.inject(:*)
RATE = 0.01

def batch(k) = Floats[*Array.new(SIZE) { |i| (i * 37 + k * 11) % 101 / 8.0 - 5 }]

def descend(values, gradient) = values.fill(values.to_a.zip(gradient.to_a).map { |v, g| v - RATE * g })

def agree(name, values, expected)
  abort "#{name}: #{values.size} values, not #{expected.size}" unless values.size == expected.size
  values.zip(expected).each_with_index do |(value, wanted), i|
    # A NaN is not within, either.
    within = (value - wanted).abs <= 1e-4 * [1, wanted.abs].max
    abort "#{name}[#{i}] is #{value}, not #{wanted}" unless within
  end
end

def fails(error, message)
  yield
  abort "no error where there should be one"
rescue error => e
  abort "not a word of #{message}: #{e.message}" unless e.message.include?(message)
end

BatchNorm.num_threads = 1
dy = Floats[*Array.new(SIZE) { |i| (i * 53 + 7) % 17 / 4.0 - 2 }]
gamma, beta = Floats[1, 2, 0.5], Floats[0, -1, 3]
running = { running_mean: Floats[0, 0, 0], running_var: Floats[1, 1, 1] }
y = dx = dgamma = dbeta = nil
3.times do |k|
  x = batch(k)
  y, saved = BatchNorm.forward_training(SHAPE, x, gamma:, beta:, **running)
  dx, dgamma, dbeta = BatchNorm.backward(dy, x, saved)
  descend(gamma, dgamma)
  descend(beta, dbeta)
end
x = batch(0)
inferred, saved = BatchNorm.forward_inference(SHAPE, x, gamma:, beta:, **running)

results = { y:, dx:, dgamma:, dbeta:, gamma:, beta:, **running, inferred: }
expected = File.readlines(ARGV[0] || File.join(__dir__, "../values/values.txt")).to_h do |line|
  name, _, *numbers = line.split
  [name.to_sym, numbers.map(&:to_f)]
end
results.each { |name, values| agree(name, values.to_a, expected.fetch(name)) }

# Frozen statistics are constants: dx = gamma * invstd * dy.
frozen, = BatchNorm.backward(dy, x, saved)
scale = gamma.to_a.zip(saved.invstd.to_a).map { |g, s| g * s }
agree("frozen dx", frozen.to_a, dy.to_a.each_with_index.map { |d, i| scale[i / SHAPE[2] % SHAPE[1]] * d })

# With momentum 1 and the biased variance, the running statistics are the moments of the batch.
_, replaced = BatchNorm.forward_training(SHAPE, x, **running, eps: 1, momentum: 1, biased_running_var: true)
count, mean, m2 = BatchNorm.moments(SHAPE, x).map(&:to_a)
var = m2.zip(count).map { |m, n| m / n }
agree("momentum 1", running.values.flat_map(&:to_a), mean + var)
agree("eps 1", replaced.invstd.to_a, var.map { |v| 1 / Math.sqrt(v + 1) })

# Backward uses gamma and beta as they were in the forward call.
_, saved = BatchNorm.forward_training(SHAPE, x, gamma:, beta:)
before, = BatchNorm.backward(dy, x, saved)
[gamma, beta].each { |row| row.fill([7, -7, 0]) }
agree("dx of a gamma that was changed", BatchNorm.backward(dy, x, saved).first.to_a, before.to_a)
fails(TypeError, "saved is a Array; expected what a forward call returned") { BatchNorm.backward(dy, x, [saved.mean]) }
fails(ArgumentError, "dy has 71 elements") { BatchNorm.backward(Floats.new(SIZE - 1), x, saved) }
fails(NoMethodError, "private method") { BatchNorm::Saved.new(SHAPE, nil, nil, saved.mean, saved.invstd, false) }
copy = gamma.dup
gamma.fill([1, 1, 1])
agree("a copy", copy.to_a, [7, -7, 0])

fails(BatchNorm::Error, "channels") { BatchNorm.moments([4, 0, 6], Floats.new(0)) }
fails(ArgumentError, "71 elements") { BatchNorm.moments(SHAPE, Floats.new(SIZE - 1)) }

puts "Ruby: #{results.sum { |_, values| values.size }} values agree"
