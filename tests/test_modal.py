"""The Modal deployment: settings, vLLM's command line, and the image as Modal's client would ask for it."""

import importlib
import json
import sys
from pathlib import Path

import modal
import pytest
from scripts import run

import config
from persona.errors import UserError


@pytest.fixture
def adapters(tmp_path) -> dict[str, Path]:
    """Two adapter folders as far as a deployment reads them, of ranks 16 and 24."""
    folders = {}
    for name, rank in (("sherlock", 16), ("watson", 24)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    return folders


def variables(adapters: dict[str, Path]) -> dict[str, str]:
    """What a user sets to deploy both adapters."""
    pairs = " ".join(f"{name}={folder}" for name, folder in adapters.items())
    return {"PERSONA_MODAL_ADAPTERS": pairs, "PERSONA_MODAL_MAX": "3"}


@pytest.fixture
def deployment(adapters, monkeypatch):
    """`modal_deploy` as a module, without an account."""
    for name, value in variables(adapters).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODAL_CONFIG_PATH", "/dev/null")
    monkeypatch.delitem(sys.modules, "modal_deploy", raising=False)
    yield importlib.import_module("modal_deploy")
    sys.modules.pop("modal_deploy", None)


def test_the_command_serves_every_adapter_by_its_name_from_where_it_is_mounted(deployment, adapters):
    assert deployment.words == [
        "vllm", "serve", "Qwen/Qwen2.5-7B-Instruct", "--served-model-name", "qwen2.5-7b",
        "--host", "0.0.0.0", "--port", "8000", "--seed", "42", "--max-num-seqs", "32",
        "--max-model-len", "4096",
        "--revision", "a09a35458c702b33eeacc393d103063234e8bc28",
        "--tokenizer-revision", "a09a35458c702b33eeacc393d103063234e8bc28",
        "--quantization", "bitsandbytes", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "32",
        "--lora-modules", "sherlock=/adapters/sherlock", "watson=/adapters/watson",
    ]  # fmt: skip
    assert deployment.folders == [(adapters[name], f"/adapters/{name}") for name in ("sherlock", "watson")]
    assert not any("key" in word.lower() for word in deployment.words), "the key is in the environment alone"


def test_the_container_starts_the_command_that_was_worked_out_here(deployment, monkeypatch):
    started = []
    monkeypatch.setenv(deployment.COMMAND, json.dumps(deployment.words))
    monkeypatch.setattr(deployment.subprocess, "Popen", started.append)
    deployment.serve.local()
    assert started == [deployment.words]
    monkeypatch.setattr(modal, "is_local", lambda: False)
    assert deployment.planned() == (deployment.Settings(), [], []), "nothing of the project is read there"


def test_modals_own_client_deploys_it(tmp_path, adapters):
    """`modal deploy` against a control plane on this machine: what Modal would be asked for."""
    from modal_server import WEB_URL, control_plane

    with control_plane() as (plane, url):
        account = {
            "MODAL_SERVER_URL": url, "MODAL_TOKEN_ID": "ak-1", "MODAL_TOKEN_SECRET": "as-1",
            "MODAL_CONFIG_PATH": "/dev/null",
        }  # fmt: skip
        command = (sys.executable, "-m", "modal", "deploy", "modal_deploy.py")
        done = run(tmp_path, *command, **account, **variables(adapters))
    assert done.code == 0, done.out + done.err
    assert WEB_URL in done.out

    lines = [line for asked in plane.asked("ImageGetOrCreate") for line in asked.image.dockerfile_commands]
    assert lines[0].startswith("FROM python:3.12")
    assert lines[-1].startswith("RUN ") and lines[-1].endswith("pip install --python $(command -v python) "
        "--compile-bytecode bitsandbytes==0.50.2 vllm==0.33.0")  # fmt: skip

    (created,) = plane.asked("FunctionCreate")
    function = created.function
    assert (function.resources.gpu_config.gpu_type, function.resources.gpu_config.count) == ("L4", 1)
    scaling = function.autoscaler_settings
    assert (scaling.min_containers, scaling.max_containers, scaling.scaledown_window) == (0, 3, 300)
    assert function.max_concurrent_inputs == 32
    assert (function.webhook_config.web_server_port, function.startup_timeout_secs) == (8000, 900)
    paths = [volume.mount_path for volume in function.volume_mounts]
    assert paths == ["/root/.cache/huggingface", "/root/.cache/vllm"]

    secrets = {asked.deployment_name: asked for asked in plane.asked("SecretGetOrCreate")}
    assert list(secrets["persona-api-key"].required_keys) == ["VLLM_API_KEY"]
    words = json.loads(secrets[""].env_dict["PERSONA_VLLM_COMMAND"])
    assert words[:3] == ["vllm", "serve", "Qwen/Qwen2.5-7B-Instruct"]
    mounted = {file.filename for asked in plane.asked("MountGetOrCreate") for file in asked.files}
    assert mounted == {f"/adapters/{name}/adapter_config.json" for name in adapters} | {
        "/root/modal_deploy.py"
    }


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PERSONA_MODAL_MIN": "3"}, "PERSONA_MODAL_MIN is 0 to PERSONA_MODAL_MAX"),
        ({"PERSONA_MODAL_USERS": "many"}, "PERSONA_MODAL_USERS must be a whole number, not 'many'"),
        ({"PERSONA_MODAL_GPUS": "L4"}, "PERSONA_MODAL_GPUS is no setting: there is PERSONA_MODAL_MODEL, "),
        ({"PERSONA_MODAL_IDLE_SECONDS": "0"}, "PERSONA_MODAL_IDLE_SECONDS is 2 to 1200"),
    ],
)
def test_wrong_settings_are_told_by_name(deployment, variables, told):
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        deployment.settings_from(variables)


def test_without_an_adapter_one_line_says_how_to_make_one(tmp_path):
    done = run(tmp_path, "modal_deploy.py")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: no adapter at") and "python fine_tune.py" in done.err


def test_a_dry_run_prints_command_and_folders(tmp_path, adapters):
    extra = {"PERSONA_MODAL_MODEL": "tiny", "PERSONA_MODAL_ADAPTERS": f"sherlock={adapters['sherlock']}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in extra.items():
            patch.setenv(name, value)
        done = run(tmp_path, "modal_deploy.py", **extra)
    assert done.code == 0, done.err
    first, second, third, *_ = done.out.splitlines()
    assert first.startswith("vllm serve /base --served-model-name tiny ")
    assert second == f"{adapters['sherlock']} -> /adapters/sherlock"
    assert third == f"{config.ROOT / 'data' / 'tiny-base'} -> /base"
