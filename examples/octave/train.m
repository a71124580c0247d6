% SPDX-License-Identifier: Apache-2.0

% Three steps of training and an inference, compared with what examples/values/make.py computes.
% The path of values.txt may be an argument.

1; % a script, though functions come first

function agree (name, values, expected)
  values = double (values(:));
  expected = double (expected(:));
  assert (numel (values) == numel (expected), "%s: %d values, not %d", name, numel (values), numel (expected));
  % A NaN is not within, either.
  i = find (! (abs (values - expected) <= 1e-4 * max (1, abs (expected))), 1);
  if (! isempty (i))
    error ("%s(%d) is %.9g, not %.9g", name, i, values(i), expected(i));
  end
end

function fails (message, varargin)
  found = "no error";
  try
    batchnorm (varargin{:});
  catch problem
    found = problem.message;
  end
  assert (! isempty (strfind (found, message)), "not the error \"%s\": %s", message, found);
end

inner = 6; channels = 3; outer = 4;
rate = 0.01;
tensor = @(elements) reshape (single (elements), inner, channels, outer);
i = 0:inner * channels * outer - 1;
batch = @(k) tensor (mod (i * 37 + k * 11, 101) / 8 - 5);

% The first call loads the library; Octave puts what the loader says of a missing one into lines of its own.
try
  batchnorm ("set_num_threads", 1);
catch problem
  missing = regexp (problem.message, 'libbatchnorm\.so\.2: .*', "match", "once");
  if (! isempty (missing))
    problem.message = ["libbatchnorm 2.0 or a later 2.x is needed, but cannot be loaded: " missing];
  end
  fprintf (stderr, "%s\n", problem.message);
  exit (1);
end

dy = tensor (mod (i * 53 + 7, 17) / 4 - 2);
gamma = single ([1; 2; 0.5]);
beta = single ([0; -1; 3]);
running_mean = zeros (3, 1, "single");
running_var = ones (3, 1, "single");
for k = 0:2
  x = batch (k);
  [y, saved, running_mean, running_var] = ...
    batchnorm ("forward_training", x, gamma, beta, running_mean, running_var);
  [dx, dgamma, dbeta] = batchnorm ("backward", dy, x, saved);
  gamma -= rate * dgamma;
  beta -= rate * dbeta;
end
x = batch (0);
[inferred, saved] = batchnorm ("forward_inference", x, gamma, beta, running_mean, running_var);

results = struct ("y", y, "dx", dx, "dgamma", dgamma, "dbeta", dbeta, "gamma", gamma, "beta", beta, ...
                  "running_mean", running_mean, "running_var", running_var, "inferred", inferred);
values = fullfile (fileparts (mfilename ("fullpath")), "..", "values", "values.txt");
if (! isempty (argv ()))
  values = argv (){1};
end
expected = struct ();
for line = strsplit (strtrim (fileread (values)), "\n")
  words = strsplit (line{1}, " ");
  expected.(words{1}) = str2double (words(3:end));
end
compared = 0;
for name = fieldnames (results)'
  agree (name{1}, results.(name{1}), expected.(name{1}));
  compared += numel (results.(name{1}));
end

% Frozen statistics are constants: dx = gamma * invstd * dy.
frozen = batchnorm ("backward", dy, x, saved);
agree ("frozen dx", frozen, (gamma .* saved.invstd)' .* dy);

% With momentum 1 and the biased variance, the running statistics are the moments of the batch.
replace = struct ("eps", 1, "momentum", 1, "biased_running_var", true);
[~, replaced, new_mean, new_var] = batchnorm ("forward_training", x, [], [], running_mean, running_var, replace);
[count, mean, m2] = batchnorm ("moments", x);
agree ("momentum 1", [new_mean, new_var], [mean, m2 ./ count]);
agree ("eps 1", replaced.invstd, 1 ./ sqrt (m2 ./ count + 1));

% Backward uses gamma and beta as they were in the forward call.
[~, saved] = batchnorm ("forward_training", x, gamma, beta, [], []);
before = batchnorm ("backward", dy, x, saved);
gamma_then = gamma;
gamma(:) = -7;
agree ("dx of a gamma that was changed", batchnorm ("backward", dy, x, saved), before);
agree ("saved.gamma", saved.gamma, gamma_then);
fails ("saved has no size", "backward", dy, x, struct ("mean", saved.mean, "invstd", saved.invstd));
fails ("saved has no beta", "backward", dy, x, rmfield (saved, "beta"));
fails ("saved is not what a forward call returned", "backward", dy, x, gamma);
fails ("x is not of the size", "backward", dy(:, :, 1:2), x(:, :, 1:2), saved);
fails ("x is not of the class", "backward", double (dy), double (x), saved);
fails ("usage: batchnorm (\"backward\", dy, x, saved)", "backward", dy, x, gamma, saved.mean, saved.invstd);

fails ("bn_moments: channels is 0", "moments", zeros (inner, 0, outer, "single"));
fails ("threads is not a number", "set_num_threads", "2");
fails ("gamma has 2 elements", "forward_training", x, gamma(2:end), beta, running_mean, running_var);

printf ("Octave: %d values agree\n", compared);
