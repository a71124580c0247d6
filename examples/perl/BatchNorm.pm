# SPDX-License-Identifier: Apache-2.0

package BatchNorm;

# libbatchnorm through FFI::Platypus: what batchnorm.h declares, with float tensors, named arguments and exceptions.
#
#     my $bn = BatchNorm->new;
#     my ($y, $saved) = $bn->forward_training([4, 3, 6], $x, gamma => floats(1, 2, 0.5), eps => 1e-3);
#     my ($dx, $dgamma, $dbeta) = $bn->backward($dy, $x, $saved);
#     print join(' ', unpack 'f*', $$y), "\n";
#
# Shapes are [outer, channels, inner]. Arrays are references to strings of packed numbers, 'f*' or for statistics 'd*',
# whose bytes C reads and writes without a copy; a list of Perl's numbers is copied when it is packed or unpacked.

use strict;
use warnings;
use warnings FATAL => qw(numeric uninitialized);    # an eps that is not a number would be 0

use Carp qw(croak);
use Exporter qw(import);
use FFI::Platypus 2.00;
use FFI::Platypus::Buffer qw(grow scalar_to_pointer);
use FFI::Platypus::DL qw(dlerror dlopen RTLD_PLATYPUS_DEFAULT);
use List::Util qw(all product);
use Scalar::Util qw(blessed);

our @EXPORT_OK = qw(floats doubles);

use constant { FLOAT32 => 1, FLOAT => 4, DOUBLE => 8 };

# Name, arguments, result.
my @functions = (
    [bn_forward_training  => ['opaque', 'int', ('opaque') x 9] => 'int'],
    [bn_forward_inference => ['opaque', 'int', ('opaque') x 9] => 'int'],
    [bn_backward          => ['opaque', 'int', ('opaque') x 10] => 'int'],
    [bn_moments           => ['opaque', 'int', ('opaque') x 4, 'size_t', 'opaque'] => 'int'],
    [bn_set_num_threads   => ['int'] => 'int'],
    [bn_last_error        => [] => 'string'],
);

sub floats  { return \pack 'f*', @_ }
sub doubles { return \pack 'd*', @_ }

# Loads the library.
sub new {
    my ($class) = @_;
    my $path = $ENV{BATCHNORM_LIBRARY} || 'libbatchnorm.so.2';
    my $needed = 'libbatchnorm 2.0 or a later 2.x is needed, but';
    dlopen($path, RTLD_PLATYPUS_DEFAULT) or die "$needed cannot be loaded: ", dlerror(), "\n";

    my $ffi = FFI::Platypus->new(api => 2, lib => $path);
    $ffi->find_symbol('bn_version') or die "$needed $path has no bn_version\n";
    my $version = $ffi->function(bn_version => [] => 'int')->call;
    my ($major, $minor, $patch) = (int $version / 10_000, int($version / 100) % 100, $version % 100);
    $major == 2 or die "$needed $path is $major.$minor.$patch\n";

    return bless { ffi => $ffi, map { ($_->[0] => $ffi->function(@$_)) } @functions }, $class;
}

# Returns y, and what backward needs. gamma, beta, running_mean, running_var (updated in place) and the options may be missing.
sub forward_training {
    my ($self, @arguments) = @_;
    return $self->_forward('bn_forward_training', @arguments);
}

# Like forward_training, but with the running statistics, which are needed, and are constants to the gradient.
sub forward_inference {
    my ($self, @arguments) = @_;
    return $self->_forward('bn_forward_inference', @arguments);
}

sub _forward {
    my ($self, $function, $shape, $x, %named) = @_;
    my @channels = my ($gamma, $beta, @running) = delete @named{qw(gamma beta running_mean running_var)};
    croak 'no such argument: frozen' if exists $named{frozen};
    my $options = _options(%named);
    my $size    = _size($shape);
    _check(FLOAT * $size, x => $x);
    _check(FLOAT * $shape->[1], gamma        => $gamma,      beta        => $beta);
    _check(FLOAT * $shape->[1], running_mean => $running[0], running_var => $running[1]);

    # Perl's strings may share their bytes until one is written to: C must not write to all of them.
    grow $$_, length $$_, { clear => 0 } for grep { defined } @running;
    my @results = _make(FLOAT * $size, (DOUBLE * $shape->[1]) x 2);
    $self->_call($function, _shape($shape), FLOAT32, $x, @channels, @results, $options);
    my ($y, $mean, $invstd) = @results;
    my $frozen = $function eq 'bn_forward_inference';
    return $y, BatchNorm::Saved->_new($shape, $gamma, $beta, $mean, $invstd, $frozen);
}

# Returns dx, dgamma and dbeta. x is that of the forward call that returned $saved, as it was then.
sub backward {
    my ($self, $dy, $x, $saved, @more) = @_;
    blessed $saved && $saved->isa('BatchNorm::Saved') && !@more
        or croak 'expected backward($dy, $x, $saved), with what a forward call returned';
    my ($shape, @kept) = @$saved{qw(shape gamma beta mean invstd)};
    my $size = _size($shape);
    _check(FLOAT * $size, dy => $dy, x => $x);
    _check(FLOAT * $shape->[1], gamma => $kept[0], beta => $kept[1]);
    _check(DOUBLE * $shape->[1], mean => $kept[2], invstd => $kept[3]);

    my @results = _make(FLOAT * $size, (FLOAT * $shape->[1]) x 2);
    my $options = _options(frozen => $saved->{frozen} ? 1 : 0);
    $self->_call('bn_backward', _shape($shape), FLOAT32, $dy, $x, @kept, @results, $options);
    return @results;
}

# Returns the number of values, their mean and the sum of squared deviations from it.
sub moments {
    my ($self, $shape, $x) = @_;
    _check(FLOAT * _size($shape), x => $x);
    my @results = _make((DOUBLE * $shape->[1]) x 3);
    $self->_call('bn_moments', _shape($shape), FLOAT32, $x, @results, 0, undef);
    return @results;
}

sub set_num_threads {
    my ($self, $threads) = @_;
    ($threads // '') =~ /\A-?\d{1,9}\z/ or croak 'the number of threads is not a whole number that C has an int for';
    return $self->_call('bn_set_num_threads', $threads);
}

# Calls with the addresses of what references refer to.
sub _call {
    my ($self, $function, @arguments) = @_;
    my $status = $self->{$function}->call(map { ref $_ ? scalar_to_pointer $$_ : $_ } @arguments);
    croak $self->{bn_last_error}->call if $status;
    return;
}

sub _size {
    my ($shape) = @_;
    ref $shape eq 'ARRAY' && @$shape == 3 && all { defined && /\A\d+\z/ } @$shape
        or croak 'the shape is not [outer, channels, inner], three whole numbers';
    return product @$shape;
}

# C cannot know how long an array is. An undefined value is left to the library, which may need the array or not.
sub _check {
    my ($bytes, %arrays) = @_;
    for my $name (grep { defined $arrays{$_} } sort keys %arrays) {
        ref $arrays{$name} eq 'SCALAR' or croak "$name is not a reference to packed numbers";
        my $given = do { use bytes; length ${ $arrays{$name} } } // 0;
        $given == $bytes or croak "$name has $given bytes; expected $bytes";
    }
    return;
}

sub _make {
    my @bytes = @_;
    return map { my $array; grow $array, $_; \$array } @bytes;
}

# struct_size, extents, three strides of 0 (dense), no weights.
sub _shape {
    my ($shape) = @_;
    return \pack 'J8', 64, @$shape, (0) x 4;
}

# struct_size, the options, param_dtype and reserved, four descriptors that are NULL.
sub _options {
    my %named  = (eps => 1e-5, momentum => 0.1, biased_running_var => 0, frozen => 0, @_);
    my @values = delete @named{qw(eps momentum biased_running_var frozen)};
    croak "no such argument: @{[sort keys %named]}" if %named;
    return \pack 'J d2 l4 J4', 72, @values, (0) x 6;
}

# The record of a forward call that backward needs: its shape, copies of gamma and beta as they were, what x was normalized
# with, and whether that was of the batch.
package BatchNorm::Saved;

sub _new {
    my ($class, $shape, $gamma, $beta, $mean, $invstd, $frozen) = @_;
    my ($own_gamma, $own_beta) = map { defined ? \(my $copy = $$_) : undef } $gamma, $beta;
    return bless {
        shape => [@$shape], gamma => $own_gamma, beta => $own_beta, mean => $mean, invstd => $invstd, frozen => $frozen,
    }, $class;
}

sub mean   { return $_[0]{mean} }
sub invstd { return $_[0]{invstd} }

1;
