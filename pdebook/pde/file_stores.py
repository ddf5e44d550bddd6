"""Open files by dataset, whatever their kind: HDF5, classic NetCDF, MATLAB 5 and 7.3."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch
from torch import Tensor

__all__ = ["Store", "read_mat"]


def _refuse(path: Path, error: Exception) -> ValueError:
    text = str(error)
    if "truncated" in text:
        return ValueError(f"{path} is truncated: {text}")
    return ValueError(f"{path} is damaged, or no file of its kind: {type(error).__name__}: {text}")


class Store:
    """The datasets of an open file by name, whatever its kind; ``backwards`` if it lists the axes in reverse, as MATLAB 7.3."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            start = file.read(512)
        self.path, self.backwards = path, False
        self.attributes: dict[str, Any] = {}
        try:
            if start[:3] == b"CDF":
                self._file: Any = scipy.io.netcdf_file(path, "r", mmap=True)
                self._held: Mapping[str, Any] = self._file.variables
            elif start[:10] == b"MATLAB 5.0":
                self._file, self._held = None, scipy.io.loadmat(path)
            else:
                # Best effort: a file on a disk that cannot lock is read nevertheless.
                self._file = h5py.File(path, "r", locking="best-effort")
                self._held, self.backwards = self._file, start[:10] == b"MATLAB 7.3"
                self.attributes = dict(self._file.attrs)
        except (OSError, ValueError, TypeError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
            raise _refuse(path, error) from error

    def names(self) -> list[str]:
        """Names of the datasets."""
        return [name for name in self._held if not name.startswith("__")]

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def __getitem__(self, name: str) -> Any:
        if name not in self._held:
            known = self.names()
            listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise ValueError(f"{self.path} lacks dataset {name!r}; it holds {listed or 'nothing'}")
        return self._held[name]

    def read(self, name: str, index: Any = ()) -> np.ndarray:
        """A dataset's part. Raises ValueError for one that is missing or damaged."""
        try:
            return np.asarray(self[name][index])
        except OSError as error:
            raise ValueError(f"{self.path} is truncated or damaged in {name!r}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._held = {}
        if self._file is not None:
            self._file.close()


def _complex(value: np.ndarray) -> np.ndarray:
    """MATLAB 7.3 stores complex numbers as pairs of fields."""
    return value["real"] + 1j * value["imag"] if value.dtype.names == ("real", "imag") else value


def read_mat(path: str | os.PathLike[str], *names: str) -> dict[str, Tensor]:
    """Numeric arrays of a MATLAB file of version 5 or 7.3, real or complex, with the axes as MATLAB shows them.

    Args:
        path: the file.
        names: which arrays; all numeric ones if left out.
    Raises:
        ValueError: a damaged file, an array that is missing.
    """
    store = Store(Path(path))
    try:
        arrays = {}
        for name in names or store.names():
            value = store[name]
            if not names and not (hasattr(value, "dtype") and (value.dtype.kind in "fiub" or _is_complex(value.dtype))):
                continue
            value = _complex(store.read(name))
            value = value.T if store.backwards else value
            arrays[name] = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
        return arrays
    finally:
        store.close()


def _is_complex(dtype: np.dtype) -> bool:
    return dtype.kind == "c" or dtype.names == ("real", "imag")
