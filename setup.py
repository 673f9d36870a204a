"""Builds the Cython extensions of `ext/` into `epaxos._ext`, each of them optional: without a compiler, or without
Cython, the pure Python twins serve."""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup


def extensions() -> list[Extension]:
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    found = [
        Extension(
            f"epaxos._ext.{path.stem}",
            [str(path)],
            include_dirs=["ext"],
            extra_compile_args=["-O3"],
            optional=True,
        )
        for path in sorted(Path("ext").glob("*.pyx"))
    ]
    return list(cythonize(found, include_path=["ext"], compiler_directives={"language_level": 3}, quiet=True))


setup(ext_modules=extensions())
