"""The YAML files of `conf/`: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


def find_conf(path: str | Path) -> Path:
    """The file itself if it exists; else, of a path `conf/...`, the one that comes with this package.

    So `--config conf/model/tan.yaml` works from any folder. A path that is found nowhere is returned unchanged: whoever
    opens it says that it is missing.
    """
    given = Path(path)
    if given.exists() or given.is_absolute() or given.parts[:1] != ("conf",):
        return given
    packaged = CONF.joinpath(*given.parts[1:])
    return packaged if packaged.exists() else given
