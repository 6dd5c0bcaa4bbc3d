"""One frozen dataclass per concern, read from TOML, stored in every checkpoint; unknown keys are errors."""

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restorer.errors import ConfigError
from restorer.model_checks import shown
from restorer.training.critic import CriticConfig
from restorer.training.generator import GeneratorConfig
from restorer.training.losses import LossConfig
from restorer.training.paper_critic import PaperCriticConfig
from restorer.training.paper_generator import PaperGeneratorConfig
from restorer.training.wgan_config import WganConfig

DEEPEST_BASE = 4  # files


@dataclass(frozen=True)
class ScheduleConfig:
    """What is trained for how long."""

    steps: int = 9000
    minutes: float = 0.0  # of training after which a run ends whatever its steps, the rate falling by time; 0: no limit
    adversarial_from: int = 7000  # step at which the critic joins; >= steps: never
    critic_warmup: int = 200  # steps that the critic trains alone before the generator listens
    batch: int = 4
    frames: int = 256  # STFT frames per excerpt, context included
    learning_rate: float = 8e-4
    critic_learning_rate: float = 2e-4
    adversarial_learning_rate: float = 2e-4  # of the generator, once the critic has joined
    warmup_steps: int = 200
    final_learning_rate: float = 0.05  # as a share, reached by a cosine at the last step
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    average: float = 0.999  # exponential moving average of the generator's weights
    adversarial_kind: str = "hinge"  # or "wgan"
    gradient_penalty: float = 10.0
    drift: float = 1e-3
    seed: int = 0
    workers: int = 1  # processes that decode excerpts, for each training process
    bf16: bool = True
    accumulate: int = 1  # parts in which a process computes its share of a batch: less memory, same result
    compile: bool = False  # torch.compile both networks
    only: tuple[str, ...] = ()  # parts of the generator that learn, such as "noise"; empty: all


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    codings: tuple[str, ...] = ()  # empty: all in the pairs folder; named twice: drawn twice as often
    coded_rate_hz: int | None = None  # what the pairs' MP3s must be coded at; None: not checked
    valid_codings: tuple[str, ...] = ("16m", "32m", "64m")
    valid_every: int = 1000  # steps; at the last step in any case
    valid_songs: int = 15
    checkpoint_minutes: float = 4.0


@dataclass(frozen=True)
class Config:
    """All settings of a training run."""

    name: str = "compact"
    generator: GeneratorConfig | PaperGeneratorConfig = field(default_factory=GeneratorConfig)
    critic: CriticConfig | PaperCriticConfig = field(default_factory=CriticConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    data: DataConfig = field(default_factory=DataConfig)
    wgan: WganConfig | None = None  # chooses the paper's own training

    @classmethod
    def load(cls, path: str | Path) -> "Config":
        """Read a TOML file; it may name another beside it as `base`, whose values hold where it has none.

        Raises
        ------
        ConfigError
            It or its base cannot be read, is no TOML, or holds an unknown key or an impossible value; or bases go on
            and on.
        """
        return from_dict(cls, _read_tables(Path(path), DEEPEST_BASE), str(path))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _read_tables(path: Path, depth: int) -> dict[str, Any]:
    """The tables of a file with those of its base below them."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"'{path}' is not valid TOML: {error}") from None
    if "base" not in values:
        return values
    base = values.pop("base")
    if not isinstance(base, str) or not base.isprintable():
        raise ConfigError(f"{path}: 'base' must be the name of a config and not {shown(base)}")
    if not depth:
        raise ConfigError(f"'{path}': a base of a base may go {DEEPEST_BASE} files deep, and not in a circle")
    merged = _read_tables(path.parent / base, depth - 1)
    for name, value in values.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merged[name] | value if both else value
    return merged


def from_dict(cls: type, values: dict[str, Any], where: str = "config") -> Any:
    """Build a config dataclass from nested dicts; lists become tuples, a wrong type or unknown key raises."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be a table and not {shown(values)}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown key {shown(unknown[0])}; known are {', '.join(sorted(hints))}")
    arguments = {}
    for name, value in values.items():
        hint = _choose(hints[name], value, f"{where}: {name}")
        if value is None and hint is types.NoneType:
            arguments[name] = None
            continue
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: '{name}' must be a table and not {shown(value)}")
            arguments[name] = from_dict(typing.cast(type, hint), value, f"{where}: {name}")
            continue
        origin = typing.get_origin(hint)
        if origin is tuple:
            (item, _) = typing.get_args(hint)
            good = isinstance(value, list | tuple) and all(_fits(entry, item) for entry in value)
            value = tuple(value) if good else value
        else:
            good = _fits(value, hint)
            value = float(value) if good and hint is float else value
        if not good:
            expected = hint if isinstance(hint, types.GenericAlias) else hint.__name__
            raise ConfigError(f"{where}: '{name}' must be {expected} and not {shown(value)}")
        arguments[name] = value
    return cls(**arguments)


def _choose(hint: Any, value: Any, where: str) -> Any:
    """Pick the member of a union that a value means: of dataclasses the one that `kind` names, or else the first."""
    if not isinstance(hint, types.UnionType):
        return hint
    members = typing.get_args(hint)
    if value is None and types.NoneType in members:
        return types.NoneType
    sections = [member for member in members if dataclasses.is_dataclass(member)]
    if not sections:
        return members[0]
    if len(sections) == 1 or not isinstance(value, dict) or "kind" not in value:
        return sections[0]
    kinds = {member.kind: member for member in sections}
    if not isinstance(value["kind"], str) or value["kind"] not in kinds:
        raise ConfigError(f"{where}: 'kind' must be one of {', '.join(kinds)} and not {shown(value['kind'])}")
    return kinds[value["kind"]]


def _fits(value: Any, hint: type) -> bool:
    if hint is float:
        # Neither NaN, nor infinity, nor an integer beyond what a float holds.
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
