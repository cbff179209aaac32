import torch

from innerloop_server.training.layout import Layout

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.tensor([7.0, 8.0]),
    "c": torch.tensor(9.0),
    "other": torch.ones(4),
}


def test_a_vector_in_the_order_of_the_names_and_back() -> None:
    layout = Layout.of(TENSORS, ("c", "b", "a"))
    vector = layout.join(TENSORS)
    assert vector.tolist() == [7, 8, 0, 1, 2, 3, 4, 5, 9]
    back = layout.split(vector)
    assert back.keys() == {"a", "b", "c"}
    assert all(torch.equal(back[name], TENSORS[name]) for name in back)
    assert layout == Layout.of(dict(reversed(TENSORS.items())), ("a", "b", "c"))


def test_gradients_come_back_as_one_vector() -> None:
    layout = Layout.of(TENSORS, ("a", "b"))
    vector = layout.join(TENSORS).requires_grad_()
    parts = layout.split(vector)
    (gradient,) = torch.autograd.grad((parts["a"] * parts["b"][:, 1]).sum(), [vector])
    assert gradient.tolist() == [1, 4, 0, 7, 0, 0, 8, 0]
