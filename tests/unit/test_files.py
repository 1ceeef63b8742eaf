"""Files are whole or as they were, and one process at a time holds a lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from rllib_odac.files import locked, write_json, write_text


def test_a_file_that_cannot_be_written_to_its_end_stays_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half of it \ud800")
    assert json.loads(path.read_text()) == {"b": 1}


def test_a_lock_goes_with_its_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from rllib_odac.files import locked\n"
        "with locked(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(60)"
    )
    path = tmp_path / "a.lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match="it is in use by another process"), locked(path, "it"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    with locked(path, "it", timeout=10):
        pass
    holder.wait()
    holder.stdout.close()
