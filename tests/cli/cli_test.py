"""The command-line tool as a person uses it: exit codes, messages, files, repeatability."""

import os
import re
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
RTLYNX = Path(os.environ["RTLYNX_BIN_DIR"]) / "rtlynx"
MODEL = ROOT / "models" / "mini-flux"
PROMPT = "a fox above a red apple on a striped blue background"


def rtlynx(*arguments, cwd=ROOT, **kwargs):
    return subprocess.run(
        [RTLYNX, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs
    )


def generate(output, *arguments, **kwargs):
    return rtlynx("generate", "-m", MODEL, "-p", PROMPT, "--steps", 2, "-o", output, *arguments, **kwargs)


def test_help_teaches_every_verb():
    overview = rtlynx("--help")
    assert overview.returncode == 0
    for verb in ("generate", "calibrate", "skip", "evaluate", "inspect", "bench"):
        assert verb in overview.stdout
        text = rtlynx(verb, "--help")
        assert text.returncode == 0
        assert "Example" in text.stdout or "example" in text.stdout


def test_version():
    result = rtlynx("--version")
    assert result.returncode == 0
    assert result.stdout.strip().count(".") == 2


@pytest.mark.parametrize("arguments", [[], ["paint"], ["generate"], ["generate", "-p", "x", "--mode", "fast"]])
def test_wrong_use_exits_2(arguments):
    result = rtlynx(*arguments)
    assert result.returncode == 2
    assert result.stderr


@pytest.mark.parametrize("mode", ["dense", "sa", "sa-nc", "sa-nc-lora"])
def test_same_command_same_bytes(tmp_path, mode):
    images = []
    for name in ("a.png", "b.png"):
        result = generate(tmp_path / name, "--mode", mode, "--plan", "sparse", "-s", 3)
        assert result.returncode == 0, result.stderr
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]
    assert Image.open(tmp_path / "a.png").size == (256, 256)


SKIP = ("--num-prompts", 1, "--steps", 2, "--timesteps", 1, "--candidates", 2, "--per-round", 2, "--quiet")


@pytest.fixture(scope="module")
def skipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skip")
    adapter = folder / "sl.safetensors"
    result = rtlynx("skip", "-m", MODEL, "--sparse-flops", 0.95, "-o", adapter, "--curve", folder / "curve", *SKIP)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "" and result.stderr == ""
    return adapter


def decisions(adapter):
    shown = rtlynx("inspect", adapter)
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines() if "transformer_blocks" in line]
    return {row[0]: row[3] for row in rows}, shown.stdout


def test_skip_writes_decisions_reasons_and_a_curve(skipped):
    decided, shown = decisions(skipped)
    assert len(decided) == 66
    dense = [name for name, decision in decided.items() if decision == "dense"]
    assert 1 <= len(dense) <= 20
    assert f"1st of {len(dense)} left dense" in shown
    assert '"sparse_flops":0.95' in shown
    curve = [line.split(",") for line in (skipped.parent / "curve.csv").read_text().splitlines()]
    assert curve[0] == ["choice", "linears_dense", "sparse_flops", "damage_predicted", "damage_measured"]
    greedy = [row for row in curve if row[0] == "greedy"]
    assert float(greedy[0][2]) == 1.0 and 0.95 <= float(greedy[-1][2]) < 1
    assert float(greedy[-1][4]) < float(greedy[0][4])
    assert greedy[-1][1] == str(len(dense))
    linears = (skipped.parent / "curve-linears.csv").read_text().splitlines()
    assert len(linears) == 67
    assert sum(float(line.split(",")[3]) for line in linears[1:]) == pytest.approx(1, abs=1e-4)
    assert "<svg" in (skipped.parent / "curve.svg").read_text()
    assert sorted(p.name for p in skipped.parent.iterdir()) == [
        "curve-linears.csv", "curve.csv", "curve.svg", "sl.safetensors"
    ]  # fmt: skip


def test_skipped_layers_change_the_picture_in_their_mode_alone(tmp_path, skipped):
    pictures = {}
    for name, mode, adapter in (
        ("all", "sa-nc-lora", ()),
        ("still all", "sa-nc-lora", ("--adapter", skipped)),
        ("skipped", "sa-nc-lora-sl", ("--adapter", skipped)),
        ("again", "sa-nc-lora-sl", ("--adapter", skipped)),
    ):
        result = generate(tmp_path / "a.png", "--mode", mode, "--plan", "sparse", *adapter)
        assert result.returncode == 0, result.stderr
        pictures[name] = Image.open(tmp_path / "a.png").tobytes()
    assert pictures["all"] == pictures["still all"]
    assert pictures["skipped"] == pictures["again"]
    assert pictures["skipped"] != pictures["all"]
    text = Image.open(tmp_path / "a.png").text["parameters"]
    assert "Mode: sa-nc-lora-sl" in text and "Adapter: sl.safetensors" in text


def test_skipping_needs_an_adapter_with_a_choice(tmp_path):
    result = generate(tmp_path / "a.png", "--mode", "sa-nc-lora-sl")
    assert result.returncode == 2
    assert "rtlynx skip" in result.stderr
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("share", ["0", "1.5", "nan"])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    result = rtlynx("skip", "-m", MODEL, "--sparse-flops", share, "-o", tmp_path / "a.safetensors", *SKIP)
    assert result.returncode == 2
    assert "of the FLOPs sparse" in result.stderr
    assert not (tmp_path / "a.safetensors").exists()


def test_modes_and_seeds_change_the_picture(tmp_path):
    checksums = set()
    for name, extra in {"dense": (), "sa": ("--mode", "sa", "--plan", "sparse"), "seed": ("-s", 9)}.items():
        assert generate(tmp_path / f"{name}.png", *extra).returncode == 0
        checksums.add(zlib.crc32(Image.open(tmp_path / f"{name}.png").tobytes()))
    assert len(checksums) == 3


def test_image_i_of_a_batch_is_the_picture_of_seed_plus_i(tmp_path):
    assert generate(tmp_path / "batch.png", "-b", 2, "-s", 5).returncode == 0
    assert generate(tmp_path / "single.png", "-s", 6).returncode == 0
    second = Image.open(tmp_path / "batch-001.png").tobytes()
    single = Image.open(tmp_path / "single.png").tobytes()
    worst = max(abs(a - b) for a, b in zip(second, single, strict=True))
    assert worst <= 1


def test_metadata_carries_what_made_the_picture(tmp_path):
    assert generate(tmp_path / "a.png", "-s", 11).returncode == 0
    text = Image.open(tmp_path / "a.png").text["parameters"]
    for part in (PROMPT, "Seed: 11", "Steps: 2", "Size: 256x256", "Mode: dense", "RT-Lynx"):
        assert part in text
    shown = rtlynx("inspect", tmp_path / "a.png")
    assert shown.returncode == 0
    assert PROMPT in shown.stdout

    assert generate(tmp_path / "bare.png", "--disable-image-metadata").returncode == 0
    assert "parameters" not in Image.open(tmp_path / "bare.png").text


def warnings_of(tmp_path, prompt, *arguments):
    result = rtlynx("generate", "-m", MODEL, "-p", prompt, "--steps", 1, "-o", tmp_path / "a.png", *arguments)
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if "warning" in line]


def test_a_prompt_that_is_too_long_gives_one_warning(tmp_path):
    """The model's limits: 77 tokens for CLIP, 32 for T5, start and end tokens included."""
    cut = re.compile(r"(text_encoder\w*) drops the last (\d+) tokens of the (negative prompt|prompt) \(limit (\d+)\)")
    words = "fox " * 100
    (line,) = warnings_of(tmp_path, words)
    (clip, t5) = cut.findall(line)
    assert (clip[0], clip[2:]) == ("text_encoder", ("prompt", "77"))
    assert (t5[0], t5[2:]) == ("text_encoder_2", ("prompt", "32"))
    assert int(clip[1]) % 100 == 100 - 75 and int(t5[1]) % 100 == 100 - 31

    (line,) = warnings_of(tmp_path, PROMPT, "--max-sequence-length", 4)
    assert [(encoder, limit) for encoder, _, _, limit in cut.findall(line)] == [("text_encoder_2", "4")]
    (line,) = warnings_of(tmp_path, PROMPT, "-n", words, "--cfg-scale", 2)
    assert [name for _, _, name, _ in cut.findall(line)] == ["negative prompt"] * 2

    assert warnings_of(tmp_path, PROMPT) == []
    assert warnings_of(tmp_path, PROMPT, "-n", words) == []  # not read without guidance
    assert warnings_of(tmp_path, words, "--quiet") == []


BAD_USE = {
    "width 13": (["-W", 13], "13"),
    "height 0 tokens": (["-H", -16], "-16"),
    "steps 0": (["--steps", 0], "step"),
    "output is no png": (["-o", "picture.jpg"], ".png"),
    "prompt of 1 MB": (["-p", "fox " * 250_000], "prompt"),
}


@pytest.mark.parametrize("name", BAD_USE)
def test_bad_values_give_one_line_and_exit_2(tmp_path, name):
    arguments, expected = BAD_USE[name]
    if name == "prompt of 1 MB":  # longer than the kernel lets one argument be
        prompt = tmp_path / "prompt.txt"
        prompt.write_text(arguments[1])
        arguments = ["--prompt-file", prompt]
        result = rtlynx("generate", "-m", MODEL, "-o", "out.png", *arguments, cwd=tmp_path)
    else:
        output = [] if "-o" in arguments else ["-o", "out.png"]
        result = rtlynx("generate", "-m", MODEL, "-p", PROMPT, *output, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert expected in result.stderr
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob("*.jpg"))


def test_invalid_utf8_prompt(tmp_path):
    result = subprocess.run(
        [RTLYNX, "generate", "-m", MODEL, "-p", b"fox \xff\xfe", "-o", tmp_path / "a.png"], capture_output=True
    )
    assert result.returncode == 2
    assert b"UTF-8" in result.stderr
    assert not (tmp_path / "a.png").exists()


def test_missing_folder_exits_1(tmp_path):
    result = rtlynx("generate", "-m", tmp_path / "nothing", "-p", "x", "-o", tmp_path / "a.png")
    assert result.returncode == 1
    assert "not-found" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def copy_model(target):
    target.mkdir()
    for source in MODEL.rglob("*"):
        place = target / source.relative_to(MODEL)
        if source.is_dir():
            place.mkdir()
        else:
            place.write_bytes(source.read_bytes())
    return target


def test_truncated_shard_names_the_file(tmp_path):
    model = copy_model(tmp_path / "model")
    shard = sorted((model / "transformer").glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    result = rtlynx("generate", "-m", model, "-p", "x", "-o", tmp_path / "a.png")
    assert result.returncode == 1
    assert shard.name in result.stderr
    assert not (tmp_path / "a.png").exists()


def test_full_disk_leaves_nothing(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", mount], capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        result = generate(mount / "a.png")
        assert result.returncode == 1
        assert "write-failed" in result.stderr and "a.png" in result.stderr
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", mount], check=True)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    model = copy_model(tmp_path / "model")
    shard = sorted((model / "transformer").glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-2] ^= 1
    shard.write_bytes(bytes(data))
    result = rtlynx("generate", "-m", model, "-p", "x", "--mode", "sa-nc-lora", "-o", tmp_path / "a.png")
    assert result.returncode == 1
    assert "adapter-mismatch" in result.stderr and "made for weights" in result.stderr


def test_inspect_a_model_and_an_adapter():
    model = rtlynx("inspect", MODEL)
    assert model.returncode == 0, model.stderr
    for part in ("FluxPipeline", "transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_out"):
        assert part in model.stdout
    adapter = rtlynx("inspect", next(MODEL.glob("rtlynx-*.safetensors")))
    assert adapter.returncode == 0, adapter.stderr
    for part in ("rank", "sparse", "transformer_blocks.0.attn.to_q"):
        assert part in adapter.stdout
