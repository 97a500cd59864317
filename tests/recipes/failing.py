"""Programs that really fail in known ways: ``python -m tests.recipes.failing CODE``.

Each causes one failure of a library or tool that is installed here.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def question() -> None:
    input("overwrite? [y/n] ")


def apt_lock() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "status").touch()
        with Path(folder, "lock-frontend").open("w") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            options = ["-o", f"Dir::State::status={folder}/status"]
            subprocess.run(["apt-get", *options, "install", "-y", "hello"], check=True)


def port_taken() -> None:
    first, second = socket.socket(), socket.socket()
    first.bind(("127.0.0.1", 0))
    first.listen()
    second.bind(first.getsockname())


def no_return() -> None:
    faulthandler.dump_traceback_later(0.1, exit=True)
    socket.create_server(("127.0.0.1", 0)).accept()


def systemd() -> None:
    subprocess.run(["systemd-run", "true"], check=True)


def garbled() -> None:
    subprocess.run(["bash", "-c", "export 1WANDB=x"], check=True)


def disk_full() -> None:
    with open("/dev/full", "w") as file:  # noqa: PTH123
        file.write("x" * 100_000)


def read_only() -> None:
    write = "open('norm_stats.json', 'w')"
    inside = f'mount -t tmpfs -o ro none "$PWD" && cd "$PWD" && {sys.executable} -c "{write}"'
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["unshare", "-m", "sh", "-c", inside], check=True, cwd=folder)


def no_remote() -> None:
    subprocess.run([_rclone(), "--config", "/dev/null", "lsd", "gg1:libero"], check=True)


def dead_store() -> None:
    words = ["--retries", "1", "--low-level-retries", "1", "--contimeout", "2s", "lsd"]
    subprocess.run([_rclone(), *words, ':webdav,url="http://127.0.0.1:9/":x'], check=True)


def _rclone() -> str:
    return str(Path(sys.executable).with_name("rclone"))


def private_ca() -> None:
    import urllib.request

    with tempfile.TemporaryDirectory() as folder:
        words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
        files = ["-keyout", f"{folder}/key", "-out", f"{folder}/certificate"]
        subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/certificate", f"{folder}/key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urllib.request.urlopen(f"https://localhost:{server.server_port}/", timeout=10)


def no_such_model() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from huggingface_hub import hf_hub_download

    address = f"http://127.0.0.1:{server.server_port}"
    hf_hub_download("openvla/modified_libero_rlds", "README.md", endpoint=address)


def cached_download() -> None:
    from huggingface_hub import cached_download  # type: ignore[attr-defined]  # noqa: F401


def other_python(module: str) -> Callable[[], None]:
    def run() -> None:
        subprocess.run(["/usr/bin/python3", "-I", "-c", f"import {module}"], check=True)

    return run


def unsatisfiable() -> None:
    uv, python = Path(sys.executable).with_name("uv"), sys.executable
    words = ["pip", "install", "--dry-run", "--no-index", "--python", python]
    subprocess.run([uv, *words, "numpy==1.26.0", "numpy==2.0.0"], check=True)


def options() -> None:
    import argparse

    argparse.ArgumentParser(prog="main.py").parse_args(["--per_device_train_batch_size", "8"])


def other_statistics() -> None:
    import numpy as np

    np.zeros((32, 7)) - np.zeros(15)


def short_episode() -> None:
    import numpy as np

    np.random.randint(0, 60 - 64)


def not_a_number() -> None:
    import numpy as np

    with np.errstate(all="ignore"):
        loss = np.float32(1e38) * 10
        print(f"[AE] step=5/100 loss={loss - loss:.4f} lr=1.00e-05 gnorm={loss:.2f} sps=0.1")


def workers() -> None:
    import torch.utils.data

    torch.utils.data.DataLoader([1], persistent_workers=True)  # type: ignore[arg-type]


def no_optimizer() -> None:
    import torch

    torch.load("checkpoints/600/optimizer.pt")


def other_sizes() -> None:
    from torch.nn import Linear

    Linear(3, 4).load_state_dict(Linear(3, 5).state_dict())


def pickled() -> None:
    import numpy as np
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.save(np.random.RandomState(0), f"{folder}/init")
        torch.load(f"{folder}/init", weights_only=True)


def channels_last() -> None:
    import torch

    torch.nn.Conv2d(3, 8, 3)(torch.zeros(1, 224, 224, 3))


FAILURES: dict[str, Callable[[], object]] = {
    "RDTL-B009": garbled,
    "RDTL-B010": question,
    "RDTL-B014": systemd,
    "RDTL-B018": apt_lock,
    "RDTL-S007": port_taken,
    "RDTL-G005": read_only,
    "RDTL-G009": disk_full,
    "RDTL-G011": dead_store,
    "RDTL-G014": no_remote,
    "RDTL-G016": no_such_model,
    "RDTL-C007": other_python("safetensors"),
    "RDTL-C012": cached_download,
    "RDTL-C013": unsatisfiable,
    "RDTL-C019": private_ca,
    "RDTL-C022": other_python("libero"),
    "RDTL-D003": other_statistics,
    "RDTL-D011": short_episode,
    "RDTL-E033": no_return,
    "RDTL-T010": options,
    "RDTL-T018": not_a_number,
}
"""Quick ones, each run in a process of its own."""
OF_TORCH: dict[str, Callable[[], object]] = {
    "RDTL-T010": workers,
    "RDTL-T014": no_optimizer,
    "RDTL-T021": other_sizes,
    "RDTL-E014": pickled,
    "RDTL-E035": channels_last,
}
"""Those that need torch, which costs seconds to import: one process for all."""


def torch_failures(folder: Path) -> None:
    """Each failure of torch as a log of its own."""
    import traceback

    for code, fail in OF_TORCH.items():
        try:
            fail()
        except Exception:  # the failure is what is wanted
            (folder / f"{code}.log").write_text(traceback.format_exc())


if __name__ == "__main__":
    if Path(sys.argv[1]).is_dir():
        torch_failures(Path(sys.argv[1]))
    else:
        os.environ.pop("SSL_CERT_FILE", None)
        FAILURES[sys.argv[1]]()
