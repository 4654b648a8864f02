"""Kubeconfigs that name an OIDC provider, which gives a new token for one that has expired."""

import base64
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.kube_config import KubeConfigLoader
from kubernetes_asyncio.config.openid import OpenIDRequestor

if TYPE_CHECKING:
    from kubernetes_asyncio.config.kube_config import ConfigNode

__all__ = ["VerifyingLoader"]


class VerifyingLoader(KubeConfigLoader):
    """Reads a kubeconfig, and asks no provider for a token whose certificate it cannot verify.

    The package itself verifies none where the kubeconfig has no authority for it, and would tell
    anybody the secrets that the token is to be had for.
    """

    async def _refresh_oidc(self, provider: "ConfigNode") -> None:
        settings: Any = provider["config"]
        if "refresh-token" not in settings:
            raise ConfigException("oidc: the id-token has expired and there is no refresh-token")
        authority = settings.safe_get("idp-certificate-authority-data")
        requestor = _Requestor(
            settings["client-id"],
            settings.safe_get("client-secret") or "",
            settings["idp-issuer-url"],
            None if authority is None else base64.b64decode(authority).decode(),
        )
        answer = await requestor.refresh_token(settings["refresh-token"])
        settings.value["id-token"] = answer["id_token"]
        # A provider may give a new one each time, or leave the old one in force.
        if "refresh_token" in answer:
            settings.value["refresh-token"] = answer["refresh_token"]


class _Requestor(OpenIDRequestor):
    """Here the authority is given as text, not as the name of a file."""

    def _get_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=self._ssl_ca_cert))
