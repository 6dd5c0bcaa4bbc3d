"""`Chain`: native pedalboard plug-ins, VST3s and our own effects in one list, called like a `Pedalboard`."""

import reprlib
import threading
from collections.abc import Iterable, Iterator, MutableSequence
from contextlib import ExitStack, contextmanager
from typing import Any, SupportsIndex, overload

from restorer.errors import RestorerError
from restorer.plugins.effect import Effect
from restorer.plugins.native import NativeLock, NativeRun, check_native_format, is_native, parts
from restorer.stream import replace_damage
from restorer.transform import Float32


class PluginTypeError(RestorerError, TypeError):
    """Something that is no effect was put into a chain."""


class DuplicatePluginError(RestorerError, RuntimeError):
    """A plug-in stands in a chain twice; its one state cannot serve two places."""


class Chain(Effect, MutableSequence[Any]):
    """A list of effects that is itself an effect; see `process`.

    Takes plug-ins of pedalboard (containers too), VST3s, Audio Units, `RestorerPlugin`, other chains, and None
    for an empty place. With native plug-ins alone it gives what `pedalboard.Pedalboard` gives, bit for bit,
    and their state survives blocks that grow. Latency is compensated as pedalboard does it. Changes of the
    list count from the next call on; they may come from another thread.

    Formats are those of `RestorerPlugin` where one is in the chain, and any that pedalboard takes where none is.
    With one of ours in it, what is NaN, infinite or beyond 120 dB over full scale is 0 for the whole chain: a native
    plug-in in front would never recover from it.

    With reset=False a native PitchShift never returns a sample (pedalboard 0.9.26), in a chain as alone.

    Parameters
    ----------
    plugins
        In the order in which the signal runs through them.

    Raises
    ------
    TypeError
        Something in the list is no effect.
    ImportError
        It is neither ours nor, as pedalboard is not installed, a native plug-in.
    """

    def __init__(self, plugins: Iterable[Any] = ()) -> None:
        super().__init__()
        self._edit = threading.Lock()
        # Replaced as a whole and never changed, so that a call in another thread keeps the one it began with.
        self._plugins: tuple[Any, ...] = tuple(_check_plugin(plugin) for plugin in plugins)
        self._leaves: list[Any] = []
        self._nodes: list[Effect | NativeRun] = []
        self._block: int | None = None

    def __len__(self) -> int:
        return len(self._plugins)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> "Chain": ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        """One plug-in, or for a slice a new chain with the same plug-ins."""
        if isinstance(index, slice):
            return Chain(self._plugins[index])
        return self._plugins[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        checked = [_check_plugin(plugin) for plugin in (value if isinstance(index, slice) else [value])]
        with self._edit:
            plugins = list(self._plugins)
            plugins[index] = checked if isinstance(index, slice) else checked[0]
            self._plugins = tuple(plugins)

    def __delitem__(self, index: Any) -> None:
        with self._edit:
            plugins = list(self._plugins)
            del plugins[index]
            self._plugins = tuple(plugins)

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Put a plug-in before the one at `index`."""
        _check_plugin(value)
        with self._edit:
            plugins = list(self._plugins)
            plugins.insert(index, value)
            self._plugins = tuple(plugins)

    def append(self, value: Any) -> None:
        """Put a plug-in at the end."""
        _check_plugin(value)
        with self._edit:
            self._plugins = (*self._plugins, value)

    def prepare(self, channels: int, sample_rate: float) -> None:
        """`RestorerPlugin.prepare` for all of ours in the chain; native plug-ins have nothing of the kind."""
        for effect in self._ours():
            effect.prepare(channels, sample_rate)
        with self._held():
            self._expect(self._check_format(channels, sample_rate))

    @reprlib.recursive_repr("<restorer.plugins.Chain ...>")
    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        return f"<restorer.plugins.Chain with {len(self)} plugin{plural}: {list(self._plugins)}>"

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold this chain and every plug-in in it, in one order for all threads, as pedalboard does."""
        seen: dict[int, Any] = {}
        leaves = list(self._flatten(seen))
        natives = [NativeLock.of(plugin) for plugin in seen.values() if not isinstance(plugin, Effect)]
        ours = [leaf for leaf in leaves if isinstance(leaf, Effect)]
        locks = [self._lock, *(effect._lock for effect in ours), *(native.lock for native in natives)]
        with ExitStack() as held:
            for lock in sorted(locks, key=id):
                held.enter_context(lock)
            if [id(leaf) for leaf in leaves] != [id(leaf) for leaf in self._leaves]:
                self._leaves, self._nodes = leaves, _group(leaves)
            yield

    def _flatten(self, seen: dict[int, Any]) -> Iterator[Any]:
        """All plug-ins in order, those of nested chains in their place.

        `seen` gets everything met on the way. It must outlive the walk: what stands in a native container may
        be a Python object for only as long as someone holds it, and its id goes to the next one.
        """
        if id(self) in seen:
            raise DuplicatePluginError("a chain cannot contain itself or hold the same chain twice: remove one")
        seen[id(self)] = self
        for plugin in self._plugins:
            if isinstance(plugin, Chain):
                yield from plugin._flatten(seen)
            elif plugin is not None:
                for part in [plugin] if isinstance(plugin, Effect) else parts(plugin):
                    if id(part) in seen:
                        raise DuplicatePluginError(
                            f"{part!r} is in the chain twice; make a second instance for the second place"
                        )
                    seen[id(part)] = part
                yield plugin

    def _ours(self) -> list[Effect]:
        return [leaf for leaf in self._flatten({}) if isinstance(leaf, Effect)]

    def _rest(self) -> None:
        for effect in self._ours():
            effect._rest()

    def _known_latency(self, sample_rate: float) -> int:
        return sum(node._known_latency(sample_rate) for node in self._nodes if isinstance(node, Effect))

    def _check_format(self, channels: int, sample_rate: float) -> tuple[int, float]:
        check = super()._check_format if self._has_ours() else check_native_format
        return check(channels, sample_rate)

    def _has_ours(self) -> bool:
        return any(isinstance(node, Effect) for node in self._nodes)

    def _forget(self) -> None:
        self._block = None
        for node in self._nodes:
            if isinstance(node, NativeRun):
                node.reset()
            else:
                node._start_over()

    def _run_whole(self, audio: Float32, block_samples: int) -> Float32:
        if len(self._nodes) != 1 or not isinstance(self._nodes[0], NativeRun):
            return super()._run_whole(audio, block_samples)
        assert self._format is not None
        self._block = min(block_samples, audio.shape[1])
        self._provided = self._returned = audio.shape[1]
        return self._nodes[0].process_whole(audio, self._format[1], self._block)

    def _advance(self, audio: Float32, sample_rate: float, block_samples: int) -> Float32:
        if self._has_ours():
            audio, _ = replace_damage(audio)
        if self._block is None:
            self._block = min(block_samples, audio.shape[1])
        for node in self._nodes:
            if audio.shape[1] == 0:
                break
            if isinstance(node, NativeRun):
                audio = node.process(audio, sample_rate, self._block)
            else:
                audio = node._advance(audio, sample_rate, block_samples)
        return audio


def _group(leaves: list[Any]) -> list[Effect | NativeRun]:
    """Our effects one by one, and the native plug-ins between them together."""
    nodes: list[Effect | NativeRun] = []
    waiting: list[Any] = []
    for leaf in [*leaves, None]:
        if leaf is not None and not isinstance(leaf, Effect):
            waiting.append(leaf)
            continue
        if waiting:
            nodes.append(NativeRun(waiting))
            waiting = []
        if leaf is not None:
            nodes.append(leaf)
    return nodes


def _check_plugin(plugin: Any) -> Any:
    if plugin is None or isinstance(plugin, Effect):
        return plugin
    if not is_native(plugin):
        raise PluginTypeError(
            f"a chain takes pedalboard plug-ins, RestorerPlugin, Chain or None, and not {type(plugin).__name__}"
        )
    if not plugin.is_effect:
        raise PluginTypeError(f"{plugin!r} is an instrument and takes no audio; a chain takes effects")
    return plugin
