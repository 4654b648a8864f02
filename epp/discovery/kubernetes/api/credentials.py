"""Where the API server is, how it is known, and as whom to talk to it.

The configuration is read by kubernetes_asyncio: the service account of a pod, or kubeconfig files
with client certificates, tokens, token files, exec plugins and OIDC.
"""

import hashlib
import logging
import os
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp
import yaml

from epp.discovery.kubernetes.api.errors import one_line
from epp.errors import UsageError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config.kube_config import KubeConfigMerger

__all__ = ["SERVICE_ACCOUNT", "ClusterCredentials"]

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_USUAL_KUBECONFIG: Final = "~/.kube/config"

# What the package ends in, which checks little of what it reads.
_MALFORMED: Final = (AssertionError, AttributeError, LookupError, TypeError)
_UNUSABLE: Final = (aiohttp.ClientError, OSError, ValueError, yaml.YAMLError)


class ClusterCredentials:
    """What a kubeconfig, or the service account of this pod, says of one cluster.

    Without ``kubeconfig`` and ``context`` the service account is taken where there is one, else the
    file that kubectl would use. :attr:`generation` counts how often it was read.
    """

    def __init__(
        self,
        kubeconfig: Path | None,
        context: str | None,
        *,
        service_account: Path = SERVICE_ACCOUNT,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._service_account = service_account
        self._in_cluster: bool | None = None
        self._configuration: Configuration | None = None
        self._files: KubeConfigMerger | None = None
        self._tls_digest = b""
        self.server = ""
        self.tls: ssl.SSLContext | bool = True
        self.server_name: str | None = None
        self.proxy: str | None = None
        self.generation = 0

    async def load(self) -> None:
        """Read all of it anew. Raises UsageError, and what was read before stays then."""
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import ConfigException

        if self._in_cluster is None:
            self._in_cluster = self._is_in_cluster
        in_cluster = self._in_cluster
        place = (
            f"service account {self._service_account}"
            if in_cluster
            else f"kubeconfig {self._kubeconfig_paths()}"
        )
        configuration = Configuration()
        # The API servers of some providers have certificates without key identifiers, which this
        # check, new in Python 3.13, refuses and the client of Kubernetes itself does not.
        configuration.disable_strict_ssl_verification = True
        try:
            if in_cluster:
                self._read_service_account(configuration)
            else:
                await self._read_kubeconfig(configuration)
            self._take_tls(configuration)
        except ConfigException as error:
            raise UsageError(f"{place}: {one_line(error)}") from None
        except _MALFORMED as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            raise UsageError(f"{place} is not a kubeconfig that can be read ({what})") from None
        except _UNUSABLE as error:
            raise UsageError(f"{place} cannot be used: {one_line(error)}") from None
        self._configuration = configuration
        self.server = str(configuration.host).rstrip("/")
        self.server_name = configuration.tls_server_name
        # A service account's API server is at an address in the cluster, never behind a proxy.
        self.proxy = None if in_cluster else configuration.proxy or _proxy_for(self.server)
        self.generation += 1

    async def headers(self) -> Mapping[str, str]:
        """Return the header that says who asks; a service account's token is read anew once a
        minute, since it is replaced long before it expires."""
        from kubernetes_asyncio.config import ConfigException

        assert self._configuration is not None
        try:
            token: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError) as error:
            logger.warning("service account token cannot be read: %s", one_line(error))
            token = self._configuration.api_key.get("BearerToken")
        return {"Authorization": token.strip()} if token else {}

    @property
    def _is_in_cluster(self) -> bool:
        return (
            self._kubeconfig is None
            and self._context is None
            and "KUBERNETES_SERVICE_HOST" in os.environ
            and (self._service_account / "token").exists()
        )

    def _kubeconfig_paths(self) -> str:
        if self._kubeconfig is not None:
            return str(self._kubeconfig)
        return os.environ.get("KUBECONFIG") or _USUAL_KUBECONFIG

    def _read_service_account(self, configuration: "Configuration") -> None:
        from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader

        InClusterConfigLoader(
            token_filename=str(self._service_account / "token"),
            cert_filename=str(self._service_account / "ca.crt"),
        ).load_and_set(configuration)

    async def _read_kubeconfig(self, configuration: "Configuration") -> None:
        from epp.discovery.kubernetes.api.oidc import VerifyingLoader

        files = self._merged_files()
        # An OIDC token that was refreshed is in memory only, together with the one that the next
        # refresh needs. So the files are taken again only when they have changed.
        if self._files is None or files.config_saved != self._files.config_saved:
            self._files = files
        loader = VerifyingLoader(
            config_dict=self._files.config, config_base_path=None, active_context=self._context
        )
        await loader.load_and_set(configuration)

    def _merged_files(self) -> "KubeConfigMerger":
        from kubernetes_asyncio.config import ConfigException
        from kubernetes_asyncio.config.kube_config import KubeConfigMerger

        paths = [path for path in self._kubeconfig_paths().split(os.pathsep) if path]
        if not any(Path(path).expanduser().exists() for path in paths):
            raise ConfigException("no such file")
        return KubeConfigMerger(os.pathsep.join(paths))

    def _take_tls(self, configuration: "Configuration") -> None:
        """Make the TLS context, unless nothing of it has changed: connections are kept for it."""
        names = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        digest = hashlib.sha256(str((names, configuration.verify_ssl)).encode())
        for name in names:
            if name:
                digest.update(Path(name).read_bytes())
        if digest.digest() == self._tls_digest:
            return
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self.tls = context
        self._tls_digest = digest.digest()


def _proxy_for(server: str) -> str | None:
    """The proxy that the environment names for this URL."""
    url = urlsplit(server)
    if urllib.request.proxy_bypass(url.hostname or ""):
        return None
    return urllib.request.getproxies().get(url.scheme)
