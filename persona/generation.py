"""Answers: in batches for evaluation, as a stream for the chat.

One place sets sampling, stopping and seeds.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from persona.chat import Sampling, prompt_ids
from persona.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache

GREEDY = Sampling(temperature=0.0, max_new_tokens=128)


def stop_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens that end an answer: every special token, and whatever the model's own configuration adds."""
    stated = model.generation_config.eos_token_id
    stated = stated if isinstance(stated, list) else [stated]
    return sorted({i for i in (*tokenizer.all_special_ids, *stated) if i is not None})


def _settings(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", sampling: Sampling):
    from transformers import GenerationConfig

    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=stop_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        bad_words_ids=model.generation_config.bad_words_ids,
        **(drawn if sampling.temperature > 0 else {"do_sample": False}),
    )


def _processors(sampling: Sampling, prompt_length: int):
    """The penalty on repetition, for the answer's own tokens: transformers' own setting counts the prompt,
    where the names and words of the question stand, too."""
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    if sampling.repetition_penalty == 1:
        return LogitsProcessorList()
    penalty = RepetitionPenaltyLogitsProcessor(
        float(sampling.repetition_penalty), prompt_ignore_length=prompt_length
    )
    return LogitsProcessorList([penalty])


def answer_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: list[list[Message]],
    sampling: Sampling = GREEDY,
    batch_size: int = 16,
    label: str = "answers",
    openings: Sequence[str] = (),
    finished: Callable[[int, str], None] = lambda place, answer: None,
    read: "Callable[[list[int]], Cache] | None" = None,
) -> list[str]:
    """One answer to each conversation, in their order.

    Prompts of similar length go together, `batch_size` at once. Greedy answers do not depend on the batch
    but for rounding; drawn ones follow from the seed. `openings`: first words put into the model's mouth, one
    for each conversation; an answer goes on behind them. `finished` hears of every answer as soon as it is
    there. `read` may give the keys and values of prompts (see `persona.decoding.decode`).
    """
    import torch
    from tqdm import tqdm

    from persona.decoding import decode

    begun = openings or [""] * len(conversations)
    prompts = [prompt_ids(tokenizer, m, opening) for m, opening in zip(conversations, begun, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    answers = [""] * len(prompts)
    generator_seed = sampling.seed if sampling.seed is not None else 0
    with (
        torch.inference_mode(),
        torch.random.fork_rng(),
        tqdm(total=len(prompts), desc=label) as bar,
    ):
        torch.manual_seed(generator_seed)
        ended = decode(
            model,
            [prompts[i] for i in order],
            _settings(model, tokenizer, sampling),
            batch_size,
            lambda start: _processors(sampling, start),
            sampling.temperature <= 0 and sampling.repetition_penalty == 1,
            (lambda places: read([order[place] for place in places])) if read else None,
        )
        for place, tokens in ended:
            i = order[place]
            answers[i] = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            finished(i, answers[i])
            bar.update()
    return answers


def stream(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    messages: list[Message],
    sampling: Sampling,
) -> Iterator[str]:
    """Yield the answer as it is made. Closing the iterator stops the generation."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer, set_seed

    stopped = threading.Event()

    class Stop(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((input_ids.shape[0],), stopped.is_set(), device=input_ids.device)

    ids = torch.tensor([prompt_ids(tokenizer, messages)], device=model.device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            if sampling.seed is not None:
                set_seed(sampling.seed)
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=_settings(model, tokenizer, sampling),
                logits_processor=_processors(sampling, ids.shape[1]),
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([Stop()]),
            )
        except BaseException as error:
            failed.append(error)  # raised again in the thread that asked
        finally:
            streamer.end()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:
        stopped.set()
        worker.join()
    if failed:
        raise failed[0]
