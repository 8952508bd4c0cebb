"""Random command lines of the schema's keys, Hydra's syntax and values that programs trip over; always the same."""

import random

from loralab.config.keys import keys
from loralab.config.schema import Config

__all__ = ["arguments"]

# Where a command reads and writes, and what it asks a hub for: chosen by the test.
KEPT = (
    "store",
    "model.package",
    "model.hub",
    "model.revision",
    "model.path",
    "task.revision",
    "tracker",
    "train.device",
)
KEYS = [key for key in keys(Config) if not key.startswith(KEPT)]
GROUPS = {
    "model": ("tiny", "minilm", "tiny_decoder"),
    "task": ("rotten_tomatoes", "local", "pairs", "sql"),
    "method": (
        "lora",
        "lora_plus",
        "dora",
        "full",
        "head",
        "houlsby",
        "prefix",
        "p_tuning",
        "intrinsic",
        "lora_prefix",
    ),
    "hydra/launcher": ("basic", "pool"),
    "hydra/sweeper": ("basic", "study"),
    "hydra/job_logging": ("none", "default"),
}
HYDRAS = (
    "hydra.launcher.slots", "hydra.launcher.timeout", "hydra.launcher", "hydra.launcher._target_", "hydra.sweeper",
    "hydra.sweeper.params", "hydra.sweeper.arms", "hydra.sweeper._target_", "hydra.callbacks.x._target_", "hydra.mode",
    "hydra.callbacks", "hydra.verbose", "hydra.job_logging", "hydra.job_logging.root", "hydra.searchpath", "hydra.job",
    "hydra.job.name", "hydra.job.num", "hydra.job.env_copy", "hydra.job.env_set.A", "hydra.help.template", "hydra",
    "hydra.overrides.task", "hydra.runtime.cwd",
)  # fmt: skip
ODD_KEYS = (
    "", ".", "a", "x.y", "lora.", ".lora", "lora..rank", "lora[rank]", "optim.betas.0", "lora.targets.0", "é", "0",
)  # fmt: skip
FLAGS = (
    "-m", "--multirun", "--dry-run", "--resolve", "--cfg", "--cfg=nosuch", "--info=nosuch", "-c", "--package", "-x",
    "-=", "-", "--", "--experimental-rerun=x", "--exp", "--config-name=nosuch", "--config-dir=/nosuch",
    "--lora.rank=4", "--run",
)  # fmt: skip
WORDS = (
    "true", "false", "null", "q", "all", "A", "fp32", "cpu", "linear", "gaussian", "tiny", "nosuch", "_target_", "con",
    "..",
)  # fmt: skip
ODD = (
    "", " ", "''", '""', "'", '"', "\\", "\\n", "a\nb", "a\tb", "\x1b[31m", "\x00", "é", "٣", "\u202e", "a b", "=",
    "a=b", ":", ",", "a,", "[", "]", "[]", "{", "{}", "{a:1}", "{a:}", "[a", "(", "f(1)", "$", "${", "${}", "@", "*",
    "#", "%s", "${seed}", "${lora}", "${.rank}", "${lora.targets}", "${oc.env:NO_SUCH}", "${oc.decode:null}",
    "${nosuch:1}", "/", "///", "${hydra.job.num}", "${optim}", "${model.name}", "'${seed'", "../../x", "9" * 500,
    "9" * 5000, "A" * 400, "[1," * 60 + "]", "[" * 30 + "1" + "]" * 30, "os.system", "[null]", "[[q]]", "[q,[v]]",
    "{v:{q:1}}", "pkg://json", "[pkg://json]", "!!python",
)  # fmt: skip
NUMBERS = (
    "0", "1", "2", "-1", "3.5", "1e-3", "1e3", "1e30", "1e300", "1e400", "-1e400", "1e-300", "nan", "inf", "-inf",
    "0x10", "1_000", "00", "-0", "999999999999", "99999999999999999999999", "0.5", "1.0", "+1", "1e", ".5", "5.", "64",
    "1000000",
)  # fmt: skip
SWEEPS = (
    "1,2", "q,v", "range(3)", "range(1000000000)", "range(0,1,0)", "range(nan)", "range(inf)", "range(5,1)",
    "choice(1,2)", "choice()", "glob(*)", "glob(x*)", "interval(0,1)", "logspace(1e-4,1e-2,3)", "logspace(0,1,3)",
    "logspace(1,2,999999999)", "shuffle(range(3))", "sort(3,1,2)", "tag(a,1,2)", "int(range(3))", "str(1)",
    "json_str({a:1})", "extend_list(1)", "a,b,",
)  # fmt: skip


def arguments(seed: int) -> list[str]:
    """One to four arguments."""
    draw = random.Random(seed)
    return [_argument(draw) for _ in range(draw.choice((1, 1, 2, 2, 3, 4)))]


def _argument(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.08:
        return draw.choice(FLAGS)
    if kind < 0.2:
        key = draw.choice(list(GROUPS))
        value = draw.choice(
            (*GROUPS[key], *GROUPS[key], *GROUPS[key], "nosuch", "null", "1", "[a]", "[a,1]", "", "${seed}")
        )
    else:
        key = draw.choice(KEYS if kind < 0.8 else HYDRAS if kind < 0.94 else ODD_KEYS)
        value = _value(draw)
    sign = draw.choices(("", "+", "++", "~", "@", "no value"), weights=(80, 6, 4, 4, 1, 2))[0]
    if sign == "no value":
        return key
    if sign == "@":
        return f"{key}@{draw.choice(ODD_KEYS)}={value}"
    if sign == "~" and draw.random() < 0.5:
        return f"~{key}"
    if draw.random() < 0.03:
        key = key[: len(key) // 2] + draw.choice("xé .[") + key[len(key) // 2 :]
    return f"{sign}{key}={value}"


def _value(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.35:
        return draw.choice(NUMBERS)
    if kind < 0.5:
        return draw.choice(WORDS)
    if kind < 0.75:
        return draw.choice(ODD)
    if kind < 0.87:
        return draw.choice(SWEEPS)
    if kind < 0.93:
        return "[" + ",".join(_value(draw) for _ in range(draw.randrange(4))) + "]"
    if kind < 0.97:
        return (
            "{"
            + ",".join(f"{draw.choice((*WORDS, 'v', '1', ''))}:{_value(draw)}" for _ in range(draw.randrange(3)))
            + "}"
        )
    return "".join(chr(draw.randrange(1, 0x250)) for _ in range(draw.randrange(1, 12)))
