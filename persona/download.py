"""Fetch a book of a corpus once and keep it: data/cache/<file> and its hash in data/cache/sources.json."""

import hashlib
import json
import logging
import os
import random
import re
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.exceptions import ChunkedEncodingError

from persona.card import Source
from persona.errors import UserError

logger = logging.getLogger(__name__)

GUTENBERG_URL = "https://www.gutenberg.org/cache/epub/{ebook}/pg{ebook}.txt"
"""Default address of an ebook; the environment variable PERSONA_GUTENBERG_URL overrides it."""
TRIES = 4
BACKOFF_SECONDS = 1.0  # before the second try; doubled each time, with up to half as much again at random
MAX_WAIT_SECONDS = 60.0  # whatever a server asks for by Retry-After
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, and between two pieces of the answer
REMEDY = "work offline by --corpus embedded or --corpus DIR"


def fetch(source: Source, cache: Path) -> Path:
    """The file of a book: from the cache if it is there, else downloaded into it.

    A file whose sha256 is not the one in `cache/sources.json` is reported by a warning and used.

    Raises:
        UserError: no address, no network, an error of the server, or something else than a text.
    """
    url = address(source)
    path = cache / (f"pg{source.ebook}.txt" if source.ebook is not None else _file_name(url))
    data = path.read_bytes() if path.is_file() else b""
    if not data:
        logger.info("downloading %s from %s", source.title, url)
        data = _download(url)
        cache.mkdir(parents=True, exist_ok=True)
        _write(path, data)
    _check_hash(path, url, hashlib.sha256(data).hexdigest())
    return path


def address(source: Source) -> str:
    """Where a book is: its own address, else Project Gutenberg's for its number."""
    template = os.environ.get("PERSONA_GUTENBERG_URL") or GUTENBERG_URL
    if not source.url and source.ebook is None:
        raise UserError(f"{source.title}: no address: give the card's source an ebook number or a url")
    if not source.url and "{ebook}" not in template:
        raise UserError(f"PERSONA_GUTENBERG_URL={template}: put {{ebook}} where the number belongs")
    return source.url or template.replace("{ebook}", str(source.ebook))


def _file_name(url: str) -> str:
    """The address' last part, made safe, with a hash so that two books called "book.txt" stay apart."""
    stem = re.sub(r"[^\w-]+", "-", Path(urlsplit(url).path).stem).strip("-") or "book"
    return f"{stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.txt"


def _download(url: str) -> bytes:
    """The text at an address; connection errors, 429 and 5xx are tried again."""
    for attempt in range(1, TRIES + 1):
        wait = BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(1.0, 1.5)
        try:
            response = requests.get(url, timeout=TIMEOUT_SECONDS, headers={"User-Agent": "persona-corpus"})
            if response.ok:
                return _text_only(url, response)
            problem = f"HTTP {response.status_code}"
            if response.status_code != 429 and response.status_code < 500:
                raise UserError(f"{url}: {problem}: mend the address in the persona's card, or {REMEDY}")
            wait = max(wait, _retry_after(response.headers.get("Retry-After", "")))
        except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError) as error:
            problem = f"no connection, {type(error).__name__}"
        except requests.RequestException as error:
            raise UserError(f"{url}: {error}: mend the address in the persona's card, or {REMEDY}") from error
        if attempt < TRIES:
            logger.warning("%s: %s; trying again", url, problem)
            time.sleep(min(wait, MAX_WAIT_SECONDS))
    raise UserError(f"{url}: not reached in {TRIES} tries ({problem}): try again later, or {REMEDY}")


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for, by a number or a date; 0 if it says nothing of the kind."""
    try:
        return float(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0


def _text_only(url: str, response: requests.Response) -> bytes:
    start = response.content[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_page = "html" in response.headers.get("Content-Type", "") or start.startswith(
        (b"<!doctype", b"<html", b"<?xml")
    )
    if is_page or not start:
        what = "a web page" if is_page else "an empty file"
        raise UserError(
            f"{url}: {what} instead of a text: mend the address in the persona's card, or {REMEDY}"
        )
    return response.content


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: to a name of its own first, then renamed."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    temporary.replace(path)


def _check_hash(path: Path, url: str, sha256: str) -> None:
    record_path = path.with_name("sources.json")
    try:
        record = json.loads(record_path.read_text(encoding="utf-8")) if record_path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{record_path}: not valid JSON ({error}): delete it, it is made anew") from error
    known = record.get(path.name, {}).get("sha256", sha256)
    if known != sha256:
        logger.warning("%s: its sha256 is now %s, recorded was %s (from %s)", path, sha256, known, url)
    if record.get(path.name) != (entry := {"url": url, "sha256": sha256}):
        record[path.name] = entry
        _write(record_path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
