"""Torch's other names: the same functions, with torch's parameters."""

import inspect

import pytest

import functional_collectives as fc
from functional_collectives import aliases

NAMES = sorted(name for name in vars(aliases) if name.endswith(("_single", "_single_coalesced", "_autograd")))
OWN = [
    "all_reduce_coalesced",
    "all_gather_into_tensor_coalesced",
    "reduce_scatter_tensor_coalesced",
    "all_gather_tensor_inplace",
    "reduce_scatter_tensor_inplace",
    "all_reduce_inplace",
    "all_to_all_inplace",
    "all_gather_inplace",
    "reduce_scatter_inplace",
]


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_every_name_is_public_and_has_torchs_parameters_in_torchs_places(name):
    import torch.distributed._functional_collectives as torchs

    assert name in fc.__all__
    if not hasattr(torchs, name):
        pytest.skip(f"this torch has no {name}")
    ours = inspect.signature(getattr(fc, name)).parameters
    theirs = inspect.signature(getattr(torchs, name)).parameters
    placed = [name for name, parameter in ours.items() if parameter.kind is not parameter.KEYWORD_ONLY]
    assert placed == list(theirs)
    for parameter in theirs.values():  # every call that is right for torch is right for us
        if parameter.default is not parameter.empty:
            assert ours[parameter.name].default == parameter.default


def test_the_names_with_autograd_are_the_functions_themselves():
    assert fc.all_gather_single is fc.all_gather_tensor is fc.all_gather_tensor_autograd
    assert fc.all_gather_single_autograd is fc.all_gather_tensor
    assert fc.reduce_scatter_single is fc.reduce_scatter_tensor is fc.reduce_scatter_tensor_autograd
    assert fc.reduce_scatter_single_autograd is fc.reduce_scatter_tensor
    assert fc.all_to_all_single_autograd is fc.all_to_all_single
    assert fc.all_gather_single_coalesced is fc.all_gather_into_tensor_coalesced
    assert fc.reduce_scatter_single_coalesced is fc.reduce_scatter_tensor_coalesced
