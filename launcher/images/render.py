"""From a definition to a Dockerfile and to an Apptainer definition file: pure functions.

Both run the very same steps (``containers/steps``) with the same arguments; only the frame around
them differs. Order: what changes seldom comes first, so that a rebuild repeats little.

Both expect a context directory made by :mod:`launcher.images.context`::

    lock.txt   steps/*   code/rdt, code/launcher/core (for the self-test)   wheels/ (when asked for)
"""

from __future__ import annotations

import textwrap

from launcher.images.definition import Definition

BUILD = "/opt/rdtl/build"  # steps lie here while the image is built; the last step removes it
APT_CACHE = (
    "--mount=type=cache,target=/var/cache/apt,sharing=locked",
    "--mount=type=cache,target=/var/lib/apt/lists,sharing=locked",
)
PIP_CACHE = "--mount=type=cache,target=/root/.cache/pip"
SECRETS = ("--mount=type=secret,id=pipconf", "--mount=type=secret,id=ca")  # at /run/secrets/ID
WHEELS = f"--mount=type=bind,source=wheels,target={BUILD}/wheels"
VENDOR_FILE = "/usr/share/glvnd/egl_vendor.d/10_nvidia.json"
# Where Apptainer binds the builder's secrets and wheels: directories that every base has.
APPTAINER_SECRETS, APPTAINER_WHEELS = "/mnt", "/media"


def steps(definition: Definition) -> list[tuple[str, list[str]]]:
    """The steps in order: (script below containers/steps, arguments)."""
    later = ["deepspeed"] if definition.ops else []
    index = definition.extra_index or "none"
    found = [("system.sh", definition.apt), ("python.sh", [index, *later])]
    if definition.ops:
        found.append(("ops.sh", [*definition.ops, "--", *definition.apt_build]))
    return [*found, ("test.sh", definition.self_tests())]


def labels(name: str, definition: Definition, lock_sha256: str, versions: str) -> dict[str, str]:
    """Labels of the image but io.rdtl.key, which is computed from the text that holds these."""
    return {
        "org.opencontainers.image.title": definition.title,
        "io.rdtl.image": name,
        "io.rdtl.lock": lock_sha256,
        "io.rdtl.versions": versions,
    }


def dockerfile(definition: Definition, marks: dict[str, str], wheels: bool) -> str:
    """The Dockerfile, for BuildKit. ``marks`` are the labels; arguments: BASE, KEY, ARCHITECTURE.

    No ``# syntax=`` line (it would fetch a frontend from a registry) and no ENTRYPOINT: a program
    given to ``docker run`` becomes process 1 itself, and signals reach it.
    """
    environment = {"PATH": "/opt/venv/bin:$PATH", **definition.variables()}
    parts = [
        f"ARG BASE={definition.base}",
        "FROM ${BASE}",
        "ENV " + " \\\n    ".join(f'{name}="{value}"' for name, value in environment.items()),
    ]
    if uses_egl(definition):
        parts.append(f"COPY steps/10_nvidia.json {VENDOR_FILE}")
    for script, arguments in steps(definition):
        if script == "python.sh":
            parts.append("COPY lock.txt /opt/rdtl/lock.txt")
        if script == "test.sh":
            parts.append("COPY steps/selftest.py /opt/rdtl/selftest.py")
        parts.append(_run(script, arguments, wheels))
    marked = {**marks, "io.rdtl.architecture": "${ARCHITECTURE}", "io.rdtl.key": "${KEY}"}
    parts += [
        f"RUN rm -rf {BUILD}",
        "ARG ARCHITECTURE KEY",
        "LABEL " + " \\\n    ".join(f'{name}="{value}"' for name, value in marked.items()),
        "ENTRYPOINT []",
        'CMD ["python3"]',
        "USER 1000",
    ]
    return "\n".join(parts) + "\n"


def _run(script: str, arguments: list[str], wheels: bool) -> str:
    mounts = [f"--mount=type=bind,source=steps/{script},target={BUILD}/{script}"]
    if script in ("system.sh", "ops.sh"):
        mounts += APT_CACHE
    if script in ("python.sh", "ops.sh"):
        for helper in ("pip.sh", "part.py"):
            mounts.append(f"--mount=type=bind,source=steps/{helper},target={BUILD}/{helper}")
        mounts += [PIP_CACHE, *SECRETS, *([WHEELS] if wheels else [])]
    if script == "test.sh":
        mounts.append(f"--mount=type=bind,source=code,target={BUILD}/code")
    return " \\\n    ".join(
        ["RUN", *_filled(mounts), *_filled(["sh", f"{BUILD}/{script}", *arguments])]
    )


def _filled(words: list[str]) -> list[str]:
    return textwrap.wrap(" ".join(words), 92, break_long_words=False, break_on_hyphens=False)


def apptainer(definition: Definition, marks: dict[str, str], wheels: bool) -> str:
    """The Apptainer definition file; arguments: BOOTSTRAP, FROM, KEY, ARCHITECTURE.

    It is stored in the image, so it holds no secret: those lie in a directory bound to /mnt.
    """
    environment = "\n".join(
        f'export {name}="{value}"'
        for name, value in {"PATH": "/opt/venv/bin:$PATH", **definition.variables()}.items()
    )
    marked = {**marks, "io.rdtl.architecture": "{{ ARCHITECTURE }}", "io.rdtl.key": "{{ KEY }}"}
    sections = {
        "%arguments": f"BOOTSTRAP=docker\nFROM={definition.base}\nKEY=none\nARCHITECTURE=none",
        "%files": _files(definition),
        "%environment": environment,
        "%post": _post(definition, environment, wheels),
        "%runscript": 'exec "$@"',
        "%test": test_script(definition),
        "%labels": "\n".join(f"{name} {value}" for name, value in marked.items()),
    }
    return _definition_file(sections)


def converted(definition: Definition) -> str:
    """The definition file that turns an archive of the Docker image into a SIF.

    Nothing is run, so no root rights are needed. Environment and labels come along from the
    archive, io.rdtl.key among them: it names the build that installed the packages.
    Arguments: BOOTSTRAP, FROM.
    """
    sections = {
        "%arguments": "BOOTSTRAP=docker-archive\nFROM=image.tar",
        "%runscript": 'exec "$@"',
        "%test": test_script(definition),
    }
    return _definition_file(sections)


def _definition_file(sections: dict[str, str]) -> str:
    head = "Bootstrap: {{ BOOTSTRAP }}\nFrom: {{ FROM }}\n"
    return head + "".join(
        f"\n{section}\n{textwrap.indent(text, '    ')}\n" for section, text in sections.items()
    )


def test_script(definition: Definition) -> str:
    """The tests that need none of our code; `rdtl image inspect --test` runs all of them.

    robosuite has numba compile at import and keep the result, so there must be a place for it.
    """
    tests = [test for test in definition.self_tests() if test != "frame"]
    command = " \\\n    ".join(_filled(["python", "/opt/rdtl/selftest.py", *tests]))
    return f'export NUMBA_CACHE_DIR="${{NUMBA_CACHE_DIR:-$(mktemp -d)}}"\nexec {command}'


def _files(definition: Definition) -> str:
    lines = [
        "lock.txt /opt/rdtl/lock.txt",
        "steps/selftest.py /opt/rdtl/selftest.py",
        f"steps {BUILD}",
        f"code {BUILD}/code",
    ]
    if uses_egl(definition):
        lines.append(f"steps/10_nvidia.json {VENDOR_FILE}")
    return "\n".join(lines)


def _post(definition: Definition, environment: str, wheels: bool) -> str:
    commands = [
        " \\\n    ".join(_filled(["sh", f"{BUILD}/{script}", *arguments]))
        for script, arguments in steps(definition)
    ]
    settings = [f"export RDTL_SECRETS={APPTAINER_SECRETS} PIP_NO_CACHE_DIR=1"]
    if wheels:
        settings.append(f"export RDTL_WHEELS={APPTAINER_WHEELS}")
    tidy = [
        "apt-get clean",
        f"rm -rf /var/lib/apt/lists/* {BUILD}",
    ]
    return "\n".join(["set -eu", environment, *settings, *commands, *tidy])


def uses_egl(definition: Definition) -> bool:
    """Whether the image needs the vendor file that names NVIDIA's EGL library."""
    return definition.environment.get("MUJOCO_GL") == "egl"
