"""A signature is its schema: a node of the config has to fit the signature of what it names."""

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Union, final, get_args, get_origin

from anomaly_lab.config.messages import misfit, near
from anomaly_lab.data.names import is_plain, printable
from anomaly_lab.errors import ConfigError
from anomaly_lab.types import EVALUATION_ONLY, PRETRAINED, SAME_RUN

PACKAGE = "anomaly_lab"
NODE = {"_target_": str, "_partial_": bool}
FOREIGN_TARGETS = ("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD")


class Leaf(NamedTuple):
    """A value of the config, where it stands, and what depends on it."""

    path: str  # dotted
    value: Any  # a float where one is wanted, also if a whole number was given
    evaluation_only: bool = False  # no training depends on it
    same_run: bool = False  # no result depends on it
    pretrained: bool = False  # it says what weights a network starts from


class MisfitError(ConfigError):
    """A value does not fit its annotation.

    The line is made when somebody reads it, as one alternative may fit.
    """

    def __init__(self, value: Any, want: Any, path: str) -> None:
        self.value = value
        self.want = want
        self.path = path

    def __str__(self) -> str:
        return misfit(self.value, self.want, self.path)


@final
class Schema:
    """Checks plain content against annotations; nothing is built.

    Args:
        frame: the class whose signature is the top level.
        allow: top-level modules outside this package that a ``_target_`` may name; no other is even imported.
    """

    def __init__(self, frame: type, allow: Collection[str] = ()) -> None:
        self.frame = frame
        self.allow = [allow] if isinstance(allow, str) else list(allow)

    def leaves(self, content: Mapping[str, Any]) -> list[Leaf]:
        """Return the leaves. ConfigError: with the full path, what is wanted there, and any near miss."""
        return list(self._leaves(content, self.frame, ""))

    def _leaves(self, value: Any, want: Any, path: str) -> Iterator[Leaf]:
        """Yield the leaves of a value that has to fit an annotation."""
        origin = get_origin(want) or want
        if origin is Annotated:
            yield from self._marked(value, want, path)
        elif origin in (Union, UnionType):
            yield from self._first_fit(value, want, path)
        elif isinstance(value, dict):
            for key, wanted in self._keys(value, want, path).items():
                yield from self._leaves(value.get(key, "???"), wanted, f"{path}.{key}".lstrip("."))
        elif isinstance(value, list):
            yield from self._list(value, want, path)
        else:
            yield Leaf(path, _scalar(value, want, path))

    def _marked(self, value: Any, want: Any, path: str) -> Iterator[Leaf]:
        inner, *marks = get_args(want)
        for leaf in self._leaves(value, inner, path):
            yield leaf._replace(
                evaluation_only=leaf.evaluation_only or EVALUATION_ONLY in marks,
                same_run=leaf.same_run or SAME_RUN in marks,
                pretrained=leaf.pretrained or PRETRAINED in marks,
            )

    def _first_fit(self, value: Any, want: Any, path: str) -> list[Leaf]:
        errors = []
        for alternative in get_args(want):
            try:
                return list(self._leaves(value, alternative, path))
            except ConfigError as error:
                errors.append(error)
        # What does not fit deep inside one alternative says more than that no alternative fits.
        deep = (error for error in errors if not isinstance(error, MisfitError) or error.path != path)
        raise next(deep, MisfitError(value, want, path))

    def _list(self, value: list[Any], want: Any, path: str) -> list[Leaf]:
        origin = get_origin(want) or want
        arguments = get_args(want)
        fixed = origin is tuple and ... not in arguments
        wants = arguments if fixed else (*arguments, Any)[:1] * len(value)
        if origin not in (list, tuple, Sequence, Any) or len(wants) != len(value):
            raise MisfitError(value, want, path)
        pairs = enumerate(zip(value, wants, strict=True))
        leaves = [leaf for i, (child, want) in pairs for leaf in self._leaves(child, want, f"{path}[{i}]")]
        nodes = any(not leaf.path.endswith("]") for leaf in leaves)
        return leaves if nodes else [Leaf(path, [leaf.value for leaf in leaves])]

    def _keys(self, node: dict[str, Any], want: Any, path: str) -> dict[str, Any]:
        """Return the annotation of each key that a mapping has or must have."""
        origin = get_origin(want) or want
        schema = want
        if "_target_" in node:
            schema = self._target(node, want, path)
        elif origin in (dict, Mapping, Any):
            return dict.fromkeys(node, (*get_args(want), Any, Any)[1])
        elif origin is not self.frame:
            raise MisfitError(node, want, path)
        parameters = list(_signature(schema, path).parameters.values())
        parameters = parameters[node.get("_partial_") is True :]  # the first argument comes at the call
        known = (NODE if "_target_" in node else {}) | {p.name: p.annotation for p in parameters}
        for key in (key for key in node if key not in known):
            raise ConfigError(f"{path}.{key} is no key{near(key, known)}".lstrip("."))
        required = {p.name for p in parameters if p.default is p.empty}
        return {key: annotation for key, annotation in known.items() if key in node or key in required}

    def _target(self, node: dict[str, Any], want: Any, path: str) -> Callable[..., Any]:
        """Return what a node names, if the call gives what is wanted.

        A `Callable` is wanted with ``_partial_: true``.
        """
        target: Callable[..., Any] = self._located(node["_target_"], f"{path}._target_")
        later = get_origin(want) is Callable
        made = target if inspect.isclass(target) else _signature(target, path).return_annotation
        kind = get_args(want)[-1] if later else want
        if kind is not Any and node.get("_partial_", False) is not later:
            raise ConfigError(f"{path}._partial_ must be {str(later).lower()}")
        unchecked = kind is Any or (inspect.isclass(kind) and Protocol in kind.__bases__)
        if not unchecked and not (inspect.isclass(kind) and inspect.isclass(made) and issubclass(made, kind)):
            raise MisfitError(node, want, path)
        return target

    def _located(self, target: Any, path: str) -> Any:
        module_name, _, name = str(target).rpartition(".")
        top = module_name.partition(".")[0]
        if target not in FOREIGN_TARGETS and top != PACKAGE and top not in self.allow:
            ours = f"{target} is neither in {PACKAGE} nor one of {', '.join(FOREIGN_TARGETS)}"
            way_out = f"; if it is code of your own, give 'allow=[{top}]'" if top else ""
            raise ConfigError(f"{path}: {ours}{way_out}")
        try:
            found = vars(importlib.import_module(module_name))
        except Exception as error:  # a module of one's own may raise anything when it is imported
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: {target} cannot be imported: {reason}") from error
        own = {
            key: value
            for key, value in found.items()
            if not key.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__.startswith(module_name)
            and not inspect.isabstract(value)
        }
        if name not in own:
            raise ConfigError(f"{path}: {module_name} has no final class or function {name}{near(name, own)}")
        return own[name]


def _scalar(value: Any, want: Any, path: str) -> Any:
    if value == "???":
        raise ConfigError(f"{path} is missing: give {path}=VALUE")
    if isinstance(value, str) and not is_plain(value):
        way_out = "a text has no control signs and is UTF-8; rename the file or folder, or give another text"
        raise ConfigError(f"{path}: {printable(value)}: {way_out}")
    if type(value) is float and want is not str and not abs(value) < float("inf"):  # NaN, too, is not below
        raise ConfigError(f"{path} must be finite, not {value}")
    if want is float and type(value) is int:
        return float(value)
    literal = get_args(want) if get_origin(want) is Literal else ()
    if want in (Any, type(value)) or any(value == x and type(value) is type(x) for x in literal):
        return value
    raise MisfitError(value, want, path)


def _signature(target: Callable[..., Any], path: str) -> inspect.Signature:
    """Return the signature with its annotations as types. ConfigError: one cannot be read."""
    try:
        return inspect.signature(target, eval_str=True)
    except Exception as error:  # an annotation that is a text is code, which may raise anything
        name = getattr(target, "__name__", str(target))
        reason = " ".join(str(error).split())
        way_out = "import what its annotations name, also at run time"
        raise ConfigError(f"{path}: the signature of {name} cannot be read ({reason}); {way_out}") from error
