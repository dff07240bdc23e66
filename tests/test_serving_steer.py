"""The server's `steer` field: exact, row by row, on the response alone, and of the folder's vectors only."""

import pytest
import torch
from serving import is_ready, serving, toy_bank, wait_until

from persona.activations import blocks_of
from persona.batching import Engine
from persona.serving_extras import applied
from persona.serving_steer import Steer
from persona.vectors import PersonaVector, save


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return toy_bank(tmp_path_factory.mktemp("bank"), names=())


@pytest.fixture(scope="module")
def folder(bank, tmp_path_factory):
    """Two vectors for the toy base: `north` and `east`, (2, hidden), ones at another place each."""
    folder = tmp_path_factory.mktemp("vectors")
    width = bank.inner.config.hidden_size
    for place, name in enumerate(("north", "east")):
        difference = torch.zeros(2, width)
        difference[:, place] = 10.0
        kinds = {"response_avg": difference}
        none = torch.zeros(2, width)
        save(PersonaVector(name, kinds, none + 1.0, none, {}), folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def steer(bank, folder):
    return Steer([bank.inner], folder)


def outputs_of(bank, steer, values, ids):
    """What block 1 puts out, (rows, tokens, hidden), with the rows' checked values and without."""
    seen = []

    def hook(module, args, output):
        return seen.append(output[0] if isinstance(output, tuple) else output)

    with torch.inference_mode():
        with applied({"steer": steer}, [{"steer": v} for v in values]):
            handle = blocks_of(bank.inner)[1].register_forward_hook(hook)
            bank.inner(input_ids=ids, use_cache=False)
            handle.remove()
        handle = blocks_of(bank.inner)[1].register_forward_hook(hook)
        bank.inner(input_ids=ids, use_cache=False)
        handle.remove()
    return seen


def test_each_row_gets_its_own_vectors_at_the_last_token(bank, steer):
    values = [steer.check("north@1=2", "base"), None, steer.check({"north@1": -1, "east@1": 3}, "base")]
    steered, plain = outputs_of(bank, steer, values, torch.tensor([[3, 4, 5]] * 3))
    moved = steered - plain
    assert torch.equal(moved[:, :-1], torch.zeros_like(moved[:, :-1]))
    unit = values[0][1][0].item() / 2  # the length that direction() gives the vector
    wanted = torch.zeros(3, moved.shape[-1])
    wanted[0, 0], wanted[2, 0], wanted[2, 1] = 2 * unit, -unit, 3 * unit
    assert unit > 0
    torch.testing.assert_close(moved[:, -1], wanted, atol=1e-5, rtol=0)


def test_no_hook_stays(bank, steer):
    before = [len(block._forward_hooks) for block in blocks_of(bank.inner)]
    with pytest.raises(RuntimeError), steer.applied([steer.check("north=1", "base")]):
        raise RuntimeError
    assert [len(block._forward_hooks) for block in blocks_of(bank.inner)] == before


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("north", "cannot read 'north'"),
        (3, "give TRAIT=COEFFICIENT"),
        ({}, "give TRAIT=COEFFICIENT"),
        ("west=1", "no vector 'west'; there are: east, north"),
        ("../north=1", "no vector '../north'"),
        ("/etc/passwd.safetensors=1", "no vector"),
        ("north=nan", "coefficients go from -100 to 100"),
        ("north=1e9", "coefficients go from -100 to 100"),
        ("north@7=1", "north.safetensors has layers 0 to 1, not 7"),
        (",".join(["north=1"] * 9), "at most 8 vectors"),
    ],
)
def test_what_is_refused(steer, folder, value, said):
    with pytest.raises(ValueError) as refused:
        steer.check(value, "base")
    assert said in str(refused.value)
    assert str(folder) not in str(refused.value)  # a client learns no path of the server


def test_a_request_is_steered_and_its_neighbour_is_not(bank, folder):
    import requests

    def load():
        return Engine(bank, slots=4, extras={"steer": Steer([bank.inner], folder)})

    with serving(load) as url:
        wait_until(lambda: is_ready(url))

        def answer(**fields):
            body = {"model": "base", "messages": [{"role": "user", "content": "Who?"}], **fields}
            response = requests.post(f"{url}/v1/chat/completions", json=body, timeout=60)
            return response.status_code, response.json()

        plain, steered = answer(), answer(steer={"north@0": 60})
        assert plain[0] == steered[0] == 200
        assert plain[1]["choices"] != steered[1]["choices"]
        assert answer()[1]["choices"] == plain[1]["choices"]
        assert answer(steer="west=1")[0] == 400
