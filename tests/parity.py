"""How far a tensor is from the one that it should be; no unit, 0 where they agree."""

import torch


def largest_error(actual, expected):
    """The largest difference against the largest expected value."""
    check(actual, expected)
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def norm_error(actual, expected):
    """The norm of the difference against the expected norm."""
    check(actual, expected)
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def check(actual, expected):
    assert actual.shape == expected.shape
    assert torch.isfinite(actual).all()
