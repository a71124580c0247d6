# SPDX-License-Identifier: Apache-2.0
"""batchnorm.torch: as many threads as PyTorch has, also in the workers of a DataLoader."""

from __future__ import annotations

import os

import pytest
from comparing import peer
from helpers import python

peer("batchnorm.torch")

PREAMBLE = """
import threading, torch, warnings, batchnorm as bn, batchnorm.torch as bt

bt.functional.set_smallest(0)
layer, x = bt.BatchNorm2d(4), torch.randn(4, 4, 8, 8)
def step(layer=layer):
    y = layer(x.clone().requires_grad_())
    y.sum().backward()
    return bn.get_num_threads()
"""


def printed(code: str, **environment: str) -> str:
    done = python(PREAMBLE + code, **environment)
    assert not done.returncode, done.stderr
    return str(done.stdout).strip()


FOLLOWING = """
found = []
for number in (2, 1, 3, 2):
    torch.set_num_threads(number)
    found.append(step())
bn.set_num_threads(1)
found.append(step())          # which holds until PyTorch's changes
torch.set_num_threads(5)
found.append(step())
torch.set_num_threads(2000)
found.append(step())
print(*found)
"""


def test_calls_follow() -> None:
    assert printed(FOLLOWING) == "2 1 3 2 1 5 1024"


def test_the_environment_is_stronger() -> None:
    assert printed(FOLLOWING, BATCHNORM_NUM_THREADS="4") == "4 4 4 4 1 1 1"


EACH_CALL = """
def after(number, call):
    torch.set_num_threads(number)
    result = call()
    print(bn.get_num_threads(), end=" ")
    return result

layer, x = LAYER, x.requires_grad_()
y = after(3, lambda: layer(x * 1))
after(2, lambda: y.sum().backward())
if type(layer) is bt.BatchNorm2d:
    dx, = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
    after(4, lambda: dx.sum().backward())
    warnings.simplefilter("ignore")  # of PyTorch about itself
    with torch.autograd.forward_ad.dual_level():
        after(5, lambda: layer(torch.autograd.forward_ad.make_dual(x.detach(), x.detach())))
"""


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        ("bt.BatchNorm2d(4)", "3 2 4 5"),
        ("bt.GhostBatchNorm2d(4, 2)", "3 2"),
        ("bt.BatchRenorm2d(4)", "3 2"),
        ("bt.BatchNormAct2d(4)", "3 2"),
        ("bt.InPlaceABN(4)", "3 2"),
    ],
)
def test_each_call_follows(layer: str, found: str) -> None:
    assert printed(EACH_CALL.replace("LAYER", layer)) == found


WORKERS = """
class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return torch.get_num_threads(), step()

torch.set_num_threads(2)
step()
loader = torch.utils.data.DataLoader(Batches(), num_workers=2, batch_size=None)
print(*sorted(set(map(tuple, loader))), step())
"""


def test_workers_have_one_thread() -> None:
    """They are forked from a process that has used two."""
    assert printed(WORKERS) == "(1, 1) 2"


TOGETHER = """
def work(number, found):
    torch.set_num_threads(number)
    layer = bt.BatchNorm2d(4)
    for _ in range(300):
        y = layer(x)
    found[number] = y

found = {}
threads = [threading.Thread(target=work, args=(number, found)) for number in (1, 2, 3, 4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
torch.set_num_threads(2)
print(step(), len({each.detach().numpy().tobytes() for each in found.values()}))
"""


def test_threads_with_different_numbers() -> None:
    """Each of them sets the library's: results are the same, and the last word counts."""
    assert printed(TOGETHER) == "2 1"


LENT = """
import os

def count():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(2)
layer, x = bt.BatchNorm2d(64), torch.randn(8, 64, 28, 28)
(x.clone().requires_grad_() * 2).sum().backward()  # starts PyTorch's own
before = count()
step(layer)
print(bt.operators.THERE, count() - before)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one processor")
@pytest.mark.parametrize("operators", ["0", "1"])
def test_operators_run_on_threads_of_pytorch(operators: str) -> None:
    """The library starts a thread of its own where there are no operators."""
    found = printed(LENT, BATCHNORM_TORCH_OPERATORS=operators)
    if operators == "1" and found.startswith("False"):
        pytest.skip("batchnorm-torch is not installed")
    assert found == {"0": "False 1", "1": "True 0"}[operators]
