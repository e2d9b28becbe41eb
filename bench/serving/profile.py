"""Where does the time go? `python -m bench.serving.profile` (a minute): docs/serving-profile.svg, a flame graph.

py-spy looks at the service 250 times a second while 32 clients ask it, and counts every thread that does not wait for
work; `infer` waits for OpenVINO's own threads, which is counted. Open the picture in a browser: a click zooms, Ctrl-F
searches.
"""

import argparse
import asyncio
import shutil
import tempfile
from pathlib import Path

from bench.serving import cache, servers
from bench.serving.load import closed_loop
from closedloop.models import backends

INTO = Path("docs/serving-profile.svg")
SECONDS = 15


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--encoder", choices=("vit", "embedded"), default="embedded")
    asked = parser.parse_args()
    asyncio.run(_profile(asked.clients, asked.encoder))
    print(f"written to {INTO}")


async def _profile(clients: int, encoder: str) -> None:
    spy = shutil.which("py-spy")
    assert spy, "py-spy is missing: make install brings it"
    pictures = servers.pictures(1000, 8)
    name = f"openclip:ViT-B-32@{servers.weights(cache())}" if encoder == "vit" else "embedded"
    home = Path(tempfile.mkdtemp()) / "home"
    try:
        with servers.closedloop("Closedloop", name, backends.AUTO, cache(), home) as ours:
            asking = asyncio.create_task(closed_loop(ours.server, pictures, clients, SECONDS + 4))
            await asyncio.sleep(2)
            what = ["record", "--pid", str(ours.processes[0].pid), "--duration", str(SECONDS), "--rate", "250"]
            looking = await asyncio.create_subprocess_exec(spy, *what, "--output", str(INTO), "--subprocesses")
            assert await looking.wait() == 0
            await asking
    finally:
        shutil.rmtree(home.parent)


if __name__ == "__main__":
    main()
