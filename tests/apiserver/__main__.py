"""The emulator as a process of its own: ``python -m tests.apiserver``.

It prints its address, and then serves until it is killed. What a test in the same process does by
a call of :class:`~tests.apiserver.server.ApiServer`, another does by
``POST /emulator/<method>`` with the arguments as a JSON object: ``/emulator/drop_watches`` with
``{"reset": true}``. ``GET /emulator/requests`` gives the record of what was asked.
"""

import argparse
import asyncio
from pathlib import Path

import yaml

from .churn import Churn
from .kubeconfig import Context, write_kubeconfig
from .server import ApiServer


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.apiserver", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on loopback (0: any)")
    parser.add_argument("--kubeconfig", type=Path, help="file to write for clients")
    parser.add_argument("--manifests", type=Path, help="directory with objects to begin with")
    parser.add_argument("--token", help="token that clients must have")
    parser.add_argument("--bookmark-interval", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--pods", type=int, default=0, help="pods to begin with, app: model")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    server = ApiServer(port=options.port, bookmark_interval_s=options.bookmark_interval)
    if options.token:
        server.access.add_token(options.token)
    for path in sorted(options.manifests.glob("*.[yj]*")) if options.manifests else ():
        for item in yaml.safe_load_all(path.read_text()):
            if item:
                server.put(item)
    async with server:
        churn = Churn(server)
        server.controls["churn"] = churn.change_rate
        churn.fill(options.pods)
        if options.kubeconfig:
            context = Context(url=server.url, token=options.token or "")
            write_kubeconfig(options.kubeconfig, {"emulator": context})
        print(server.url, flush=True)
        await churn.run()


if __name__ == "__main__":
    main()
