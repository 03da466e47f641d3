"""Settings in the INI files of earlier releases: read and translated into ours, never written.

A file has the sections `default` (id, component, uploads_url, version), `mqtt` (broker_ip, port, keep_alive), `mpspdz` and, for a node,
`security`. What has no counterpart here is left out and named in one line of the log. A key that is not there is an error, not a default:
these files were always written whole, so a gap is a damaged file, and one of the keys says whether plans need approval.
"""

import configparser
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import CONFIG_VERSION, ComponentType
from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedEnvironError, FedbiomedVersionError

logger = logging.getLogger(__name__)
INI_FILES: Mapping[ComponentType, str] = {
    ComponentType.NODE: "config_node.ini",
    ComponentType.RESEARCHER: "config_researcher.ini",
}
_TRUE, _FALSE = frozenset({"true", "1", "t"}), frozenset({"false", "0", "f", "no", "n", "off", ""})

_Keys = Mapping[tuple[str, str], tuple[str, type]]
_SHARED: _Keys = {
    ("default", "id"): ("id", str),
    ("default", "uploads_url"): ("repository", str),
    ("mqtt", "broker_ip"): ("broker", str),
    ("mqtt", "port"): ("broker_port", int),
}
_KEYS: Mapping[ComponentType, _Keys] = {
    ComponentType.RESEARCHER: _SHARED,
    ComponentType.NODE: {
        **_SHARED,
        ("security", "hashing_algorithm"): ("hashing_algorithm", str),
        ("security", "allow_default_training_plans"): ("allow_default_training_plans", bool),
        ("security", "training_plan_approval"): ("plan_approval", bool),
        ("security", "secure_aggregation"): ("secure_aggregation", bool),
        ("security", "force_secure_aggregation"): ("force_secure_aggregation", bool),
    },
}


def read_ini(path: Path, component: ComponentType, given: Collection[str] = ()) -> dict[str, Any]:
    """Read a component's settings under our names.

    Args:
        path: the file.
        component: whose it must be.
        given: settings that the environment gives: they may be missing in the file.

    Raises:
        FedbiomedEnvironError: a key is missing: which one.
        FedbiomedVersionError: the file was made by an incompatible release.
        FedbiomedConfigError: it cannot be read, is another component's, or a value is wrong.
    """
    sections = _sections(path)
    _check_origin(path, sections, component)
    found: dict[str, Any] = {}
    for (section, key), (setting, kind) in _KEYS[component].items():
        if setting not in given:
            found[setting] = _value(path, section, key, _required(path, sections, section, key), kind)
    used = {*_KEYS[component], ("default", "component"), ("default", "version")}
    unused = [f"{section}.{key}" for section, keys in sections.items() for key in keys if (section, key) not in used]
    if unused:
        logger.warning("%s: not used by this release: %s", path, ", ".join(unused))
    return found


def parse_bool(text: str) -> bool:
    """True for `true`, `1`, `t`, false for `false`, `0`, `f`, `no`, `n`, `off` and nothing, in any case.

    Raises:
        ValueError: something else: a switch that guards patients' data is not guessed.
    """
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(text)
    return word in _TRUE


def _sections(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise FedbiomedConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return {section: dict(parser[section]) for section in parser.sections()}


def _check_origin(path: Path, sections: Mapping[str, Mapping[str, str]], component: ComponentType) -> None:
    theirs = _required(path, sections, "default", "component")
    if theirs != component:
        raise FedbiomedConfigError(f"{path} is the file of a {theirs!r:.40}, a {component} is asked for; name that one's file")
    version = _required(path, sections, "default", "version")
    if version != CONFIG_VERSION:
        raise FedbiomedVersionError(f"{path} has version {version!r:.40}, this release reads {CONFIG_VERSION}; write the file anew")


def _required(path: Path, sections: Mapping[str, Mapping[str, str]], section: str, key: str) -> str:
    if key not in sections.get(section, {}):
        raise FedbiomedEnvironError(f"{path} has no key {key!r} in section [{section}]; add it")
    return sections[section][key]


def _value(path: Path, section: str, key: str, text: str, kind: type) -> Any:
    try:
        return parse_bool(text) if kind is bool else kind(text.strip())
    except ValueError as error:
        raise FedbiomedConfigError(f"{section}.{key} in {path} must be {kind.__name__}, not {text!r:.80}") from error
