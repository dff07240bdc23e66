"""Talk to the result in a terminal.

Reads   result/<run>/adapter over its base model; or a base or merged model alone; or asks an endpoint,
        as for a run whose run.json names a provider's model

    python test.py                                # asks: 1 interactive, 2 quick test
    python test.py --ask "Who are you?"           # prints the answer alone
    python test.py --quick                        # the case-study questions and some more
    python test.py --rag --up-to "Silver Blaze"   # the corpus at hand, later stories kept from him
    python test.py --scene sherlock,watson "A letter has come"
    python test.py --base                         # the untouched base model, for comparison
    python test.py --model FOLDER --base          # a merged model
    python test.py --endpoint http://127.0.0.1:8000/v1
    python test.py --run sherlock-gpt-4.1-mini-2025-04-14   # what a provider trained (docs/managed.md)
    echo "Who are you?" | python test.py          # one question a line

While talking, /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves. See docs/talking.md.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

import config
from persona.errors import UserError

QUICK = (
    "Who are you?",
    "What do you think about Dr. Watson?",
    "A man was found dead in a locked room with no windows. How would you approach this case?",
    "What is your method of deduction?",
    "What are your thoughts on Scotland Yard?",
    "Could you introduce yourself, please?",
    "Good morning, sir. I need some advice.",
    "What can you tell from a man's hands?",
    "Do you play any instrument?",
)


@dataclass(frozen=True)
class Args(config.RunArgs):
    opening: tyro.conf.Positional[str | None] = None
    """The first question; in a scene, what happens."""
    ask: str | None = None
    """Ask this one question, print the answer alone, and leave."""
    quick: bool = False
    """Ask the case-study questions and leave."""
    adapter: Path | None = None
    """Adapter folder of --persona. Default: result/<run>/adapter."""
    base: bool = False
    """Talk to the model without an adapter."""
    system: str | None = None
    """System prompt. Default: the persona's."""
    temperature: float = 0.7
    """0 takes the likeliest token each time."""
    top_p: float = 0.9
    max_new_tokens: int = 256
    repetition_penalty: float = 1.0
    """On tokens that the answer has already used; 1 for none."""
    four_bit: bool = True
    """Load the base in NF4, as the adapter was trained on it."""
    rag: bool = False
    """Put passages of the persona's corpus before each question, and their sources after each answer."""
    up_to: str | None = None
    """With --rag: the latest story that the persona may know of, by its id or title."""
    steer: str | None = None
    """Persona vectors to add, by trait: holmes=1.5,openness@4=-1 (@4: at layer 4).
    python persona_vectors.py extract makes them."""
    scene: str | None = None
    """Personas that talk with one another and with you, separated by commas."""
    turns: int | None = None
    """Lines of a scene. Default: until you leave; 6 where nobody sits at the terminal."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server in place of a local model, e.g. http://127.0.0.1:8000/v1."""
    endpoint_model: str | None = None
    """The model to ask for there. Default: the persona's name, as serve.py has it."""


def check(args: Args) -> None:
    """Refuse settings that cannot be, before anything is loaded."""
    config.require_positive(args, "max_new_tokens", "top_p", "repetition_penalty", "turns")
    if args.temperature < 0:
        raise UserError(f"--temperature must be 0 or above, not {args.temperature}")
    if args.up_to is not None and not args.rag:
        raise UserError("--up-to is about retrieval: add --rag")
    if args.endpoint and (args.base or args.adapter):
        raise UserError("--endpoint talks to what the server has: name it with --endpoint-model")
    if args.scene and (args.ask or args.quick or args.rag):
        raise UserError("--scene goes without --ask, --quick and --rag")


def model_entry(args: Args) -> config.ModelEntry:
    """The registry entry of the local model."""
    from persona import runlog

    return config.resolve_model(args.model, args.model is None and runlog.cuda_available())


def own_corpus(args: Args) -> str:
    """The corpus that belongs to the model; a provider's is a large one."""
    from persona import managed

    return "canon" if managed.hosted_record(args) else model_entry(args).corpus


def adapter_of(args: Args, entry: config.ModelEntry, name: str) -> Path:
    """Where the adapter of a persona lies: in its own run; for --persona flags may say otherwise."""
    if name == Path(args.persona).name:
        return args.adapter or config.RESULT / config.run_name(args, entry) / "adapter"
    return config.RESULT / config.run_name(replace(args, persona=name, run=None), entry) / "adapter"


def open_voices(args: Args, entry: config.ModelEntry):
    """The base, loaded once; steered where that is asked for."""
    from transformers.utils import logging as transformers_logging

    from persona import steering, vectors
    from persona.voices import Voices

    wishes = steering.parse(args.steer) if args.steer else []
    additions = steering.additions_of(wishes, vectors.folder_of(entry))
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    voices = Voices.load(entry, args.four_bit)
    if additions:
        voices.steering = lambda model: steering.Steering(model, additions, "response")
    return voices


def has_adapter(folder: Path) -> bool:
    """Whether there is something to put on the base, or in its place."""
    return (folder / "adapter_config.json").is_file() or (folder / "model.safetensors").is_file()


def without_adapter(args: Args, adapter: Path) -> None:
    """Ask a person whether the base will do; leave where he declines, refuse where nobody can be asked."""
    line = f"no adapter at {adapter}; python fine_tune.py makes one (bash run_persona.sh runs all stages)"
    if args.ask or not sys.stdin.isatty():
        raise UserError(f"{line}; --base talks to the untouched base model")
    print(line)
    if input("Talk to the untouched base model instead? [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit(0)


def remote_model(args: Args):
    """The server of --endpoint, or the provider that trained the run's model; None for a local model."""
    if args.endpoint:
        from persona.remote_chat import Endpoint

        model = Endpoint(args.endpoint, args.endpoint_model)
    else:
        from persona import managed

        model = managed.hosted(args, args.base)
    if model and args.steer:
        raise UserError("--steer reaches into a local model; serve.py takes the field steer in requests")
    return model


def open_talk(args: Args, screen):
    """The talk with --persona: its model loaded, its adapter on."""
    from persona.card import load_card
    from persona.chat import Sampling
    from persona.retrieval import Retriever
    from persona.talk import Library, Talk

    card = load_card(args.persona)
    library = Library(
        lambda other: Retriever.open(other, args.corpus or own_corpus(args)), args.rag, args.up_to
    )
    if args.rag and args.up_to:
        library.of(card).find_story(args.up_to)
    sampling = Sampling(args.temperature, args.top_p, args.max_new_tokens, args.repetition_penalty, args.seed)
    if model := remote_model(args):
        return Talk(model, card, screen, sampling, library, system=args.system)
    entry = model_entry(args)
    base, adapter = args.base, adapter_of(args, entry, card.name)
    if not base and not has_adapter(adapter):
        without_adapter(args, adapter)
        base = True
    voices = open_voices(args, entry)

    def add(name: str) -> bool:
        folder = adapter_of(args, entry, name)
        if has_adapter(folder):
            voices.add(name, folder)
        return voices.has(name)

    if not base:
        add(card.name)
    return Talk(voices, card, screen, sampling, library, base=base, system=args.system, add=add)


def play_scene(args: Args, screen) -> None:
    """Several characters, each with its own adapter on one base."""
    from persona.card import load_card
    from persona.chat import Sampling
    from persona.scene import Character, Scene
    from persona.talk import play

    cards = [load_card(name.strip()) for name in args.scene.split(",") if name.strip()]
    sampling = Sampling(args.temperature, args.top_p, args.max_new_tokens, args.repetition_penalty, args.seed)
    try:
        opening = args.opening or screen.read("what happens: ")
    except EOFError:
        opening = ""
    scene = Scene([Character.of(card) for card in cards], opening, sampling)
    model = remote_model(args)
    if not model:
        entry = model_entry(args)
        model = open_voices(args, entry)
        for card in cards:
            folder = adapter_of(args, entry, card.name)
            if args.base or not has_adapter(folder):
                why = "--base" if args.base else f"no adapter at {folder}"
                screen.note(f"{card.display_name}: card and prompt on the base ({why})")
            else:
                model.add(card.name, folder)
    play(scene, model.reply, screen, args.turns)


def main(args: Args) -> None:
    from persona.talk import HELP
    from persona.terminal import Terminal

    check(args)
    screen = Terminal(history=config.CACHE / "terminal_history", commands=tuple(HELP))
    if args.scene:
        play_scene(args, screen)
        return
    talk = open_talk(args, screen)
    if args.ask:
        talk.ask(args.ask)
        return
    choice = "2" if args.quick else args.opening
    if choice is None:
        try:
            choice = input("1 interactive, 2 quick test: " if screen.interactive else "").strip()
        except EOFError:
            return
    if choice == "2":
        talk.quick_test(QUICK)
    else:
        talk.run(first=None if choice in ("", "1") else choice)


if __name__ == "__main__":
    config.run_script(main, Args)
