"""A result in flight: views do not wait, everything else does, and nothing is lost on the way."""

import copy
import pickle

import pytest
import torch

import functional_collectives as fc
from comm_core import Pending, World, errors
from functional_collectives.flight import in_flight


class Work:
    """A piece of work that counts how often it is waited for and fills its buffer then."""

    def __init__(self, buffer, value):
        self.buffer, self.value, self.waits = buffer, value, 0

    def wait(self):
        self.waits += 1
        self.buffer.fill_(self.value)


def started(*shape, value=7.0, dtype=torch.float32):
    buffer = torch.zeros(shape, dtype=dtype)
    work = Work(buffer, value)
    return in_flight(Pending(buffer, work, what="all_reduce")), work


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.view(3, 4),
        lambda x: x.t(),
        lambda x: x[1:],
        lambda x: x[0],
        lambda x: x.unsqueeze(0),
        lambda x: x.transpose(0, 1)[1].view(2, 2),
        lambda x: x.expand(2, 4, 3),
        lambda x: x.detach(),
        lambda x: x.split([1, 3])[1],
        lambda x: x.unbind(1)[2],
        lambda x: x.chunk(2)[1][0],
        lambda x: x.view(torch.int32),
        lambda x: x.as_strided((2, 2), (1, 3)),
        lambda x: x[1].detach()[1:],
    ],
)
def test_a_view_does_not_wait_and_has_the_right_values_later(view):
    x, work = started(4, 3)
    viewed = view(x)
    expected = view(torch.full((4, 3), 7.0))
    assert work.waits == 0
    assert isinstance(viewed, fc.AsyncCollectiveTensor)
    assert (viewed.shape, viewed.dtype, viewed.stride()) == (expected.shape, expected.dtype, expected.stride())
    assert viewed.storage_offset() == expected.storage_offset()
    assert torch.equal(viewed.clone(), expected)
    assert work.waits == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: torch.ones(4, 3) * x,
        lambda x: x.sum(),
        lambda x: x.clone(),
        lambda x: x.to(torch.float64),
        lambda x: torch.cat([x, x]),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: repr(x),
        lambda x: x[0, 0].item(),
        lambda x: x.data_ptr(),
        lambda x: pickle.dumps(x),
        lambda x: copy.deepcopy(x),
        lambda x: bool((x == 7).all()),
        lambda x: torch.from_dlpack(x.wait()),
        lambda x: x.contiguous() + 0,
    ],
)
def test_every_other_use_waits_once(use):
    x, work = started(4, 3)
    use(x)
    use(x)
    assert work.waits == 1


def test_uses_see_the_finished_values():
    x, _ = started(2)
    assert (x + 1).tolist() == [8.0, 8.0]
    for made in (x.tolist(), x.numpy().tolist(), pickle.loads(pickle.dumps(x)).tolist(), copy.deepcopy(x).tolist()):
        assert made == [7.0, 7.0]
    assert "7., 7." in repr(x)
    assert x.wait().data_ptr() == x.data_ptr()


def test_results_of_uses_are_plain_tensors():
    x, _ = started(2)
    assert type(x + 1) is torch.Tensor
    assert type(fc.wait_tensor(x)) is torch.Tensor
    assert type(copy.deepcopy(x)) is torch.Tensor


def test_an_in_place_op_gives_the_tensor_itself_back():
    x, work = started(2)
    y = x.add_(1)
    assert y is x
    assert work.waits == 1
    assert x.tolist() == [8.0, 8.0]


def test_a_write_through_a_view_reaches_the_base():
    x, _ = started(2, 2)
    x[0].fill_(1.0)
    assert x.tolist() == [[1.0, 1.0], [7.0, 7.0]]


def test_dtype_and_shape_questions_do_not_wait():
    x, work = started(4, 3)
    assert (x.shape, x.dtype, x.device.type, x.ndim, x.numel(), len(x), x.is_contiguous()) == (
        (4, 3),
        torch.float32,
        "cpu",
        2,
        12,
        4,
        True,
    )
    assert work.waits == 0


def test_inflight_names_the_collective_and_the_line_that_started_it():
    x, _ = started(5)
    (record,) = [record for record in fc.inflight() if record.shape == (5,)]
    assert record.name == "all_reduce"
    assert __file__ in record.where
    x.wait()
    assert not [record for record in fc.inflight() if record.shape == (5,)]


def test_waiting_is_differentiable_and_so_is_every_use():
    class Start(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            buffer = torch.zeros_like(x)
            return in_flight(Pending(buffer, Work(buffer, 3.0)))

        @staticmethod
        def backward(ctx, grad):
            return grad * 10

    for use in (lambda y: fc.wait_tensor(y) * 2, lambda y: y.wait() * 2, lambda y: y * 2, lambda y: y.view(-1) * 2):
        x = torch.ones(2, requires_grad=True)
        use(Start.apply(x)).sum().backward()
        assert x.grad.tolist() == [20.0, 20.0]


@pytest.mark.parametrize("wait", [fc.wait_tensor, lambda y: y.wait()], ids=["wait_tensor", "wait"])
@pytest.mark.parametrize("dim", [0, 1])
def test_what_was_waited_for_without_grad_does_not_require_it(dim, wait):
    def body(group):
        y = fc.all_gather_tensor(torch.ones(2, 2, requires_grad=True), dim, group)
        with torch.no_grad():
            plain = wait(y)
        weight = torch.ones(plain.shape, requires_grad=True)
        product = (plain * weight).sum()
        with torch.no_grad():
            y.add_(1)  # of which the copy without a history hears
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()
        return plain.requires_grad, plain.grad_fn, wait(y).requires_grad

    assert World(2).run(body) == [(False, None, True)] * 2


def test_a_failed_wait_keeps_failing():
    class Broken:
        def wait(self):
            raise RuntimeError("connection reset")

    x = in_flight(Pending(torch.zeros(2), Broken(), what="all_gather"))
    for _ in range(2):
        with pytest.raises(errors.TransportError, match="all_gather: got connection reset"):
            x + 1


def test_compiled_code_takes_what_is_in_flight():
    x, work = started(3)
    compiled = torch.compile(lambda a: a * 2 + 1, backend="aot_eager", fullgraph=True)
    assert compiled(x).tolist() == [15.0, 15.0, 15.0]
    assert work.waits == 1


def _finish_in_modes(group):
    from torch._subclasses.fake_tensor import FakeTensorMode

    import functional_collectives as fc

    x = torch.ones(2, 2) * group.rank
    first = fc.all_gather_tensor(x, 1)
    with torch.inference_mode():
        first.sum()
    second = fc.all_gather_tensor(x, 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        second + 1
    return first.wait().is_inference(), first.add_(1).sum().item(), type(second.wait()).__name__, second.sum().item()


@pytest.mark.world(1, 3)
def test_the_mode_of_the_first_use_does_not_stick_to_the_result(world):
    n = world.size
    total = 4.0 * sum(range(n))
    assert world.run(_finish_in_modes) == [(False, total + 4 * n, "Tensor", total)] * n


def _write_before_wait(group):
    import functional_collectives as fc
    from comm_core.errors import ArgumentError

    said = []
    for start in (
        lambda x: fc.all_gather_tensor(x, 0),
        lambda x: fc.all_to_all_single(x, None, None),
        lambda x: fc.reduce_scatter_tensor(x, "sum", 0),
        lambda x: fc.all_reduce(x, "sum"),
        lambda x: fc.broadcast(x, 0),
        lambda x: fc.all_gather_tensor(x.t(), 0),
        lambda x: fc.reduce_scatter_tensor(x, "sum", 1),
    ):
        x = torch.ones(6, 6)
        y = start(x)
        x.zero_()
        try:
            said.append(bool((y != 0).all()))
        except ArgumentError:
            said.append("refused")
    rows = torch.ones(4, 3)
    parts = [fc.all_gather_tensor(row, 0) for row in rows]
    return said, [part.sum().item() for part in parts]


@pytest.mark.world(1, 3)
def test_a_write_to_what_is_being_sent_is_refused_and_any_other_is_not(world):
    for said, sums in world.run(_write_before_wait):
        alone = world.size == 1  # then dim 1 needs no rearrangement, and the input itself is sent
        assert said == ["refused"] * 3 + [True] * 3 + ["refused" if alone else True]
        assert sums == [3.0 * world.size] * 4


def test_odd_uses_wait_too():
    x, work = started(1)
    assert f"{x[0]:.2f}" == "7.00"
    assert work.waits == 1
    y, _ = started(2, 3)
    with pytest.raises(errors.ArgumentError, match=r"use x\.wait\(\)"):
        y.t_()
    z, _ = started(2, dtype=torch.complex64)
    assert z.conj().imag.tolist() == [0.0, 0.0]
    assert z.conj().is_conj()


def test_an_operator_that_takes_functions_is_handed_the_wait():
    """docs/understand/waiting.md says so; it has to stop when torch has a rule for classes that it does not know."""
    y, _ = started(2)
    with pytest.raises(NotImplementedError, match="cond"):
        torch.cond(torch.tensor(True), torch.neg, torch.abs, (y,))
    assert torch.cond(torch.tensor(True), torch.neg, torch.abs, (y.wait(),)).tolist() == (-y).tolist()


BEFORE_IT_IS_USED = {"a result": lambda: started(2)[0], "a view": lambda: started(2, 2)[0][0]}


@pytest.mark.parametrize("written", ["the result", "a view of it", "what wait gave"])
@pytest.mark.parametrize("saved", ["the result", "what wait gave", "the result of a function"])
@pytest.mark.parametrize("made", BEFORE_IT_IS_USED)
def test_a_write_to_one_of_a_result_and_its_wait_is_seen_by_what_the_other_was_saved_for(made, saved, written):
    x = BEFORE_IT_IS_USED[made]()
    weight = torch.ones(2, requires_grad=True)
    plain = x.wait() if "wait" in saved else None
    product = (torch.mul(x, weight) if "function" in saved else (x if plain is None else plain) * weight).sum()
    {"the result": lambda: x, "a view of it": lambda: x[:1], "what wait gave": x.wait}[written]().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


WRITES_TO_LISTS = {
    "zeros": lambda x: torch._foreach_zero_([torch.ones(3), x]),
    "a product": lambda x: torch._foreach_mul_([x], torch.tensor(2.0)),
    "a part": lambda x: torch._foreach_add_([x[:1]], 1.0),
    "a copy": lambda x: torch._foreach_copy_((x,), (torch.zeros(2),)),
    "out": lambda x: torch.split_copy(torch.zeros(4), 2, out=[x, torch.zeros(2)]),
}


@pytest.mark.parametrize("write", WRITES_TO_LISTS.values(), ids=WRITES_TO_LISTS)
@pytest.mark.parametrize("saved", ["the result", "what wait gave"])
@pytest.mark.parametrize("made", BEFORE_IT_IS_USED)
def test_a_write_to_a_list_of_results_is_seen_by_what_they_were_saved_for(made, saved, write):
    x = BEFORE_IT_IS_USED[made]()
    plain = x.wait() if "wait" in saved else x
    product = (torch.mul(plain, torch.ones(2, requires_grad=True))).sum()
    write(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("other", ["plain", "in flight"])
def test_what_stands_beside_a_result_in_a_list_is_seen_to_be_written_too(other):
    beside = {"plain": lambda: torch.ones(2), "in flight": lambda: started(2)[0]}[other]()
    product = torch.mul(beside, torch.ones(2, requires_grad=True)).sum()
    torch._foreach_zero_([started(2)[0], beside])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_lists_are_written_with_a_gradient_and_in_inference_mode():
    x, weight = started(2)[0], torch.full((2,), 2.0, requires_grad=True)
    torch._foreach_mul_([x], [weight])
    (x * 3).sum().backward()
    assert (x.tolist(), weight.grad.tolist()) == ([14.0, 14.0], [21.0, 21.0])
    given = started(2)[0]
    given.wait()
    with pytest.raises(errors.GradientError, match="to one of a result and its wait"):
        torch._foreach_mul_([given], [weight])
    with torch.inference_mode():
        y, _ = started(2)
        torch._foreach_add_([y], 1.0)
        assert y.tolist() == [8.0, 8.0]


def test_a_write_to_a_result_is_seen_by_the_collective_that_it_was_given_to():
    def body(group):
        x = torch.ones(2, 2, requires_grad=True)
        y = fc.all_gather_tensor(x, 1, group)
        largest = fc.all_reduce(y, "max", group).sum()
        with torch.no_grad():
            y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            largest.backward()

    World(1).run(body)


def test_the_transports_own_writes_do_not_count():
    x, work = started(2)
    weight = torch.ones(2, requires_grad=True)
    product = (x * weight).sum()
    work.buffer.add_(0)  # as a backend may that is late with its bookkeeping
    product.backward()
    assert weight.grad.tolist() == [7.0, 7.0]


def test_a_write_in_place_with_a_gradient_is_not_lost_on_the_other_one():
    weight = torch.full((2,), 3.0, requires_grad=True)
    x, _ = started(2)
    x.mul_(weight)  # alone, it is as with any tensor
    x.sum().backward()
    assert weight.grad.tolist() == [7.0, 7.0]

    x, _ = started(2)
    plain = x.wait()
    plain.mul_(weight)
    with pytest.raises(errors.GradientError, match="in-place write with a gradient"):
        x + 1
    x, _ = started(2)
    x.wait()
    with pytest.raises(errors.GradientError, match="in-place write with a gradient"):
        x.mul_(weight)
    x, _ = started(2)
    x.wait()
    with torch.no_grad():
        x.mul_(weight)
    assert (x + 0).tolist() == [21.0, 21.0]


def numbers(dtype=torch.float32):
    """Results without dims, in flight: a whole, a part, and one that is detached."""
    return [started(dtype=dtype)[0], started(3, dtype=dtype)[0][1], started(dtype=dtype)[0].detach()]


FROM_NUMBERS = {
    "tensor": lambda: torch.tensor(numbers()),
    "tensor of ints": lambda: torch.tensor(numbers(torch.int64)),
    "tensor of bools": lambda: torch.tensor(numbers(torch.bool)).int() * 7,
    "tensor of complex": lambda: torch.tensor(numbers(torch.complex64)).real,
    "tensor of another dtype": lambda: torch.tensor(numbers(torch.int64), dtype=torch.bfloat16),
    "tensor of single elements": lambda: torch.tensor([started(1)[0], started(1)[0][:1], started(3)[0][:1].detach()]),
    "Tensor": lambda: torch.Tensor(numbers()),
    "FloatTensor": lambda: torch.FloatTensor(numbers()),
    "new_tensor": lambda: torch.ones(1).new_tensor(numbers()),
    "as_tensor": lambda: torch.as_tensor(numbers()),
    "asarray": lambda: torch.asarray(numbers()),
    "sparse_coo_tensor": lambda: torch.sparse_coo_tensor([[0, 1, 2]], numbers(), (3,)).to_dense(),
    "index": lambda: torch.arange(8)[None].expand(8, 8)[numbers(torch.int64), numbers(torch.int64)],
    "range": lambda: torch.tensor([len(range(one)) for one in numbers(torch.int64)]),
}


@pytest.mark.parametrize("made", FROM_NUMBERS)
def test_a_number_in_flight_that_is_read_in_a_list_waits(made):
    """Torch reads these without dispatch, so that no class hears of it: they gave what was there before the wait."""
    assert FROM_NUMBERS[made]().tolist() == [7] * 3


def _states(group):
    """Whether a generator refuses a state that has not arrived, and the state that it takes then."""
    found = []
    for setting in (torch.set_rng_state, torch.Generator().set_state):
        torch.manual_seed(group.rank)
        state = fc.broadcast(torch.get_rng_state(), 1, group)
        try:
            setting(state)
        except RuntimeError as error:
            found.append("not allocated" in str(error))
        torch.set_rng_state(state.wait())
        found.append(torch.rand(1).item())
    return found


@pytest.mark.world(2)
def test_a_generator_takes_no_state_that_has_not_arrived(world):
    torch.manual_seed(1)
    want = torch.rand(1).item()
    assert world.run(_states) == [[True, want, True, want]] * 2


@pytest.mark.parametrize("finished", [False, True])
def test_a_compiled_step_of_an_optimizer_takes_gradients_that_are_plain(finished):
    """docs/understand/waiting.md says so; it has to stop when torch takes the class of a gradient for its own."""
    weight = torch.zeros(2, requires_grad=True)
    gradient, _ = started(2)
    weight.grad = gradient.wait() if finished else gradient
    step = torch.compile(torch.optim.SGD([weight], 1.0).step, backend="eager")
    if finished:
        step()
        assert weight.tolist() == [-7.0, -7.0]
        return
    with pytest.raises(Exception, match="SymbolicContext"):
        step()


def test_a_view_that_takes_other_tensors_waits():
    x, work = started(3)
    nested = torch.nested.nested_tensor_from_jagged(x, torch.tensor([0, 1, 3]))
    assert work.waits == 1
    assert [one.tolist() for one in nested.unbind()] == [[7.0], [7.0, 7.0]]


MEMORY = {
    "untyped_storage": lambda x: torch.empty(0).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride()),
    "storage": lambda x: torch.tensor(list(x.storage())).as_strided(x.shape, x.stride(), x.storage_offset()),
    "set_": lambda x: torch.empty(0).set_(x),
    "dlpack": torch.from_dlpack,
    "numpy": lambda x: torch.from_numpy(x.numpy()),
    "shared memory": lambda x: x.share_memory_(),
}


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("made", ["the buffer", "rearranged", "a view"])
@pytest.mark.parametrize("way", MEMORY)
def test_whoever_asks_for_the_memory_waits_and_gets_the_values(way, made):
    x, work = started(4)
    if made == "a view":
        x = x[1:]
    elif made == "rearranged":
        x.wait()
        buffer = torch.zeros(4)
        work = Work(buffer, 7.0)
        x = in_flight(Pending(buffer, work).then(lambda row: row.view(2, 2).t().contiguous(), (2, 2)))
    assert torch.equal(MEMORY[way](x), torch.full(x.shape, 7.0))
    assert work.waits == 1
    assert x.is_shared() is (way == "shared memory")


def started_leaf():
    return started(2, 2)[0].requires_grad_()


LEAVES = {
    "a leaf": (started_leaf, torch.Tensor),
    "a view": (lambda: started(2, 3)[0][:, 1:].detach().requires_grad_(), torch.Tensor),
    "a parameter": (lambda: torch.nn.Parameter(started(2, 2)[0]), torch.nn.Parameter),
    "a parameter of what was used": (lambda: torch.nn.Parameter(used(started(2, 2)[0])), torch.nn.Parameter),
    "a frozen parameter": (lambda: torch.nn.Parameter(started(2, 2)[0], requires_grad=False), torch.nn.Parameter),
}


def used(x):
    x.sum()
    return x


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
@pytest.mark.parametrize("what", LEAVES)
def test_a_copy_of_a_leaf_is_a_leaf_of_the_same_kind(what, copied):
    make, kind = LEAVES[what]
    x = make()
    y = copied(x)
    assert (type(y), y.is_leaf, y.requires_grad) == (kind, True, x.requires_grad)
    assert y.tolist() == [[7.0, 7.0], [7.0, 7.0]]
    assert y.data_ptr() != x.data_ptr()


def test_a_module_that_holds_what_is_in_flight_is_copied_and_a_gradient_with_its_leaf():
    linear = torch.nn.Linear(2, 2, bias=False)
    linear.weight = torch.nn.Parameter(started(2, 2)[0])
    twin, again = copy.deepcopy([linear, linear])
    assert twin is again
    twin(torch.ones(1, 2)).sum().backward()
    assert [name for name, _ in twin.named_parameters()] == ["weight"]
    assert twin.weight.grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert linear.weight.grad is None
    leaf = started_leaf()
    (leaf * 3).sum().backward()
    assert copy.deepcopy(leaf).grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    with pytest.raises(RuntimeError, match="created explicitly"):  # as of any tensor with a history
        copy.deepcopy(linear.weight * 1)
    with pytest.raises(RuntimeError, match="created explicitly"):
        copy.deepcopy(started_leaf().view(4))


@pytest.mark.parametrize("make", [lambda: started(2)[0], lambda: started(2, 2)[0][0]], ids=["a result", "a view"])
def test_data_set_is_data_had(make):
    x, others = make(), torch.ones(3, dtype=torch.float64)
    before = x[:1]
    x.data = others
    x.add_(1)
    assert (before.tolist(), others.tolist(), x.wait().dtype) == ([7.0], [2.0, 2.0, 2.0], torch.float64)
    assert (x.tolist(), x[1:].tolist(), x.data_ptr()) == ([2.0] * 3, [2.0] * 2, others.data_ptr())
    module = torch.nn.Linear(2, 1, bias=False)
    module.weight = torch.nn.Parameter(make().view(1, 2))
    assert module.double()(torch.ones(1, 2).double()).item() == 14.0
    module.weight.data = torch.zeros(1, 2)
    assert module.weight.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("make", [lambda: started(4)[0], lambda: started(2, 2)[0].view(4)], ids=["a result", "a view"])
def test_data_is_the_finished_memory_outside_autograd(make):
    x, weight = make(), torch.ones(4, requires_grad=True)
    product = torch.mul(x, weight).sum()
    data = x.data
    assert (type(data), data.requires_grad, data.tolist()) == (torch.Tensor, False, [7.0] * 4)
    data.mul_(2)  # which autograd is not to see
    product.backward()
    assert (x.tolist(), weight.grad.tolist()) == ([14.0] * 4, [14.0] * 4)
    layer = torch.nn.Linear(1, 2)
    torch.nn.utils.vector_to_parameters(make(), layer.parameters())
    assert (layer.weight.tolist(), layer.bias.tolist()) == ([[7.0], [7.0]], [7.0, 7.0])


def test_completed_tells_whether_it_was_waited_for():
    x, _ = started(2)
    assert not x.completed
    x.trigger_wait()
    assert x.completed


def test_a_dropped_result_is_reported_with_the_users_line():
    with pytest.warns(errors.UnwaitedWarning, match=r"all_reduce: the result, started at .*test_async_tensor\.py:\d+"):
        started(2)


PARTS = {
    "a row": lambda x: x[1],
    "rows": lambda x: x[1:],
    "a column": lambda x: x[:, 1],
    "a transposed part": lambda x: x.t()[1:],
    "a piece": lambda x: x.split([1, 3])[1],
    "a part of a part": lambda x: x[1:].detach()[1],
}


@pytest.mark.parametrize("finish", [lambda x: x, fc.wait_tensor], ids=["in flight", "waited for"])
@pytest.mark.parametrize("detach", [lambda x: x.detach(), lambda x: x.data], ids=["detach", "data"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_detached_part_is_written_with_a_gradient(part, detach, finish):
    def written(x):
        y = finish(detach(part(x)))
        weight = torch.full(y[1:].shape, 3.0, requires_grad=True)
        y[1:].mul_(weight)
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
        return weight.grad.tolist(), y.tolist()

    assert written(started(4, 3)[0]) == written(torch.full((4, 3), 7.0))


def test_a_view_after_the_wait_is_plain_and_no_way_around_the_history_of_the_wait():
    x, _ = started(2, 3)
    x.wait()
    assert all(type(view) is torch.Tensor for view in (x[0], x.t(), x.view(-1), *x.unbind(0)))
    x.wait().mul_(torch.ones(2, 3, requires_grad=True))
    for view in (lambda: x[0], x.t, lambda: x.reshape(-1)):
        with pytest.raises(errors.GradientError, match="in-place write with a gradient"):
            view()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_detached_part_goes_into_compiled_code(backend):
    x, _ = started(4, 3)
    torch._dynamo.reset()
    assert torch.compile(lambda y: y[1:] * 2, backend=backend, fullgraph=True)(x[1].detach()).tolist() == [14.0, 14.0]


@pytest.mark.parametrize("made", [False, True], ids=["made outside", "made inside"])
@pytest.mark.parametrize("view", [lambda x: x[1:], lambda x: x.detach(), lambda x: x[1].detach()[1:]])
def test_a_view_is_an_inference_tensor_where_the_result_is_one(made, view):
    with torch.inference_mode(made):
        x, work = started(3, 2)
    with torch.inference_mode(not made):
        viewed = view(x)
        assert (work.waits, viewed.is_inference()) == (0, made)
        assert viewed.wait().is_inference() == made


@pytest.mark.parametrize("part", [lambda x: x, lambda x: x[1:]], ids=["all", "a part"])
def test_functions_of_python_are_put_through_the_finished_values(part):
    x, work = started(3)
    y = part(x)
    assert y.apply_(lambda value: value + 1) is y
    assert y.map_(started(*y.shape, value=2.0)[0], lambda value, other: value * other) is y
    assert (y.tolist(), work.waits) == ([16.0] * len(y), 1)
    assert x.tolist()[-1] == 16.0
    with pytest.raises(RuntimeError, match="requires grad"):
        started(3)[0].requires_grad_().apply_(abs)


def _written_and_sent(group):
    """Send a result whose `wait()` was written with a gradient."""
    said = []
    for send in (fc.all_reduce, lambda y, *args: fc.all_reduce_coalesced([y, y], *args)):
        y = fc.all_reduce(torch.ones(2), "sum", group)
        y.wait().mul_(torch.ones(2, requires_grad=True))
        with pytest.raises(errors.GradientError, match="in-place write with a gradient"):
            send(y, "sum", group)
        said.append(fc.wait_tensor(y).requires_grad)
    return said


@pytest.mark.world(1, 2)
def test_a_collective_of_what_was_written_elsewhere_does_not_lose_its_gradient(world):
    assert world.run(_written_and_sent) == [[True] * 2] * world.size


def test_a_result_has_a_dict_only_for_what_is_put_there():
    y, _ = started(2)
    assert y.wait() is y.wait()
    assert not vars(y)
    y.of_the_user = 1
    assert vars(y) == {"of_the_user": 1}


def test_every_result_says_whether_its_buffer_was_given():
    whole, _ = started(2, 2)
    results = [whole, whole.t(), whole.detach(), whole[0], *whole.unbind(0)]
    assert [each._given for each in results] == [False] * len(results)
    whole.wait()
    assert [each._given for each in results] == [True] + [False] * (len(results) - 1)
