"""Builds the Cython extensions of `ext/` into `epaxos._ext`. Everything else is in `pyproject.toml`.

Each extension is optional: where there is no Cython or no working C compiler, its pure Python twin serves. With
`EPAXOS_PURE=1` in the environment none is built, and the wheel is good for every platform.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup


def extensions() -> list[Extension]:
    if os.environ.get("EPAXOS_PURE", "") not in ("", "0"):
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    included = sorted(map(str, Path("ext").glob("*.px[di]")))
    found = [
        Extension(
            f"epaxos._ext.{path.stem}",
            [str(path)],
            include_dirs=["ext"],
            depends=included,
            extra_compile_args=["-O3"],
        )
        for path in sorted(Path("ext").glob("*.pyx"))
    ]
    built = cythonize(
        found,
        build_dir="build/cython",
        include_path=["ext"],
        compiler_directives={"language_level": 3},
        quiet=True,
    )
    for extension in built:
        extension.optional = True  # after cythonize, which makes new ones and forgets it
    return list(built)


setup(ext_modules=extensions())
