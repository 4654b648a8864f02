"""Who may ask: bearer tokens, and the reviews by which others ask who may."""

from typing import Any

import msgspec

from .errors import bad_request, invalid, unauthorized
from .store import Object

__all__ = ["Access", "User"]


class User(msgspec.Struct, frozen=True):
    """Whom a token stands for."""

    name: str
    groups: tuple[str, ...] = ("system:authenticated",)


class Access:
    """The tokens and the rights. Without tokens nobody is asked for one.

    ``rights`` are verb and path, or verb and resource, by the name of a user, for reviews alone:
    what the emulator's own clients may do is a matter of faults.
    """

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.rights: set[tuple[str, str, str]] = set()
        self.required = False

    def add_token(self, token: str, user: str = "tester", groups: tuple[str, ...] = ()) -> None:
        """Accept a token, and from now on no requests without one."""
        self.users[token] = User(user, (*groups, "system:authenticated"))
        self.required = True

    def expire_token(self, token: str) -> None:
        """Accept a token no more."""
        self.users.pop(token, None)

    def allow(self, user: str, verb: str, what: str) -> None:
        """Give a user a right that SubjectAccessReview tells of: on a path or a resource."""
        self.rights.add((user, verb, what))

    def user_of(self, authorization: str) -> str:
        """Return who asks, or raise the refusal."""
        scheme, _, token = authorization.partition(" ")
        user = self.users.get(token.strip()) if scheme.lower() == "bearer" else None
        if user is not None:
            return user.name
        if self.required:
            raise unauthorized()
        return "system:anonymous"

    def review(self, body: Object) -> dict[str, Any]:
        """Return the answer to a TokenReview or SubjectAccessReview."""
        spec = body.get("spec") or {}
        token = body["kind"] == "TokenReview"
        status = self._token_status(spec) if token else self._access_status(spec)
        head = {"kind": body["kind"], "apiVersion": body["apiVersion"], "metadata": {}}
        return {**head, "spec": spec, "status": status}

    def _token_status(self, spec: dict[str, Any]) -> dict[str, Any]:
        if not spec.get("token"):
            raise bad_request("token is required for TokenReview in authentication")
        user = self.users.get(spec["token"])
        if user is None:
            return {"user": {}, "error": "invalid bearer token"}
        audiences = spec.get("audiences") or ["https://kubernetes.default.svc.cluster.local"]
        who = {"username": user.name, "uid": f"uid-{user.name}", "groups": list(user.groups)}
        return {"authenticated": True, "user": who, "audiences": audiences}

    def _access_status(self, spec: dict[str, Any]) -> dict[str, Any]:
        attributes = spec.get("nonResourceAttributes") or spec.get("resourceAttributes") or {}
        if not attributes or not (spec.get("user") or spec.get("groups")):
            problem = "Invalid value: at least one of user or group must be specified"
            raise invalid("SubjectAccessReview", "", "spec.user", problem)
        what = attributes.get("path") or attributes.get("resource", "")
        subjects = (spec.get("user", ""), *spec.get("groups", ()))
        verb = attributes.get("verb", "")
        if any((subject, verb, what) in self.rights for subject in subjects):
            return {"allowed": True, "reason": "RBAC: allowed by a rule of the test"}
        return {"allowed": False}
