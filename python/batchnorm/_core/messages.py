# SPDX-License-Identifier: Apache-2.0
"""The library's messages in the words of Python.

The library's messages are for C: they name functions that a Python user never called, pointers, and members of
structures. Here they name arguments as Python does.
"""

from __future__ import annotations

import re

ONE_VALUE = (
    "has one value per channel, expected more in training, as one value has no variance. Running statistics take it: "
    "call eval() of a layer first, or forward_inference(); Running(single_value=...) says what else to do"
)

# Whole sentences, in which a word for a word would not do.
_SENTENCES = (
    (r"values per channel \(outer \* inner\) is 1; expected .*", f"x {ONE_VALUE}"),
    (r"the number of values per channel of group\[(\d+)\] is 1; expected .*", rf"group \1 {ONE_VALUE}"),
    (
        r"the number of positions with a weight above 0 is 1; expected .*",
        "weights are above 0 at one position alone, expected none or more in training, as one value has no variance. "
        "Running statistics take it: call eval() of a layer first, or forward_inference(); Running(single_value=...) "
        "says what else to do",
    ),
    (r"the variance of x in channel\[(\d+)\] is", r"the variance of x in channel \1 is"),
    (
        r"\w+->activation is \d+; expected one that can be undone .*",
        "activation cannot be undone, expected None, 'identity', or a LeakyReLU of a slope above 0 with from_output",
    ),
    (
        r"\w+->(mask) is given; expected .*",
        "save_mask is True, expected False, as the gradient of 'hard_swish' and 'silu' is more than a bit",
    ),
    (r"\w+->from_output is 1; expected 0 with", "from_output is True; expected False with"),
    (r"\w+->slope is (\S+); expected 0, or ", r"slope is \1; expected 0, or a number of "),
    (r"(\S+) is 0x[0-9a-f]+; expected an", r"\1 is misaligned; expected an"),
    (r"threads is", "n is"),
    (
        r"working memory is (\d+); expected that many bytes to be free",
        r"working memory of \1 bytes could not be had",
    ),
    (
        r"(running_mean|running_var) is NULL; expected both of a pair, or neither",
        r"\1 is None; expected both running_mean and running_var, or neither",
    ),
)

# Words, in this order.
_WORDS = (
    (r"; expected NULL\b", "; expected None"),
    (r"\bis NULL; expected a pointer\b", "is None; expected an array"),
    (r"\bNULL\b", "None"),
    (r"\bmemory of its own, or the same pointer and stride", "memory of its own, or the same array"),
    (r"\ba pointer\b", "an array"),
    (r"\bepilogue->z(_stride)?\b", "residual"),
    (r"\bepilogue->dz(_stride)?\b", "residual_out"),
    (r"\bepilogue->mask\b", "bits"),
    (r"\bweights->values\b", "weights"),
    (r"\boptions->epilogue\b", "activation or residual"),
    (r"\b(x|y|dy|dx)_stride\b", r"\1 by its strides"),
    (r"\bshape->outer\b", "the number of samples of x"),
    (r"\bshape->inner\b", "the size of x"),
    (r"\bshape->weights\b", "weights"),
    (r"\b(shape|options|epilogue|running|source|groups|weights)->struct_size\b", "the size of a structure"),
    (r"\bsizeof\(bn_\w+\)", "that of this version"),
    (r"\b(?:options|shape|epilogue|running|source|groups|weights)->", ""),
    (r"\bchannels \* inner( elements)?\b", "the elements of a sample"),
    (r"\bouter \* inner\b", "all"),
    (r"\bouter strides\b", "samples"),
    (r"\bsaved_(mean|invstd)\b", r"\1"),
    (r"\bPTRDIFF_MAX\b", "2**63"),
    (r"\bINT32_MAX\b", "2**31 - 1"),
    (r"\bINT64_MAX\b", "2**63 - 1"),
    (r"\ba bn_(\w+)(, from)?", lambda found: "one" if found[2] is None else "one from"),
    (r"\bbn_(\w+)", lambda found: found[1].replace("_", " ")),
    (r"\bBN_(?:AVERAGE|SINGLE_VALUE|NONFINITE|SOURCE|MASKED)_([A-Z0-9_]+)", lambda found: repr(found[1].lower())),
    (r"\bBN_([A-Z0-9_]+)", lambda found: repr(found[1].lower())),
)

# Outputs of the library's functions, and their names in the functions here.
_OUTPUTS = {
    "bn_forward_training": ("y", "out"),
    "bn_forward_inference": ("y", "out"),
    "bn_normalize": ("y", "out"),
    "bn_backward": ("dx", "out"),
    "bn_backward_apply": ("dx", "out"),
}


def in_python(message: str) -> str:
    """A message of the library without the name of its function, and with the names that arguments have in Python."""
    function, colon, said = message.partition(": ")
    if not (colon and re.fullmatch(r"bn_\w+", function)):
        function, said = "", message
    if function in _OUTPUTS:
        name, own = _OUTPUTS[function]
        said = re.sub(rf"\b{name}\b", own, said)
    for pattern, words in _SENTENCES:
        said = re.sub(pattern, words, said)
    for pattern, word in _WORDS:
        said = re.sub(pattern, word, said)
    return said.replace("; expected ", ", expected ", 1)
