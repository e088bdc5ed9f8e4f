"""`AutoGLM`: nothing is loaded before the first prompt, and nothing is left after the last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from autoglm import AutoGLM, ConfigError, Conflict, GLMConfig, InvalidRequest, UsageError
from autoglm.sync import Client
from autoglm.types import Sampling
from tests.system.real import INSTANT, Server, autoglm, environment, fingerprint, gone

pytestmark = pytest.mark.system


class City(msgspec.Struct):
    name: str


def config(folder: Path, **more: object) -> GLMConfig:
    settings = {"engine.simulated.load_s": 0, "engine.simulated.step_ms": 0}
    given = {"model_name": "tiny", "engine": "simulated", "data_dir": folder, "settings": settings}
    return GLMConfig(**(given | more))  # pyright: ignore[reportArgumentType]


def test_it_starts_a_server_with_the_first_prompt_and_ends_it_with_the_last(
    tmp_path: Path,
) -> None:
    with AutoGLM.from_config(config(tmp_path, max_seq_length=512)) as model:
        assert list(tmp_path.iterdir()) == []
        text = model.generate("hello", temperature=0.7, max_tokens=5)
        assert text.startswith(fingerprint("hello"))
        several = model.generate(["one", "two"], max_tokens=5)
        assert [each[:16] for each in several] == [fingerprint("one"), fingerprint("two")]
        turns = [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]
        assert model.generate(turns).startswith(fingerprint("hi"))
        assert len(model.generate([turns, turns])) == 2
        assert model.generate("b", response_format=City) == City(fingerprint("b"))
        assert "".join(model.stream("hello", max_tokens=5)) == text
        with Client(tmp_path / "autoglm.sock") as client:
            pid = client.status().server.pid
            assert client.server.max_model_len == 512
    assert gone([pid])
    listed = autoglm("status", "--data-dir", str(tmp_path))
    assert listed.returncode == 3
    with AutoGLM.from_config(config(tmp_path)) as model:
        assert model.generate("again").startswith(fingerprint("again"))


def test_a_timeout_is_of_the_whole_list(tmp_path: Path) -> None:
    faults = {"engine.faults": "true", "engine.simulated.load_s": 0, "engine.simulated.step_ms": 0}
    with AutoGLM(config(tmp_path, settings=faults)) as model:
        model.generate("the model is loaded")
        with pytest.raises(TimeoutError, match="of 2 prompts, in order, had answers in 1 s"):
            model.generate(["hello", "[[slow:600]]"], timeout=1)


def test_more_than_a_text_is_refused_before_anything_starts(tmp_path: Path) -> None:
    model = AutoGLM(config(tmp_path))
    with pytest.raises(InvalidRequest, match=r"n 2: generate returns one text; autoglm\.sync"):
        model.generate("hello", n=2)
    with pytest.raises(InvalidRequest, match="logprobs 0"):
        model.generate(["hello"], logprobs=0)
    with pytest.raises(InvalidRequest, match="n 3"):
        model.generate("hello", sampling=Sampling(n=3))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_prompt_is_refused(tmp_path: Path) -> None:
    with AutoGLM(config(tmp_path)) as model:
        for prompts in (["a", 5], 5, None, {"role": "user"}):
            with pytest.raises(InvalidRequest):
                model.generate(prompts, timeout=20)  # pyright: ignore[reportArgumentType,reportCallIssue]


def test_a_server_that_is_there_is_used_and_stays(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT, "--model", "tiny") as server:
        with AutoGLM.load("tiny", engine="simulated", data_dir=tmp_path) as model:
            assert model.generate("hello")
        assert server.ask("status").returncode == 0
        with pytest.raises(Conflict, match="model tiny, not smollm2"):
            AutoGLM.load("smollm2", engine="simulated", data_dir=tmp_path).generate("x")
        with pytest.raises(Conflict, match="max_seq_length of its model, not 64"):
            AutoGLM.from_config(config(tmp_path, max_seq_length=64)).generate("x")


def test_its_server_dies_with_the_process_and_the_next_call_gets_over_a_death(
    tmp_path: Path,
) -> None:
    program = (
        "import sys, os, signal; from autoglm import AutoGLM\n"
        "model = AutoGLM.load('tiny', engine='simulated', data_dir=sys.argv[1])\n"
        "model.generate('hello'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path)], env=environment(), check=False
    )
    assert done.returncode == -signal.SIGKILL
    with AutoGLM.from_config(config(tmp_path)) as model:
        assert model.generate("hello")
        with Client(tmp_path / "autoglm.sock") as client:
            os.kill(client.status().server.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="server"):
            model.generate("lost")
        assert model.generate("found").startswith(fingerprint("found"))


def test_a_script_that_closes_nothing_ends_by_itself(tmp_path: Path) -> None:
    program = (
        "import sys; from autoglm import AutoGLM\n"
        "model = AutoGLM.load('tiny', engine='simulated', data_dir=sys.argv[1])\n"
        "print(model.generate('hello')[:16])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{fingerprint('hello')}\n", "")


def test_what_is_not_there_is_told_at_once_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown model glm-large: .* smollm2, tiny"):
        GLMConfig(model_name="glm-large", max_seq_length=512)
    with pytest.raises(ConfigError, match=r"unknown model base-v1: .* smollm2, tiny"):
        AutoGLM.load("base-v1")
    with pytest.raises(ConfigError, match=r"no setting lenght; there are: .*max_seq_length"):
        AutoGLM.load("tiny", lenght=3)
    for wrong in ("many", 0, 2.5, True):
        with pytest.raises(ConfigError, match="max_seq_length"):
            GLMConfig(max_seq_length=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="engine: vllm or simulated"):
        AutoGLM.load("tiny", engine="vlm")
    (tmp_path / "config.json").write_text("{}")
    assert AutoGLM.load(str(tmp_path)).config.model_name == str(tmp_path)
    with (
        AutoGLM.from_config(config(tmp_path / "data")) as model,
        pytest.raises(InvalidRequest, match="did you mean max_tokens"),
    ):
        model.generate("x", max_new_tokens=3)  # pyright: ignore[reportCallIssue]
    bad = {"engine.max_nmu_seqs": 3}
    with pytest.raises(UsageError, match="max_nmu_seqs"):
        AutoGLM.from_config(config(tmp_path / "other", settings=bad)).generate("x")
