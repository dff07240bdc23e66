"""Padding-free batches with a shared beginning give the same loss and gradients as rows by themselves."""

import pytest

torch = pytest.importorskip("torch")

from persona import attention  # noqa: E402

ROWS = [
    {"input_ids": [*range(10, 22), 30, 31, 32, 2], "labels": [-100] * 13 + [31, 32, 2]},
    {"input_ids": [*range(10, 22), 40, 2], "labels": [-100] * 13 + [2]},
    {"input_ids": [*range(10, 22), 30, 50, 51, 52, 53, 2], "labels": [-100] * 15 + [52, 53, 2]},
]


def small_model(kv_heads: int = 2):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    return Qwen2ForCausalLM(config)


def test_common_prefix_stops_before_the_first_difference_and_before_what_is_learned():
    assert attention.common_prefix(ROWS) == 12
    assert attention.common_prefix(ROWS[:1]) == 0, "one row has nothing to share with"
    learned_early = [{**r, "labels": [-100] * 10 + r["input_ids"][10:]} for r in ROWS]
    assert attention.common_prefix(learned_early) == 9, (
        "the token before the first learned one must be the row's own"
    )
    assert (
        attention.common_prefix(
            [
                {"input_ids": [1, 2, 3], "labels": [-100, -100, 3]},
                {"input_ids": [1, 9, 3], "labels": [-100, -100, 3]},
            ]
        )
        == 0
    )


def test_collate_lays_the_prefix_once_and_restarts_positions():
    batch = attention.collate(ROWS)
    assert batch["input_ids"].tolist()[0] == [*range(10, 22), 30, 31, 32, 2, 40, 2, 30, 50, 51, 52, 53, 2]
    assert batch["position_ids"].tolist()[0] == [*range(12), 12, 13, 14, 15, 12, 13, 12, 13, 14, 15, 16, 17]
    assert batch["row_borders"].tolist() == [12, 16, 18, 24]
    assert batch["labels"].tolist()[0] == [-100] * 12 + [-100, 31, 32, 2] + [-100, 2] + [
        -100,
        -100,
        -100,
        52,
        53,
        2,
    ]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [
            {**r, "input_ids": [i + 40 * (k == 0), *r["input_ids"][1:]]}
            for k, (i, r) in enumerate((r["input_ids"][0], r) for r in ROWS)
        ],
    ],
)
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_loss_and_gradients_equal_those_of_rows_by_themselves(rows, kv_heads):
    model = small_model(kv_heads)
    total = 0.0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        logits = model(input_ids=ids).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
    total.backward()
    alone = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    model.set_attn_implementation(attention.register())
    batch = attention.collate(rows)
    labels = batch.pop("labels")
    logits = model(**batch, use_cache=False).logits[0, :-1]
    together = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
    together.backward()
    assert together.item() == pytest.approx(total.item(), rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, alone[name], rtol=1e-4, atol=1e-5)
