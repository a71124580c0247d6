# SPDX-License-Identifier: Apache-2.0

require "fiddle/import"

# libbatchnorm through Fiddle: what batchnorm.h declares, with float tensors, keywords for options and exceptions for
# statuses. Shapes are [outer, channels, inner].
module BatchNorm
  extend Fiddle::Importer

  # Carries the library's own sentence.
  class Error < StandardError; end

  # Numbers in memory that C shares: calls read and write it without a copy, only `fill` and `to_a` make one. Not a
  # packed String, as two of those may be one piece of memory until Ruby, not C, writes to either.
  class Numbers
    attr_reader :size, :to_ptr # the latter is what Fiddle asks an argument for

    def self.[](*values) = new(values.size).fill(values)

    def initialize(size)
      @size = size
      @to_ptr = Fiddle::Pointer.malloc(size * self.class::BYTES, Fiddle::RUBY_FREE)
    end

    # dup and clone have memory of their own.
    def initialize_copy(other)
      initialize(other.size)
      to_ptr[0, to_ptr.size] = other.to_ptr[0, other.to_ptr.size]
    end

    def fill(values)
      raise ArgumentError, "#{values.size} values for #{size} elements" unless values.size == size

      to_ptr[0, to_ptr.size] = values.pack("#{self.class::FORMAT}*")
      self
    end

    def to_a = to_ptr[0, to_ptr.size].unpack("#{self.class::FORMAT}*")
  end

  class Floats < Numbers
    BYTES, FORMAT = Fiddle::SIZEOF_FLOAT, "f"
  end

  class Doubles < Numbers
    BYTES, FORMAT = Fiddle::SIZEOF_DOUBLE, "d"
  end

  # The record of a forward call that backward needs: its shape, copies of gamma and beta as they were, what x was normalized
  # with, and whether that was of the batch. Only a forward call makes one.
  class Saved
    attr_reader :shape, :gamma, :beta, :mean, :invstd, :frozen_statistics

    def initialize(shape, gamma, beta, mean, invstd, frozen_statistics)
      @shape = shape.dup.freeze
      @gamma, @beta = [gamma, beta].map { |row| row && row.dup }
      @mean, @invstd, @frozen_statistics = mean, invstd, frozen_statistics
      freeze
    end

    private_class_method :new
  end

  FLOAT32 = 1

  path = ENV.fetch("BATCHNORM_LIBRARY", "")
  path = "libbatchnorm.so.2" if path.empty?
  needed = "libbatchnorm 2.0 or a later 2.x is needed, but"
  begin
    dlload path
  rescue Fiddle::DLError => e
    raise LoadError, "#{needed} cannot be loaded: #{e.message}", cause: nil
  end
  begin
    extern "int bn_version()"
  rescue Fiddle::DLError
    raise LoadError, "#{needed} #{path} has no bn_version", cause: nil
  end
  major, minor, patch = bn_version.digits(100).reverse
  raise LoadError, "#{needed} #{path} is #{major}.#{minor}.#{patch}" unless major == 2

  extern "int bn_forward_training(void*, int, void*, void*, void*, void*, void*, void*, void*, void*, void*)"
  extern "int bn_forward_inference(void*, int, void*, void*, void*, void*, void*, void*, void*, void*, void*)"
  extern "int bn_backward(void*, int, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*)"
  extern "int bn_moments(void*, int, void*, void*, void*, void*, size_t, void*)"
  extern "int bn_set_num_threads(int)"
  extern "char *bn_last_error()"

  class << self
    # Returns y, and what backward needs; the running statistics are updated in place.
    def forward_training(shape, x, gamma: nil, beta: nil, running_mean: nil, running_var: nil, **options)
      check(shape, { x: }, { gamma:, beta:, running_mean:, running_var: })
      forward(:bn_forward_training, shape, x, gamma, beta, running_mean, running_var, options)
    end

    # Like forward_training, but with the running statistics, which are constants to the gradient.
    def forward_inference(shape, x, running_mean:, running_var:, gamma: nil, beta: nil, **options)
      check(shape, { x: }, { gamma:, beta:, running_mean:, running_var: })
      forward(:bn_forward_inference, shape, x, gamma, beta, running_mean, running_var, options)
    end

    # Returns dx, dgamma and dbeta. x is that of the forward call that returned saved, as it was then.
    def backward(dy, x, saved)
      raise TypeError, "saved is a #{saved.class}; expected what a forward call returned" unless saved.is_a?(Saved)

      shape = saved.shape
      check(shape, { dy:, x: })
      kept = saved.gamma, saved.beta, saved.mean, saved.invstd
      gradients = Floats.new(shape.inject(:*)), Floats.new(shape[1]), Floats.new(shape[1])
      options = pack_options(frozen: saved.frozen_statistics)
      call(:bn_backward, pack_shape(shape), FLOAT32, dy, x, *kept, *gradients, options)
      gradients
    end

    # Returns the number of values, their mean and the sum of squared deviations from it.
    def moments(shape, x)
      check(shape, { x: })
      moments = Array.new(3) { Doubles.new(shape[1]) }
      call(:bn_moments, pack_shape(shape), FLOAT32, x, *moments, 0, nil)
      moments
    end

    def num_threads=(threads)
      call(:bn_set_num_threads, threads)
    end

    private

    def forward(function, shape, x, gamma, beta, running_mean, running_var, options)
      y, mean, invstd = Floats.new(shape.inject(:*)), Doubles.new(shape[1]), Doubles.new(shape[1])
      raise ArgumentError, "frozen is for backward, which has it from saved" if options.key?(:frozen)

      channels = gamma, beta, running_mean, running_var
      call(function, pack_shape(shape), FLOAT32, x, *channels, y, mean, invstd, pack_options(**options))
      [y, Saved.send(:new, shape, gamma, beta, mean, invstd, function == :bn_forward_inference)]
    end

    # C cannot know how long an array is, or what it holds. A nil is left to the library, which may need it or not.
    def check(shape, tensors, parameters = {})
      unless shape.is_a?(Array) && shape.size == 3 && shape.all? { |extent| extent.is_a?(Integer) && extent >= 0 }
        raise ArgumentError, "shape is #{shape.inspect}; expected [outer, channels, inner]"
      end

      check_each(tensors, Floats, shape.inject(:*))
      check_each(parameters, Floats, shape[1])
    end

    def check_each(arrays, type, size)
      arrays.compact.each do |name, array|
        raise TypeError, "#{name} is a #{array.class}; expected #{type}" unless array.is_a?(type)
        raise ArgumentError, "#{name} has #{array.size} elements; expected #{size}" unless array.size == size
      end
    end

    def call(function, *arguments)
      return if public_send(function, *arguments).zero?

      raise Error, bn_last_error.to_s.force_encoding(Encoding::UTF_8)
    end

    # struct_size, extents, three strides of 0 (dense), no weights.
    def pack_shape((outer, channels, inner)) = [64, outer, channels, inner, 0, 0, 0, 0].pack("J8")

    # struct_size, the options, param_dtype and reserved, four descriptors that are NULL.
    def pack_options(eps: 1e-5, momentum: 0.1, biased_running_var: false, frozen: false)
      flags = [biased_running_var, frozen].map { |flag| flag ? 1 : 0 }
      [72, eps, momentum, *flags, 0, 0, 0, 0, 0, 0].pack("Jd2l4J4")
    end
  end
end
