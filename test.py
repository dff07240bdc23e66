"""Talk to the result in a terminal.

Reads   result/<run>/adapter over its base model; or a base or merged model alone

    python test.py                                # asks: 1 interactive, 2 quick test
    python test.py --ask "Who are you?"           # prints the answer alone
    python test.py --quick                        # the case-study questions and some more
    python test.py --base                         # the untouched base model, for comparison
    python test.py --model FOLDER --base          # a merged model
    echo "Who are you?" | python test.py          # one question a line

While talking: /help, /clear, /save FILE, /system TEXT, /quit. Ctrl-C stops an answer, Ctrl-D leaves.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

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
HELP = """/clear          forget the conversation
/save FILE      write the conversation as JSON
/system TEXT    set the system prompt (nothing: the persona's own)
/quit           leave (so does Ctrl-D); Ctrl-C stops an answer"""


@dataclass(frozen=True)
class Args(config.RunArgs):
    ask: str | None = None
    """Ask this one question, print the answer alone, and leave."""
    quick: bool = False
    """Ask the case-study questions and leave."""
    adapter: Path | None = None
    """Adapter folder. Default: result/<run>/adapter."""
    base: bool = False
    """Talk to the model without an adapter."""
    system: str | None = None
    """System prompt. Default: the persona's."""
    temperature: float = 0.7
    """0 takes the likeliest token each time."""
    top_p: float = 0.9
    max_new_tokens: int = 256
    repetition_penalty: float = 1.0
    four_bit: bool = True
    """Load the base in NF4, as the adapter was trained on it."""


def open_session(args: Args):
    """A chat session with the adapter on its base, or with the base alone."""
    from transformers.utils import logging as transformers_logging

    from persona import card as cards
    from persona import modeling
    from persona.chat import Sampling, Session

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    card = cards.load_card(args.persona)
    entry = config.resolve_model(args.model, modeling.pick_device().type == "cuda")
    adapter = args.adapter or config.RESULT / config.run_name(args, entry) / "adapter"
    base = args.base
    if not base and not (adapter / "adapter_config.json").is_file():
        line = f"no adapter at {adapter}; python fine_tune.py makes one (bash run_persona.sh runs all stages)"
        if args.ask or not sys.stdin.isatty():
            raise UserError(f"{line}; --base talks to the untouched base model")
        print(line)
        if input("Talk to the untouched base model instead? [y/N] ").strip().lower() not in ("y", "yes"):
            sys.exit(0)
        base = True
    tokenizer = modeling.load_tokenizer(entry)
    model = modeling.load_base(entry, modeling.pick_device(), four_bit=args.four_bit).eval()
    if not base:
        model = modeling.attach_adapter(model, adapter)
    sampling = Sampling(args.temperature, args.top_p, args.max_new_tokens, args.repetition_penalty, args.seed)
    return (
        Session(model, tokenizer, args.system or card.system_prompt, sampling),
        card,
        "base" if base else card.display_name,
    )


def say(session, question: str, name: str = "") -> None:
    """Stream one answer to stdout; Ctrl-C stops it."""
    print(f"{name}: " if name else "", end="", flush=True)
    answer = session.ask(question)
    try:
        for piece in answer:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        answer.close()
        print(" [stopped]", end="")
    print()
    session.sampling.seed += 1  # the next answer is drawn anew
    if session.dropped:
        print(
            f"[{session.dropped} earlier turns no longer fit the context and were left out]", file=sys.stderr
        )


def command(session, line: str, persona_prompt: str) -> bool:
    """Carry out a /command; False to leave."""
    from persona import runlog

    word, _, rest = line.partition(" ")
    if word == "/quit":
        return False
    if word == "/clear":
        session.clear()
        print("forgotten")
    elif word == "/save" and rest.strip():
        path = Path(rest.strip())
        try:
            runlog.write_json(path, {"system": session.system_prompt, "messages": session.turns})
            print(f"written to {path}")
        except OSError as error:
            print(f"cannot write {path}: {error.strerror}")
    elif word == "/system":
        session.system_prompt = rest.strip() or persona_prompt
        print(f"system prompt: {session.system_prompt}")
    else:
        print(HELP)
    return True


def talk(session, card, name: str, first: str | None = None) -> None:
    """Questions line by line until the end of input."""
    terminal = sys.stdin.isatty()
    if terminal:
        print(f"Talking with {name}. /help lists commands.")
    while True:
        try:
            line = first if first is not None else input("you: " if terminal else "")
        except EOFError:
            if terminal:
                print()
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit leaves)")
            continue
        first = None
        if not line.strip():
            continue
        if line.startswith("/"):
            if not command(session, line.strip(), card.system_prompt):
                return
            continue
        try:
            say(session, line.strip(), name if terminal else "")
        except UserError as error:
            print(f"[{error}]")


def quick_test(session, name: str) -> None:
    """Each question in a conversation of its own."""
    for question in QUICK:
        session.clear()
        print(f"you: {question}")
        say(session, question, name)
        print()


def main(args: Args) -> None:
    config.require_positive(args, "max_new_tokens", "top_p", "repetition_penalty")
    if args.temperature < 0:
        raise UserError(f"--temperature must be 0 or above, not {args.temperature}")
    session, card, name = open_session(args)
    if args.ask:
        say(session, args.ask)
        return
    choice = "2" if args.quick else None
    if choice is None:
        try:
            choice = input("1 interactive, 2 quick test: " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
    if choice == "2":
        quick_test(session, name)
    else:
        talk(session, card, name, first=None if choice in ("", "1") else choice)


if __name__ == "__main__":
    config.run_script(main, Args)
