"""OpenAI's and Mistral's file, fine-tuning and chat endpoints on this machine, with failures on request.

Written from the documentation:

- https://developers.openai.com/api/reference/resources/fine_tuning/subresources/jobs (create, retrieve, list,
  list events, cancel), /resources/files (upload), /resources/chat, and the guide to supervised fine-tuning
- https://docs.mistral.ai/api/endpoint/fine-tuning (list, create, get, cancel), /api/endpoint/files,
  /api/endpoint/chat, and https://docs.mistral.ai/capabilities/finetuning/text_vision_finetuning

Requests are checked against the clients' own types, and answers are built by them.
"""

import json
import time
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, urlsplit

from checking_server import CheckingHandler, CheckingServer
from mistralai import models as mistral
from openai.types import FileObject
from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent, JobCreateParams
from pydantic import TypeAdapter

CHAT = TypeAdapter(CompletionCreateParamsStreaming)
CHAT_FIELDS = {"model", "messages", "stream", "temperature", "top_p", "max_tokens", "seed"}
CREATE = TypeAdapter(JobCreateParams)
MESSAGES = TypeAdapter(list[ChatCompletionMessageParam])
STATES = {
    "openai": ["validating_files", "queued", "running", "running", "succeeded"],
    "mistral": ["QUEUED", "VALIDATING", "RUNNING", "RUNNING", "SUCCESS"],
}
LOSSES = {10: (2.5, 2.75), 20: (1.25, 1.5)}
"""Step: training and validation loss; the first is there in the first running state, then the second."""


@dataclass
class Job:
    """A job, one state further each time that it is asked for."""

    id: str
    request: dict[str, Any]
    states: list[str]
    asked: int = 0

    @property
    def status(self) -> str:
        return self.states[min(self.asked, len(self.states) - 1)]

    @property
    def done(self) -> bool:
        return self.status in ("succeeded", "SUCCESS")

    @property
    def steps(self) -> list[int]:
        running = sum(s.lower() in ("running", "succeeded", "success") for s in self.states[: self.asked + 1])
        return sorted(LOSSES)[:running]


@dataclass
class Uploaded:
    id: str
    name: str
    rows: list[dict]


@dataclass
class Provider:
    """What one of the two services holds."""

    files: dict[str, Uploaded] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)


class ManagedServer(CheckingServer):
    """`trouble[call]` holds what happens to the next requests of that kind (upload, create, list, get,
    events, cancel, chat): "drop" before they are heard, "drop after", "stall", or a tuple of status, message
    and Retry-After."""

    def __init__(self, key: str):
        super().__init__(Handler)
        self.key = key
        self.providers = {"openai": Provider(), "mistral": Provider()}
        self.states = {name: list(states) for name, states in STATES.items()}
        self.problem = "nothing"
        """What a failed job says."""
        self.trouble: dict[str, list] = {}
        self.calls: list[str] = []
        self.chats: list[dict] = []
        self.stall_seconds = 1.0
        self.urls = {name: f"http://127.0.0.1:{self.server_port}/{name}/v1" for name in self.providers}


class Handler(CheckingHandler):
    def do_GET(self):
        self.handle_call(b"")

    def do_POST(self):
        self.handle_call(self.read_body())

    def handle_call(self, body: bytes) -> None:
        server, parts = self.server, urlsplit(self.path)
        self.name, _, path = parts.path.strip("/").partition("/v1/")
        self.provider = server.providers[self.name]
        words = path.split("/")
        call = {
            "files": "upload",
            "chat/completions": "chat",
            "fine_tuning/jobs": "create" if self.command == "POST" else "list",
        }.get(path) or (words[3] if len(words) == 4 else "get")
        with server.lock:
            server.calls.append(call)
            trouble = server.trouble[call].pop(0) if server.trouble.get(call) else None
        if self.headers["Authorization"] != f"Bearer {server.key}":
            return self.refuse(401, f"Incorrect API key provided: {self.headers['Authorization']}")
        if trouble == "drop":
            return self.drop()
        if trouble == "stall":
            time.sleep(server.stall_seconds)
            return self.drop()
        if isinstance(trouble, tuple):
            return self.refuse(*trouble)
        try:
            with server.lock:
                answer = getattr(self, f"on_{call}")(body, words, parse_qs(parts.query))
        except (ValueError, KeyError) as error:
            server.bad.append(f"{call}: {error!r}")
            return self.refuse(422, str(error))
        if trouble == "drop after":
            return self.drop()
        return self.send_stream(answer) if call == "chat" else self.send(200, answer)

    # --- calls --------------------------------------------------------------------------------------------

    def on_upload(self, body: bytes, words: list[str], query: dict) -> str:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
        }
        content = parts["file"].get_payload(decode=True)
        name, purpose = parts["file"].get_filename(), parts["purpose"].get_payload().strip()
        require(purpose == "fine-tune" and name.endswith(".jsonl"), f"{name} for {purpose}")
        rows = [json.loads(line) for line in content.decode().splitlines()]
        for row in rows:
            require(set(row) == {"messages"}, f"fields {set(row)}")
            if self.name == "openai":
                MESSAGES.validate_python(row["messages"])
            else:
                mistral.ChatCompletionRequest.model_validate({"model": "m", "messages": row["messages"]})
        file = Uploaded(f"file-{len(self.provider.files) + 1}", name, rows)
        self.provider.files[file.id] = file
        facts = {"id": file.id, "bytes": len(content), "created_at": 1, "filename": name, "object": "file"}
        facts["purpose"] = purpose
        if self.name == "openai":
            return FileObject.model_validate(facts | {"status": "processed"}).model_dump_json()
        more = {"sample_type": "instruct", "source": "upload", "num_lines": len(rows)}
        return mistral.UploadFileOut.model_validate(facts | more).model_dump_json(by_alias=True)

    def on_create(self, body: bytes, words: list[str], query: dict) -> str:
        request = json.loads(body)
        if self.name == "openai":
            CREATE.validate_python(request, strict=True)
            require(set(request) <= set(JobCreateParams.__annotations__), f"fields {set(request)}")
            used = {request["training_file"], request.get("validation_file", request["training_file"])}
            require(len(request.get("suffix") or "") <= 64, "suffix")
        else:
            mistral.JobIn.model_validate(request)
            require(set(request) <= set(mistral.JobIn.model_fields), f"fields {set(request)}")
            hyperparameters = set(mistral.CompletionTrainingParametersIn.model_fields)
            require(set(request["hyperparameters"]) <= hyperparameters, f"{request['hyperparameters']}")
            used = {f["file_id"] for f in request["training_files"]} | set(request["validation_files"])
            require(len(request.get("suffix") or "") <= 18, "suffix")
        require(used <= set(self.provider.files), f"no file {used - set(self.provider.files)}")
        job = Job(f"job-{len(self.provider.jobs) + 1}", request, list(self.server.states[self.name]))
        self.provider.jobs[job.id] = job
        return self.written(job)

    def on_list(self, body: bytes, words: list[str], query: dict) -> str:
        jobs = list(self.provider.jobs.values())
        if self.name == "openai":
            for name in [n for n in query if n.startswith("metadata[")]:
                asked = name.removeprefix("metadata[").removesuffix("]")
                jobs = [j for j in jobs if j.request["metadata"].get(asked) == query[name][0]]
            data = [json.loads(self.written(job)) for job in jobs]
            return json.dumps({"object": "list", "data": data, "has_more": False})
        page, size = int(query["page"][0]), int(query["page_size"][0])
        data = [json.loads(self.written(job)) for job in jobs[page * size : (page + 1) * size]]
        return json.dumps({"object": "list", "data": data, "total": len(jobs)})

    def on_get(self, body: bytes, words: list[str], query: dict) -> str:
        job = self.provider.jobs[words[2]]
        answer = self.written(job, details=True)
        job.asked += self.name == "mistral"  # OpenAI's losses are asked for after the job
        return answer

    def on_events(self, body: bytes, words: list[str], query: dict) -> str:
        job = self.provider.jobs[words[2]]
        data = [
            {
                "id": f"event-{step}",
                "created_at": step,
                "level": "info",
                "message": f"Step {step}/20: training loss={LOSSES[step][0]}",
                "object": "fine_tuning.job.event",
                "type": "metrics",
                "data": {
                    "step": step,
                    "total_steps": 20,
                    "train_loss": LOSSES[step][0],
                    "full_valid_loss": LOSSES[step][1],
                },
            }
            for step in reversed(job.steps)
        ]
        job.asked += 1
        events = [FineTuningJobEvent.model_validate(event).model_dump(mode="json") for event in data]
        return json.dumps({"object": "list", "data": events, "has_more": False})

    def on_cancel(self, body: bytes, words: list[str], query: dict) -> str:
        job = self.provider.jobs[words[2]]
        require(not job.done, "the job is over")
        job.asked = 0
        ends = {"openai": ["cancelled"], "mistral": ["CANCELLATION_REQUESTED", "CANCELLED"]}
        job.states = ends[self.name]
        return self.written(job, details=True)

    def on_chat(self, body: bytes, words: list[str], query: dict) -> list[dict]:
        request = json.loads(body)
        if self.name == "openai":
            CHAT.validate_python(request)
            require(set(request) <= CHAT_FIELDS, f"fields {set(request)}")
        else:
            mistral.ChatCompletionStreamRequest.model_validate(request)
            extra = set(request) - set(mistral.ChatCompletionStreamRequest.model_fields)
            require(not extra, f"fields {extra}")
            require(request.get("temperature") != 0 or request["top_p"] == 1, "top_p must be 1 when greedy")
        self.server.chats.append(request)
        facts = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": request["model"]}
        return [
            facts | {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": end}]}
            for piece, end in (("Elementary", None), (".", "stop"))
        ]

    def written(self, job: Job, details: bool = False) -> str:
        """A job as its provider writes it."""
        failed = job.status in ("failed", "FAILED")
        facts = {"id": job.id, "model": job.request["model"], "status": job.status, "created_at": 1}
        facts["fine_tuned_model"] = f"ft:{job.request['model']}:us:{job.id}" if job.done else None
        facts["trained_tokens"] = 4321 if job.done else None
        if self.name == "openai":
            more = {
                "object": "fine_tuning.job",
                "organization_id": "us",
                "result_files": [],
                "seed": job.request["seed"],
                "training_file": job.request["training_file"],
                "hyperparameters": job.request["method"]["supervised"]["hyperparameters"],
                "metadata": job.request["metadata"],
                "error": {"code": "x", "message": self.server.problem} if failed else None,
            }
            return FineTuningJob.model_validate(facts | more).model_dump_json()
        more = {
            "auto_start": job.request["auto_start"],
            "modified_at": 1,
            "training_files": [f["file_id"] for f in job.request["training_files"]],
            "hyperparameters": job.request["hyperparameters"],
            "suffix": job.request["suffix"],
        }
        if not details:
            return mistral.CompletionJobOut.model_validate(facts | more).model_dump_json(by_alias=True)
        event = {"name": "status-updated", "created_at": 2, "data": {"error": self.server.problem}}
        more["events"] = [event] if failed else []
        more["checkpoints"] = [
            {
                "step_number": step,
                "created_at": step,
                "metrics": {"train_loss": LOSSES[step][0], "valid_loss": LOSSES[step][1]},
            }
            for step in job.steps
        ]
        return mistral.CompletionDetailedJobOut.model_validate(facts | more).model_dump_json(by_alias=True)

    # --- answers ------------------------------------------------------------------------------------------

    def refuse(self, status: int, message: str, retry_after: str | None = None) -> None:
        if self.name == "openai":
            code = "insufficient_quota" if "quota" in message else None
            answer = {"error": {"message": message, "type": "invalid_request_error", "code": code}}
        else:
            answer = {"detail": message}
        self.send(status, json.dumps(answer), retry_after)

    def send_stream(self, chunks: list[dict]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
