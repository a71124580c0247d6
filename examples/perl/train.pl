# SPDX-License-Identifier: Apache-2.0

# Three steps of training and an inference, compared with what examples/values/make.py computes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use List::Util qw(max product);

use BatchNorm qw(floats);

my @SHAPE = my ($OUTER, $CHANNELS, $INNER) = (4, 3, 6);
my $SIZE  = product @SHAPE;
my $RATE  = 0.01;

sub batch {
    my ($k) = @_;
    return floats(map { ($_ * 37 + $k * 11) % 101 / 8 - 5 } 0 .. $SIZE - 1);
}

sub descend {
    my ($values, $gradient) = map { [unpack 'f*', $$_] } @_;
    return floats(map { $values->[$_] - $RATE * $gradient->[$_] } 0 .. $#$values);
}

sub agree {
    my ($name, $values, $expected) = @_;
    @$values == @$expected or die "$name: @{[scalar @$values]} values, not @{[scalar @$expected]}\n";
    for my $i (0 .. $#$values) {
        my ($value, $wanted) = ($values->[$i], $expected->[$i]);

        # A NaN is not within, either.
        abs($value - $wanted) <= 1e-4 * max(1, abs $wanted) or die "${name}[$i] is $value, not $wanted\n";
    }
    return;
}

sub fails {
    my ($message, $call) = @_;
    eval { $call->(); 1 } and die "no error where there should be one\n";
    $@ =~ /\Q$message/ or die "not a word of $message: $@";
    return;
}

my $bn = BatchNorm->new;
$bn->set_num_threads(1);

my @dy = map { ($_ * 53 + 7) % 17 / 4 - 2 } 0 .. $SIZE - 1;
my $dy = floats(@dy);
my ($gamma, $beta) = (floats(1, 2, 0.5), floats(0, -1, 3));
my %running = (running_mean => floats(0, 0, 0), running_var => floats(1, 1, 1));
my ($y, $dx, $dgamma, $dbeta, $saved);
for my $k (0 .. 2) {
    my $x = batch($k);
    ($y, $saved) = $bn->forward_training(\@SHAPE, $x, gamma => $gamma, beta => $beta, %running);
    ($dx, $dgamma, $dbeta) = $bn->backward($dy, $x, $saved);
    ($gamma, $beta) = (descend($gamma, $dgamma), descend($beta, $dbeta));
}
my $x = batch(0);
(my $inferred, $saved) = $bn->forward_inference(\@SHAPE, $x, gamma => $gamma, beta => $beta, %running);

my %results = (
    y => $y, dx => $dx, dgamma => $dgamma, dbeta => $dbeta, gamma => $gamma, beta => $beta, %running,
    inferred => $inferred,
);
my %expected;
open my $file, '<', $ARGV[0] // "$FindBin::Bin/../values/values.txt" or die "values.txt: $!\n";
while (<$file>) {
    my ($name, undef, @numbers) = split;
    $expected{$name} = \@numbers;
}
my $compared = 0;
for my $name (sort keys %results) {
    my @values = unpack 'f*', ${ $results{$name} };
    agree($name, \@values, $expected{$name} // []);
    $compared += @values;
}

# Frozen statistics are constants: dx = gamma * invstd * dy.
my @gamma  = unpack 'f*', $$gamma;
my @invstd = unpack 'd*', ${ $saved->invstd };
my ($frozen) = $bn->backward($dy, $x, $saved);
my @scale = map { $gamma[$_] * $invstd[$_] } 0 .. $CHANNELS - 1;
agree('frozen dx', [unpack 'f*', $$frozen], [map { $scale[int($_ / $INNER) % $CHANNELS] * $dy[$_] } 0 .. $SIZE - 1]);

# With momentum 1 and the biased variance, the running statistics are the moments of the batch.
my %replace = (eps => 1, momentum => 1, biased_running_var => 1);
my $copy = ${ $running{running_mean} };
my @kept = unpack 'f*', $copy;
(undef, $saved) = $bn->forward_training(\@SHAPE, $x, %running, %replace);
my ($count, $batch_mean, $m2) = map { [unpack 'd*', $$_] } $bn->moments(\@SHAPE, $x);
agree('momentum 1', [unpack 'f*', ${ $running{running_mean} }], $batch_mean);
my @var = map { $m2->[$_] / $count->[$_] } 0 .. $CHANNELS - 1;
agree('momentum 1', [unpack 'f*', ${ $running{running_var} }], \@var);
agree('a copy that Perl made', [unpack 'f*', $copy], \@kept);
agree('eps 1', [unpack 'd*', ${ $saved->invstd }], [map { 1 / sqrt($_ + 1) } @var]);

# Backward uses gamma and beta as they were in the forward call.
(undef, $saved) = $bn->forward_training(\@SHAPE, $x, gamma => $gamma, beta => $beta);
my ($before) = $bn->backward($dy, $x, $saved);
$$_ = pack 'f*', 7, -7, 0 for $gamma, $beta;
my ($after) = $bn->backward($dy, $x, $saved);
agree('dx of a gamma that was changed', [unpack 'f*', $$after], [unpack 'f*', $$before]);
my $expected = 'expected backward($dy, $x, $saved), with what a forward call returned';
fails($expected, sub { $bn->backward($dy, $x) });
fails($expected, sub { $bn->backward(\@SHAPE, $dy, $x, $saved->mean, $saved->invstd, gamma => $gamma) });
fails($expected, sub { $bn->backward($dy, $x, $saved, frozen => 1) });
fails('dy has 284 bytes', sub { $bn->backward(floats((0) x ($SIZE - 1)), $x, $saved) });
fails('no such argument: frozen', sub { $bn->forward_training(\@SHAPE, $x, frozen => 1) });

fails('bn_moments: channels is 0', sub { $bn->moments([$OUTER, 0, $INNER], floats()) });
fails('not a whole number', sub { $bn->set_num_threads(2**32) });
fails(q(isn't numeric), sub { $bn->forward_training(\@SHAPE, $x, eps => 'little') });
fails('x has 284 bytes', sub { $bn->moments(\@SHAPE, floats((0) x ($SIZE - 1))) });

print "Perl: $compared values agree\n";
