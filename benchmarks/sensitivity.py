"""What sensitivity costs beside the matrix products that it cannot avoid, in one run; and rounding by SpQR beside GPTQ.

Unavoidable are X^T X of the calibration inputs, the inverse of the Hessian, and W H W^T. Times are in turn, so that
ratios hold when the machine drifts.

    python benchmarks/sensitivity.py [--rounds 5] [--tokens 4096] [--large]
"""

import argparse
from functools import partial

import torch
from side_by_side import ratio, times

from monadnock.compression import Method
from monadnock.models import States
from monadnock.sensitivity.loss import KINDS, sensitivity_of
from monadnock.sensitivity.patterns import find_patterns
from monadnock.sensitivity.shares import line_rows, share_row
from monadnock.stats import SecondMoment

SHAPES = {"q 576 x 576": (576, 576), "gate 1536 x 576": (1536, 576), "down 576 x 1536": (576, 1536)}
LARGE = {"4096 x 4096": (4096, 4096)}


def products(weight, windows):
    hessian = sum(window.t() @ window for window in windows).double()
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return inverse.diagonal(), ((weight.double() @ hessian) * weight).sum()


def hessian_of(windows):
    moment = SecondMoment(len(windows))
    for index, window in enumerate(windows):
        moment.update(States(window), index)
    return moment.hessian


def measured(weight, windows, kinds=("compensated",)):
    hessian = hessian_of(windows)
    for kind in kinds:
        values = sensitivity_of(weight, hessian, kind)
        found = share_row(weight, values, hessian), line_rows(values)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--large", action="store_true")
    asked = parser.parse_args()
    for name, (rows, columns) in (SHAPES | (LARGE if asked.large else {})).items():
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(rows, columns, generator=generator) * 0.05
        windows = torch.randn(asked.tokens // 1024, 1024, columns, generator=generator)
        hessian = hessian_of(windows)
        ways = {
            "products": partial(products, weight, windows),
            "one kind": partial(measured, weight, windows),
            "all kinds": partial(measured, weight, windows, KINDS),
            "gptq": partial(Method.of("gptq", bits=3).apply, weight, hessian),
            "spqr": partial(Method.of("spqr").apply, weight, hessian),
        }
        if not asked.large:
            values = sensitivity_of(weight, hessian, "compensated")
            ways["patterns"] = partial(find_patterns, weight, values, None, None)
        taken = times(ways, asked.rounds)
        print(f"{name}, {asked.tokens} tokens: products {min(taken['products']):.3f} s")
        for way in list(ways)[1:]:
            print(f"  {way:10} {min(taken[way]):7.3f} s, times the products: {ratio(taken[way], taken['products'])}")


if __name__ == "__main__":
    main()
