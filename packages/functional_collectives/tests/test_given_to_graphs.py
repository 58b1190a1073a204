"""What an eager call gave, in flight or waited for, is handed to compiled code: as to eager code, backward too."""

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

import functional_collectives as fc
from comm_core.testing import run_ranks

pytestmark = pytest.mark.usefixtures("world_backend")

CALLS = {
    "all_reduce": lambda x, group: fc.all_reduce(x, "sum", group),
    "all_gather": lambda x, group: fc.all_gather_tensor(x, 1, group),  # with a step after the wait
}
FORMS = {
    "in flight": lambda y: y,
    "waited for": lambda y: y.wait(),
    "by wait_tensor": fc.wait_tensor,
    "used before": lambda y: (y + 1, y)[1],
    "waited for before": lambda y: (y.wait(), y)[1],
    "a part": lambda y: y[:, 1:3],
    "a part of what was waited for": lambda y: y.wait()[:, 1:3],
    "a part of a part": lambda y: y[:, 1:][:, :2],
    "a part when it was waited for before": lambda y: (y.wait(), y[:, 1:3])[1],
    "a part, waited for": lambda y: y[:, 1:3].wait(),
    "turned": lambda y: y.t(),
    "turned when it was waited for": lambda y: y.wait().t(),
    "detached": lambda y: y.detach(),
    "waited for and detached": lambda y: y.wait().detach(),
    "one of several": lambda y: y.unbind(0)[0],
    "one of several that were waited for": lambda y: y.wait().unbind(0)[0],
    "written to": lambda y: y.add_(1),
    "waited for and written to": lambda y: y.wait().add_(1),
}


def program(y):
    """Return a value, and a view of what is given."""
    z = torch.sin(y)
    z.mul_(y)
    return (y * y).sum() + z[..., :1].sum(), y[..., :1]


def outcome(run, group, call, of, records):
    """Return what a program makes of one form of a call's result, and the gradient of the call's input."""
    w = (torch.arange(16.0).view(4, 4) + group.rank).requires_grad_(records)
    loss, view = run(of(CALLS[call](w * 2, group)))
    if loss.requires_grad:
        (loss + view.sum()).backward()
    return loss.detach(), view.tolist(), torch.zeros(()) if w.grad is None else w.grad


def plain_inputs(graph, inputs):
    """A compiler whose code refuses what is no plain tensor, as the memory of another may lie elsewhere or nowhere."""

    def run(*given):
        assert all(type(x) in (torch.Tensor, torch.nn.Parameter) for x in given if isinstance(x, torch.Tensor))
        return graph.forward(*given)

    return torch._functorch.aot_autograd.make_boxed_func(run)


def differences(group, call):
    """Return of which forms compiled code makes something else than eager code."""
    found = []
    for form, of in FORMS.items():
        for records in (False, True):
            torch.compiler.reset()
            compiled = torch.compile(program, backend=aot_autograd(fw_compiler=plain_inputs), fullgraph=True)
            eager = outcome(program, group, call, of, records)
            try:
                torch.testing.assert_close(outcome(compiled, group, call, of, records), eager)
            except Exception as error:
                found.append(f"{form}, {records=}: {error}")
    return found


@pytest.mark.parametrize("call", CALLS)
def test_compiled_code_makes_of_every_form_what_eager_code_makes(call):
    assert run_ranks(differences, 2, args=(call,), timeout=300.0) == [[], []]


PARTS = {
    "the whole": lambda y: y,
    "a row": lambda y: y[1],
    "rows": lambda y: y[1:],
    "columns": lambda y: y[:, 1:3],
    "turned": lambda y: y.t()[1:],
    "every fifth": lambda y: y.view(-1)[::5],
}
USES = {  # of what is written to, and of what is outside autograd
    "written to": lambda p: (p.mul_(2), p.sum())[1],
    "a part written to": lambda p: (p[1:].mul_(3), p.sum())[1],
    "set to zero": lambda p: (p.zero_(), (p + 1).sum())[1],
    "detached": lambda p: (p.detach() * p).sum(),
    "a part of what was detached": lambda p: (p.detach()[1:] * p[1:]).sum(),
    "detached and written to": lambda p: (p.detach().mul_(2), p.sum())[1],
    "its data": lambda p: (p.data * p).sum(),
}


def used(run, group, of, records):
    """Return what a program makes of a part in flight, what is then in the part and the whole, and the gradient."""
    w = torch.arange(12.0).view(3, 4).requires_grad_(records)
    y = fc.all_reduce(w, "sum", group)
    part = of(y)
    loss = run(part)
    loss = loss + (part * part).sum()
    if loss.requires_grad:
        loss.backward()
    return [loss.detach(), part.detach().clone(), y.detach().clone(), torch.zeros(()) if w.grad is None else w.grad]


def used_otherwise(group):
    """Return which parts compiled code uses otherwise than eager code."""
    found = []
    for name, use in USES.items():
        for part, of in PARTS.items():
            for records in (False, True):
                torch.compiler.reset()
                compiled = torch.compile(use, backend=aot_autograd(fw_compiler=plain_inputs), fullgraph=True)
                try:
                    expected = used(use, group, of, records)
                    torch.testing.assert_close(used(compiled, group, of, records), expected)
                except Exception as error:
                    found.append(f"{part}, {name}, {records=}: {error}")
    return found


def test_compiled_code_writes_to_parts_and_detaches_them_as_eager_code_does():
    assert run_ranks(used_otherwise, 2, timeout=300.0) == [[], []]


def compiled_for_sizes(group):
    """Return how often compiled code is made anew for parts of four sizes, in flight and as plain tensors."""

    def count(of, start):
        torch.compiler.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(lambda p: p * 2, backend=counter, fullgraph=True)
        for rows in range(3, 7):
            x = torch.arange(rows * 4.0).view(rows, 4)
            assert torch.equal(compiled(of(start(x))), of(x) * 2), rows
        return counter.frame_count

    parts = {**PARTS, "viewed": lambda y: y.view(-1), "a detached part": lambda y: y[2:].detach()}
    return {
        name: (count(of, lambda x: fc.all_reduce(x, "max", group)), count(of, lambda x: x))
        for name, of in parts.items()
    }


def test_parts_of_another_size_are_compiled_as_often_as_plain_ones():
    for counts in run_ranks(compiled_for_sizes, 2, timeout=300.0):
        assert {name: in_flight for name, (in_flight, _) in counts.items()} == {
            name: plain for name, (_, plain) in counts.items()
        }
        assert counts["rows"] == (2, 2)


def detached_and_given_back(group):
    """Return what a graph gives of the part that it detaches, writes to and gives back, and the part."""
    found = []
    for of in PARTS.values():
        torch.compiler.reset()
        part = of(fc.all_reduce(torch.arange(12.0).view(3, 4), "max", group))
        given = torch.compile(lambda p: p.detach().add_(1), backend="aot_eager", fullgraph=True)(part)
        found.append((given.tolist(), part.tolist(), (of(torch.arange(12.0).view(3, 4)) + 1).tolist()))
    return found


def test_a_graph_gives_back_the_part_that_it_has_detached_and_written_to():
    for given, part, expected in run_ranks(detached_and_given_back, 2, timeout=300.0)[0]:
        assert given == part == expected


PAIRS = {  # of inputs that share memory
    "one part twice": lambda y: (y[0], y[0]),
    "parts that overlap": lambda y: (y[0], y.view(-1)[2:6]),
    "one taken in flight and one after the wait": lambda y: (y[0], (y.wait(), y.view(-1)[2:6])[1]),
    "a part and the whole": lambda y: (y[0], y),
    "what was waited for and the result": lambda y: (y.wait(), y),
    "a part, and one of what was waited for": lambda y: (y[0], y.wait()[0]),
}


def told_of_pairs(group):
    """Return what compiled code makes of inputs that share memory, where it reads them and where it writes to one."""

    def read(a, b):
        return (a.sum() * b.sum()).item()

    def write(a, b):
        a.mul_(2)
        return b * 3

    found = {}
    for name, of in PAIRS.items():
        for records in (False, True):
            w = torch.arange(8.0).view(2, 4).requires_grad_(records)
            torch.compiler.reset()
            same = torch.compile(read, backend="aot_eager")(*of(fc.all_reduce(w * 1, "sum", group)))
            if same != read(*of(fc.all_reduce(w * 1, "sum", group))):
                found[name, records, "read"] = same
            try:
                found[name, records] = torch.compile(write, backend="aot_eager")(
                    *of(fc.all_reduce(w * 1, "sum", group))
                )
            except torch._dynamo.exc.BackendCompilerFailed as error:
                if "aliased inputs" not in str(error).lower():
                    found[name, records] = str(error)
    return found


def test_a_graph_that_writes_to_memory_of_two_inputs_is_refused_and_one_that_reads_it_is_right():
    assert run_ranks(told_of_pairs, 2, timeout=300.0) == [{}, {}]


def compiled_backwards(group):
    """Return of which forms, saved by eager code, compiled autograd computes another gradient."""
    found = []
    for form in ("in flight", "waited for", "a part", "a part of what was waited for", "turned", "written to"):
        for call in CALLS:
            torch.compiler.reset()
            eager = outcome(program, group, call, FORMS[form], True)
            try:
                with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
                    compiled = outcome(program, group, call, FORMS[form], True)
                torch.testing.assert_close(compiled, eager)
            except Exception as error:
                found.append(f"{form}, {call}: {error}")
    return found


def test_compiled_autograd_takes_results_in_flight_that_eager_code_saved():
    assert run_ranks(compiled_backwards, 2, timeout=300.0) == [[], []]


def a_part_in_inductors_code(group):
    torch.compiler.reset()
    y = fc.all_reduce(torch.arange(16.0).view(4, 4), "sum", group)[:, 1:3]
    return torch.compile(lambda y: y * 2, fullgraph=True)(y).tolist()


def test_inductors_code_reads_a_part_of_a_result_in_flight():
    assert run_ranks(a_part_in_inductors_code, 2, timeout=300.0)[0][0] == [4.0, 8.0]
