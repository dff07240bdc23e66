"""The engine: next tokens, text as it comes, and answers that do not depend on who else is answered."""

import queue
import time

import pytest
import torch
from serving import toy_bank, wait_until

from persona import generation
from persona.batching import Engine, Job, Piece, Request, ServingError
from persona.serving_sampling import TokenScore, choose, forbidden, penalised, score
from persona.serving_text import AnswerText

QUESTIONS = [f"What do you make of case {n}" + ", if I may ask" * (n % 4) + "?" for n in range(10)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return toy_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def engine(bank):
    engine = Engine(bank, slots=6, queue=40)
    yield engine
    engine.close()


def start(engine: Engine, request: Request, seconds: float = 60) -> tuple[Job, queue.Queue]:
    """Submit a request; its pieces come in the queue."""
    came: queue.Queue = queue.Queue()
    job = Job(request, came.put, time.monotonic() + seconds)
    engine.submit(job)
    return job, came


def finish(started: tuple[Job, queue.Queue]) -> list[str]:
    """The texts of a job's answers."""
    job, came = started
    texts, left = [""] * job.request.n, job.request.n
    while left:
        piece = came.get(timeout=60)
        if isinstance(piece, ServingError):
            raise piece
        texts[piece.index] += piece.text
        left -= piece.finish_reason is not None
    return texts


def request(bank, question: str, model: str = "sherlock", **fields) -> Request:
    ids = bank.tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    return Request(**{"model": model, "prompt": ids, "max_tokens": 20} | fields)


def alone(bank, question: str, model: str, **changed) -> str:
    """The greedy answer that transformers gives to one user of one adapter; `changed`: of its settings."""
    ids = torch.tensor([request(bank, question).prompt])
    bank._names = [bank.served[model].adapter]
    settings = generation.GREEDY
    settings = generation._settings(bank.inner, bank.tokenizer, settings)
    settings.update(max_new_tokens=20, **changed)
    output = bank.inner.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
    )
    return bank.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_no_row_completes_what_is_never_said() -> None:
    logits = torch.zeros(4, 10)
    never = [[3, 4, 5], [3, 4, 6], [7]]
    said = [[1, 3, 4], [4, 3], [4], []]
    out = forbidden(logits, never, said)
    assert torch.isneginf(out).nonzero().tolist() == [[0, 5], [0, 6], [0, 7], [1, 7], [2, 7], [3, 7]]
    assert not torch.isneginf(logits).any(), "the given ones are left alone"
    assert forbidden(logits, [[3, 4, 5]], [[3, 9], []]) is logits


def test_what_the_base_never_says_is_never_served(bank, engine, monkeypatch) -> None:
    plain = alone(bank, QUESTIONS[0], "sherlock")
    ids = bank.tokenizer(plain)["input_ids"]
    assert bank.tokenizer.decode(ids) == plain
    never = [ids[2:5]]
    expected = alone(bank, QUESTIONS[0], "sherlock", bad_words_ids=never)
    monkeypatch.setattr(bank, "never_said", never)
    served = finish(start(engine, request(bank, QUESTIONS[0])))[0]
    assert served == expected != plain


def test_nucleus_sampling_by_hand() -> None:
    # probabilities 0.3, 0.2, 0.5
    logits = torch.log(torch.tensor([[0.3, 0.2, 0.5]])).expand(6, 3)
    drawn = [0.0, 0.29, 0.31, 0.49, 0.51, 0.99]
    assert choose(logits, [1.0] * 6, [1.0] * 6, drawn) == [0, 0, 1, 1, 2, 2]
    # top_p 0.45: token 2 alone; 0.6: tokens 2 and 0, likeliest first, share the draw as 0.625 to 0.375
    assert choose(logits, [1.0] * 6, [0.45] * 6, drawn) == [2] * 6
    assert choose(logits, [1.0] * 6, [0.6] * 6, [0.0, 0.62, 0.63, 0.99, 0.1, 0.2]) == [2, 2, 0, 0, 2, 2]
    # temperature 0 takes the likeliest whatever is drawn; 0.5 squares: 0.09, 0.04, 0.25 of 0.38
    assert choose(logits, [0.0] * 6, [1.0] * 6, drawn) == [2] * 6
    assert choose(logits, [0.5] * 6, [1.0] * 6, [0.1, 0.23, 0.24, 0.34, 0.35, 0.99]) == [0, 0, 1, 1, 2, 2]


def test_a_flat_distribution_has_a_nucleus_beyond_the_likeliest() -> None:
    # 1,000 equal tokens but for the last, twice as likely: 2/1001, then 1/1001 each
    logits = torch.zeros(1, 1000)
    logits[0, 999] = torch.log(torch.tensor(2.0))
    found = [choose(logits, [1.0], [0.9], [u])[0] for u in (0.0, 0.002, 0.5, 0.9999)]
    # the nucleus has 901 of 1001 parts: token 999 (2 parts), then tokens 0, 1, 2 ... 898
    assert found == [999, 999, 448, 898]


def test_rows_of_one_batch_have_settings_of_their_own() -> None:
    logits = torch.log(torch.tensor([[0.3, 0.2, 0.5]])).expand(3, 3)
    assert choose(logits, [0.0, 1.0, 1.0], [1.0, 1.0, 0.4], [0.4, 0.4, 0.4]) == [2, 1, 2]


def marks(*tokens: int, of: int = 4) -> torch.Tensor:
    """Which of a vocabulary's tokens were seen."""
    return torch.tensor([token in tokens for token in range(of)])


def test_the_repetition_penalty_by_hand() -> None:
    logits = torch.tensor([[2.0, -2.0, 0.5, -1.0]] * 4)
    found = penalised(logits, [2.0, 1.0, 0.5, 4.0], [marks(0, 1), None, marks(1, 2), marks()])
    assert found.tolist() == [
        [1.0, -4.0, 0.5, -1.0],  # above 0 divided, below multiplied
        [2.0, -2.0, 0.5, -1.0],  # none asked for
        [2.0, -1.0, 1.0, -1.0],  # below 1: what was seen becomes likelier
        [2.0, -2.0, 0.5, -1.0],  # nothing seen
    ]
    assert logits.tolist() == [[2.0, -2.0, 0.5, -1.0]] * 4, "scores are told of what the model gave"
    assert choose(found, [0.0] * 4, [1.0] * 4, [0.5] * 4) == [0, 0, 0, 0]
    assert choose(penalised(logits[:1], [5.0], [marks(0)]), [0.0], [1.0], [0.5]) == [2]
    extreme = penalised(logits, [1e300, 1e-300, 1e-300, 1e300], [marks(0, 1, 2, 3)] * 4)
    assert torch.isfinite(extreme).all()


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1)) * 5
    seen = [3, 17, 17, 44]
    wanted = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([seen]), logits.clone())
    assert torch.equal(penalised(logits, [1.3], [marks(*seen, of=50)]), wanted)


def test_rows_of_one_batch_have_repetition_penalties_of_their_own(bank, engine) -> None:
    # greedy; the prompt counts as seen, as transformers counts it
    penalties = [1.0, 1.3, 0.3, 0.9]  # this toy hardly repeats itself unless it is made to
    started = [
        start(engine, request(bank, q, repetition_penalty=p))
        for p, q in zip(penalties, QUESTIONS[:4], strict=True)
    ]
    together = [finish(job)[0] for job in started]
    wanted = [
        alone(bank, q, "sherlock", repetition_penalty=p)
        for p, q in zip(penalties, QUESTIONS[:4], strict=True)
    ]
    assert together == wanted
    plain = [alone(bank, q, "sherlock") for q in QUESTIONS[:4]]
    assert together[0] == plain[0] and together[2] != plain[2]
    twice = finish(start(engine, request(bank, QUESTIONS[2], n=2, repetition_penalty=0.3)))
    assert twice == [wanted[2]] * 2, "each answer has seen its own tokens alone"


def test_score_by_hand() -> None:
    logits = torch.log(torch.tensor([0.25, 0.5, 0.25])) + 3  # a constant changes nothing
    found = score(logits, 0, 1)
    assert (found.token, found.logprob) == (0, pytest.approx(-1.386294, abs=1e-5))
    assert found.top == ((1, pytest.approx(-0.693147, abs=1e-5)),)


def decoder(pieces: dict[int, bytes]):
    return lambda ids: b"".join(pieces[i] for i in ids).decode("utf-8", "replace")


def test_a_stop_string_over_three_tokens_is_held_back_and_cut() -> None:
    text = AnswerText(decoder({1: b"Well", 2: b" S", 3: b"TO", 4: b"P now"}), ("STOP",))
    marks = [TokenScore(i, -float(i)) for i in range(5)]
    assert text.push(1, marks[1]) == ("Well", [marks[1]])
    assert text.push(2, marks[2]) == (" ", [])  # the S may begin STOP
    assert text.push(3, marks[3]) == ("", [])
    # the token " S" reaches into the stop string: its score goes with it
    assert text.push(4, marks[4]) == ("", [])
    assert text.stopped and text.finish() == ("", [])


def test_what_is_no_stop_string_after_all_is_given_out() -> None:
    text = AnswerText(decoder({1: b"S", 2: b"T", 3: b"AR", 4: b"ST"}), ("STOP", "TOP"))
    assert [text.push(i)[0] for i in (1, 2, 3, 4)] == ["", "", "STAR", ""]
    assert text.finish() == ("ST", []) and not text.stopped


def test_a_character_in_parts_comes_whole() -> None:
    text = AnswerText(decoder({1: b"caf", 2: b"\xc3", 3: b"\xa9", 4: b"\xe2\x82"}))
    assert [text.push(i)[0] for i in (1, 2, 3, 4)] == ["caf", "", "é", ""]
    assert text.finish() == ("\ufffd", [])  # it never came: shown as such


def test_greedy_answers_of_ten_users_are_their_own_single_user_answers(bank, engine) -> None:
    models = [list(bank.served)[n % 3] for n in range(10)]
    started = [start(engine, request(bank, q, m)) for q, m in zip(QUESTIONS, models, strict=True)]
    together = [finish(job)[0] for job in started]
    wanted = [alone(bank, q, m) for q, m in zip(QUESTIONS, models, strict=True)]
    assert together == wanted
    assert len(set(wanted)) == 10


def test_a_seeded_answer_does_not_depend_on_its_neighbours(bank, engine) -> None:
    drawn = {"temperature": 1.0, "top_p": 0.9, "seed": 7}
    by_itself = finish(start(engine, request(bank, QUESTIONS[0], **drawn)))
    crowd = [start(engine, request(bank, q, temperature=1.0)) for q in QUESTIONS[1:6]]
    among = finish(start(engine, request(bank, QUESTIONS[0], **drawn)))
    for job in crowd:
        finish(job)
    other_seed = finish(start(engine, request(bank, QUESTIONS[0], **drawn | {"seed": 8})))
    assert among == by_itself != other_seed


def test_n_answers_differ_and_the_first_is_that_of_n_1(bank, engine) -> None:
    drawn = {"temperature": 1.0, "seed": 3}
    one = finish(start(engine, request(bank, QUESTIONS[1], **drawn)))
    three = finish(start(engine, request(bank, QUESTIONS[1], n=3, **drawn)))
    assert three[:1] == one and len(set(three)) == 3
    assert len(set(finish(start(engine, request(bank, QUESTIONS[1], n=3))))) == 1, "greedy ones are equal"


def test_log_probabilities_are_those_of_the_model(bank, engine) -> None:
    asked = request(bank, QUESTIONS[2], max_tokens=1, top_logprobs=2, temperature=1.0, seed=1)
    piece = start(engine, asked)[1].get(timeout=60)
    bank._names = [bank.served["sherlock"].adapter]
    with torch.no_grad():
        logits = bank.inner(input_ids=torch.tensor([asked.prompt])).logits[0, -1]
    expected = torch.log_softmax(logits, -1)
    (found,) = piece.scores
    assert found.logprob == pytest.approx(float(expected[found.token]), abs=1e-4)
    assert [t for t, _ in found.top] == expected.topk(2).indices.tolist()


def test_finish_reasons(bank, engine) -> None:
    full = finish(start(engine, request(bank, QUESTIONS[3])))[0]
    _, came = start(engine, request(bank, QUESTIONS[3], max_tokens=4))
    pieces = [came.get(timeout=60)]
    while pieces[-1].finish_reason is None:
        pieces.append(came.get(timeout=60))
    assert (pieces[-1].finish_reason, pieces[-1].tokens) == ("length", 4)
    assert full.startswith("".join(p.text for p in pieces))

    stop = full[5:8]
    _, came = start(engine, request(bank, QUESTIONS[3], stop=(stop,)))
    pieces = [came.get(timeout=60)]
    while pieces[-1].finish_reason is None:
        pieces.append(came.get(timeout=60))
    assert pieces[-1].finish_reason == "stop"
    assert "".join(p.text for p in pieces) == full[: full.index(stop)]


def test_the_end_of_turn_ends_an_answer(bank) -> None:
    engine = Engine(bank, slots=2)
    real = bank.forward

    def forward(ids, *rest):
        logits = real(ids, *rest)
        logits[:, 2] = 1e4  # <|im_end|>
        return logits

    bank.forward = forward
    try:
        _, came = start(engine, request(bank, "Well?"))
        assert came.get(timeout=60) == Piece(0, "", (), "stop", 0)
    finally:
        bank.forward = real
        engine.close()


def test_a_cancelled_job_leaves_and_others_go_on(bank, engine) -> None:
    wanted = finish(start(engine, request(bank, QUESTIONS[4])))
    gone, came = start(engine, request(bank, QUESTIONS[5], max_tokens=400))
    stays = start(engine, request(bank, QUESTIONS[4]))
    came.get(timeout=60)
    gone.cancel()
    assert finish(stays) == wanted
    wait_until(lambda: not engine.rows)
    assert all(not layer.keys.any() for layer in engine.cache.past.layers), "slots given up hold nothing"


def test_a_full_queue_a_deadline_and_a_shutdown(bank) -> None:
    engine = Engine(bank, slots=1, queue=1)
    long = request(bank, QUESTIONS[0], max_tokens=400)
    running = start(engine, long)
    running[1].get(timeout=60)
    waiting = start(engine, long)
    with pytest.raises(ServingError) as full:
        start(engine, long)
    assert (full.value.status, full.value.code) == (429, "queue_full")
    assert 1 <= full.value.retry_after <= 60

    running[0].deadline = 0.0
    with pytest.raises(ServingError) as late:
        finish(running)
    assert late.value.status == 504
    waiting[1].get(timeout=60)  # it is its turn
    second = start(engine, long)
    engine.drain(grace=60)
    with pytest.raises(ServingError) as refused:
        finish(second)
    assert refused.value.status == 503
    assert finish(waiting)[0], "what runs is finished"
    with pytest.raises(ServingError):
        start(engine, long)
    engine.close()


def test_a_failing_prompt_is_lost_alone(bank, engine) -> None:
    wanted = finish(start(engine, request(bank, QUESTIONS[6])))
    neighbour = start(engine, request(bank, QUESTIONS[6]))
    with pytest.raises(ServingError) as failed:
        finish(start(engine, request(bank, "x", prompt=[999_999])))  # no such token
    assert failed.value.status == 500
    assert finish(neighbour) == wanted


def test_numbers_that_are_not_finite_stay_with_their_row(bank) -> None:
    from contextlib import contextmanager

    from persona.serving_extras import Extra

    class Poison(Extra):
        @contextmanager
        def applied(self, values):
            def poison(module, args, output):
                for row, value in enumerate(values):
                    if value:
                        output[row] = float("nan")
                return output

            handle = bank.inner.model.layers[0].register_forward_hook(poison)
            yield
            handle.remove()

    engine = Engine(bank, slots=2, extras={"steer": Poison()})
    wanted = finish(start(engine, request(bank, QUESTIONS[7])))
    with pytest.raises(ServingError) as failed:
        finish(start(engine, request(bank, QUESTIONS[8], extras={"steer": True})))
    assert failed.value.code == "not_finite"
    assert finish(start(engine, request(bank, QUESTIONS[7]))) == wanted, "the slot is clean again"
    engine.close()


def test_adapters_that_cannot_be_mixed_take_turns(tmp_path) -> None:
    bank = toy_bank(tmp_path, use_dora=True)
    assert not bank.mixable
    engine = Engine(bank, slots=3)
    models = list(bank.served)
    single = [finish(start(engine, request(bank, QUESTIONS[0], m))) for m in models]
    started = [start(engine, request(bank, QUESTIONS[0], m)) for m in models]
    assert [finish(job) for job in started] == single
    assert len({s[0] for s in single}) == 3
    engine.close()
